"""The folder of this user for what is remembered of files from one run to another, in all working folders."""

from __future__ import annotations

import os
from pathlib import Path

#: In place of the folder of a user who has none: a path below a file that is no folder can't be made.
NO_FOLDER = Path(os.devnull)


def user_cache() -> Path:
    """Name the folder.

    Returns
    -------
    pathlib.Path
        ``rampflow`` in ``$XDG_CACHE_HOME``, or in ``~/.cache`` without that variable. It need not exist, and it may be a folder
        that can't be written: what it holds only saves time. A user without a home folder, as in a container that runs under
        any number, has none: the path can't be made then.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"))
    # Relative paths would be folders in the working folder; "~" is left where the user has no home folder.
    return (folder if folder.is_absolute() else NO_FOLDER) / "rampflow"
