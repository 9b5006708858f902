"""Align the exposures of an association to each other and to an astrometric catalog."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rampflow import SOFTWARE_NAME, __version__
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.links import original
from rampflow.files.path_lists import read_list
from rampflow.step.declaration import NOT_APPLICABLE, Parameter, Step, add_parameter_sources, add_parameters
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log, step_logger
from rampflow.step.program import reported_errors
from rampflow.step.provenance import describe_parameter_sources, is_fully_saturated

if TYPE_CHECKING:
    from astropy.table import Table

    from rampflow.alignment.exposures import CatalogedExposure
    from rampflow.alignment.matching import Matching
    from rampflow.alignment.outcomes import Outcome
    from rampflow.alignment.source_positions import SourcePositions
    from rampflow.astrometry.star_table import Origin

_GEOMETRIES = ("shift", "rshift", "rscale", "general")


def _matching_parameters(prefix: str, where: str, searchrad: float) -> tuple[Parameter, ...]:
    return (
        Parameter(f"{prefix}minobj", int, 10, f"minimum number of matches {where}, clipped outliers included", minimum=1),
        Parameter(f"{prefix}searchrad", float, searchrad, f"search radius for the offset {where}", "arcsec", minimum=0),
        Parameter(f"{prefix}use2dhist", bool, True, f"search for the offset {where}; false: the offset is taken as zero"),
        Parameter(
            f"{prefix}separation", float, 1.0, f"minimum separation of sources that are matched {where}", "arcsec", minimum=0
        ),
        Parameter(
            f"{prefix}tolerance", float, 0.7, f"maximum distance of a match {where}, after the offset", "arcsec", minimum=0
        ),
        Parameter(f"{prefix}fitgeometry", str, "general", f"terms of the fit {where}", choices=_GEOMETRIES),
        Parameter(f"{prefix}nclip", int, 3, f"maximum number of sigma-clipping iterations {where}", minimum=0),
        Parameter(f"{prefix}sigma", float, 3.0, f"clipping threshold {where}, in sigma", minimum=0),
    )


STEP = Step(
    name="tweakreg",
    summary="Align the exposures of an association to each other and to an astrometric catalog.\n\n"
    "It reads the headers of the images and the positions in their source catalogs, but no pixels.\nfinalize.py applies the "
    "solution to the products of each exposure.",
    parameters=(
        Parameter(
            "refine",
            bool,
            True,
            "solve all exposures together, with a correction for each; false: romancal's method, a relative alignment, then "
            "one common correction",
            in_romancal=False,
        ),
        Parameter(
            "enforce_user_order",
            bool,
            False,
            "align in the order of the association; false: in the order of the overlaps (applies with refine: false)",
        ),
        Parameter(
            "expand_refcat",
            bool,
            False,
            "use the sources of aligned exposures to align the next one (applies with refine: false; always true with a "
            "catalog other than GAIADR3_S3, as in romancal)",
        ),
        *_matching_parameters("", "between exposures", 2.0),
        Parameter("save_abs_catalog", bool, False, "write the matched stars of the astrometric catalog, as ECSV"),
        *_matching_parameters("abs_", "with the astrometric catalog", 6.0),
    ),
)

log = step_logger(STEP.name)

MAS_PER_ARCSEC = 1000
#: Largest plausible difference of a correction's scale from 1. The distortion is known to 1e-5, velocity aberration is 1e-4.
LARGEST_SCALE_ERROR = 1e-3
#: Entry of an exposure in the summary, without values.
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
DEFAULT_CATALOG = "GAIADR3_S3"  #: romancal always sets expand_refcat with any other catalog


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        The parser.
    """
    result = argparse.ArgumentParser(
        prog="tweakreg.py", description=STEP.summary, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "output", metavar="OUTPUT", type=Path, help="file of the solutions to write (ASSOCIATION_tweakreg.asdf)"
    )
    result.add_argument("summary", metavar="SUMMARY", type=Path, help="summary to write (.json)")
    result.add_argument(
        "--images",
        metavar="FILE",
        nargs="+",
        required=True,
        help="images (STEM_flat.asdf, STEM_cal.asdf); @FILE, here and in other lists, reads the names from a file, one a line",
    )
    result.add_argument(
        "--catalogs", metavar="FILE", nargs="+", required=True, help=f"source catalog of each image; {NOT_APPLICABLE} for none"
    )
    result.add_argument(
        "--astrometric_catalog",
        metavar="FILE",
        type=Path,
        required=True,
        help="file of stars that astrometric_catalog.py wrote",
    )
    result.add_argument(
        "--catalog_name",
        metavar="NAME",
        default=DEFAULT_CATALOG,
        help="name of the astrometric catalog, which becomes part of the name of the WCS (default: %(default)s)",
    )
    result.add_argument(
        "--own_catalogs",
        metavar="FILE",
        nargs="*",
        default=[],
        help=f"source catalog that source_catalog made of each image, to check --catalogs against; {NOT_APPLICABLE} for none",
    )
    add_parameters(result, STEP.parameters)
    add_parameter_sources(result)
    return result


def matchings(parameters: dict) -> tuple[Matching, Matching]:
    """Make the matching between exposures, and the one with the astrometric catalog.

    Parameters
    ----------
    parameters : dict
        Parameters of the step, name to value.

    Returns
    -------
    relative : rampflow.alignment.matching.Matching
        Matching between exposures.
    absolute : rampflow.alignment.matching.Matching
        Matching with the astrometric catalog.

    Raises
    ------
    RampflowError
        The parameters contradict each other.
    """
    from rampflow.alignment.matching import Matching

    return Matching.of_parameters(parameters), Matching.of_parameters(parameters, "abs_")


def stem_of_image(image: Path) -> str:
    """Extract the name of the exposure from the name of an image file.

    Parameters
    ----------
    image : pathlib.Path
        The image file.

    Returns
    -------
    str
        The file name without the last ``_suffix.asdf``.
    """
    return image.name.rpartition("_")[0] or image.stem


def read_members(
    images: list[Path], catalogs: list[str], own_catalogs: list[str], *, with_epochs: bool = False
) -> tuple[list[CatalogedExposure], dict[str, tuple[str, str]], dict[str, str]]:
    """Read the exposures of an association.

    Parameters
    ----------
    images : list of pathlib.Path
        Images of the association.
    catalogs : list of str
        Source catalog to align each image with.
    own_catalogs : list of str
        Source catalog that source_catalog made of each image; empty if unknown.
    with_epochs : bool
        Whether to read the times of the exposures, which stars with proper motions need.

    Returns
    -------
    members : list of rampflow.alignment.exposures.CatalogedExposure
        The exposures that can be aligned.
    left_out : dict of (str, str)
        Status (SKIPPED or FAILED) and reason of the others, by stem.
    caveats : dict of str
        Caveats about source catalogs, by stem. An exposure without a caveat has no entry.

    Raises
    ------
    RampflowError
        An image can't be read, or lacks an entry of the header.
    """
    from rampflow.alignment.exposures import UnsuitableWcs, read_exposure

    members, left_out, caveats = [], {}, {}
    own_catalogs = own_catalogs or [NOT_APPLICABLE] * len(images)
    for path, catalog, own in zip(images, catalogs, own_catalogs, strict=True):
        stem = stem_of_image(path)
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
                sources, caveat = sources_of(stem, image, original(catalog), None if own == NOT_APPLICABLE else original(own))
            except RampflowError as error:  # in a file that the user gave for one exposure; the others can be aligned
                left_out[stem] = "FAILED", f"its source catalog can't be used: {error}"
                continue
            try:
                members.append(read_exposure(stem, image, sources, with_epoch=with_epochs))
            except UnsuitableWcs as error:
                left_out[stem] = "FAILED", str(error)
                continue
            if caveat:
                caveats[stem] = caveat
    return members, left_out, caveats


def sources_of(stem: str, image: Exposure, path: Path, own: Path | None = None) -> tuple[SourcePositions, str]:
    """Read the positions of the source catalog of an exposure; the log names the file and the columns.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    image : Exposure
        Image of the exposure.
    path : pathlib.Path
        The source catalog.
    own : pathlib.Path, optional
        Source catalog that source_catalog made of the image, to compare another one with.

    Returns
    -------
    sources : rampflow.alignment.source_positions.SourcePositions
        The sources, without duplicates.
    caveat : str
        Caveat about the catalog; empty if there is none.

    Raises
    ------
    RampflowError
        The catalog can't be read, has no positions, or belongs to another exposure according to its metadata or the sources of
        `own`.
    """
    from rampflow.alignment.source_positions import compare, read_source_catalog, read_sources

    catalog = read_source_catalog(path)
    other = catalog.other_exposure(image, stem)
    if other:
        raise RampflowError(
            f"{path}: is the catalog of another exposure by its metadata ({other}); give this exposure's own, or columns x and "
            "y alone in a file without metadata"
        )
    listed = catalog.sources()
    sources = listed.merged()
    log.info(
        "%s: %d of %d sources from %s (%s)",
        stem,
        len(listed),
        catalog.n_rows,
        path,
        ", ".join(catalog.positions() or ()) or "no positions",
    )
    if len(sources) < len(listed):
        log.warning("%s: %d of %d sources are listed twice and merged", stem, len(listed) - len(sources), len(listed))
    if own == path:
        return sources, ""
    if own is not None:
        comparison = compare(sources, read_sources(own).merged())
        contradiction = comparison.contradiction()
        if contradiction:
            raise RampflowError(f"{path}: contradicts the image: {contradiction}; give the catalog of this exposure")
        if comparison.conclusive:
            log.info("%s: %d of them were found on the image, too", stem, comparison.n_shared)
            caveat = comparison.caveat()
            if caveat:
                log.warning("%s: %s: %s; the aligned WCS has the same offset", stem, path.name, caveat)
            return sources, caveat
    if catalog.identity:
        return sources, ""
    caveat = f"{path.name} has no metadata that name its exposure"
    log.warning("%s: %s, and there are too few sources of its own catalog to compare it with", stem, caveat)
    return sources, caveat


def read_stars(path: Path) -> tuple[Table, Origin, str]:
    """Read the astrometric catalog.

    Parameters
    ----------
    path : pathlib.Path
        The file that astrometric_catalog.py wrote.

    Returns
    -------
    stars : astropy.table.Table
        Columns ra, dec (degrees), mag, ra_error, dec_error (mas), pmra, pmdec (mas per year), parallax (mas).
    origin : rampflow.astrometry.star_table.Origin
        Origin of the stars.
    reason : str
        Why there are no stars; empty if there are some.

    Raises
    ------
    RampflowError
        astrometric_catalog.py has not written this file, or the file is damaged.
    """
    from rampflow.astrometry.star_table import read_star_table

    stars, origin = read_star_table(path)
    if origin.status != "SUCCESS":
        return stars[:0], origin, origin.reason or "the astrometric catalog couldn't be retrieved"
    stars = stars[np.isfinite(stars["ra"]) & np.isfinite(stars["dec"])]
    return stars, origin, "" if len(stars) else origin.reason or "the catalog has no stars there"


def star_errors(stars: Table) -> np.ndarray:
    """Compute the standard deviation of a coordinate of each star.

    Parameters
    ----------
    stars : astropy.table.Table
        See `read_stars`.

    Returns
    -------
    numpy.ndarray
        Standard deviations, arcsec, (n,); 0 where the catalog has none.
    """
    errors = np.array([stars["ra_error"], stars["dec_error"]], float)
    return np.nan_to_num(np.sqrt((errors**2).mean(axis=0))) / MAS_PER_ARCSEC


def solution_of(member: CatalogedExposure, outcome: Outcome, catalog_name: str) -> dict:
    """Convert the outcome for an exposure to its entry in the file of solutions.

    Parameters
    ----------
    member : rampflow.alignment.exposures.CatalogedExposure
        The exposure.
    outcome : rampflow.alignment.outcomes.Outcome
        Outcome of its alignment.
    catalog_name : str
        Name of the astrometric catalog, for the name of the WCS.

    Returns
    -------
    dict
        See `rampflow.alignment.product.write_solutions`.
    """
    from rampflow.alignment.exposures import StoredWcs
    from rampflow.wcs.footprint import s_region

    if outcome.wcs is None:
        return {"status": "FAILED", "reason": outcome.reason, "wcs_fit_results": outcome.results}
    wcs = outcome.wcs.load()
    wcs.name = f"FIT-LVL2-{Path(catalog_name).name}"  # without its folder, which another machine doesn't have
    return {
        "status": "COMPLETE",
        "reason": outcome.reason,
        "wcs_fit_results": outcome.results,
        "s_region": s_region(wcs),
        "wcs": StoredWcs(wcs),
    }


def summary_of(member: CatalogedExposure, outcome: Outcome, catalog: np.ndarray) -> dict:
    """Convert the outcome for an exposure to its entry in the summary.

    Parameters
    ----------
    member : rampflow.alignment.exposures.CatalogedExposure
        The exposure.
    outcome : rampflow.alignment.outcomes.Outcome
        Outcome of its alignment.
    catalog : numpy.ndarray
        Directions of the catalog's stars at the epoch of the exposure, (n, 3).

    Returns
    -------
    dict
        Entry of the summary: lengths in mas in the tangent plane, the rotation in degrees; null where unknown.
        ``rmse_before_mas`` and ``rmse_after_mas`` are those of the ``n_matches`` stars that determined the solution, outliers
        excluded.
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
        "shift_mas": [MAS_PER_ARCSEC * float(s) for s in outcome.affine.shift] if aligned else None,
        "rotation_deg": rotation if aligned else None,
        "scale": scale if aligned else None,
        "rmse_before_mas": None if before is None else MAS_PER_ARCSEC * before,
        "rmse_after_mas": None if after is None else MAS_PER_ARCSEC * after,
    }


def run(arguments: dict) -> None:
    """Align an association.

    Parameters
    ----------
    arguments : dict
        Arguments of the command line, see `parser`.

    Raises
    ------
    RampflowError
        The arguments or parameters contradict each other, or an image or the astrometric catalog can't be read.
    """
    from rampflow.alignment.epochs import MovingStars
    from rampflow.alignment.outcomes import Outcome, align_association
    from rampflow.alignment.product import write_solutions
    from rampflow.astrometry.region import unit_vectors

    parameters = {p.name: arguments[p.name] for p in STEP.parameters}
    relative, absolute = matchings(parameters)
    images = [Path(path) for path in read_list(arguments["images"])]
    catalogs, own_catalogs = read_list(arguments["catalogs"]), read_list(arguments["own_catalogs"])
    name = arguments["catalog_name"]
    if len(images) != len(catalogs):
        raise RampflowError(f"{len(images)} images and {len(catalogs)} catalogs are given; each image needs its own, or N/A")
    if len(own_catalogs) not in (0, len(images)):
        raise RampflowError(f"--own_catalogs names {len(own_catalogs)} files for {len(images)} images")
    stems = [stem_of_image(path) for path in images]
    if len(set(stems)) != len(stems):
        raise RampflowError("--images names an exposure twice; name each once")
    association = arguments["output"].name.removesuffix(f"_{STEP.suffix}.asdf")
    log.info("%s %s, step tweakreg: %s of %s", SOFTWARE_NAME, __version__, counted(len(images), "exposure"), association)
    log.info("Parameters: %s", ", ".join(f"{k}={v}" for k, v in parameters.items()))
    for line in describe_parameter_sources(arguments.get("parameters_from", [])):
        log.info(line)
    stars, origin, reason = read_stars(arguments["astrometric_catalog"])
    log.info("Astrometric catalog: %s", origin.described())
    stars_move = bool(np.isfinite(stars["pmra"]).any())
    members, left_out, caveats = read_members(images, catalogs, own_catalogs, with_epochs=stars_move)
    for stem, (status, why) in left_out.items():
        log.warning("%s: %s, %s", stem, status, why)
    directions = unit_vectors(np.asarray(stars["ra"]), np.asarray(stars["dec"]))
    moving = MovingStars(stars, origin.epoch) if stars_move and origin.epoch is not None else None
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
    outcomes = [outcome.with_caveat(caveats.get(member.stem)) for member, outcome in zip(members, outcomes, strict=True)]
    solutions: dict[str, dict[str, Any]] = {stem: {"status": status, "reason": why} for stem, (status, why) in left_out.items()}
    summaries = {stem: dict(solution) for stem, solution in solutions.items()}
    for solution in solutions.values():
        if solution["status"] == "FAILED":
            solution["wcs_fit_results"] = {"status": "FAILED", "nmatches": 0, "n_detector": len(members)}
    for member, outcome in zip(members, outcomes, strict=True):
        _, scale = outcome.affine.rotation_and_scale()
        if outcome.wcs is not None and abs(scale - 1) > LARGEST_SCALE_ERROR:
            doubt = f"its scale differs from that of the stars by {100 * (scale - 1):.2g} %, more than the distortion's error"
            log.warning("%s: %s; check the positions of the astrometric catalog", member.stem, doubt)
            outcome = outcome.with_caveat(doubt)
        solutions[member.stem] = solution_of(member, outcome, name)
        seen = moving.directions(member.epoch) if moving and member.epoch is not None else directions
        summaries[member.stem] = report = summary_of(member, outcome, seen)
        if outcome.wcs is None:
            log.warning("%s: FAILED, %s; its WCS is unchanged", member.stem, outcome.reason)
        elif report["rmse_after_mas"] is None:
            log.warning("%s: aligned without stars of the catalog (%s)", member.stem, outcome.reason or "by other exposures")
        else:
            log.info(
                "%s: %s of the catalog, %d shared with others, rmse %.3f -> %.3f mas",
                member.stem,
                counted(report["n_matches"], "star"),
                report["n_shared"],
                report["rmse_before_mas"],
                report["rmse_after_mas"],
            )
    if parameters["save_abs_catalog"]:
        counts = np.bincount(np.concatenate([o.star for o in outcomes] or [np.empty(0)]).astype(int), minlength=len(stars))
        write_matched(arguments["output"].with_name(f"{association}_fit_{Path(name).name.lower()}_ref.ecsv"), stars, counts)
    # File names without their folders, which another machine doesn't have.
    for stem, path in zip(stems, catalogs, strict=True):
        if path != NOT_APPLICABLE:
            solutions[stem]["catalog"] = summaries[stem]["catalog"] = Path(path).name
    catalog = {"name": name, "status": "FAILED" if reason else "SUCCESS", "reason": reason, "n_stars": len(stars)}
    catalog |= {"title": origin.title, "version": origin.version, "ref_epoch": origin.ref_epoch, "epoch": origin.epoch}
    header = {
        "association": association,
        "calibration_software_name": SOFTWARE_NAME,
        "calibration_software_version": __version__,
        "astrometric_catalog": catalog,
        "parameters": parameters,
    }
    summaries = {stem: UNKNOWN | summaries[stem] for stem in stems}
    written = {stem: summaries[stem] | solutions[stem] for stem in stems}
    write_solutions(arguments["output"], {**header, "cal_logs": recorded_log()}, written)
    content = {**header, "exposures": summaries}
    with replacing(arguments["summary"]) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def write_matched(path: Path, stars: Table, counts: np.ndarray) -> None:
    """Write the stars of the astrometric catalog that were matched.

    Parameters
    ----------
    path : pathlib.Path
        ECSV file to write.
    stars : astropy.table.Table
        Stars of the catalog, see `read_stars`.
    counts : numpy.ndarray
        Number of exposures in which each was matched, (n,); the column ``n_exposures`` of the file.
    """
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
