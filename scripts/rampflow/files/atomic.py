"""Write files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rampflow.errors import RampflowError

_PREFIX = ".rampflow-"  #: of the temporary folders
_ABANDONED = 86_400  #: seconds after which a partial file that another process may be writing counts as abandoned


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, shared: bool = False) -> Iterator[Path]:
    """Write a file in a temporary folder beside its final place, and move it there when the block ends without an error.

    Partial files that killed writers of the same file left behind are removed.

    Parameters
    ----------
    path : path-like
        Final name of the file. Missing parent folders are made.
    shared : bool
        Other processes may be writing the same file: only partial files older than a day are removed.

    Yields
    ------
    pathlib.Path
        Name of the temporary file, to be written by the caller.

    Raises
    ------
    RampflowError
        The file can't be written; the message has the final name, even if that lies in a temporary folder of this function.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f"{_PREFIX}*/{glob.escape(path.name)}"):
            with contextlib.suppress(FileNotFoundError):  # its writer has ended since
                if not shared or time.time() - leftover.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(leftover.parent, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent, ignore_cleanup_errors=True) as folder:
            partial = Path(folder) / path.name
            yield partial
            partial.replace(path)
    except OSError as error:
        final = path.parent.parent / path.name if path.parent.name.startswith(_PREFIX) else path
        raise RampflowError(f"{final}: can't be written ({describe_error(error)})") from error


def describe_error(error: OSError) -> str:
    """Describe why a file can't be written, and what to do if the disk is full.

    Parameters
    ----------
    error : OSError
        The error of the system, or that of a library that has its number.

    Returns
    -------
    str
        Description without the name of the file.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{os.strerror(error.errno)}: make room there, then start the same command again"
    return error.strerror or str(error)
