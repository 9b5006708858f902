"""Bring the table of the exposures of a results folder up to date: exposures.parquet and exposures.ecsv."""

import argparse
import json
import sys
from pathlib import Path

from rampflow.errors import RampflowError, counted
from rampflow.quality.limits import read_limits
from rampflow.quality.table import update_table
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors

log = step_logger("exposure_table")


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="exposure_table.py", description=__doc__)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="the results folder")
    parser.add_argument("--limits", metavar="JSON", default="{}", help="limits of numbers, as qa.limits of the configuration")
    arguments = parser.parse_args(argv)
    with reported_errors("exposure_table") as outcome:
        if not arguments.results.is_dir():
            raise RampflowError(f"{arguments.results}: is not a folder; give the folder of the products")
        try:
            limits = json.loads(arguments.limits)
        except ValueError:
            raise RampflowError(f"--limits: {arguments.limits!r} is not JSON") from None
        findings = update_table(arguments.results, {}, read_limits(limits))
        log.info("%s in the table of %s", counted(len(findings), "exposure"), arguments.results)
        for stem, found in findings.items():
            for finding in found:
                log.info("%s: %s", stem, finding.text)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
