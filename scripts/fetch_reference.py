"""Bring one reference file from the CRDS server into the local cache."""

import argparse
import sys
from pathlib import Path

from rampflow.files import links
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.workflow import references


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="fetch_reference.py", description=__doc__)
    parser.add_argument(
        "link",
        metavar="LINK",
        type=Path,
        help="link to make to the reference, whose name is NAME: .rampflow/files/CONTENT/NAME",
    )
    parser.add_argument("--crds_context", metavar="NAME", required=True, help="CRDS context that chose the reference")
    arguments = parser.parse_args(argv)
    with reported_errors("fetch_reference") as outcome:
        path = references.fetch(arguments.link.name, arguments.crds_context)
        links.record_fetched(arguments.link, path)
        step_logger("fetch_reference").info("Fetched %s", path)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
