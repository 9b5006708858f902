"""show_products: list the products in a folder, with what each exposure is and what became of it, and how to look at them."""

import argparse
import sys
from pathlib import Path

from rampflow.chain import STATUSES
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.step.program import reported_errors

HINT = """
{count} exposures in {folder}: calibrated images (_cal.asdf), WCS products (_wcs.asdf), source catalogs (_cat.parquet),
segmentation maps (_segm.asdf), and a summary of the alignment (_tweakreg.json). To look at one:

    {python}
    >>> import roman_datamodels
    >>> image = roman_datamodels.open("{example}")
    >>> image.data, image.dq, image.meta.cal_step, image.meta.wcs(100, 200)"""


def describe(path: Path) -> tuple[str, ...]:
    """Name, type, detector and element of a calibrated image, its median, its good pixels, and steps that are not COMPLETE."""
    with AsdfFile(path) as file:
        image = Exposure(file)
        meta, statistics = image.meta, image.get("meta.statistics", dict)
        outcomes = {}  # the steps of each status; later pipelines' steps and those of other detectors are left out
        for name in STATUSES:
            status = meta["cal_step"].get(name, "INCOMPLETE")
            if status not in ("COMPLETE", "N/A"):
                outcomes.setdefault(status, []).append(name)
        return (
            path.name.removesuffix("_cal.asdf"),
            image.get("meta.exposure.type"),
            image.get("meta.instrument.detector"),
            image.get("meta.instrument.optical_element"),
            f"{statistics['image_median']:.4g}",
            f"{100 * statistics['good_pixel_fraction']:.1f} %",
            "; ".join(f"{status}: {', '.join(outcomes[status])}" for status in sorted(outcomes)) or "-",
        )


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="show_products.py", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the products")
    folder = parser.parse_args(argv).folder
    with reported_errors("show_products") as outcome:
        products = sorted(folder.glob("*_cal.asdf"))
        if not products:
            raise RampflowError(f"{folder}: holds no product (_cal.asdf)")
        table = [
            ("exposure", "type", "detector", "element", "median DN/s", "good", "steps not COMPLETE"),
            *map(describe, products),
        ]
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        print(HINT.format(count=len(products), folder=folder, example=products[0], python=sys.executable))
        for page in sorted(folder.glob("*_report.html")):
            print(f"\nThe page that shows them, for a browser: {page}")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
