"""Which blocks of a reference are known to match their checksums.

The checksum of a block is an MD5 of all its bytes. For the references of a full frame, it takes 1.1 s of processor time to
compute them. A file that has not changed since need not be checked again: the job that checks a block notes in the folder
``intact`` of `user_cache` that it is intact, for all later jobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.links import stamp_of
from rampflow.files.user_cache import user_cache

SMALLEST_FILE = 1 << 20  #: bytes; smaller files are checked sooner than their notes are read
#: Seconds after which a file is checked again: a disk may damage a file without a change of its times.
OLDEST_NOTE = 30 * 86400


@contextlib.contextmanager
def remembering_intact_blocks(file: AsdfFile) -> Iterator[None]:
    """Take over which blocks of a file are intact from earlier jobs, and note for later ones which are found to be.

    Parameters
    ----------
    file : AsdfFile
        The file, open.

    Yields
    ------
    None
        While the file is read.
    """
    status = file.status()
    if status.st_size < SMALLEST_FILE:
        yield
        return
    note, stamp = note_of(file.path), stamp_of(status)
    known = _read_note(note, stamp)
    file.intact |= known
    yield
    if file.intact > known and stamp_of(file.status()) == stamp:
        with contextlib.suppress(RampflowError, OSError), replacing(note, shared=True) as partial:  # a note only saves time
            partial.write_text(json.dumps({"stamp": stamp, "intact": sorted(file.intact)}))
            _remove_old_notes(note.parent)


def note_of(path: Path) -> Path:
    """Name the note on a file.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    pathlib.Path
        The note, which need not exist.
    """
    return user_cache() / "intact" / f"{hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:16]}.json"


def _read_note(note: Path, stamp: list[int]) -> set[int]:
    """Places of the blocks that are noted as intact; none if the file has changed since, or the note is old or damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads(note.read_bytes())
        if noted["stamp"] == stamp and time.time() - note.stat().st_mtime < OLDEST_NOTE:
            return {int(place) for place in noted["intact"]}
    return set()


def _remove_old_notes(folder: Path) -> None:
    for note in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # removed by another job
            if time.time() - note.stat().st_mtime > OLDEST_NOTE:
                note.unlink()
