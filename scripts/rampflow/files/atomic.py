"""Write files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rampflow.errors import RampflowError

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
        The file can't be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".rampflow-*/{glob.escape(path.name)}"):
            with contextlib.suppress(FileNotFoundError):  # its writer has ended since
                if not shared or time.time() - leftover.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(leftover.parent, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".rampflow-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            partial = Path(folder) / path.name
            yield partial
            partial.replace(path)
    except OSError as error:
        raise RampflowError(f"{path}: can't be written ({error.strerror or error})") from error
