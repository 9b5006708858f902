"""SHA-256 checksums of whole files, which ``sha256sum`` of the shell compares, and the lines of a log that have them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.files.links import stamp_of

_LINE = re.compile(r" :: SHA-256 of (?P<name>.+): (?P<sum>[0-9a-f]{64}) \((?P<size>\d+) bytes\)$", re.MULTILINE)


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file: 0.17 s of processor time for a raw exposure of 311 MB.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    RampflowError
        The file can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RampflowError(f"{path}: can't be read ({error.strerror})") from None


def log_checksum(log: logging.Logger, path: Path, checksum: str | None = None) -> None:
    """Log the checksum of a file. A job that has just read or written it finds it in the memory of the system.

    Parameters
    ----------
    log : logging.Logger
        The log of the job.
    path : pathlib.Path
        The file.
    checksum : str, optional
        Its SHA-256, if it is known.

    Raises
    ------
    RampflowError
        The file can't be read.
    """
    log.info("SHA-256 of %s: %s (%d bytes)", path.name, checksum or sha256_of(path), path.stat().st_size)


def logged_checksums(log: Path) -> dict[str, tuple[int, str]]:
    """Read the checksums that a job has logged.

    Parameters
    ----------
    log : pathlib.Path
        The log.

    Returns
    -------
    dict
        Size in bytes and checksum by the name of the file; empty if there is no such log.
    """
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return {}
    return {found["name"]: (int(found["size"]), found["sum"]) for found in _LINE.finditer(text)}


def remembered_checksums(paths: Iterable[str], memory: Path, *, compute: bool = True) -> dict[str, str]:
    """Compute the checksums of files that were not there, or were others, the last time.

    Parameters
    ----------
    paths : iterable of str
        The files.
    memory : pathlib.Path
        File (JSON) that remembers the checksums, by the size and times of each file.
    compute : bool
        False: only those that are remembered.

    Returns
    -------
    dict of str
        Checksum by path; without files that can't be read.
    """
    known = _read_memory(memory)
    stamps: dict[str, list[int]] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            stamps[path] = stamp_of(Path(path).stat())
    current = {path: known[path][1] for path, stamp in stamps.items() if known.get(path, [None])[0] == stamp}
    missing = [path for path in stamps if path not in current] if compute else []
    if not missing:
        return current
    with ThreadPoolExecutor(4) as pool:  # hashlib lets go of the interpreter
        current |= {path: found for path, found in zip(missing, pool.map(_sha256_or_nothing, missing), strict=True) if found}
    # Shared: runs that end at the same time write the same file. What others have added meanwhile is kept.
    with contextlib.suppress(RampflowError), replacing(memory, shared=True) as partial:
        partial.write_text(json.dumps(_read_memory(memory) | {path: (stamps[path], current[path]) for path in current}))
    return current


def _read_memory(memory: Path) -> dict[str, list]:
    """Stamp and checksum of each file that is remembered; without entries that are damaged."""
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    entries = known.items() if isinstance(known, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)}


def _sha256_or_nothing(path: str) -> str:
    try:
        return sha256_of(Path(path))
    except RampflowError:
        return ""
