"""Initial corrections: each exposure is aligned by the strongest evidence available."""

from __future__ import annotations

import numpy as np

from rampflow.alignment.affine import Affine
from rampflow.alignment.evidence import pairs_of
from rampflow.alignment.exposures import CatalogedExposure
from rampflow.alignment.joint_solution import STAR_RADIUS, clusters, solve
from rampflow.alignment.matching import Matching
from rampflow.alignment.verdicts import as_its_group, reason_against, supported


def find_starts(
    members: list[CatalogedExposure], catalog: np.ndarray, catalog_error: np.ndarray, relative: Matching, absolute: Matching
) -> tuple[list[Affine | None], list[str]]:
    """Align each exposure to the catalog, or to aligned exposures, or by the correction of its group.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures.
    catalog : numpy.ndarray
        Directions of the catalog's stars, (n, 3).
    catalog_error : numpy.ndarray
        Standard deviation of a coordinate, (n,), arcsec.
    relative, absolute : Matching
        Matching between exposures, and with the catalog.

    Returns
    -------
    affines : list of Affine or None
        Correction of each exposure; `None` for those that can't be aligned in any of these ways.
    reasons : list of str
        Why each exposure can't be aligned to the catalog; empty for those that can.
    """
    starts = [_supported_start(member, catalog, catalog_error, absolute, absolute) for member in members]
    affines, reasons = [start for start, _ in starts], [reason for _, reason in starts]
    if any(a is not None for a in affines):
        _align_to_others(members, affines, catalog, relative, absolute)
        for index, member in enumerate(members):
            if affines[index] is None:
                mates = [(m, a) for m, a in zip(members, affines, strict=True) if a is not None and m.group == member.group]
                affines[index] = as_its_group(member, [m for m, _ in mates], [a for _, a in mates])
    return affines, reasons


def _supported_start(member, stars, error, matching: Matching, absolute: Matching) -> tuple[Affine | None, str]:
    """The correction to some stars, or the reason why there is none: too few match, or no more than chance explains.

    Where the stars are dense, false matches disturb the correction. So it is solved again before it is rejected.
    """
    affine, reason = matching.align(member, stars)
    if affine is None or supported(pairs_of(member, affine, stars), absolute):
        return affine, reason
    near = member.near(stars, matching.largest_move)
    fit = solve(
        [member],
        [affine],
        stars[near],
        error[near],
        geometry=absolute.fitgeometry,
        nclip=absolute.nclip,
        sigma=absolute.sigma,
    )[0]
    pairs = pairs_of(member, fit.affine, stars)
    return (fit.affine, "") if supported(pairs, absolute) else (None, reason_against(pairs, len(fit.star), absolute))


def _align_to_others(members, affines, catalog, relative, absolute) -> None:
    """Align exposures that have no correction yet to those that have, in place, until no more can be."""
    aligned = -1
    while aligned != (aligned := sum(a is not None for a in affines)) and aligned < len(members):
        seen = [m.aligned_sources(a) for m, a in zip(members, affines, strict=True) if a is not None]
        stars = np.concatenate([catalog, *seen])
        _, first = np.unique(clusters(stars, STAR_RADIUS), return_index=True)
        stars = stars[first]
        for index, member in enumerate(members):
            if affines[index] is None:
                affines[index] = _supported_start(member, stars, np.zeros(len(stars)), relative, absolute)[0]
