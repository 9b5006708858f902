"""Write the page of a survey: table, plots and thumbnails of all exposures of a results folder, in one file for any browser."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rampflow.errors import RampflowError, counted
from rampflow.folders import WORKFLOW
from rampflow.pictures.overview import write_overview
from rampflow.quality.limits import read_limits
from rampflow.quality.table import PARQUET, read_exposure_table, to_columns, update_table
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors

TEMPLATE = WORKFLOW / "report" / "overview.html.j2"
THUMBNAILS = 1000  #: on the contact sheet, 3 MB

log = step_logger("survey")


def write_survey(results: Path, output: Path, template: Path = TEMPLATE, thumbnails: int = THUMBNAILS) -> int:
    """Write the page of a survey.

    Parameters
    ----------
    results : pathlib.Path
        Results folder, with the table of its exposures.
    output : pathlib.Path
        The page.
    template : pathlib.Path
        Template of the page; its scripts are beside it.
    thumbnails : int
        Largest number of exposures on the contact sheet.

    Returns
    -------
    int
        Number of exposures.

    Raises
    ------
    RampflowError
        The results folder has no table, or an empty one.
    """
    columns = to_columns(list(read_exposure_table(results).values()))
    if not columns["stem"].size:
        raise RampflowError(f"{results / PARQUET}: has no exposures; run the workflow first, which writes it at its end")
    name = results.resolve().name
    content = {"title": f"{name} · survey", "heading": f"Survey of {name}"}
    write_overview(output, template, columns, results, content=content, thumbnails=thumbnails)
    return len(columns["stem"])


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="survey.py", description=__doc__)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="the results folder")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the page to write")
    parser.add_argument("--limits", metavar="JSON", default="{}", help="limits of numbers, as qa.limits of the configuration")
    parser.add_argument(
        "--thumbnails",
        metavar="N",
        type=int,
        default=THUMBNAILS,
        help="largest number of exposures on the contact sheet, failed ones and outliers first (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    with reported_errors("survey") as outcome:
        if not arguments.results.is_dir():
            raise RampflowError(f"{arguments.results}: is not a folder; give the folder of the products")
        try:
            limits = json.loads(arguments.limits)
        except ValueError:
            raise RampflowError(f"--limits: {arguments.limits!r} is not JSON") from None
        update_table(arguments.results, {}, read_limits(limits))
        number = write_survey(arguments.results, arguments.output, thumbnails=arguments.thumbnails)
        log.info("%s on %s", counted(number, "exposure"), arguments.output)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
