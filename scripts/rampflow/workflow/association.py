"""The exposures of a run, each in one association, from the files, folders and association files that the user names."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import json
import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rampflow.errors import RampflowError, raise_problems

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


class NotThereYet(RampflowError):
    """An input that doesn't exist, is empty or is half written."""


class Member(NamedTuple):
    """A member of an association, as the user names it.

    Attributes
    ----------
    path : pathlib.Path
        Raw file or calibrated image of the exposure.
    association : str
        Name of its association.
    tweakreg_catalog : pathlib.Path or None
        Catalog to align it with in place of its own.
    problem : str
        Message about a file of it that doesn't exist; empty if there is none. The exposure can be excluded.
    loose : bool
        Whether it is a calibrated image that no association file names.
    """

    path: Path
    association: str
    tweakreg_catalog: Path | None = None
    problem: str = ""
    loose: bool = False


def describe_visits(visits: Mapping[str, Iterable[str]]) -> dict:
    """Make the content of an association file with a product for each visit.

    Parameters
    ----------
    visits : mapping
        Files of each visit, by its name; relative to the file, or absolute.

    Returns
    -------
    dict
        The content, with ``products``: each has the ``name`` of a visit and its ``members``.
    """
    products = [
        {"name": name, "members": [{"expname": file, "exptype": "science"} for file in files]} for name, files in visits.items()
    ]
    return {"asn_type": "visit", "asn_rule": "visit", "program": next(iter(visits))[1:6], "products": products}


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
    stem = _without_suffix(path.name)
    if stem in ("", path.name):
        raise RampflowError(
            f"{path}: is not a raw exposure by its name, which must end in {RAW_SUFFIX} (that of a ramp: in "
            f"{', '.join(RAMP_SUFFIXES[:-1])} or {RAMP_SUFFIXES[-1]}; that of a calibrated image: in {CALIBRATED_SUFFIX})"
        )
    check_name(path, stem)
    return stem


def _without_suffix(name: str) -> str:
    """The name of a file without the suffix of a raw exposure, a calibrated image or a ramp; unchanged if it has none."""
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


def find_members(
    inputs: list[str] | str, folder: Path, exclude: Sequence[str] = (), notices: list[str] | None = None
) -> list[Member]:
    """List the exposures of files, folders and association files.

    Parameters
    ----------
    inputs : list of str or str
        Raw files, calibrated images, patterns of their names (``*_cal.asdf``), folders of them, or association files
        (``.json``). Of a folder with raw files, calibrated images are not taken. Ramps may be named in place of raw files; they
        are not looked for in folders, which may have those of a run.
    folder : pathlib.Path
        Where relative names are taken from.
    exclude : sequence of str
        Stems of exposures to leave out, or patterns of them (``*_wfi07_*``): their files need not be there.
    notices : list of str, optional
        For inputs that are still arriving: takes a line for each input, and each name in `exclude`, that is not there yet. By
        default, these are errors.

    Returns
    -------
    list of Member
        A raw file named alone, or found in a folder, is an association of its own with the exposure's stem for a name.
        Calibrated images without an association file are one association for each visit, with the visit's name. Members
        whose files don't exist are listed with the `Member.problem`: the caller reports them with what else is wrong.

    Raises
    ------
    RampflowError
        A folder holds no raw file, an association file is not one, two exposures or associations have the same name, an
        exposure is in two associations, or `exclude` names an exposure that no input has; the message names every such input,
        and the files that don't exist.
    """
    members: list[Member] = []
    problems = []
    malformed = False
    excluded = Patterns(exclude)
    for name in [inputs] if isinstance(inputs, str) else inputs:
        try:
            found = _members_of(name, folder, excluded)
        except (RampflowError, OSError) as error:
            reason = (
                f"input {name!r}: can't be read ({error.strerror}: {error.filename})" if isinstance(error, OSError) else error
            )
            if notices is not None and isinstance(error, NotThereYet | OSError):
                notices.append(str(reason))
                continue
            problems.append(str(reason))
            malformed = True
            continue
        again = {m.path.name for m in found} & {m.path.name for m in members}
        shared = {m.association for m in found} & {m.association for m in members}
        if shared and not again and not all(m.loose for m in (*found, *members) if m.association in shared):
            problems.append(
                f"input {name!r}: another input has an association of the name {min(shared)!r} too; their products would have "
                "the same names: rename one"
            )
            malformed = True
        problems += [member.problem for member in found if member.problem]
        members.extend(found)
    if malformed:
        raise_problems(problems)
    stems = {stem_of(member.path) for member in members}
    unknown = {name for name in set(exclude) - stems if not any(matches_name(name, stem) for stem in stems)}
    lines = [f"configuration: exclude: no input is an exposure of the name {name!r}" for name in sorted(unknown)]
    if notices is None:
        raise_problems(lines)
    else:
        notices += lines
    return _checked([member for member in members if stem_of(member.path) not in excluded])


def find_excluded(inputs: list[str] | str, folder: Path, exclude: Sequence[str]) -> list[Member]:
    """List the exposures that are left out.

    Parameters
    ----------
    inputs : list of str or str
        Inputs that `find_members` accepts.
    folder : pathlib.Path
        Where relative names are taken from.
    exclude : sequence of str
        Stems of exposures to leave out, or patterns of them.

    Returns
    -------
    list of Member
        The excluded exposures, whose files need not exist.
    """
    excluded = Patterns(exclude)
    names = [inputs] if isinstance(inputs, str) else inputs
    members: list[Member] = []
    for name in names if exclude else ():
        with contextlib.suppress(NotThereYet, OSError):  # `find_members` has accepted it
            members += _members_of(name, folder, excluded)
    return [member for member in members if stem_of(member.path) in excluded]


def _alone(path: Path, problem: str = "") -> Member:
    """The member of a file without an association file."""
    stem, loose = stem_of(path), is_calibrated_image(path)
    return Member(path, visit_of(stem) if loose else stem, problem=problem, loose=loose)


def _members_of(name: str, folder: Path, exclude: Container[str]) -> list[Member]:
    """The exposures of one input."""
    path = folder / os.path.expanduser(name)
    if path.is_dir():
        names = [n for n in os.listdir(path) if not n.startswith(".")]  # without hidden files
        for suffix in (RAW_SUFFIX, CALIBRATED_SUFFIX):
            if found := sorted(path / n for n in names if n.endswith(suffix) and not (path / n).is_dir()):
                return [_alone(p) for p in found]
        raise NotThereYet(f"input {name!r}: the folder holds no file that ends in {RAW_SUFFIX} or {CALIBRATED_SUFFIX}")
    if path.suffix == ".json" and path.is_file():
        return read_association(path, exclude)
    if path.exists():
        return [_alone(path)]
    if found := sorted(map(Path, glob.glob(str(path)))):
        return [_alone(p) for p in found]
    if _without_suffix(path.name) in exclude:
        return [_alone(path)]
    problem = f"input {name!r}: does not exist (relative names are taken from {folder})"
    if _without_suffix(path.name) == path.name or glob.has_magic(name):
        raise NotThereYet(problem)
    return [_alone(path, problem)]


def read_association(path: Path, exclude: Container[str] = ()) -> list[Member]:
    """Read the members of an association file.

    The file has ``products``, each with a ``name`` and ``members``, each with an ``expname`` (relative to the file) and an
    ``exptype``; only science members are exposures to process. Each product is an association. A member's
    ``tweakreg_catalog`` (relative to the file too) is a catalog with columns x and y to align it with in place of its own.

    Parameters
    ----------
    path : pathlib.Path
        Association file.
    exclude : container of str
        Stems of exposures whose files need not be there.

    Returns
    -------
    list of Member
        Those whose files don't exist have a `Member.problem`.

    Raises
    ------
    RampflowError
        It can't be parsed (`NotThereYet`) or lacks these entries; the message names every one, and the files that don't exist.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise NotThereYet(f"{path}: is not a readable JSON file ({error}); give an association file") from None
    products = content.get("products") if isinstance(content, dict) else None
    if not isinstance(products, list) or not products:
        raise RampflowError(f"{path}: has no list 'products'; it is not an association file")
    members: list[Member] = []
    names: set[str] = set()
    problems: list[str] = []
    malformed = False
    for product in products:
        name = product.get("name") if isinstance(product, dict) else None
        listed = product.get("members") if isinstance(product, dict) else None
        if not isinstance(name, str) or not name or not isinstance(listed, list):
            raise RampflowError(f"{path}: each of 'products' must have a 'name' and a list 'members'")
        check_name(path, name)
        if name in names:
            raise RampflowError(f"{path}: two of 'products' have the name {name!r}; rename one")
        names.add(name)
        for entry in listed:
            try:
                member = _member_of(path, name, entry, exclude)
            except RampflowError as error:
                problems.append(str(error))
                malformed = True
                continue
            if member:
                members.append(member)
                problems += [member.problem] * bool(member.problem)
    if malformed:
        raise_problems(problems)
    if not members:
        raise RampflowError(f"{path}: names no science member")
    return members


def _member_of(path: Path, name: str, entry, exclude: Container[str]) -> Member | None:
    """The exposure of an entry of `members`; `None` for one that is not science."""
    expname = entry.get("expname") if isinstance(entry, dict) else None
    if not isinstance(expname, str) or not expname:
        raise RampflowError(f"{path}: a member of {name!r} has no 'expname'")
    if entry.get("exptype", "science") != "science":
        return None
    exposure = path.parent / expname
    if stem_of(exposure) in exclude:
        return Member(exposure, name)
    if not _is_file(exposure):
        problem = f"{path}: the member {expname!r} of {name!r} does not exist beside the file"
        return Member(exposure, name, problem=problem)
    given = entry.get("tweakreg_catalog")
    if given in (None, ""):
        return Member(exposure, name)
    catalog = path.parent / str(given)
    problem = f"{path}: the tweakreg_catalog {given!r} of the member {expname!r} does not exist beside the file"
    return Member(exposure, name, catalog, "" if _is_file(catalog) else problem)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder without read permission
        return False


def _checked(members: list[Member]) -> list[Member]:
    """One member per exposure, or an error that says which is there twice."""
    seen: dict[str, Member] = {}
    result, problems = [], []
    for member in members:
        stem = stem_of(member.path)
        earlier = seen.setdefault(stem, member)
        if earlier is member:
            result.append(member)
        elif earlier.path.resolve() != member.path.resolve():
            names = dict.fromkeys((earlier.path.name, member.path.name))
            problems.append(
                f"input: two files are named {' and '.join(names)} ({earlier.path} and {member.path}); their products would "
                "have the same names: process them in two runs"
            )
        elif earlier.association != member.association:
            problems.append(
                f"input: the exposure {stem} is in two associations, {earlier.association!r} and {member.association!r}; "
                "its products can only follow one: process them in two runs with different results folders"
            )
        else:
            problems.append(f"input: the exposure {stem} is given twice in {member.association!r}; name it once")
    raise_problems(problems)
    return result
