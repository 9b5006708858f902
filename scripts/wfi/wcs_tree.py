"""World coordinate systems as trees of a file, and their footprint."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from wfi.asdf_io import AsdfFile


def tree_of_wcs(wcs) -> dict:
    """The YAML tree of a WCS with its tags, to be put into the tree of a file."""
    import asdf

    with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
        path = Path(folder) / "wcs.asdf"
        asdf.AsdfFile({"wcs": wcs}).write_to(path, all_array_storage="inline")
        with AsdfFile(path) as file:
            return file.tree["wcs"]


def s_region(wcs) -> str | None:
    """Footprint of an image: the corners of the WCS's bounding box on the sky.

    Parameters
    ----------
    wcs : gwcs.wcs.WCS

    Returns
    -------
    str or None
        ``POLYGON ICRS`` and ra, dec of the corners in degrees, ra from 0 to 360; `None` where a corner is not finite.
    """
    corners = np.array(wcs.footprint(wcs.bounding_box, center=False, axis_type="spatial"), float)[:, :2]
    if not np.isfinite(corners).all():
        return None
    corners[corners[:, 0] < 0, 0] += 360
    # Two spaces after ICRS, as in romancal's products, so that a search for the one finds the other.
    return "POLYGON ICRS  " + " ".join(f"{value:.9f}" for value in corners.ravel())
