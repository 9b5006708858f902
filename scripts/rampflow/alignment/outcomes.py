"""The alignment of an association, from its exposures and the astrometric catalog to the outcome for each exposure."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from rampflow.alignment.affine import NO_CORRECTION, Affine
from rampflow.alignment.common_fit import correction_of, fit_common_correction
from rampflow.alignment.epochs import MovingStars, at_one_epoch, groups_by_epoch
from rampflow.alignment.exposures import ARCSEC, CatalogedExposure, StoredWcs
from rampflow.alignment.joint_solution import STAR_RADIUS, Fit, solve
from rampflow.alignment.matching import Matching, log
from rampflow.alignment.starts import find_starts
from rampflow.alignment.verdicts import BY_GROUP, Judgment, Verdict, agree, warn_of_groups_apart
from rampflow.errors import counted

#: Exposures that are aligned as one, and aligned ones that join them. The time of tweakwcs grows with the square of both.
MOST_AS_ONE = 12


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The alignment of one exposure.

    Attributes
    ----------
    wcs : rampflow.alignment.exposures.StoredWcs or None
        The aligned WCS; `None` if the alignment failed.
    results : dict
        ``meta.wcs_fit_results``, with romancal's keys: lengths in arcsec in the tangent plane, angles in degrees.
    reason : str
        Why it failed, or how it was aligned without stars of its own.
    affine : Affine
        The correction in the tangent plane.
    star, source : numpy.ndarray
        Rows in the catalog and among the sources of the matches that determined the solution, outliers excluded.
    n_shared : int
        Number of its stars that other exposures have too.
    n_by_chance : float or None
        Mean number of matches that a correction makes by chance; `None` if no correction was found.
    """

    wcs: StoredWcs | None
    results: dict
    reason: str = ""
    affine: Affine = NO_CORRECTION
    star: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, int))
    source: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, int))
    n_shared: int = 0
    n_by_chance: float | None = None

    def with_caveat(self, caveat: str | None) -> Outcome:
        """Add a caveat to the reason.

        Parameters
        ----------
        caveat : str or None
            The caveat; `None` for none.

        Returns
        -------
        Outcome
            The outcome with the caveat.
        """
        return dataclasses.replace(self, reason="; ".join(filter(None, [self.reason, caveat]))) if caveat else self

    def rmse(self, member: CatalogedExposure, catalog: np.ndarray) -> tuple[float, float] | tuple[None, None]:
        """Compute the root mean square distance of the matches before and after the alignment.

        Parameters
        ----------
        member : CatalogedExposure
            The exposure.
        catalog : numpy.ndarray
            Directions of the catalog's stars, (n, 3).

        Returns
        -------
        before : float or None
            Distance before the alignment, arcsec; `None` without matches.
        after : float or None
            Distance after it, in the same way.
        """
        if not len(self.star):
            return None, None
        stars, sources = member.to_plane(catalog[self.star]), member.plane[self.source]
        before, after = (
            float(np.sqrt(((affine(sources) - stars) ** 2).sum(axis=1).mean())) for affine in (NO_CORRECTION, self.affine)
        )
        return before, after


def align_association(
    members: list[CatalogedExposure],
    catalog: np.ndarray,
    catalog_error: np.ndarray,
    relative: Matching,
    absolute: Matching,
    *,
    refine: bool = True,
    enforce_user_order: bool = False,
    expand_refcat: bool = False,
    moving: MovingStars | None = None,
) -> list[Outcome]:
    """Align the exposures of an association.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures.
    catalog : numpy.ndarray
        Directions of the catalog's stars, (n, 3).
    catalog_error : numpy.ndarray
        Standard deviation of a coordinate, (n,), arcsec; 0 where unknown.
    relative, absolute : Matching
        Matching between exposures, and with the catalog.
    refine : bool
        Solve all exposures jointly; otherwise fit romancal's common correction.
    enforce_user_order, expand_refcat : bool
        See `rampflow.alignment.common_fit.fit_common_correction`.
    moving : MovingStars, optional
        Stars of the catalog with their motions, for exposures of other epochs; all members must have an epoch.

    Returns
    -------
    list of Outcome
        The outcome for each exposure, in the order of `members`.
    """
    options = {"enforce_user_order": enforce_user_order, "expand_refcat": expand_refcat}
    align = functools.partial(_align_to_stars, relative=relative, absolute=absolute, refine=refine, options=options)
    if moving is None or not members:
        return align(members, catalog, catalog_error)
    outcomes: dict[int, Outcome] = {}
    groups = groups_by_epoch(members)
    for indices in groups:
        group = [members[i] for i in indices]
        epoch = float(np.mean([member.epoch for member in group]))
        if len(groups) > 1:
            log.info("Epoch %.3f: %s; aligned separately from other epochs", epoch, ", ".join(m.stem for m in group))
        aligned = align(at_one_epoch(group, moving, epoch, absolute), moving.directions(epoch), catalog_error)
        for index, outcome in zip(indices, aligned, strict=True):
            outcomes[index] = dataclasses.replace(outcome, results={**outcome.results, "n_detector": len(members)})
    return [outcomes[index] for index in range(len(members))]


def _align_to_stars(members, catalog, catalog_error, relative, absolute, refine, options) -> list[Outcome]:
    """Align exposures of one epoch."""
    # Stars on the other side of the sky can't be projected to the tangent plane.
    margin = 2 * absolute.largest_move
    rows = np.unique(np.concatenate([member.near(catalog, margin) for member in members]))
    if len(rows) < absolute.minobj:
        reason = f"the astrometric catalog has {counted(len(rows), 'star')} there, and abs_minobj is {absolute.minobj}"
        return [_failure(reason, len(members)) for _ in members]
    if refine:
        outcomes = _align_jointly(members, catalog[rows], catalog_error[rows], relative, absolute, options)
    else:
        outcomes = _align_as_one(members, catalog[rows], catalog_error[rows], relative, absolute, options)
    return [dataclasses.replace(outcome, star=rows[outcome.star]) for outcome in outcomes]


def _failure(reason: str, n_members: int, results: dict | None = None) -> Outcome:
    return Outcome(None, {"status": "FAILED", **(results or {}), "nmatches": 0, "n_detector": n_members}, reason)


def _align_as_one(members, catalog, catalog_error, relative, absolute, options) -> list[Outcome]:
    """Align by romancal's method, with one correction common to all exposures.

    One exposure with false matches can spoil the correction for all. So if an exposure fails, those that don't match the
    catalog by themselves are left out, provided that this aligns more of the others.
    """
    outcomes = _common_outcomes(members, catalog, relative, absolute, options)
    if all(outcome.wcs is not None for outcome in outcomes):
        return outcomes
    starts, reasons = find_starts(members, catalog, catalog_error, relative, absolute)
    placed = [i for i, start in enumerate(starts) if start is not None]
    if 0 < len(placed) < len(members):
        again = _common_outcomes([members[i] for i in placed], catalog, relative, absolute, options)
        if sum(o.wcs is not None for o in again) > sum(o.wcs is not None for o in outcomes):
            lost = [members[i].stem for i, start in enumerate(starts) if start is None]
            log.warning("%s: not aligned to the stars; the common correction is fitted without", ", ".join(lost))
            outcomes = [_failure(reason, len(members), {"status": "FAILED: not enough matches"}) for reason in reasons]
            for index, outcome in zip(placed, again, strict=True):
                outcomes[index] = dataclasses.replace(outcome, results={**outcome.results, "n_detector": len(members)})
    for index in placed:
        if outcomes[index].wcs is None:
            reason = (
                f"the correction common to all exposures (refine: false) doesn't fit it ({outcomes[index].reason}); refine: "
                "true aligns it by a correction of its own"
            )
            outcomes[index] = dataclasses.replace(outcomes[index], reason=reason)
    return outcomes


def _common_outcomes(members, catalog, relative, absolute, options) -> list[Outcome]:
    """The outcomes of one correction common to some exposures."""
    aligned = fit_common_correction(members, catalog, relative, absolute, **options)
    n_sources = sum(len(member.plane) for member in members)
    known = f"{counted(n_sources, 'source')} and {counted(len(catalog), 'star')}"
    least = f"{known}, abs_minobj is {absolute.minobj}; {absolute.advice}"
    outcomes, tried = [], []
    for member, (wcs, report) in zip(members, aligned, strict=True):
        if wcs is None:
            reason = f"{report['status'].removeprefix('FAILED: ')}: {least}"
            outcomes.append(_failure(reason, len(members), {"status": report["status"]}))
            continue
        tried.append(len(outcomes))
        affine = correction_of(member, wcs)
        star, source = _nearest(member, affine, catalog)
        results = plain(report) | {"n_detector": len(members)}
        outcomes.append(Outcome(StoredWcs(wcs), results, "", affine, star, source))
    judged = [outcomes[i] for i in tried]
    affines, counts = [o.affine for o in judged], [len(o.star) for o in judged]
    verdicts = Judgment([members[i] for i in tried], affines, counts, catalog, relative, absolute).verdicts
    for index, verdict in zip(tried, verdicts, strict=True):
        outcome, expected = outcomes[index], verdict.group_affine
        if expected is not None and not agree(members[index], expected, outcome.affine):
            verdict = dataclasses.replace(verdict, reason="its exposure's other detectors are aligned otherwise")
        if verdict.accepted:
            reason = BY_GROUP if expected is not None else ""
            outcomes[index] = dataclasses.replace(outcome, reason=reason, n_by_chance=float(verdict.pairs.chance[0]))
        else:
            outcomes[index] = _rejected(verdict, len(members))
    return outcomes


def _nearest(member: CatalogedExposure, affine: Affine, catalog: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the catalog and of the sources that coincide under a correction."""
    from scipy.spatial import cKDTree

    if not len(member.plane):
        return np.empty(0, int), np.empty(0, int)
    distance, source = cKDTree(member.to_sky(affine(member.plane))).query(catalog, distance_upper_bound=STAR_RADIUS * ARCSEC)
    star = np.flatnonzero(np.isfinite(distance))
    return star, source[star]


def _align_jointly(members, catalog, catalog_error, relative, absolute, options) -> list[Outcome]:
    """Find an initial correction for each exposure, then solve jointly, without the exposures that lack evidence."""
    starts, reasons = find_starts(members, catalog, catalog_error, relative, absolute)
    _align_left_as_one(members, starts, catalog, relative, absolute, options)
    outcomes = [_failure(reason, len(members), {"status": "FAILED: not enough matches"}) for reason in reasons]
    placed = {i: start for i, start in enumerate(starts) if start is not None}
    fits, verdicts = [], []
    while placed:
        fits = solve(
            [members[i] for i in placed],
            list(placed.values()),
            catalog,
            catalog_error,
            geometry=absolute.fitgeometry,
            nclip=absolute.nclip,
            sigma=absolute.sigma,
        )
        affines, counts = [fit.affine for fit in fits], [len(fit.star) for fit in fits]
        verdicts = Judgment([members[i] for i in placed], affines, counts, catalog, relative, absolute).verdicts
        for index, verdict in zip(placed, verdicts, strict=True):
            if not verdict.accepted:
                outcomes[index] = _rejected(verdict, len(members))
        accepted = {i: placed[i] for i, verdict in zip(placed, verdicts, strict=True) if verdict.accepted}
        if len(accepted) == len(placed):
            break
        placed = accepted
    affines = []
    for index, fit, verdict in zip(placed, fits, verdicts, strict=False):
        reason = ""
        if verdict.group_affine is not None:
            nothing = np.empty(0, int)
            fit, reason = Fit(verdict.group_affine, nothing, nothing, 0), BY_GROUP
        affines.append(fit.affine)
        outcome = _joint_outcome(members[index], fit, catalog, absolute.fitgeometry, len(members), reason)
        outcomes[index] = dataclasses.replace(outcome, n_by_chance=float(verdict.pairs.chance[0]))
    warn_of_groups_apart([members[i] for i in placed], affines, log)
    return outcomes


def _align_left_as_one(members, starts, catalog, relative, absolute, options) -> None:
    """Align exposures without a start, in place, to the catalog together with the aligned exposures next to them as one."""
    left = [i for i, start in enumerate(starts) if start is None and len(members[i].plane)]
    if not left or len(left) + sum(start is not None for start in starts) < 2:
        return
    log.info("Exposures with too few stars of their own: %d, aligned to the catalog with others as one", len(left))
    directions = np.array([member.to_sky(member.corners).mean(axis=0) for member in members])
    for begin in range(0, len(left), MOST_AS_ONE):
        portion = left[begin : begin + MOST_AS_ONE]
        placed = [i for i, start in enumerate(starts) if start is not None]  # with those of the portions before
        distances = np.linalg.norm(directions[placed, None] - directions[portion], axis=-1).min(axis=1)
        nearest = [placed[i] for i in np.argsort(distances, kind="stable")[:MOST_AS_ONE]]
        indices = sorted(portion + nearest)
        fitted = fit_common_correction(
            [members[i] for i in indices], catalog, relative, absolute, **options, approximate_overlaps=True
        )
        for index, (wcs, _) in zip(indices, fitted, strict=True):
            if starts[index] is None and wcs is not None:
                starts[index] = correction_of(members[index], wcs)


def _rejected(verdict: Verdict, n_members: int) -> Outcome:
    """The outcome of an exposure whose correction lacks evidence."""
    outcome = _failure(verdict.reason, n_members, {"status": "FAILED: not enough matches"})
    return dataclasses.replace(outcome, n_by_chance=float(verdict.pairs.chance[0]))


def _joint_outcome(
    member: CatalogedExposure, fit: Fit, catalog: np.ndarray, geometry: str, n_members: int, reason: str
) -> Outcome:
    affine, terms = _reported_by_tweakwcs(member, fit, geometry)
    corrector = member.corrector()
    corrector.set_correction(matrix=affine.matrix, shift=affine.shift)
    residuals = np.linalg.norm(affine(member.plane[fit.source]) - member.to_plane(catalog[fit.star]), axis=1)
    results = plain(terms) | {
        "rmse": float(np.sqrt((residuals**2).mean())) if len(residuals) else None,
        "mae": float(residuals.mean()) if len(residuals) else None,
        "status": "SUCCESS",
        "nmatches": len(fit.star),
        "n_detector": n_members,
    }
    return Outcome(StoredWcs(corrector.wcs), results, reason, affine, fit.star, fit.source, fit.n_shared)


def _reported_by_tweakwcs(member: CatalogedExposure, fit: Fit, geometry: str) -> tuple[Affine, dict]:
    """A correction as tweakwcs reports it, from its fit to corrected positions, which leaves no residual."""
    from tweakwcs.linearfit import iter_linear_fit

    before = member.corners
    center = member.plane[fit.source].mean(axis=0) if len(fit.source) else before.mean(axis=0)
    report = iter_linear_fit(fit.affine(before), before, fitgeom=geometry, center=center, nclip=0)
    matrix = report["matrix"]
    affine = Affine(matrix, report["shift"] + center - matrix @ center)
    names = ("fitgeom", "matrix", "proper_rot", "proper", "rot", "<rot>", "scale", "<scale>", "skew")
    return affine, {name: report[name] for name in names} | {"shift": affine.shift, "center": center}


def plain(report: dict) -> dict:
    """Convert the numpy types of a report to lists and numbers of Python, which can be written to a file.

    Parameters
    ----------
    report : dict
        The report, name to value.

    Returns
    -------
    dict
        The report with values of Python.
    """

    def _convert(value):
        if isinstance(value, np.ndarray):
            return value.astype(float).tolist()
        if isinstance(value, tuple | list):
            return [_convert(v) for v in value]
        return value.item() if isinstance(value, np.generic) else value

    return {key: _convert(value) for key, value in report.items()}
