"""Which blocks of a reference are known to match their checksums.

The checksum of a block is an MD5 of all its bytes. For the references of a full frame, it takes 1.1 s of processor time per
exposure to compute them. A file that has not changed since need not be checked again: the first job that reads a block notes
beside the link to the file (`rampflow.files.links`) that it is intact.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.links import is_link, stamp_of


@contextlib.contextmanager
def remembering_intact_blocks(file: AsdfFile, given: str | Path) -> Iterator[None]:
    """Take over which blocks of a file are intact from earlier jobs, and note for later ones which are found to be.

    Parameters
    ----------
    file : AsdfFile
        The file, open.
    given : str or pathlib.Path
        The path by which the job knows the file. Only beside a link of `rampflow.files.links` is something noted: without one,
        every job checks all blocks that it reads.

    Yields
    ------
    None
        While the file is read.
    """
    if not is_link(given):
        yield
        return
    note, stamp = Path(f"{given}.intact"), stamp_of(file.status())
    known = _read_note(note, stamp)
    file.intact |= known
    yield
    if file.intact > known and stamp_of(file.status()) == stamp:
        with contextlib.suppress(RampflowError), replacing(note, shared=True) as partial:  # a note only saves time
            partial.write_text(json.dumps({"stamp": stamp, "intact": sorted(file.intact)}))


def _read_note(note: Path, stamp: list[int]) -> set[int]:
    """Places of the blocks that are noted as intact; none if the file has changed since, or the note can't be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads(note.read_bytes())
        if noted["stamp"] == stamp:
            return {int(place) for place in noted["intact"]}
    return set()
