"""Where exposures lie on the sky, for a map of many of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rampflow.pictures.image import corners_of, from_tangent_plane, sky_center, tangent_plane

#: Side of a detector on the sky, degrees: 4088 pixels of 0.11 arcsec.
SIDE = 4088 * 0.11 / 3600
#: Angle from the axis V3 of the telescope to the columns of the detectors, degrees.
V3_ANGLE = -60.0


def outline_exposures(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find the corners of the footprints of exposures.

    An exposure without an image has no footprint. If its pointing is known, a square takes its place, as large as the
    footprints of the others, so that the map shows what is missing.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray
        Columns ``s_region``, ``ra_ref``, ``dec_ref`` and ``roll_ref`` of the table of exposures.

    Returns
    -------
    corners : numpy.ndarray
        Right ascension and declination of the corners, degrees, of shape (n, 4, 2). NaN where the pointing is unknown. The
        right ascensions of all exposures have no step at 0 if these cover less than half of the sky.
    centers : numpy.ndarray
        Reference points, degrees, of shape (n, 2), without a step in the same way; NaN where unknown.
    """
    centers = np.column_stack([columns["ra_ref"], columns["dec_ref"]]).astype(float)
    known = [corners_of(region) for region in columns["s_region"]]
    sides = [_side(corners) for corners in known if corners is not None and np.isfinite(corners).all()]
    side = float(np.median(sides)) if sides else SIDE
    corners = np.full((len(known), 4, 2), np.nan)
    for row, (found, roll) in enumerate(zip(known, columns["roll_ref"], strict=True)):
        if found is not None and np.isfinite(found).all():
            corners[row] = found
        elif np.isfinite([*centers[row], roll]).all():
            corners[row] = _square(centers[row], roll, side)
    start = _start_of_ra(centers[:, 0])
    centers[:, 0] = start + (centers[:, 0] - start) % 360
    first = np.where(np.isfinite(centers[:, :1]), centers[:, :1], corners[:, :1, 0])
    corners[..., 0] = first + (corners[..., 0] - first + 180) % 360 - 180
    return corners, centers


def _side(corners: np.ndarray) -> float:
    """Side of a footprint, degrees: the square root of its area."""
    x, y = tangent_plane(corners, sky_center(corners)).T
    return float(np.sqrt(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2))


def _square(center: np.ndarray, roll: float, side: float) -> np.ndarray:
    """Corners of a square around a reference point, of shape (4, 2)."""
    angle = np.radians(roll + V3_ANGLE)  # of the columns, from north to east
    across, along = np.array([np.cos(angle), -np.sin(angle)]), np.array([np.sin(angle), np.cos(angle)])
    signs = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)]) * side / 2
    return from_tangent_plane(signs @ np.stack([across, along]), center)


def _start_of_ra(ra: np.ndarray) -> float:
    """Right ascension at which a map should begin: after the widest gap, if the exposures cover less than half a turn."""
    known = np.unique(ra[np.isfinite(ra)] % 360)
    if not known.size:
        return 0.0
    gaps = np.diff(known, append=known[0] + 360)
    widest = int(np.argmax(gaps))
    return float(known[(widest + 1) % known.size]) if gaps[widest] > 180 else 0.0
