"""Names of exposures, of their files and visits, and patterns of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Container, Iterable
from pathlib import Path

from rampflow.errors import RampflowError

RAW_SUFFIX = "_uncal.asdf"
RAMP_SUFFIXES = ("_dqinit.asdf", "_dq_init.asdf", "_ramp.asdf")  #: ends of the names of ramps, as romancal knows them
#: End of the name of a calibrated image, which is aligned and written anew.
CALIBRATED_SUFFIX = "_cal.asdf"
#: Maximum length of a name, bytes: with the suffixes of the workflow it must fit into the 255 of a file system.
LONGEST = 200
SPECIAL = "{}<>;?#%"  #: in a path, Snakemake interprets the first four, and asdf the others as parts of a URL


def is_plain(path: str) -> bool:
    """Test whether Snakemake and asdf take a path as it is: without `SPECIAL` and control characters.

    Parameters
    ----------
    path : str
        Path to test.

    Returns
    -------
    bool
        True if the path has none of these characters.
    """
    return path.isprintable() and not set(path) & set(SPECIAL)


def is_calibrated_image(path: Path) -> bool:
    """Test whether a file is a calibrated image by its name.

    Parameters
    ----------
    path : pathlib.Path
        File of an exposure.

    Returns
    -------
    bool
        Whether the name ends in ``_cal.asdf``.
    """
    return path.name.endswith(CALIBRATED_SUFFIX)


def visit_of(stem: str) -> str:
    """Extract the name of the visit from the name of an exposure.

    Parameters
    ----------
    stem : str
        Name of the exposure.

    Returns
    -------
    str
        Name of the visit (``rPPPPPCCAAASSSOOOVVV``): all before the first ``_``.
    """
    return stem.partition("_")[0]


def matches_name(pattern: str, name: str) -> bool:
    """Test whether a text is a name, or a pattern of it.

    Parameters
    ----------
    pattern : str
        Name, or pattern with ``*``, ``?`` or ``[...]``.
    name : str
        Name to test. Of numbers, zeros at the beginning don't count.

    Returns
    -------
    bool
        Whether it matches.
    """
    return _plain(pattern) == _plain(name) or fnmatch.fnmatchcase(name, pattern)


def _plain(text: str) -> str:
    return text.lstrip("0") or "0" if text.isdecimal() else text


class Patterns(Container[str]):
    """Names of exposures, and patterns of them.

    Parameters
    ----------
    patterns : iterable of str
        Names, or patterns as `matches_name` accepts them.
    """

    def __init__(self, patterns: Iterable[str]):
        self._patterns = tuple(patterns)
        self._names = frozenset(self._patterns)

    def __contains__(self, name: object) -> bool:
        return name in self._names or any(matches_name(pattern, str(name)) for pattern in self._patterns)


def stem_of(path: Path) -> str:
    """Return the name of an exposure: the name of its file without ``_uncal.asdf``, ``_cal.asdf`` or one of `RAMP_SUFFIXES`.

    Parameters
    ----------
    path : pathlib.Path
        Raw file, ramp or calibrated image.

    Returns
    -------
    str
        Name of the exposure.

    Raises
    ------
    RampflowError
        The file name doesn't end so, or `check_name` refuses the rest.
    """
    stem = without_suffix(path.name)
    if stem in ("", path.name):
        raise RampflowError(
            f"{path}: is not a raw exposure by its name, which must end in {RAW_SUFFIX} (that of a ramp: in "
            f"{', '.join(RAMP_SUFFIXES[:-1])} or {RAMP_SUFFIXES[-1]}; that of a calibrated image: in {CALIBRATED_SUFFIX})"
        )
    check_name(path, stem)
    return stem


def without_suffix(name: str) -> str:
    """Take the suffix of a raw exposure, a calibrated image or a ramp from the name of a file.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    str
        The name without the suffix; unchanged if it has none.
    """
    suffix = next((suffix for suffix in (RAW_SUFFIX, CALIBRATED_SUFFIX, *RAMP_SUFFIXES) if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def check_name(path: Path, name: str) -> None:
    """Refuse the name of an exposure or an association that can't be part of the names of its products.

    Parameters
    ----------
    path : pathlib.Path
        File that has or gives the name, for the message.
    name : str
        Name to check.

    Raises
    ------
    RampflowError
        The name has a special character or a dot at its beginning, is too long, or ends in twenty repetitions of one text.
    """
    size = len(name.encode(errors="replace"))
    if name.startswith(".") or "/" in name or not is_plain(name):
        raise RampflowError(
            f"{str(path)!r}: the name {name!r} can't be part of a file name of its products; choose one without '/', any of "
            f"{SPECIAL}, control characters and a dot at its beginning"
        )
    if re.search(r"(.+)\1{19}$", name):  # Snakemake would report a rule that calls itself endlessly
        raise RampflowError(f"{path}: the name {name!r} ends in twenty repetitions of one text; choose another")
    if size > LONGEST:
        raise RampflowError(f"{path}: the name {name[:40]!r}... has {size} bytes; choose one of at most {LONGEST}")
