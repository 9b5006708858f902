"""Write the report of an association: a page of all its exposures, and one of each, for any browser."""

from __future__ import annotations

import argparse
import collections
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.path_lists import read_list
from rampflow.folders import WORKFLOW
from rampflow.pictures.alignment import residual_picture
from rampflow.pictures.exposure_page import HEADING, SYMBOLS, jobs_of, own_warnings, read_reasons, sections_of, total
from rampflow.pictures.overview import page_of_exposure, write_overview
from rampflow.pictures.pages import write_page
from rampflow.quality.limits import read_limits
from rampflow.quality.numbers import NUMBERS
from rampflow.quality.outliers import Finding
from rampflow.quality.table import combine_rows, compare_exposures, read_exposure_table, read_numbers
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.step.program import reported_errors
from rampflow.workflow.summary import read_log, reason_without_error

TEMPLATES = WORKFLOW / "report"
MOST_STARS = 3000  #: on the map: the brightest


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


def read_brightest_stars(path: Path) -> np.ndarray:
    """Read the positions of the brightest stars of a catalog.

    Parameters
    ----------
    path : pathlib.Path
        The astrometric catalog.

    Returns
    -------
    numpy.ndarray
        Right ascension and declination, degrees, of shape (n, 2).
    """
    from rampflow.astrometry.star_table import read_star_table

    table, _ = read_star_table(path)
    brightest = np.argsort(np.nan_to_num(np.asarray(table["mag"], float), nan=np.inf), kind="stable")[:MOST_STARS]
    return np.column_stack([table["ra"], table["dec"]])[brightest]


def find_missing(stems: Sequence[str], logs: Path, benchmarks: Path) -> dict[str, dict[str, str]]:
    """Find out why exposures have no products.

    Parameters
    ----------
    stems : sequence of str
        Their names.
    logs : pathlib.Path
        Folder with the log of each step, ``STEM/STEP.log``.
    benchmarks : pathlib.Path
        Folder with the benchmark of each step that has ended with success, ``STEM/STEP.tsv``.

    Returns
    -------
    dict
        ``state``, ``failed_step`` and ``reason`` by name.
    """
    missing = {}
    for stem in stems:
        errors, killed = [], []
        for log in sorted((logs / stem).glob("*.log"), key=lambda log: log.stat().st_mtime_ns):
            benchmark = benchmarks / stem / f"{log.stem}.tsv"
            ended = benchmark.exists() and benchmark.stat().st_mtime_ns >= log.stat().st_mtime_ns
            if reason := read_log(log)[0]:
                errors.append((log.stem, reason.removeprefix(f"{log.stem}: ")))
            elif not ended and log.stat().st_size:  # an empty one is of a step that did not begin
                killed.append((log.stem, reason_without_error(log)))
        step, reason = next(iter(errors + killed), ("", "it has not been processed"))
        missing[stem] = {"state": "failed" if step else "missing", "failed_step": step, "reason": reason}
    return missing


def read_absent(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the exposures of an option of the command line.

    Parameters
    ----------
    words : sequence of str
        For each exposure its name, or a JSON object with ``stem`` and columns of the table of exposures; ``@FILE`` for a file
        that has one in each line.

    Returns
    -------
    dict
        What is known of each exposure, by its name.

    Raises
    ------
    RampflowError
        A word begins like an object and is none.
    """
    absent: dict[str, dict[str, Any]] = {}
    for word in read_list(words):
        try:
            known = json.loads(word) if word.startswith("{") else {"stem": word}
            absent[known["stem"]] = {name: value for name, value in known.items() if name in NUMBERS}
        except (ValueError, LookupError):
            raise RampflowError(f"{word}: is not a JSON object with an entry `stem`") from None
    return absent


def write_exposures(
    folder: Path,
    files: Sequence[tuple[Path, Path | None]],
    table: Mapping[str, tuple[Mapping, list[Finding]]],
    context: Mapping,
) -> None:
    """Write the page of each exposure.

    Parameters
    ----------
    folder : pathlib.Path
        Results folder.
    files : sequence of tuple
        For each exposure the file of image_pictures.py, and that of ramp_pictures.py or `None`.
    table : mapping
        Row of the table of exposures, and outliers, by name.
    context : mapping
        ``association``, ``stems`` in order, ``benchmarks``, and ``alignment``, the summary's entries by name.
    """
    stems = context["stems"]
    for place, (images, ramps) in enumerate(files):
        content, ramp = json.loads(images.read_text()), json.loads(ramps.read_text()) if ramps else {"pictures": []}
        facts = content["facts"]
        stem = facts["stem"]
        row, findings = table[stem]
        jobs = jobs_of(facts, read_reasons(folder / f"{stem}_qa.json"), context["benchmarks"])
        sections = sections_of(row, findings)
        shared = context["alignment"].get(stem, {}).get("n_shared")
        for section, numbers in sections:
            if section["title"] == "Alignment" and shared is not None:
                title = "stars shared with other exposures"
                numbers.append({"title": title, "meaning": title, "value": shared, "unit": "", "text": ""})
        write_page(
            folder / page_of_exposure(context["association"], stem),
            TEMPLATES / "exposure.html.j2",
            {
                **facts,
                "warnings": own_warnings(facts["warnings"], stem, stems),
                "row": {name: row.get(name, "") for name in HEADING},
                "findings": findings,
                "sections": sections,
                "pictures": [*content["pictures"], *ramp["pictures"]],
                "jobs": jobs,
                "cpu": total(jobs, "cpu"),
                "seconds": total(jobs, "seconds"),
                "memory": total(jobs, "memory", max),
                "symbols": SYMBOLS,
                "association": context["association"],
                "report": f"{context['association']}_report.html",
                "before": stems[place - 1] if place else "",
                "after": stems[place + 1] if place + 1 < len(stems) else "",
            },
        )


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__)
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        help="the page to write (RESULTS/ASSOCIATION_report.html); those of exposures are in the folder ASSOCIATION_report",
    )
    parser.add_argument(
        "--images",
        metavar="FILE",
        nargs="+",
        required=True,
        help="file of image_pictures.py for each exposure; @FILE reads the names from a file, one a line",
    )
    parser.add_argument(
        "--ramps",
        metavar="FILE",
        nargs="+",
        required=True,
        help=f"file of ramp_pictures.py for each exposure, in the same order; {NOT_APPLICABLE} for none",
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
    absent = "; a name, a JSON object with `stem` and columns of the table of exposures, or @FILE with one in each line"
    parser.add_argument(
        "--missing", metavar="EXPOSURE", nargs="+", default=[], help=f"exposures of the association without products{absent}"
    )
    parser.add_argument(
        "--excluded", metavar="EXPOSURE", nargs="+", default=[], help=f"exposures of the association that are excluded{absent}"
    )
    parser.add_argument(
        "--logs", metavar="FOLDER", type=Path, default=Path("logs"), help="with EXPOSURE/STEP.log (default: %(default)s)"
    )
    parser.add_argument("--limits", metavar="JSON", default="{}", help="limits of numbers, as qa.limits of the configuration")
    arguments = parser.parse_args(argv)
    with reported_errors("report") as outcome:
        results, association = arguments.output.parent, arguments.output.name.removesuffix("_report.html")
        ramps = [None if name == NOT_APPLICABLE else Path(name) for name in read_list(arguments.ramps)]
        files = list(zip(map(Path, read_list(arguments.images)), ramps, strict=True))
        facts = [json.loads(images.read_text())["facts"] for images, _ in files]
        stems = [of_exposure["stem"] for of_exposure in facts]
        missing, excluded = read_absent(arguments.missing), read_absent(arguments.excluded)
        why = find_missing(list(missing), arguments.logs, arguments.benchmarks)
        run = {stem: known | why[stem] for stem, known in missing.items()}
        run |= {
            stem: known | {"state": "excluded", "reason": "the configuration excludes it"} for stem, known in excluded.items()
        }
        run |= {stem: {"state": "complete"} for stem in stems}
        rows = combine_rows(
            read_numbers(results),
            {s: row | {"association": association} for s, row in run.items()},
            read_exposure_table(results),
        )
        columns, findings = compare_exposures(rows, read_limits(json.loads(arguments.limits)))
        members = [place for place, row in enumerate(rows) if row["stem"] in run]
        summary = json.loads(arguments.summary.read_text()) if arguments.summary else {}
        known = {"association": association, "stems": stems, "benchmarks": arguments.benchmarks}
        write_exposures(
            results,
            files,
            {rows[place]["stem"]: (rows[place], findings[place]) for place in members},
            known | {"alignment": summary.get("exposures", {})},
        )
        stars = read_brightest_stars(arguments.stars) if arguments.stars else None
        residuals = [of_exposure["residuals"] for of_exposure in facts if "residuals" in of_exposure]
        pictures = []
        if residuals:
            before, after = (np.concatenate([found[name] for found in residuals]) for name in ("before", "after"))
            pictures.append(residual_picture(before, after))
        write_overview(
            arguments.output,
            TEMPLATES / "report.html.j2",
            {name: values[members] for name, values in columns.items()},
            results,
            content={
                "title": f"{association} · report",
                "heading": association,
                "association_pictures": pictures,
                "summary": summary,
                "shown_stars": 0 if stars is None else len(stars),
                "software": tally([of_exposure["software"] for of_exposure in facts]),
                "contexts": tally([of_exposure["context"] or "not recorded" for of_exposure in facts]),
            },
            thumbnails=len(members),
            stars=stars,
        )
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
