"""The folder of this user for what is remembered of files from one run to another, in all working folders."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Name the folder.

    Returns
    -------
    pathlib.Path
        ``rampflow`` in ``$XDG_CACHE_HOME``, or in ``~/.cache`` without that variable. It need not exist, and it may be a folder
        that can't be written: what it holds only saves time.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "rampflow")
