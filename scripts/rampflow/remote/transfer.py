"""Transfers of whole files from the network, which continue where they were cut."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.remote.errors import RemoteError, RemoteRefused, RemoteWithoutParts, named_errors
from rampflow.remote.files import RemoteFile, request

ATTEMPTS = 5  #: of a transfer that gets no byte further
_CHUNK = 1 << 20  #: bytes that are written at a time: so many are lost if a transfer is cut
_PAUSE = 0.5  #: seconds before the second attempt; twice as many before each later one


def download(file: RemoteFile, target: Path, warn: Callable[[str], None]) -> bool:
    """Bring a file of the network to this machine, and check it.

    Parameters
    ----------
    file : RemoteFile
        The file, as it was found.
    target : pathlib.Path
        Where it is written. What an earlier transfer of the same file has left there is continued.
    warn : callable
        Takes a message for each time that the transfer was cut.

    Returns
    -------
    bool
        Whether all bytes agree with the file's checksum. False: the server gives none, and only their number was compared.

    Raises
    ------
    RemoteError
        The file has changed since, or can't be read.
    RampflowError
        It can't be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("ab") as output:
            if output.tell() > file.size:
                output.truncate(0)
            failures = furthest = 0
            while (done := output.seek(0, 2)) < file.size:
                try:
                    with named_errors(file.address):
                        for chunk in request(file, done).stream(_CHUNK):
                            output.write(chunk)
                    failures += 1  # an answer that ends too early
                    error: RemoteError | None = None
                except RemoteRefused:
                    raise
                except RemoteWithoutParts as caught:
                    output.truncate(0)
                    error, failures = caught, failures + 1
                except RemoteError as caught:
                    error, failures = caught, failures + 1
                output.flush()
                reached = output.seek(0, 2)
                if reached == file.size:
                    break
                failures = 1 if reached > max(done, furthest) else failures
                furthest = max(furthest, reached)
                if failures >= ATTEMPTS:
                    raise error or RemoteError(
                        f"{file.address}: the answer ends at byte {reached} of {file.size}; check the server, and start again"
                    )
                warn(f"{file.address}: cut at byte {reached} of {file.size} ({error or 'the answer ends there'}); continuing")
                time.sleep(_PAUSE * 2 ** (failures - 1))
    except OSError as error:
        raise RampflowError(f"{target}: can't be written ({error.strerror or error})") from None
    if (size := target.stat().st_size) != file.size:
        raise RemoteError(f"{file.address}: the server has sent {size} bytes, and the file has {file.size}; start again")
    return _agrees_with_tag(target, file)


def _agrees_with_tag(path: Path, file: RemoteFile) -> bool:
    """Whether the ETag is the MD5 of the bytes. That of a large or an encrypted object of S3 is none."""
    if not re.fullmatch('"[0-9a-f]{32}"', file.version):
        return False
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
    return f'"{digest.hexdigest()}"' == file.version
