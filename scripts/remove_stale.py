"""Remove the files of a results folder that belong to no exposure or step of a run."""

import argparse
import sys
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.workflow import inventory
from rampflow.workflow.leftovers import PAGES, find_stale_files


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="remove_stale.py", description=__doc__)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="the results folder")
    parser.add_argument("inventory", metavar="INVENTORY", type=Path, help="the run's exposures: .rampflow/exposures-*.json")
    arguments = parser.parse_args(argv)
    with reported_errors("remove_stale") as outcome:
        visit = inventory.read(arguments.inventory)
        if visit is None:
            raise RampflowError(f"{arguments.inventory}: is not a list of exposures that a run has made")
        for path in find_stale_files(visit, arguments.results, arguments.inventory.parent):
            path.unlink(missing_ok=True)
            if path.parent.name.endswith(PAGES[0]) and not any(path.parent.iterdir()):
                path.parent.rmdir()
            step_logger("remove_stale").info("Removed %s", path)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
