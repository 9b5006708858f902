"""List the products in a folder: what each exposure is, the statuses of its steps, and how to open it."""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from rampflow.chain import STATUSES
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.step.program import reported_errors
from rampflow.workflow.intact import find_fault

#: Ends of the names of an exposure's products: those of every exposure, and those of one with a source catalog.
ALWAYS, CATALOGED = ("_cal.asdf", "_wcs.asdf", "_qa.json"), ("_cat.parquet", "_segm.asdf")

HINT = """
{count} exposures in {folder}: calibrated images (_cal.asdf), WCS products (_wcs.asdf), source catalogs (_cat.parquet),
segmentation maps (_segm.asdf), numbers (_qa.json), and a summary of the alignment (_tweakreg.json). Table of all exposures:
exposures.ecsv. To look at an image:

    {python}
    >>> import roman_datamodels
    >>> image = roman_datamodels.open("{example}")
    >>> image.data, image.dq, image.meta.cal_step, image.meta.wcs(100, 200)

Exposures without any product are not listed: logs/summary.txt in the working folder names what failed."""


def find_exposures(folder: Path) -> list[str]:
    """List the exposures that have a product in a folder, or that an alignment in it names.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.

    Returns
    -------
    list of str
        Sorted names.
    """
    names = {path.name.removesuffix(end) for end in (*ALWAYS, *CATALOGED) for path in folder.glob(f"*{end}")}
    for path in folder.glob("*_tweakreg.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            names.update(json.loads(path.read_text())["exposures"])
    return sorted(names)


def describe(folder: Path, stem: str) -> tuple[str, ...]:
    """Describe an exposure in a row of the table.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of its products.
    stem : str
        Name of the exposure.

    Returns
    -------
    tuple of str
        Name, type, detector, optical element, median, part of good pixels, products that are missing or damaged, and by
        status the steps that are not COMPLETE.

    Raises
    ------
    RampflowError
        The calibrated image can't be read.
    """
    missing = [end for end in (*ALWAYS, *CATALOGED) if not (folder / f"{stem}{end}").exists()]
    if ALWAYS[0] in missing:
        return (stem, *("?" * 5), ", ".join(end for end in missing if end in ALWAYS), "?")
    path = folder / f"{stem}{ALWAYS[0]}"
    with AsdfFile(path) as file:
        image = Exposure(file)
        statistics = image.get("meta.statistics", dict)
        # The steps of each status. Later pipelines' steps and those of other detectors are left out.
        outcomes: dict[str, list[str]] = {}
        for name in STATUSES:
            status = image.get("meta.cal_step", dict).get(name, "INCOMPLETE")
            if status not in ("COMPLETE", "N/A"):
                outcomes.setdefault(status, []).append(name)
        if "source_catalog" in outcomes.get("SKIPPED", ()):
            missing = [end for end in missing if end not in CATALOGED]
        others = [folder / f"{stem}{end}" for end in (*ALWAYS[1:], *CATALOGED)]
        faults = {other: find_fault(other) for other in others if other.exists()}
        missing += [f"{other.name.removeprefix(stem)}: {fault}" for other, fault in faults.items() if fault]
        return (
            stem,
            image.get("meta.exposure.type"),
            image.get("meta.instrument.detector"),
            image.get("meta.instrument.optical_element"),
            f"{statistics['image_median']:.4g}",
            f"{100 * statistics['good_pixel_fraction']:.1f} %",
            ", ".join(missing) or "-",
            "; ".join(f"{status}: {', '.join(outcomes[status])}" for status in sorted(outcomes)) or "-",
        )


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="show_products.py", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the products")
    folder = parser.parse_args(argv).folder
    with reported_errors("show_products") as outcome:
        exposures = find_exposures(folder)
        if not exposures:
            raise RampflowError(f"{folder}: holds no product (_cal.asdf)")
        table: list[tuple[str, ...]] = [
            ("exposure", "type", "detector", "element", "median DN/s", "good", "missing products", "steps not COMPLETE")
        ]
        damaged = []
        for stem in exposures:
            try:
                table.append(describe(folder, stem))
            except RampflowError as error:
                damaged.append(str(error))
                table.append((stem, *("?" * 5), f"{ALWAYS[0]} is damaged", "?"))
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        example = folder / f"{exposures[0]}{ALWAYS[0]}"
        print(HINT.format(count=len(exposures), folder=folder, example=example, python=sys.executable))
        for page in sorted(folder.glob("*_report.html")):
            print(f"\nThe page that shows them, for a browser: {page}")
        if damaged:
            raise RampflowError(
                f"{len(damaged)} of {len(exposures)} exposures have an image that can't be read; delete it, and the next run "
                f"makes it again: {'; '.join(damaged)}"
            )
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
