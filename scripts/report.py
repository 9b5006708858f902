"""Write the report of an association: one page with the results of its exposures, for any browser."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rampflow import SOFTWARE_NAME, __version__
from rampflow.chain import STEPS
from rampflow.files.path_lists import read_list
from rampflow.pictures.alignment import residual_picture, sky_picture
from rampflow.pictures.image import corners_of
from rampflow.pictures.pages import write_page
from rampflow.quality.benchmarks import read_benchmark
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.step.program import reported_errors
from rampflow.workflow.summary import read_log, reason_without_error

SYMBOLS = {"COMPLETE": "✓", "SKIPPED": "–", "FAILED": "✗", "N/A": "·", "INCOMPLETE": "?"}
#: The jobs of an exposure in order, and the name of each in meta.cal_step, where it has one.
JOBS = {**{step.name: step.status for step in STEPS.values()}, "finalize": None}


def total(jobs: list[dict], key: str, combine: Callable[[list[float]], float] = sum) -> float | None:
    """Sum up the known values of jobs.

    Parameters
    ----------
    jobs : list of dict
        The jobs.
    key : str
        Name of the value.
    combine : callable
        Takes the list of the values.

    Returns
    -------
    float or None
        The sum, or what `combine` gives; `None` where no value is known.
    """
    values = [job[key] for job in jobs if job[key] is not None]
    return combine(values) if values else None


def exposure_of(images: Path, ramps: Path | None, summary: dict, benchmarks: Path) -> dict:
    """Collect what the page says of one exposure.

    Parameters
    ----------
    images : pathlib.Path
        File of image_pictures.py.
    ramps : pathlib.Path or None
        File of ramp_pictures.py; `None` for an exposure without a ramp.
    summary : dict
        Summary of the alignment; empty where there was none.
    benchmarks : pathlib.Path
        Folder with ``STEM/STEP.tsv``.

    Returns
    -------
    dict
        What the template shows.
    """
    content, ramp = json.loads(images.read_text()), json.loads(ramps.read_text()) if ramps else {"pictures": []}
    facts = content["facts"]
    folder = benchmarks / facts["stem"]
    jobs = []
    for name, status in JOBS.items():
        # A step that had no part in this image may have a file of an earlier run.
        measured = name in facts["ran"] or status is None
        path = folder / f"{name}.tsv"
        jobs.append({"name": name, "status": facts["statuses"].get(status), **read_benchmark(path if measured else None)})
    return {
        **facts,
        "pictures": [*content["pictures"], *ramp["pictures"]],
        "refpix": ramp.get("refpix"),
        "alignment": summary.get("exposures", {}).get(facts["stem"], {}),
        "jobs": jobs,
        "cpu": total(jobs, "cpu"),
        "seconds": total(jobs, "seconds"),
        "memory": total(jobs, "memory", max),
    }


def tally(values: list[str]) -> str:
    """List different values, with the number of exposures that have each where there are several: ``a (3), b (1)``.

    Parameters
    ----------
    values : list of str
        The value of each exposure.

    Returns
    -------
    str
        The list.
    """
    counts = collections.Counter(values)
    return ", ".join(f"{value} ({n})" for value, n in counts.items()) if len(counts) > 1 else "".join(counts)


def own_warnings(lines: list[str], stem: str, stems: list[str]) -> list[str]:
    """Choose the lines of an exposure's log that are not about another exposure.

    Parameters
    ----------
    lines : list of str
        Lines with time, logger and level.
    stem : str
        Name of the exposure.
    stems : list of str
        Names of all exposures of the association.

    Returns
    -------
    list of str
        The name of the step and the message of each line.
    """
    others = set(stems) - {stem}
    spelled = []
    for line in lines:
        _, name, _, message = line.split(" :: ", 3)
        if not any(other in message for other in others):
            spelled.append(f"{name.rpartition('.')[2]}: {message}")
    return spelled


def association_pictures(exposures: list[dict], stars: Path | None) -> list[dict]:
    """Draw pictures of all exposures together.

    Parameters
    ----------
    exposures : list of dict
        What `exposure_of` gives of each.
    stars : pathlib.Path or None
        The astrometric catalog.

    Returns
    -------
    list of dict
        Title, caption and source of each picture.
    """
    positions, magnitudes = np.empty((0, 2)), np.empty(0)
    if stars:
        from rampflow.astrometry.star_table import read_star_table

        table, _ = read_star_table(stars)
        positions, magnitudes = np.column_stack([table["ra"], table["dec"]]), np.asarray(table["mag"])
    footprints = [(e["detector"], corners) for e in exposures if (corners := corners_of(e["s_region"])) is not None]
    result = [sky_picture(footprints, positions, magnitudes)]
    if residuals := [e["residuals"] for e in exposures if "residuals" in e]:
        result.append(residual_picture(*(np.concatenate([r[name] for r in residuals]) for name in ("before", "after"))))
    return [shown for shown in result if shown]


def find_missing(stems: list[str], logs: Path, benchmarks: Path) -> list[dict]:
    """Find out why exposures have no products.

    Parameters
    ----------
    stems : list of str
        Their names.
    logs : pathlib.Path
        Folder with the log of each step, ``STEM/STEP.log``.
    benchmarks : pathlib.Path
        Folder with the benchmark of each step that has ended with success, ``STEM/STEP.tsv``.

    Returns
    -------
    list of dict
        ``stem`` and ``reason`` of each.
    """
    missing = []
    for stem in stems:
        errors, killed = [], []
        for log in sorted((logs / stem).glob("*.log"), key=lambda log: log.stat().st_mtime_ns):
            benchmark = benchmarks / stem / f"{log.stem}.tsv"
            ended = benchmark.exists() and benchmark.stat().st_mtime_ns >= log.stat().st_mtime_ns
            if reason := read_log(log)[0]:
                errors.append(f"{log.stem} failed: {reason.removeprefix(f'{log.stem}: ')}")
            elif not ended and log.stat().st_size:  # an empty one is of a step that did not begin
                killed.append(f"{log.stem} failed: {reason_without_error(log)}")
        failed = next(iter(errors + killed), "it has not been processed")
        missing.append({"stem": stem, "reason": failed})
    return missing


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__)
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the page to write (ASSOCIATION_report.html)")
    parser.add_argument("template", metavar="TEMPLATE", type=Path, help="of the page (workflow/report/report.html.j2)")
    parser.add_argument(
        "--images",
        metavar="FILE",
        nargs="+",
        required=True,
        help="what image_pictures.py wrote of each exposure; @FILE reads the names from a file, one in each line",
    )
    parser.add_argument(
        "--ramps",
        metavar="FILE",
        nargs="+",
        required=True,
        help=f"what ramp_pictures.py wrote of each, in order; {NOT_APPLICABLE} for none",
    )
    parser.add_argument("--summary", metavar="FILE", type=Path, help="summary of the alignment (ASSOCIATION_tweakreg.json)")
    parser.add_argument("--stars", metavar="FILE", type=Path, help="the astrometric catalog")
    parser.add_argument(
        "--benchmarks",
        metavar="FOLDER",
        type=Path,
        default=Path("benchmarks"),
        help="with EXPOSURE/STEP.tsv (default: %(default)s)",
    )
    parser.add_argument(
        "--missing", metavar="EXPOSURE", nargs="+", default=[], help="exposures of the association that have no products"
    )
    parser.add_argument(
        "--excluded", metavar="EXPOSURE", nargs="+", default=[], help="exposures of it that the configuration excludes"
    )
    parser.add_argument(
        "--logs", metavar="FOLDER", type=Path, default=Path("logs"), help="with EXPOSURE/STEP.log (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    with reported_errors("report") as outcome:
        summary = json.loads(arguments.summary.read_text()) if arguments.summary else {}
        exposures = [
            exposure_of(Path(images), None if ramps == NOT_APPLICABLE else Path(ramps), summary, arguments.benchmarks)
            for images, ramps in zip(read_list(arguments.images), read_list(arguments.ramps), strict=True)
        ]
        stems = [e["stem"] for e in exposures]
        for e in exposures:
            e["warnings"] = own_warnings(e["warnings"], e["stem"], stems)
        write_page(
            arguments.output,
            arguments.template,
            {
                "association": arguments.output.name.removesuffix("_report.html"),
                "exposures": exposures,
                "missing": [
                    *find_missing(arguments.missing, arguments.logs, arguments.benchmarks),
                    *({"stem": stem, "reason": "it was excluded"} for stem in arguments.excluded),
                ],
                "pictures": association_pictures(exposures, arguments.stars),
                "summary": summary,
                "symbols": SYMBOLS,
                "software": tally([e["software"] for e in exposures]),
                "contexts": tally([e["context"] or "not recorded" for e in exposures]),
                "reporter": f"{SOFTWARE_NAME} {__version__}",
                "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            },
        )
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
