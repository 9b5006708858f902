"""A start for every exposure of an association, found for each by the best evidence that there is."""

from __future__ import annotations

import numpy as np

from rampflow.alignment.affine import Affine, between
from rampflow.alignment.matching import Matching
from rampflow.alignment.members import ARCSEC, Member
from rampflow.alignment.network import STAR_RADIUS, together

#: Detectors of one exposure that agree with one rotation of the whole to this much (arcsec) speak for the others.
GROUP_AGREEMENT = STAR_RADIUS / 2


def align_separately(members: list[Member], catalog: np.ndarray, relative: Matching, absolute: Matching) -> list[Affine | None]:
    """Align each exposure to the catalog, or to exposures that are, or as the others of its group are.

    Parameters
    ----------
    members : list of Member
    catalog : numpy.ndarray
        Directions of the catalog's stars, (n, 3).
    relative, absolute : Matching
        Between exposures, and with the catalog.

    Returns
    -------
    list of Affine or None
        `None` for those that can't be aligned so.
    """
    affines = [absolute.align(member, catalog) for member in members]
    if any(a is not None for a in affines):
        _align_to_others(members, affines, catalog, relative)
        for index, member in enumerate(members):
            if affines[index] is None:
                affines[index] = _as_its_group(member, members, affines)
    return affines


def _align_to_others(members, affines, catalog, relative) -> None:
    """Align exposures that have no correction yet to those that have, in place, until no more can be."""
    aligned = -1
    while aligned != (aligned := sum(a is not None for a in affines)) and aligned < len(members):
        seen = [m.to_sky(a(m.plane)) for m, a in zip(members, affines, strict=True) if a is not None]
        stars = np.concatenate([catalog, *seen])
        _, first = np.unique(together(stars, STAR_RADIUS), return_index=True)
        for index, member in enumerate(members):
            if affines[index] is None:
                affines[index] = relative.align(member, stars[first])


def _as_its_group(member: Member, members, affines) -> Affine | None:
    """The correction that the rotation of the whole focal plane gives an exposure; `None` if its group knows of none."""
    group = [(m, a) for m, a in zip(members, affines, strict=True) if a is not None and m.group == member.group]
    if not group:
        return None
    before = np.concatenate([m.to_sky(m.corners) for m, _ in group])
    after = np.concatenate([m.to_sky(a(m.corners)) for m, a in group])
    # The rotation that takes the one to the other in the sense of least squares (Wahba's problem, by Kabsch's solution).
    left, _, right = np.linalg.svd(after.T @ before)
    rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    if np.linalg.norm(before @ rotation.T - after, axis=1).max() > GROUP_AGREEMENT * ARCSEC:
        return None
    return between(member.corners, member.to_plane(member.to_sky(member.corners) @ rotation.T))
