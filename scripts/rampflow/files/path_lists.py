"""Lists of files that are too long for a command line: written to a file, and named as ``@FILE``.

Linux takes no word of more than 128 kB, and a shell command of Snakemake is one word. The paths of 1,200 images have more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing

MARK = "@"
FOLDER = Path(".rampflow/lists")  #: in the working folder


def write_list(paths: Iterable[str]) -> str:
    """Write a list of paths, or of other lines, to a file whose name depends on the list.

    Parameters
    ----------
    paths : iterable of str
        Paths, each a line.

    Returns
    -------
    str
        The argument that stands for the list, ``@FILE``; empty for an empty list.
    """
    text = "".join(f"{path}\n" for path in paths)
    if not text:
        return ""
    file = FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
    if not file.exists():
        with replacing(file, shared=True) as partial:
            partial.write_text(text)
    return f"{MARK}{file}"


def read_list(arguments: Sequence[str]) -> list[str]:
    """Read the paths that arguments name.

    Parameters
    ----------
    arguments : sequence of str
        Paths, or ``@FILE`` for a file that has one in each line.

    Returns
    -------
    list of str
        The paths in order.

    Raises
    ------
    RampflowError
        A file of a list can't be read.
    """
    paths = []
    for argument in arguments:
        if argument.startswith(MARK):
            try:
                paths += Path(argument.removeprefix(MARK)).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise RampflowError(
                    f"{argument}: this list of files can't be read ({error}); give one path in each line"
                ) from None
        else:
            paths.append(argument)
    return paths
