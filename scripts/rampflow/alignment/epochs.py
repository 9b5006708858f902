"""Exposures of different epochs: each is aligned to the stars at their positions at its own epoch.

Exposures that are more than `GROUP_SPAN` apart are aligned separately. Between them, the sources that they share and the
catalog doesn't have move by an unknown amount, which would bias the solution. Within a group the alignment uses one list of
star positions, at the group's mean epoch. Sources that a first alignment identifies as stars of the catalog are moved to that
epoch by the star's own motion.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from rampflow.alignment.exposures import ARCSEC, CatalogedExposure
from rampflow.alignment.joint_solution import STAR_RADIUS
from rampflow.alignment.matching import Matching
from rampflow.astrometry.motion import displacement
from rampflow.astrometry.region import unit_vectors

#: Years within which stars of 10 mas per year move by at most 0.01 mas, which is neglected.
SAME_EPOCH = 1e-3
#: Longest span of the exposures of one group, years: stars of 10 mas per year move by 1 mas.
GROUP_SPAN = 0.1


@dataclasses.dataclass(frozen=True)
class MovingStars:
    """The stars of the catalog with their proper motions.

    Attributes
    ----------
    stars : mapping
        Columns ra, dec (degrees), pmra, pmdec (mas per year), parallax (mas), (n,) each; NaN where unknown.
    epoch : float
        Epoch of ra and dec, Julian year.
    """

    stars: Mapping[str, np.ndarray]
    epoch: float

    def directions(self, epoch: float) -> np.ndarray:
        """Compute the directions of the stars at an epoch.

        Parameters
        ----------
        epoch : float
            Julian year.

        Returns
        -------
        numpy.ndarray
            Unit vectors, (n, 3).
        """
        there = unit_vectors(np.asarray(self.stars["ra"]), np.asarray(self.stars["dec"]))
        if abs(epoch - self.epoch) < SAME_EPOCH:
            return there
        moved = there + displacement(self.stars, self.epoch, epoch)
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def groups_by_epoch(members: list[CatalogedExposure]) -> list[list[int]]:
    """Group exposures by their epochs.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures, each with an epoch.

    Returns
    -------
    list of list of int
        Indices of the exposures of each group: those within `GROUP_SPAN` of its first exposure.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(members)), key=lambda i: _epoch_of(members[i])):
        if not groups or _epoch_of(members[index]) - _epoch_of(members[groups[-1][0]]) > GROUP_SPAN:
            groups.append([])
        groups[-1].append(index)
    return [sorted(group) for group in groups]


def at_one_epoch(
    members: list[CatalogedExposure], moving: MovingStars, epoch: float, absolute: Matching
) -> list[CatalogedExposure]:
    """Move the sources of exposures to their positions at one epoch.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures, each with an epoch.
    moving : MovingStars
        Stars of the catalog with their motions.
    epoch : float
        Julian year.
    absolute : Matching
        Matching of the sources with the stars.

    Returns
    -------
    list of CatalogedExposure
        The exposures with the same sources in the same order. Those of that epoch, and those that match no stars, are
        unchanged.
    """
    there = moving.directions(epoch)
    return [
        member
        if abs(_epoch_of(member) - epoch) < SAME_EPOCH
        else _to_epoch(member, moving.directions(_epoch_of(member)), there, absolute)
        for member in members
    ]


def _epoch_of(member: CatalogedExposure) -> float:
    """The epoch of an exposure, which must be known."""
    if member.epoch is None:
        raise ValueError(f"{member.stem}: has no epoch; read it with its epoch")
    return member.epoch


def _to_epoch(member: CatalogedExposure, seen: np.ndarray, there: np.ndarray, absolute: Matching) -> CatalogedExposure:
    """The exposure with its stars moved, from the directions `seen` (n, 3) at its epoch to `there` at another."""
    start, _ = absolute.align(member, seen)
    if start is None:
        return member
    near = member.near(seen, float(np.linalg.norm(start.shift)) + 1)
    if not len(near):
        return member
    distance, star = cKDTree(seen[near]).query(member.to_sky(start(member.plane)), distance_upper_bound=STAR_RADIUS * ARCSEC)
    source = np.flatnonzero(np.isfinite(distance))
    star = near[star[source]]
    shift = member.to_plane(there[star]) - member.to_plane(seen[star])
    return _moved(member, source, shift @ np.linalg.inv(start.matrix).T)


def _moved(member: CatalogedExposure, source: np.ndarray, shift: np.ndarray) -> CatalogedExposure:
    """The exposure with some sources shifted by `shift` (n, 2) arcsec in its tangent plane."""
    moved = copy.copy(member)
    moved.plane = member.plane.copy()
    moved.plane[source] += shift
    x, y = member.sources.x.astype(float), member.sources.y.astype(float)
    here = member.plane[source]
    # How positions in the plane change along a row and along a column, at each source.
    n = len(source)
    moves = member.plane_of(np.r_[x[source] + 1, x[source]], np.r_[y[source], y[source] + 1])
    along = [moves[:n] - here, moves[n:] - here]
    pixels = np.linalg.solve(np.stack(along, axis=-1), shift[..., None])[..., 0]
    x[source] += pixels[:, 0]
    y[source] += pixels[:, 1]
    moved.sources = dataclasses.replace(member.sources, x=x, y=y)
    return moved
