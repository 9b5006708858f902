"""Evidence for an alignment: more sources coincide with stars of the catalog than chance explains.

A catalog of another field still puts some of its stars next to some of the sources, and an alignment searches for the
correction that does so most often. The number of pairs that a given correction makes by chance follows from the pairs at
larger distances: they are counted around the sources, so that clusters of stars count as such. The number of chance pairs is
a Poisson variable. Its tail at the observed number, times the number of corrections that could have been chosen
(`rampflow.alignment.matching.Matching.trials`), bounds the probability of a false alarm. ``tests/validation/false_alarms.py``
measures the rate of false alarms.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaln

from rampflow.alignment.affine import Affine
from rampflow.alignment.exposures import ARCSEC, CatalogedExposure
from rampflow.alignment.joint_solution import STAR_RADIUS, clusters

#: Largest accepted probability that an exposure of another field than the catalog's counts as aligned.
FALSE_ALARM = 1e-6
#: Distances (arcsec) within which a source and a star are a pair; the one with the strongest evidence counts.
RADII = np.array([STAR_RADIUS, 0.03, 0.01])
#: Pairs between these distances (arcsec) are by chance: they exclude a source's own star. The inner annulus is for clusters of
#: stars, the outer one for sparse fields.
CHANCE_RADII = np.array([0.5, 5.0, 30.0])
#: Part of the pairs of a correction that another shift must have to contradict it.
RIVAL_SHARE = 0.5
#: Width of the cells in which the pairs of another shift are counted, arcsec. The cells overlap by half.
RIVAL_CELL = 2 * STAR_RADIUS
#: Maximum numbers of sources and of pairs to search for another shift.
RIVAL_SOURCES, RIVAL_PAIRS = 1000, 2e6


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of a source and a star within each of `RADII`.

    Attributes
    ----------
    n_sources : int
        Number of sources.
    n_pairs : int
        Number of pairs within the largest of `RADII`, each source and each star in one at most.
    found : numpy.ndarray
        Number of pairs for each of `RADII`. Pairs within 0.5 arcsec of each other count as one: a double star is one
        coincidence.
    chance : numpy.ndarray
        Mean number of pairs that a given correction makes by chance.
    """

    n_sources: int
    n_pairs: int
    found: np.ndarray
    chance: np.ndarray

    def false_alarm(self, trials: np.ndarray | float = 1.0) -> float:
        """Compute the probability that one of several corrections makes so many pairs by chance.

        Parameters
        ----------
        trials : float or numpy.ndarray
            Number of corrections that were tried, for each of `RADII`.

        Returns
        -------
        float
            Logarithm (base 10) of an upper bound of the probability; at most 0.
        """
        logarithm = poisson_tail(self.found, self.chance) + np.log10(np.asarray(trials, float) * len(RADII))
        return float(min(logarithm.min(), 0.0))

    def significant(self, trials: np.ndarray | float = 1.0) -> bool:
        """Test whether the probability of a false alarm is at most `FALSE_ALARM`.

        Parameters
        ----------
        trials : float or numpy.ndarray
            See `false_alarm`.

        Returns
        -------
        bool
            Whether it is.
        """
        return self.false_alarm(trials) <= np.log10(FALSE_ALARM)


def poisson_tail(count: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Bound the tail of Poisson distributions.

    Parameters
    ----------
    count : array-like of int
        Observed numbers.
    mean : array-like of float
        Means of the distributions, same shape as `count`.

    Returns
    -------
    numpy.ndarray
        Logarithm (base 10) of an upper bound of the probability of `count` or more, same shape.

    Notes
    -----
    The terms of the tail fall at least as fast as a geometric series with the ratio mean / (count + 1).
    """
    count, mean = np.asarray(count, float), np.asarray(mean, float)
    above = count > mean
    k, m = np.where(above, count, 1.0), np.where(above, np.maximum(mean, 1e-300), 0.5)
    logarithm = -m + k * np.log(m) - gammaln(k + 1) - np.log1p(-m / (k + 1))
    return np.where(above, np.minimum(logarithm / np.log(10), 0.0), 0.0)


def count_pairs(sources: np.ndarray, stars: np.ndarray) -> Pairs:
    """Count pairs of a source and a star.

    Parameters
    ----------
    sources, stars : numpy.ndarray
        Directions, (n, 3) and (m, 3).

    Returns
    -------
    Pairs
        The pairs.
    """
    if not len(sources) or not len(stars):
        return Pairs(len(sources), 0, np.zeros(len(RADII), int), np.zeros(len(RADII)))
    source_tree, star_tree = cKDTree(sources), cKDTree(stars)
    distance, star = star_tree.query(sources, distance_upper_bound=RADII.max() * ARCSEC)
    source = np.flatnonzero(np.isfinite(distance))
    distance, star = distance[source] / ARCSEC, star[source]
    _, nearest = source_tree.query(stars[star])
    mutual = nearest == source
    distance, star = distance[mutual], star[mutual]
    place = clusters(stars[star], CHANCE_RADII[0])
    found = np.array([len(np.unique(place[distance < radius])) for radius in RADII])
    inner, near, far = np.diff(star_tree.count_neighbors(source_tree, CHANCE_RADII * ARCSEC), prepend=0)
    area = np.diff(CHANCE_RADII**2)
    density = max(near / area[0], max(far, 0.5) / area[1])  # at least half a pair, an upper limit where there are none
    return Pairs(len(sources), int((distance < RADII[0]).sum()), found, density * RADII**2)


def pairs_of(member: CatalogedExposure, affine: Affine, stars: np.ndarray) -> Pairs:
    """Count the pairs of the sources of an exposure, under a correction, with stars.

    Parameters
    ----------
    member : CatalogedExposure
        The exposure.
    affine : Affine
        The correction.
    stars : numpy.ndarray
        Directions, (m, 3).

    Returns
    -------
    Pairs
        The pairs.
    """
    near = member.near(stars, np.linalg.norm(affine.shift) + CHANCE_RADII[-1])
    return count_pairs(member.aligned_sources(affine), stars[near])


def rival_shift(member: CatalogedExposure, affine: Affine, stars: np.ndarray, largest: float) -> np.ndarray | None:
    """Find a shift of the aligned sources that fits the stars about as well as none.

    A catalog that lists its stars a second time elsewhere, as two joined catalogs in different frames do, fits an image at
    two positions. Each has more pairs than chance explains.

    Parameters
    ----------
    member : CatalogedExposure
        The exposure.
    affine : Affine
        The correction.
    stars : numpy.ndarray
        Directions, (m, 3).
    largest : float
        Largest shift of an exposure that the search for the correction allows, arcsec.

    Returns
    -------
    numpy.ndarray or None
        The shift, (2,), arcsec in the tangent plane. `None` if no shift has `RIVAL_SHARE` of the pairs of the correction and
        more than chance explains.
    """
    center = member.corners.mean(axis=0)
    moved = affine(center[None])[0] - center
    reach = largest + float(np.linalg.norm(moved))
    places = member.to_plane(stars[member.near(stars, reach)])
    if not len(places) or not len(member.plane) or reach <= CHANCE_RADII[0]:
        return None
    extent = np.linalg.norm(member.corners, axis=1).max() + reach
    n_sources = int(np.clip(RIVAL_PAIRS * (extent / reach) ** 2 / len(places), 50, RIVAL_SOURCES))
    sources = affine(member.plane)[:: -(-len(member.plane) // n_sources)]
    pairs = cKDTree(sources).sparse_distance_matrix(cKDTree(places), reach, output_type="coo_matrix")
    source, offset = pairs.row, places[pairs.col] - sources[pairs.row]
    distance = np.linalg.norm(offset, axis=1)
    own = len(np.unique(source[distance < STAR_RADIUS]))
    other = (distance > CHANCE_RADII[0]) & (np.linalg.norm(offset + moved, axis=1) < largest)
    source, offset = source[other], offset[other]
    chance = len(offset) * RIVAL_CELL**2 / (np.pi * largest**2)
    trials = 4 * np.pi * (largest / RIVAL_CELL) ** 2
    for corner in np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) * RIVAL_CELL / 2:
        cells, cell = np.unique(np.floor((offset + corner) / RIVAL_CELL), axis=0, return_inverse=True)
        counts = np.bincount(np.unique(np.column_stack([cell.ravel(), source]), axis=0)[:, 0], minlength=1)
        best = int(counts.argmax())
        if counts[best] < RIVAL_SHARE * own:
            continue
        tail = float(poisson_tail(counts[[best]], np.array([chance]))[0])
        if tail + np.log10(trials) <= np.log10(FALSE_ALARM):
            return np.median(offset[cell.ravel() == best], axis=0)
    return None
