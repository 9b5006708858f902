"""A folder for the caches of other packages: compiled loops of numba, source files of Snakemake, downloads of astropy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(".rampflow/cache")  #: in the working folder


def find_cache_folder(environment: Mapping[str, str], working: Path) -> Path | None:
    """Find a folder for caches where the usual one can't be written: the home folder is missing, full or another user's.

    Parameters
    ----------
    environment : mapping
        Environment variables.
    working : pathlib.Path
        The working folder.

    Returns
    -------
    pathlib.Path or None
        A folder in the working folder, for XDG_CACHE_HOME; None where the usual folder can be written.
    """
    usual = Path(environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"))
    # Relative: "~" of a user without a home folder.
    return None if usual.is_absolute() and _is_writable(usual) else working / FOLDER


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which may still have to be made itself."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    except OSError:  # a part of the path can't be read
        return False
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
