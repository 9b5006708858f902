"""Align the exposures of an association to each other and to an astrometric catalog."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from rampflow import SOFTWARE_NAME, __version__
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.links import original
from rampflow.step.declaration import NOT_APPLICABLE, Parameter, Step, add_parameters
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log, step_logger
from rampflow.step.program import reported_errors
from rampflow.step.provenance import is_fully_saturated

_GEOMETRIES = ("shift", "rshift", "rscale", "general")


def _matching_parameters(prefix: str, where: str, searchrad: float) -> tuple[Parameter, ...]:
    return (
        Parameter(f"{prefix}minobj", int, 10, f"fewest matches {where} for a fit", minimum=1),
        Parameter(f"{prefix}searchrad", float, searchrad, f"largest offset searched for {where}", "arcsec", minimum=0),
        Parameter(f"{prefix}use2dhist", bool, True, f"search for the offset {where} first; otherwise it is taken as zero"),
        Parameter(
            f"{prefix}separation", float, 1.0, f"stars closer to each other are not matched {where}", "arcsec", minimum=0
        ),
        Parameter(f"{prefix}tolerance", float, 0.7, f"farthest match {where} after the offset", "arcsec", minimum=0),
        Parameter(f"{prefix}fitgeometry", str, "general", f"terms of the fit {where}", choices=_GEOMETRIES),
        Parameter(f"{prefix}nclip", int, 3, f"how often the fit {where} leaves out what fits badly", minimum=0),
        Parameter(f"{prefix}sigma", float, 3.0, f"how badly that is {where}, in standard deviations", minimum=0),
    )


STEP = Step(
    name="tweakreg",
    summary="Align the exposures of an association to each other and to an astrometric catalog.\n\n"
    "It reads the headers of the images and the positions in their source catalogs, and no pixel. What it finds is applied to "
    "the products of each exposure by finalize.py.",
    parameters=(
        Parameter(
            "refine",
            bool,
            True,
            "solve all exposures together, each with a correction of its own; false: romancal's answer, one correction "
            "common to all after the exposures were aligned to each other",
        ),
        Parameter(
            "enforce_user_order",
            bool,
            False,
            "align exposures to each other in the association's order, not by their overlap (where they are aligned as one)",
        ),
        Parameter(
            "expand_refcat",
            bool,
            False,
            "sources of aligned exposures serve to align the next (where they are aligned as one; always with another catalog "
            "than GAIADR3_S3, as in romancal)",
        ),
        *_matching_parameters("", "between exposures", 2.0),
        Parameter("save_abs_catalog", bool, False, "write the stars of the astrometric catalog that were matched, as ECSV"),
        *_matching_parameters("abs_", "with the astrometric catalog", 6.0),
    ),
)

log = step_logger(STEP.name)

MAS = 1000  #: per arcsec
#: What the summary has for an exposure, where it is not known.
UNKNOWN = dict.fromkeys(
    (
        "status",
        "reason",
        "group",
        "catalog",
        "n_sources",
        "n_matches",
        "n_by_chance",
        "n_shared",
        "shift_mas",
        "rotation_deg",
        "scale",
        "rmse_before_mas",
        "rmse_after_mas",
    )
)
DEFAULT_CATALOG = "GAIADR3_S3"  #: with any other, romancal expands the list of reference sources in any case


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tweakreg.py", description=STEP.summary, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("output", metavar="OUTPUT", type=Path, help="the solutions to write (ASSOCIATION_tweakreg.asdf)")
    result.add_argument("summary", metavar="SUMMARY", type=Path, help="a summary to write (.json)")
    result.add_argument("--images", metavar="FILE", type=Path, nargs="+", required=True, help="the images (STEM_flat.asdf)")
    result.add_argument(
        "--catalogs", metavar="FILE", nargs="+", required=True, help=f"source catalog of each image; {NOT_APPLICABLE} for none"
    )
    result.add_argument(
        "--astrometric_catalog", metavar="FILE", type=Path, required=True, help="what astrometric_catalog.py wrote (.parquet)"
    )
    result.add_argument(
        "--catalog_name", metavar="NAME", default=DEFAULT_CATALOG, help="its name, for that of the WCS (default: %(default)s)"
    )
    add_parameters(result, STEP.parameters)
    return result


def matchings(parameters: dict):
    """How stars are matched between exposures, and with the astrometric catalog (`rampflow.alignment.matching.Matching`).

    Raises
    ------
    RampflowError
        The parameters contradict each other.
    """
    from rampflow.alignment.matching import Matching

    return Matching.of_parameters(parameters), Matching.of_parameters(parameters, "abs_")


def stem_of(image: Path) -> str:
    """Name of the exposure of an image file: its name without the last ``_suffix.asdf``."""
    return image.name.rpartition("_")[0] or image.stem


def read_members(images: list[Path], catalogs: list[str], *, with_epochs: bool = False):
    """The exposures of an association that can be tried, and why the others can't.

    Parameters
    ----------
    images : list of pathlib.Path
    catalogs : list of str
        The source catalog of each.
    with_epochs : bool
        Read the times of the exposures, for stars that move.

    Returns
    -------
    members : list of rampflow.alignment.members.Member
    left_out : dict of (str, str)
        Stem to status, SKIPPED or FAILED, and reason.
    """
    from rampflow.alignment.members import read_member

    members, left_out = [], {}
    for path, catalog in zip(images, catalogs, strict=True):
        stem = stem_of(path)
        with AsdfFile(path) as file:
            image = Exposure(file)
            image.expect_model(STEP.takes, STEP.name)
            cal_step = image.meta.get("cal_step", {})
            if is_fully_saturated(cal_step):
                left_out[stem] = "SKIPPED", "the exposure is fully saturated"
                continue
            if image.meta.get("wcs") is None and cal_step.get("assign_wcs") == "SKIPPED":
                left_out[stem] = "SKIPPED", "it has no WCS: its pointing is not known (see the warning of assign_wcs)"
                continue
            if catalog == NOT_APPLICABLE:
                left_out[stem] = "SKIPPED", "it has no source catalog"
                continue
            try:
                sources = sources_of(stem, image, original(catalog))
            except RampflowError as error:  # a file of the user's, for this exposure: no reason to leave the others unaligned
                left_out[stem] = "FAILED", f"its source catalog can't be used: {error}"
            else:
                members.append(read_member(stem, image, sources, with_epoch=with_epochs))
    return members, left_out


def sources_of(stem: str, image: Exposure, path: Path):
    """The positions of an exposure's source catalog; the log says which file and columns they are from.

    Returns
    -------
    rampflow.alignment.sources.Sources

    Raises
    ------
    RampflowError
        The catalog can't be read, has no positions, or says that it is of another exposure.
    """
    from rampflow.alignment.sources import read_catalog

    catalog = read_catalog(path)
    other = catalog.other_exposure(image, stem)
    if other:
        raise RampflowError(
            f"{path}: is the catalog of another exposure by its metadata ({other}); give this exposure's own, or columns x and "
            "y alone in a file without metadata"
        )
    sources = catalog.sources()
    log.info(
        "%s: %d of %d sources from %s (%s)%s",
        stem,
        len(sources),
        catalog.n_rows,
        path,
        ", ".join(catalog.positions() or ()) or "no positions",
        "" if catalog.identity else "; it doesn't say of which exposure it is",
    )
    return sources


def read_stars(path: Path):
    """The astrometric catalog.

    Returns
    -------
    stars : astropy.table.Table
        ra, dec (degrees), mag, ra_error, dec_error (mas), pmra, pmdec (mas per year), parallax (mas).
    origin : rampflow.astrometry.table.Origin
    reason : str
        Why there are no stars; empty where there are some.
    """
    from rampflow.astrometry.table import read_catalog

    stars, origin = read_catalog(path)
    if origin.status != "SUCCESS":
        return stars[:0], origin, origin.reason or "the astrometric catalog can't be had"
    stars = stars[np.isfinite(stars["ra"]) & np.isfinite(stars["dec"])]
    return stars, origin, "" if len(stars) else origin.reason or "the catalog has no stars there"


def star_errors(stars) -> np.ndarray:
    """Standard deviation of a coordinate of each star, arcsec; 0 where the catalog gives none."""
    errors = np.array([stars["ra_error"], stars["dec_error"]], float)
    return np.nan_to_num(np.sqrt((errors**2).mean(axis=0))) / MAS


def solution_of(member, outcome, catalog_name: str) -> dict:
    """What `rampflow.alignment.product` takes of one exposure's alignment."""
    from rampflow.wcs.footprint import s_region

    if outcome.wcs is None:
        return {"status": "FAILED", "reason": outcome.reason, "wcs_fit_results": outcome.results}
    outcome.wcs.name = f"FIT-LVL2-{Path(catalog_name).name}"  # of a file its name: where it lies says nothing elsewhere
    return {
        "status": "COMPLETE",
        "reason": outcome.reason,
        "wcs_fit_results": outcome.results,
        "s_region": s_region(outcome.wcs),
        "wcs": outcome.wcs,
    }


def summary_of(member, outcome, catalog: np.ndarray) -> dict:
    """One exposure in the summary: lengths in mas in its plane, the rotation in degrees; null where unknown.

    ``rmse_before_mas`` and ``rmse_after_mas`` are of the ``n_matches`` stars that decided the solution, without outliers.
    """
    before, after = outcome.rmse(member, catalog)
    aligned = outcome.wcs is not None
    rotation, scale = outcome.affine.rotation_and_scale()
    return {
        "status": "COMPLETE" if aligned else "FAILED",
        "reason": outcome.reason,
        "group": member.group,
        "n_sources": len(member.plane),
        "n_matches": len(outcome.star),
        "n_by_chance": outcome.n_by_chance,
        "n_shared": outcome.n_shared,
        "shift_mas": [MAS * float(s) for s in outcome.affine.shift] if aligned else None,
        "rotation_deg": rotation if aligned else None,
        "scale": scale if aligned else None,
        "rmse_before_mas": None if before is None else MAS * before,
        "rmse_after_mas": None if after is None else MAS * after,
    }


def run(arguments: dict) -> None:
    """Align an association; `arguments` are those of the command line."""
    from rampflow.alignment.association import Outcome, align_association
    from rampflow.alignment.epochs import MovingStars
    from rampflow.alignment.product import write_solutions
    from rampflow.astrometry.region import unit_vectors

    parameters = {p.name: arguments[p.name] for p in STEP.parameters}
    relative, absolute = matchings(parameters)
    images, catalogs, name = arguments["images"], arguments["catalogs"], arguments["catalog_name"]
    if len(images) != len(catalogs):
        raise RampflowError(f"{len(images)} images and {len(catalogs)} catalogs are given; each image needs its own, or N/A")
    stems = [stem_of(path) for path in images]
    if len(set(stems)) != len(stems):
        raise RampflowError("an exposure is given twice; name each of --images once")
    association = arguments["output"].name.removesuffix(f"_{STEP.suffix}.asdf")
    log.info("%s %s, step tweakreg: %d exposures of %s", SOFTWARE_NAME, __version__, len(images), association)
    log.info("Parameters: %s", ", ".join(f"{k}={v}" for k, v in parameters.items()))
    stars, origin, reason = read_stars(arguments["astrometric_catalog"])
    stars_move = bool(np.isfinite(stars["pmra"]).any())
    members, left_out = read_members(images, catalogs, with_epochs=stars_move)
    for stem, (status, why) in left_out.items():
        log.warning("%s: %s, %s", stem, status, why)
    directions = unit_vectors(np.asarray(stars["ra"]), np.asarray(stars["dec"]))
    moving = MovingStars(stars, origin.epoch) if stars_move else None
    if reason:
        results = {"status": "FAILED", "nmatches": 0, "n_detector": len(members)}
        outcomes = [Outcome(None, results, f"no astrometric catalog: {reason}") for _ in members]
    elif members:
        outcomes = align_association(
            members,
            directions,
            star_errors(stars),
            relative,
            absolute,
            refine=parameters["refine"],
            enforce_user_order=parameters["enforce_user_order"],
            expand_refcat=parameters["expand_refcat"] or name != DEFAULT_CATALOG,
            moving=moving,
        )
    else:
        outcomes = []
    solutions = {stem: {"status": status, "reason": why} for stem, (status, why) in left_out.items()}
    summaries = {stem: dict(solution) for stem, solution in solutions.items()}
    for solution in solutions.values():
        if solution["status"] == "FAILED":
            solution["wcs_fit_results"] = {"status": "FAILED", "nmatches": 0, "n_detector": len(members)}
    for member, outcome in zip(members, outcomes, strict=True):
        solutions[member.stem] = solution_of(member, outcome, name)
        seen = moving.directions(member.epoch) if moving else directions
        summaries[member.stem] = report = summary_of(member, outcome, seen)
        if outcome.wcs is None:
            log.warning("%s: FAILED, %s; its WCS stays as it is", member.stem, outcome.reason)
        elif report["rmse_after_mas"] is None:
            log.warning("%s: aligned without stars of the catalog (%s)", member.stem, outcome.reason or "by other exposures")
        else:
            log.info(
                "%s: %d stars of the catalog, %d shared with others, rmse %.3f -> %.3f mas",
                member.stem,
                report["n_matches"],
                report["n_shared"],
                report["rmse_before_mas"],
                report["rmse_after_mas"],
            )
    if parameters["save_abs_catalog"]:
        counts = np.bincount(np.concatenate([o.star for o in outcomes] or [[]]).astype(int), minlength=len(stars))
        write_matched(arguments["output"].with_name(f"{association}_fit_{Path(name).name.lower()}_ref.ecsv"), stars, counts)
    # The file name: where it lies says nothing elsewhere.
    names = {stem: Path(catalog).name for stem, catalog in zip(stems, catalogs, strict=True) if catalog != NOT_APPLICABLE}
    solutions, summaries = (
        {stem: entry | ({"catalog": names[stem]} if stem in names else {}) for stem, entry in entries.items()}
        for entries in (solutions, summaries)
    )
    catalog = {"name": name, "status": "FAILED" if reason else "SUCCESS", "reason": reason, "n_stars": len(stars)}
    header = {"association": association, "astrometric_catalog": catalog, "parameters": parameters}
    summaries = {stem: UNKNOWN | summaries[stem] for stem in stems}
    written = {stem: summaries[stem] | solutions[stem] for stem in stems}
    write_solutions(arguments["output"], {**header, "cal_logs": recorded_log()}, written)
    content = {**header, "exposures": summaries}
    with replacing(arguments["summary"]) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def write_matched(path: Path, stars, counts: np.ndarray) -> None:
    """Write the stars of the astrometric catalog that were matched, with the number of exposures that they were found in."""
    matched = stars[counts > 0]
    matched["n_exposures"] = counts[counts > 0]
    with replacing(path) as partial:
        matched.write(partial, format="ascii.ecsv", overwrite=True)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    arguments = vars(parser().parse_args(argv))
    with reported_errors(STEP.name) as outcome:
        run(arguments)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
