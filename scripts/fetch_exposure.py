"""Bring one raw exposure from S3 or a web server to this machine."""

import argparse
import glob
import sys
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.remote.files import RemoteFile
from rampflow.remote.transfer import download
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.workflow import inventory

log = step_logger("fetch_exposure")


def fetch(file: RemoteFile, output: Path) -> None:
    """Fetch a file, which appears whole or not at all. What an earlier transfer of the same file has left is continued.

    Parameters
    ----------
    file : rampflow.remote.files.RemoteFile
        The file, as the inventory has found it.
    output : pathlib.Path
        Where it is written. A part of it has a hidden name beside it.

    Raises
    ------
    RampflowError
        It can't be fetched, or is damaged.
    """
    partial = output.with_name(f".{output.name}.{file.content}.part")
    for other in output.parent.glob(f".{glob.escape(output.name)}.*.part"):
        if other != partial:
            other.unlink(missing_ok=True)
    if done := partial.stat().st_size if partial.exists() else 0:
        log.info("Continuing at byte %d", done)
    for is_last in (False, True):
        try:
            if not download(file, partial, log.warning):
                with AsdfFile(partial) as content:
                    content.verify(compressed=True)
            break
        except RampflowError as error:
            if partial.exists() and partial.stat().st_size < file.size:
                raise  # to be continued
            partial.unlink(missing_ok=True)
            if is_last or not str(error).startswith(f"{partial}: "):
                raise RampflowError(str(error).replace(f"{partial}: ", f"{file.address}: ")) from None
            log.warning("%s; fetching it again", str(error).replace(f"{partial}: ", f"{file.address}: "))
    partial.replace(output)
    log.info("Fetched %s, %d bytes", file.address, file.size)


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
