"""Evidence for an alignment: more sources lie next to stars of the catalog than chance puts there.

A catalog that has nothing to do with an image still puts some of its stars next to some of its sources, and an alignment
looks for the correction that does so most often. How many pairs of a source and a star a given correction makes by chance
follows from the pairs at larger distances: they are counted around the sources, so that clusters of stars count as such. The
number of chance pairs is a Poisson variable. Its tail at the observed number, times the number of corrections that could have
been chosen (`rampflow.alignment.matching.Matching.trials`), bounds the probability of a false alarm.
``tests/validation/false_alarms.py`` measures it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaln

from rampflow.alignment.affine import Affine
from rampflow.alignment.members import ARCSEC, Member
from rampflow.alignment.network import STAR_RADIUS, clusters

#: Accepted probability that an exposure which shows other stars than the catalog counts as aligned.
FALSE_ALARM = 1e-6
#: A source and a star are a pair within one of these distances (arcsec); the one with the best evidence counts.
RADII = np.array([STAR_RADIUS, 0.03, 0.01])
#: Pairs between these distances (arcsec) are by chance: beyond a source's own star, the nearer for clusters of stars, the
#: farther for few stars.
CHANCE_RADII = np.array([0.5, 5.0, 30.0])


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of a source and a star within each of `RADII`.

    Attributes
    ----------
    n_sources : int
    found : numpy.ndarray
        Number of pairs, each source and each star in one at most. Pairs within 0.5 arcsec of each other count as one: a
        double star is one coincidence.
    chance : numpy.ndarray
        Number of pairs that chance makes of a given correction, on average.
    """

    n_sources: int
    found: np.ndarray
    chance: np.ndarray

    def false_alarm(self, trials=1.0) -> float:
        """Logarithm (base 10) of the probability that one of some corrections makes so many pairs by chance; 0 at most.

        Parameters
        ----------
        trials : float or numpy.ndarray
            Number of corrections that were tried, for each of `RADII`.
        """
        logarithm = poisson_tail(self.found, self.chance) + np.log10(np.asarray(trials, float) * len(RADII))
        return float(min(logarithm.min(), 0.0))

    def significant(self, trials=1.0) -> bool:
        """Whether the probability of a false alarm is at most `FALSE_ALARM`."""
        return self.false_alarm(trials) <= np.log10(FALSE_ALARM)


def poisson_tail(count: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Logarithm (base 10) of an upper bound of the probability of `count` or more, of a Poisson variable of some mean.

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
    """
    if not len(sources) or not len(stars):
        return Pairs(len(sources), np.zeros(len(RADII), int), np.zeros(len(RADII)))
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
    density = max(near / area[0], max(far, 0.5) / area[1])  # of half a pair at least, where there are none
    return Pairs(len(sources), found, density * RADII**2)


def aligned_sources(member: Member, affine: Affine) -> np.ndarray:
    """Directions (n, 3) of an exposure's sources by a correction."""
    return member.to_sky(affine(member.plane))


def pairs_of(member: Member, affine: Affine, stars: np.ndarray) -> Pairs:
    """Pairs of an exposure's sources, by a correction, with stars in some directions (m, 3)."""
    near = member.near(stars, np.linalg.norm(affine.shift) + CHANCE_RADII[-1])
    return count_pairs(aligned_sources(member, affine), stars[near])


def stars_on(member: Member, affine: Affine, stars: np.ndarray) -> int:
    """Number of stars (directions, (m, 3)) on an exposure."""
    plane = member.to_plane(stars[member.near(stars, float(np.linalg.norm(affine.shift)))])
    corners = affine(member.corners)
    sides = np.roll(corners, -1, axis=0) - corners
    offsets = plane[:, None] - corners
    turns = sides[:, 0] * offsets[..., 1] - sides[:, 1] * offsets[..., 0]
    return int(((turns > 0).all(axis=1) | (turns < 0).all(axis=1)).sum())
