"""Alignment by romancal's method: groups to each other, then all of them to the catalog by one common correction."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from rampflow.alignment.affine import Affine, fit_affine
from rampflow.alignment.exposures import CatalogedExposure
from rampflow.alignment.matching import Matching, log
from rampflow.astrometry.region import angles, unit_vectors

#: Policy of tweakwcs for the outline of a group: the convex hull of any two images or more. The union of the outlines of their
#: sources takes 30 s for a dozen images.
_HULL = 1
#: Keys of the corrector's report that are not terms of the fit.
_WORKINGS = ("eff_minobj", "matched_ref_idx", "matched_input_idx", "fit_RA", "fit_DEC", "fitmask")


def fit_common_correction(
    members: list[CatalogedExposure],
    catalog: np.ndarray,
    relative: Matching,
    absolute: Matching,
    *,
    enforce_user_order: bool = False,
    expand_refcat: bool = False,
    approximate_overlaps: bool = False,
) -> list[tuple[object | None, dict]]:
    """Align all exposures by one common correction, after corrections between their groups.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures.
    catalog : numpy.ndarray
        Directions of the catalog's stars, (n, 3).
    relative, absolute : Matching
        Matching between the groups, and with the catalog.
    enforce_user_order : bool
        Align the groups to each other in the order of `members`, not by their overlap.
    expand_refcat : bool
        Use the sources of aligned groups to align the next ones.
    approximate_overlaps : bool
        Take the convex hull of a group for its outline, by which the groups are ordered; much faster than romancal's union.

    Returns
    -------
    list of (gwcs.wcs.WCS or None, dict)
        For each exposure the aligned WCS, or `None` if the alignment failed, and the report of the fit by tweakwcs, at least
        ``status``.

    Notes
    -----
    Unlike in romancal, an alignment between the groups that moves a corner by more than the largest move is not used.
    """
    from tweakwcs.imalign import NotEnoughCatalogs, align_wcs
    from tweakwcs.linearfit import NotEnoughPointsError, SingularMatrixError

    failures = (NotEnoughCatalogs, RuntimeError, NotEnoughPointsError, SingularMatrixError)

    def _correctors(group=None):
        tables = (Table({"x": m.sources.x, "y": m.sources.y}) for m in members)
        return [m.corrector(catalog=table, group_id=group or m.group) for m, table in zip(members, tables, strict=True)]

    def _align(images, matching, **options):
        align_wcs(
            images,
            minobj=matching.minobj,
            match=matching.matcher(),
            fitgeom=matching.fitgeometry,
            nclip=matching.nclip,
            sigma=(matching.sigma, "rmse"),
            clip_accum=True,
            **options,
        )

    aligned = _correctors()
    if len({m.group for m in members}) > 1:
        try:
            outline = {"group_bb_policy": _HULL} if approximate_overlaps else {}
            _align(
                aligned, relative, refcat=None, enforce_user_order=enforce_user_order, expand_refcat=expand_refcat, **outline
            )
            far = [
                m.stem
                for m, image in zip(members, aligned, strict=True)
                if not relative.is_plausible(m, correction_of(m, image.wcs))
            ]
            if far:
                log.warning("The alignment between exposures would move %s too far; it is not used", ", ".join(far))
                aligned = _correctors()
        except failures as error:
            log.warning("The exposures can't be aligned to each other: %s", error)
            aligned = _correctors()
    for image in aligned:
        image.meta.update(group_id="all")
        image.meta.pop("fit_info", None)
    ra, dec = angles(catalog)
    try:
        refcat = Table({"RA": ra, "DEC": dec})
        # A single group has no order: its outline, which is computed all the same, has no influence.
        _align(aligned, absolute, refcat=refcat, enforce_user_order=True, expand_refcat=False, group_bb_policy=_HULL)
    except failures as error:
        log.warning("The exposures can't be aligned to the astrometric catalog: %s", error)
        return [(None, {"status": f"FAILED: {error}"})] * len(members)
    results = []
    for image in aligned:
        report = {key: value for key, value in image.meta["fit_info"].items() if key not in _WORKINGS}
        results.append((image.wcs if report["status"] == "SUCCESS" else None, report))
    return results


def correction_of(member: CatalogedExposure, wcs) -> Affine:
    """Compute the correction in the tangent plane that another WCS of an exposure amounts to.

    Parameters
    ----------
    member : CatalogedExposure
        The exposure.
    wcs : gwcs.wcs.WCS
        The other WCS.

    Returns
    -------
    Affine
        The correction.
    """
    (x0, x1), (y0, y1) = member.wcs.bounding_box
    moved = wcs([x0, x1, x1, x0], [y0, y0, y1, y1], with_bounding_box=False)
    return fit_affine(member.corners, member.to_plane(unit_vectors(*moved)))
