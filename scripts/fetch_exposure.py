"""Bring one raw exposure from S3 or a web server to this machine."""

import argparse
import sys
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.step.program import reported_errors
from rampflow.workflow import inventory
from rampflow.workflow.raw_transfer import fetch


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="fetch_exposure.py", description=__doc__)
    parser.add_argument("stem", metavar="STEM", help="name of the exposure")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="where it is written")
    parser.add_argument("--exposures", type=Path, required=True, metavar="FILE", help="exposures of the run")
    arguments = parser.parse_args(argv)
    with reported_errors("fetch_exposure") as outcome:
        found = inventory.read(arguments.exposures)
        file = found.exposures[arguments.stem].remote if found and arguments.stem in found.exposures else None
        if file is None:
            raise RampflowError(f"{arguments.exposures}: has no address of {arguments.stem}; start the run again")
        fetch(file, arguments.output)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
