"""Write the page of a survey: table, plots and thumbnails of all exposures of a results folder, in one file for any browser."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from rampflow import SOFTWARE_NAME, __version__
from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.folders import WORKFLOW
from rampflow.pictures.pages import read_template
from rampflow.pictures.survey import order_exposures, read_thumbnails, text_columns
from rampflow.quality.limits import read_limits
from rampflow.quality.table import PARQUET, read_exposure_table, to_columns, update_table
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors

TEMPLATE = WORKFLOW / "report" / "survey.html.j2"
THUMBNAILS = 1000  #: on the page, 3 MB

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
        Largest number of thumbnails on the page.

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

    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from rampflow.pictures.survey_plots import make_document

    order = order_exposures(columns)
    columns = {name: values[order] for name, values in columns.items()}
    texts = text_columns(columns, results)
    pictures = read_thumbnails(texts["stem"], results, thumbnails)
    with_thumbnail = sum((results / f"{stem}_cal_thumb.png").exists() for stem in texts["stem"])
    content = {
        "results": results.resolve().name,
        "exposures": len(order),
        "states": {state: texts["state"].count(state) for state in ("failed", "outdated", "missing")},
        "unusual": sum(bool(names) for names in texts["outliers"]),
        "pictures": [{"row": row, "source": url, **{k: texts[k][row] for k in CAPTION}} for row, url in pictures.items()],
        "with_thumbnail": with_thumbnail,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "made_by": f"{SOFTWARE_NAME} {__version__}",
    }
    page = file_html(
        make_document(texts, columns, template.parent),
        INLINE,
        title=f"{content['results']} · survey",
        template=read_template(template),
        template_variables=content,
    )
    with replacing(output, shared=True) as partial:
        partial.write_text(page, encoding="utf-8")
    return len(order)


#: What the contact sheet says of an exposure.
CAPTION = ("stem", "state", "detector", "optical_element", "outlier_text", "page")


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
        help="largest number of thumbnails on the page, those of failed exposures and outliers first (default: %(default)s)",
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
        log.info("%d exposures on %s", number, arguments.output)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
