"""The version of this software: the next release, the commit, and whether files have changed since the commit.

Products, logs and the report record it, as ``0.2.0.dev276+g020e13c``: the 276th commit on the way to 0.2.0, of this hash.
It ends in ``.dirty`` where tracked files differ from the commit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

#: The release to come, or this one where its commit has the tag. In a file of its own, as a new number is no new code.
RELEASE = Path(__file__).with_name("release.txt").read_text().strip()
CLONE = Path(__file__).resolve().parent.parent.parent
VARIABLE = "RAMPFLOW_VERSION"  #: environment variable that the workflow sets for its jobs, so that they don't ask git
ARCHIVE = Path(__file__).with_name("archive.txt")  #: `git archive` writes the hash of the commit into it


def from_git(folder: Path) -> str | None:
    """Derive the version from a git repository.

    Parameters
    ----------
    folder : pathlib.Path
        Root of the repository.

    Returns
    -------
    str or None
        The version; `None` where the folder is not the root of a repository, or git is missing or fails.
    """
    if not (folder / ".git").exists():
        return None
    import subprocess  # not needed by jobs of the workflow

    def _git(*arguments):
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        tag = _git("describe", "--always", "--dirty", "--exclude=*")
        commit, dirty = tag.removesuffix("-dirty"), ".dirty" * tag.endswith("-dirty")
        if not dirty and f"v{RELEASE}" in _git("tag", "--points-at", "HEAD").split():
            return RELEASE
        return f"{RELEASE}.dev{_git('rev-list', '--count', 'HEAD')}+g{commit}{dirty}"
    except (OSError, subprocess.SubprocessError):
        return None


def from_archive(path: Path) -> str | None:
    """Derive the version from the file into which `git archive` writes the commit.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    str or None
        The version; `None` where the file is missing or holds no commit, as in a clone.
    """
    try:
        found = re.fullmatch(r"([0-9a-f]{7,40})", path.read_text().strip())
    except OSError:
        return None
    return f"{RELEASE}.dev0+g{found[1]}" if found else None


def from_package() -> str | None:
    """Look up the version of the installed package.

    Returns
    -------
    str or None
        The version; `None` where it is not installed.
    """
    import importlib.metadata

    try:
        return importlib.metadata.version("rampflow")
    except importlib.metadata.PackageNotFoundError:
        return None


def find_version() -> str:
    """Find the version of this software.

    Returns
    -------
    str
        The version from the first source that has one: the variable `VARIABLE` of the environment, git, the archive, the
        installed package.
    """
    return os.environ.get(VARIABLE) or from_git(CLONE) or from_archive(ARCHIVE) or from_package() or f"{RELEASE}.dev0+unknown"
