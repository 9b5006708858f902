"""Convert WCSs and transforms between objects of gwcs or astropy and the trees of a file.

asdf, gwcs and astropy make the conversion, with their own converters and versions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.imports import import_asdf


def wcs_of_tree(node: dict) -> Any:
    """Object of the tree of a WCS or of a transform.

    Parameters
    ----------
    node : dict
        Tree with tags; its arrays may lie in a file.

    Returns
    -------
    gwcs.wcs.WCS or astropy.modeling.Model
        Its arrays are in memory. A tree with an unknown tag stays a tree.
    """
    asdf = import_asdf()
    with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
        path = Path(folder) / "wcs.asdf"
        with create_asdf(path, {"wcs": node}):
            pass
        with asdf.config_context() as config:
            config.validate_on_read = False  # the file it comes from was valid; validation takes half of the time
            config.warn_on_failed_conversion = False  # an error, as before asdf 6
            with asdf.open(path, lazy_load=False, memmap=False) as file:
                return file["wcs"]


def tree_of_wcs(wcs: Any) -> dict:
    """Tree of a WCS or of a transform.

    Parameters
    ----------
    wcs : gwcs.wcs.WCS or astropy.modeling.Model
        The object.

    Returns
    -------
    dict
        Tree with tags, its arrays in memory.
    """
    asdf = import_asdf()
    with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
        path = Path(folder) / "wcs.asdf"
        asdf.AsdfFile({"wcs": wcs}).write_to(path, all_array_storage="inline")
        with AsdfFile(path) as file:
            return file.tree["wcs"]
