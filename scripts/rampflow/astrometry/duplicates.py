"""Stars that a catalog lists twice: two queries joined in one file, or the same stars at two epochs."""

from __future__ import annotations

import numpy as np

from rampflow.astrometry.motion import MAS
from rampflow.astrometry.region import angles, unit_vectors

#: Largest distance of duplicates, mas. WFI can't separate stars closer to each other than half a pixel (of 110 mas). Gaia DR3
#: lists no pair closer than 180 mas, so that none of its stars is merged. Positions of one star in two catalogs, or at epochs
#: some years apart, mostly agree to less than this.
RADIUS = 50.0


def merge_duplicates(stars: dict[str, np.ndarray], radius: float = RADIUS) -> tuple[dict[str, np.ndarray], int]:
    """Merge entries within some distance of each other to one star.

    Two entries of one star would exclude each other from the matching, which uses no star with a close neighbor.

    Parameters
    ----------
    stars : dict of numpy.ndarray
        Columns of a catalog, (n,) each: ra, dec (degrees), and any others; ra_error, dec_error in mas.
    radius : float
        Distance, mas.

    Returns
    -------
    stars : dict of numpy.ndarray
        The same columns, in the same order. A merged star is at the mean of its entries, weighted by their errors if all have
        one; its errors are the smallest of its entries, plus half their distance in quadrature. Other columns have the mean of
        the known values. Stars without a duplicate are unchanged.
    n_entries : int
        Number of entries that were merged into others.
    """
    n_stars = len(stars["ra"])
    directions = unit_vectors(stars["ra"], stars["dec"])
    pairs = close_pairs(directions, radius * MAS)
    if not len(pairs):
        return stars, 0
    from scipy.sparse import coo_array, csgraph  # imported only if needed: takes 0.2 s

    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(n_stars, n_stars))
    n_groups, group = csgraph.connected_components(graph, directed=False)
    _, first, counts = np.unique(group, return_index=True, return_counts=True)

    def _mean(values, weights):
        """Weighted mean of the known values of each group."""
        known = np.isfinite(values)
        total = np.bincount(group, np.where(known, weights * np.nan_to_num(values), 0), n_groups)
        weight = np.bincount(group, known * weights, n_groups)
        return np.divide(total, weight, out=np.full(n_groups, np.nan), where=weight > 0)

    errors = np.array([stars.get(f"{axis}_error", np.full(n_stars, np.nan)) for axis in ("ra", "dec")])
    variance = (errors**2).mean(axis=0)
    unknown = np.bincount(group, ~(variance > 0), n_groups) > 0
    weights = np.where(unknown[group], 1.0, 1 / np.where(variance > 0, variance, 1.0))
    center = np.column_stack([_mean(axis, weights) for axis in directions.T])
    center /= np.linalg.norm(center, axis=1, keepdims=True)
    squares = _mean(((directions - center[group]) ** 2).sum(axis=1) / MAS**2, np.ones(n_stars))
    merged = {name: _mean(values, weights) for name, values in stars.items()}
    merged["ra"], merged["dec"] = angles(center)
    for axis, values in zip(("ra", "dec"), errors, strict=True):
        if f"{axis}_error" in stars:
            least = np.full(n_groups, np.inf)
            np.minimum.at(least, group, np.where(np.isfinite(values), values, np.inf))
            error = np.hypot(np.where(np.isfinite(least), least, 0), np.sqrt(squares / 2))
            merged[f"{axis}_error"] = np.where(np.isinf(least) & (squares < 1e-6), np.nan, error)
    order = np.argsort(first)
    kept, alone = first[order], counts[order] == 1
    result = {name: np.where(alone, values[kept], merged[name][order]) for name, values in stars.items()}
    return result, n_stars - n_groups


def close_pairs(directions: np.ndarray, radius: float) -> np.ndarray:
    """Find pairs of directions within some distance of each other.

    Parameters
    ----------
    directions : numpy.ndarray
        Unit vectors, (n, 3).
    radius : float
        Largest distance, radians.

    Returns
    -------
    numpy.ndarray
        Indices, (n_pairs, 2).

    Notes
    -----
    The directions are sorted along one axis, and each is compared with those that follow until they are too far along that
    axis.
    """
    if len(directions) < 2:
        return np.empty((0, 2), int)
    axis = int(np.ptp(directions, axis=0).argmax())
    order = np.argsort(directions[:, axis])
    ordered, found = directions[order], []
    first = np.arange(len(order))
    for step in range(1, len(order)):
        first = first[first + step < len(order)]
        first = first[ordered[first + step, axis] - ordered[first, axis] <= radius]
        if not len(first):
            break
        near = np.linalg.norm(ordered[first + step] - ordered[first], axis=1) <= radius
        found.append(np.column_stack([order[first[near]], order[first[near] + step]]))
    return np.concatenate(found) if found else np.empty((0, 2), int)
