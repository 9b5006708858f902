"""Differences of two source catalogs of an exposure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rampflow.comparison.images import same_values

if TYPE_CHECKING:
    import pyarrow

#: Largest distance of the centroids of one source, pixels.
RADIUS = 1.0
POSITIONS = ("x_centroid", "y_centroid")
FLUXES = ("segment_flux", "psf_flux")


def column_values(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Read the values of a column, of which each can be compared with that of another catalog.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        The column.

    Returns
    -------
    numpy.ndarray
        One value for each row: a number, or an object where the column has texts or lists.
    """
    values = column.to_numpy()
    if values.dtype.kind != "O":
        return values
    # Lists of Python: NumPy does not compare its own arrays in an array as wholes.
    return np.fromiter(column.to_pylist(), object, len(column))


def match_sources(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the sources of two catalogs that are nearest to each other.

    Parameters
    ----------
    old, new : numpy.ndarray
        Positions in pixels, of shape (number of sources, 2). Those that are not finite have no match.

    Returns
    -------
    old : numpy.ndarray
        Index of each matched source in the old catalog.
    new : numpy.ndarray
        Its index in the new catalog.
    """
    from scipy.spatial import KDTree

    kept = [np.flatnonzero(np.isfinite(positions).all(axis=1)) for positions in (old, new)]
    if not kept[0].size or not kept[1].size:
        return np.empty(0, int), np.empty(0, int)
    one, other = old[kept[0]], new[kept[1]]
    distance, there = KDTree(other).query(one, distance_upper_bound=RADIUS)
    _, back = KDTree(one).query(other)
    found = np.flatnonzero(np.isfinite(distance))
    mutual = found[back[there[found]] == found]
    return kept[0][mutual], kept[1][there[mutual]]


def compare_catalogs(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> tuple[dict[str, float], list[str]]:
    """Compare two catalogs of the sources in an image.

    Sources are matched by their place on the detector, so that a change of the WCS does not hide a match.

    Parameters
    ----------
    old, new : dict of numpy.ndarray
        Columns of each catalog; ``x_centroid`` and ``y_centroid`` in pixels, fluxes in nJy.

    Returns
    -------
    measures : dict of str to float
        Measures of the catalogs, named as in `rampflow.comparison.measures`. Shifts and scatters are NaN where no source was
        matched, and 0 where neither catalog has a source. Those of a flux that neither catalog has are left out.
    columns : list of str
        Columns that only one catalog has, or, where both have the same sources in the same order, whose values differ.
    """
    positions = [np.column_stack([catalog[name] for name in POSITIONS]).astype(float) for catalog in (old, new)]
    one, other = match_sources(*positions)
    shifts = np.hypot(*(positions[1][other] - positions[0][one]).T)
    unmatched = np.nan if len(positions[0]) or len(positions[1]) else 0.0
    measures = {
        "sources_matched": one.size,
        "sources_gained": len(positions[1]) - one.size,
        "sources_lost": len(positions[0]) - one.size,
        "position_shift": float(np.median(shifts)) if one.size else unmatched,
    }
    for name in FLUXES:
        if name not in old and name not in new:
            continue
        ratios = np.empty(0)
        if name in old and name in new:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = new[name][other].astype(float) / old[name][one] - 1
            ratios = ratios[np.isfinite(ratios)]
        middle = float(np.median(ratios)) if ratios.size else unmatched
        measures[f"{name}_shift"] = middle
        measures[f"{name}_scatter"] = float(1.4826 * np.median(np.abs(ratios - middle))) if ratios.size else unmatched
    different = old.keys() ^ new.keys()
    if len(positions[0]) == len(positions[1]):
        different |= {name for name in old.keys() & new.keys() if not same_values(old[name], new[name]).all()}
    return measures, sorted(different)
