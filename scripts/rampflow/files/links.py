"""Files by their content: a link for each file that a run reads, in a folder named for what is in it.

Snakemake asks whether the names of a job's inputs have changed. ``.rampflow/files/CONTENT/NAME`` stays the same when a cache or
a raw file has moved, was copied or touched, and is another one when a file of the same name holds something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing

FOLDER = Path(".rampflow/files")  #: in the working folder


def content_of(path: Path, *, trusted: bool) -> str:
    """What a file holds, as 16 hexadecimal digits.

    Parameters
    ----------
    path : pathlib.Path
    trusted : bool
        Nobody edits it (a file of a CRDS cache): of an ASDF file no more is read than `AsdfFile.content` needs. Of all others
        every byte is read.

    Raises
    ------
    RampflowError
        It can't be read.
    """
    if trusted:
        with contextlib.suppress(RampflowError):  # no ASDF file, or a damaged one: who reads it will say so
            with AsdfFile(path, parse=False) as file:
                return file.content()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise RampflowError(f"{path}: can't be read ({error.strerror})") from None


def link_of(content: str, name: str) -> Path:
    """The link to a file of this content and name."""
    return FOLDER / content / name


def point(link: Path, target: Path) -> None:
    """Make a link lead to a file; at no time is there none where there was one.

    Raises
    ------
    RampflowError
        The file system takes no links, or the folder can't be written.
    """
    with contextlib.suppress(OSError):
        if os.readlink(link) == os.fspath(target):
            return
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rampflow-", dir=link.parent) as folder:
            partial = Path(folder) / "link"
            partial.symlink_to(target)
            partial.replace(link)
    except OSError as error:
        raise RampflowError(
            f"{link.absolute()}: a symbolic link can't be made ({error.strerror}); work in a folder that can be written, on a "
            "file system that takes symbolic links"
        ) from None


def _note_of(content: str, name: str) -> Path:
    return FOLDER / content / f"{name}.fetched"


def standing_for(content: str, name: str) -> str:
    """The folder that stands for a content: of its name, or the one that was chosen before the file had been fetched."""
    try:
        return _note_of(content, name).read_text().strip()
    except OSError:
        return content


def record_fetched(link: Path, path: Path) -> None:
    """Make the link to a reference that has come into the cache, and note which content it stands for from now on.

    Raises
    ------
    RampflowError
        The link has stood for another content: what was made with that would pass for made with this.
    """
    content = content_of(path, trusted=True)
    chosen = link.parent.name
    if standing_for(content, path.name) != chosen:
        if os.path.lexists(link):
            raise RampflowError(
                f"{path}: is not what a reference of this name held when it was last read in this working folder; it is in the "
                "cache now: run again, and what reads it is made anew"
            )
        with replacing(_note_of(content, path.name), shared=True) as partial:
            partial.write_text(f"{chosen}\n")
    point(link, path.absolute())


def original(path: str | Path) -> Path:
    """The file that one of these links leads to, under its own name; any other path as it is."""
    path = Path(path)
    if path.parts[-4:-2] == FOLDER.parts and path.is_symlink():
        return path.readlink()
    return path
