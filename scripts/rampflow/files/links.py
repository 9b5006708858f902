"""A link for each file that a run reads, in a folder whose name is a hash of the file's content.

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
    """Identify what a file holds.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    trusted : bool
        Whether nobody edits the file, as in a CRDS cache. If it is an ASDF file, the result is `AsdfFile.content_digest`, which
        reads only a part of it. Otherwise every byte is read.

    Returns
    -------
    str
        Sixteen hexadecimal digits.

    Raises
    ------
    RampflowError
        The file can't be read.
    """
    if trusted:
        with contextlib.suppress(RampflowError):  # no ASDF file, or a damaged one, which is reported when it is used
            with AsdfFile(path, parse=False) as file:
                return file.content_digest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise RampflowError(f"{path}: can't be read ({error.strerror})") from None


def stamp_of(status: os.stat_result) -> list[int]:
    """Return what changes whenever a file does.

    A copy may keep the time of modification, but not the time of the last change.

    Parameters
    ----------
    status : os.stat_result
        Status of the file.

    Returns
    -------
    list of int
        Size, and the times of modification and last change, in nanoseconds.
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def link_of(content: str, name: str) -> Path:
    """Name the link to a file.

    Parameters
    ----------
    content : str
        What the file holds, of `content_of`.
    name : str
        Name of the file.

    Returns
    -------
    pathlib.Path
        The link, which need not exist.
    """
    return FOLDER / content / name


def make_link(link: Path, target: Path) -> None:
    """Make a link lead to a file. An older link is replaced, and never missing.

    Parameters
    ----------
    link, target : pathlib.Path
        The link and the file.

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


def folder_of_content(content: str, name: str) -> str:
    """Name the folder that stands for a content.

    Parameters
    ----------
    content : str
        What the file holds, of `content_of`.
    name : str
        Name of the file.

    Returns
    -------
    str
        The folder chosen before the file was fetched, if there was one; else the content itself.
    """
    try:
        return _note_of(content, name).read_text().strip()
    except OSError:
        return content


def record_fetched(link: Path, path: Path) -> None:
    """Make the link to a reference that was fetched into the cache, and note which content it stands for from now on.

    Parameters
    ----------
    link, path : pathlib.Path
        The link and the reference.

    Raises
    ------
    RampflowError
        The link stood for another content before: products made with that would pass for made with this.
    """
    content = content_of(path, trusted=True)
    chosen = link.parent.name
    if folder_of_content(content, path.name) != chosen:
        if os.path.lexists(link):
            raise RampflowError(
                f"{path}: differs from the reference of this name that was last read in this working folder. It is in the "
                "cache now: run again, to repeat the steps that read it"
            )
        with replacing(_note_of(content, path.name), shared=True) as partial:
            partial.write_text(f"{chosen}\n")
    make_link(link, path.absolute())


def is_link(path: str | Path) -> bool:
    """Test whether a path is one of these links.

    Parameters
    ----------
    path : str or pathlib.Path
        Path.

    Returns
    -------
    bool
        Whether it is, by its name.
    """
    return Path(path).parts[-4:-2] == FOLDER.parts


def original(path: str | Path) -> Path:
    """Find the file that a link leads to.

    Parameters
    ----------
    path : str or pathlib.Path
        One of these links, or any other path.

    Returns
    -------
    pathlib.Path
        The file under its own name; any other path as it is.
    """
    path = Path(path)
    if is_link(path) and path.is_symlink():
        return path.readlink()
    return path
