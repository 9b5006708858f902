"""The transfer of a raw exposure from S3 or a web server, which is checked and appears whole."""

from __future__ import annotations

import glob
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.remote.files import RemoteFile
from rampflow.remote.transfer import download
from rampflow.step.logs import step_logger

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
            if partial.exists() and 0 < partial.stat().st_size < file.size:
                raise  # to be continued
            partial.unlink(missing_ok=True)
            if is_last or not str(error).startswith(f"{partial}: "):
                raise RampflowError(str(error).replace(f"{partial}: ", f"{file.address}: ")) from None
            log.warning("%s; fetching it again", str(error).replace(f"{partial}: ", f"{file.address}: "))
    partial.replace(output)
    log.info("Fetched %s, %d bytes", file.address, file.size)
