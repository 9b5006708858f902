"""The exposures of a run, each in one association, from the files, folders and association files that the user names."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import json
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rampflow.errors import RampflowError, counted, raise_problems
from rampflow.remote.addresses import is_remote, name_of, parent_of
from rampflow.remote.errors import RemoteError, RemoteMissing
from rampflow.remote.files import RemoteFile, find_files, list_folder, read_file
from rampflow.workflow.exposure_names import (
    CALIBRATED_SUFFIX,
    RAW_SUFFIX,
    Patterns,
    check_name,
    is_calibrated_image,
    matches_name,
    stem_of,
    visit_of,
    without_suffix,
)


class NotThereYet(RampflowError):
    """An input that doesn't exist, is empty or is half written."""


class Member(NamedTuple):
    """A member of an association, as the user names it.

    Attributes
    ----------
    path : pathlib.Path
        Raw file or calibrated image of the exposure. Of a file of the network it has the name alone.
    association : str
        Name of its association.
    tweakreg_catalog : pathlib.Path or None
        Catalog to align it with in place of its own.
    problem : str
        Message about a file of it that doesn't exist; empty if there is none. The exposure can be excluded.
    loose : bool
        Whether it is a calibrated image that no association file names.
    remote : rampflow.remote.files.RemoteFile or None
        The file, if it lies on S3 or a web server.
    """

    path: Path
    association: str
    tweakreg_catalog: Path | None = None
    problem: str = ""
    loose: bool = False
    remote: RemoteFile | None = None

    @property
    def source(self) -> str:
        """Where the file lies.

        Returns
        -------
        str
            Its path or address.
        """
        return self.remote.address if self.remote else str(self.path)


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


def find_members(
    inputs: list[str] | str, folder: Path, exclude: Sequence[str] = (), notices: list[str] | None = None
) -> list[Member]:
    """List the exposures of files, folders and association files.

    Parameters
    ----------
    inputs : list of str or str
        Raw files, calibrated images, patterns of their names (``*_cal.asdf``), folders of them, or association files
        (``.json``); all of these but calibrated images also by their address on S3 or, without patterns and folders, on a
        web server. Of a folder with raw files, calibrated images are not taken. Ramps may be named in place of raw files; they
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
    if is_remote(name):
        return _remote_members_of(name, exclude)
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
    if without_suffix(path.name) in exclude:
        return [_alone(path)]
    problem = f"input {name!r}: does not exist (relative names are taken from {folder})"
    if without_suffix(path.name) == path.name or glob.has_magic(name):
        raise NotThereYet(problem)
    return [_alone(path, problem)]


def _remote_members_of(name: str, exclude: Container[str]) -> list[Member]:
    """The exposures of one address."""
    file_name = name_of(name)
    if file_name.endswith(".json"):
        return read_association(name, exclude)
    if file_name and without_suffix(file_name) != file_name and not glob.has_magic(file_name):
        return _located([_remote_member(name)], exclude)
    pattern = file_name if glob.has_magic(file_name) else f"*{RAW_SUFFIX}"
    files = [file for file in list_folder(parent_of(name) if pattern == file_name else name) if not file.name.startswith(".")]
    if found := [_remote_member(file.address, file) for file in files if fnmatch.fnmatchcase(file.name, pattern)]:
        return found
    raise NotThereYet(f"input {name!r}: there is no file {pattern} ({counted(len(files), 'file')} in all); check the address")


def _remote_member(address: str, file: RemoteFile | None = None, association: str = "") -> Member:
    """The member of an address; the state of its file is not known yet if it isn't given."""
    path = Path(name_of(address))
    problem = ""
    if is_calibrated_image(path):
        problem = f"{address}: calibrated images are aligned from a disk; fetch it and the files beside it, and name the copy"
    return Member(path, association or stem_of(path), problem=problem, remote=file or RemoteFile(address, 0, ""))


def _located(members: list[Member], exclude: Container[str]) -> list[Member]:
    """The members with the state of those files of the network that are not excluded, or what is wrong with them."""
    unknown = {
        m.remote.address
        for m in members
        if m.remote and not m.remote.version and not m.problem and stem_of(m.path) not in exclude
    }
    found = find_files(unknown)
    result = []
    for member in members:
        state = found.get(member.source)
        if isinstance(state, RemoteError):
            member = member._replace(problem=str(state))
        elif state:
            member = member._replace(remote=state)
        result.append(member)
    return result


def read_association(source: Path | str, exclude: Container[str] = ()) -> list[Member]:
    """Read the members of an association file.

    The file has ``products``, each with a ``name`` and ``members``, each with an ``expname`` (relative to the file, or an
    address) and an ``exptype``; only science members are exposures to process. Each product is an association. A member's
    ``tweakreg_catalog`` (relative to the file too) is a catalog with columns x and y to align it with in place of its own.

    Parameters
    ----------
    source : pathlib.Path or str
        Association file, or its address.
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
        content = json.loads(read_file(source) if isinstance(source, str) else source.read_text())
    except RemoteMissing as error:
        raise NotThereYet(str(error)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise NotThereYet(f"{source}: is not a readable JSON file ({error}); give an association file") from None
    products = content.get("products") if isinstance(content, dict) else None
    if not isinstance(products, list) or not products:
        raise RampflowError(f"{source}: has no list 'products'; it is not an association file")
    members: list[Member] = []
    names: set[str] = set()
    problems: list[str] = []
    for product in products:
        name = product.get("name") if isinstance(product, dict) else None
        listed = product.get("members") if isinstance(product, dict) else None
        if not isinstance(name, str) or not name or not isinstance(listed, list):
            raise RampflowError(f"{source}: each of 'products' must have a 'name' and a list 'members'")
        check_name(Path(str(source)), name)
        if name in names:
            raise RampflowError(f"{source}: two of 'products' have the name {name!r}; rename one")
        names.add(name)
        for entry in listed:
            try:
                member = _member_of(source, name, entry, exclude)
            except RampflowError as error:
                problems.append(str(error))
                continue
            if member:
                members.append(member)
    if problems:
        raise_problems(problems + [member.problem for member in members if member.problem])
    if not members:
        raise RampflowError(f"{source}: names no science member")
    return _located(members, exclude)


def _member_of(source: Path | str, name: str, entry, exclude: Container[str]) -> Member | None:
    """The exposure of an entry of `members`; `None` for one that is not science."""
    expname = entry.get("expname") if isinstance(entry, dict) else None
    if not isinstance(expname, str) or not expname:
        raise RampflowError(f"{source}: a member of {name!r} has no 'expname'")
    if entry.get("exptype", "science") != "science":
        return None
    given = entry.get("tweakreg_catalog")
    if isinstance(source, str) or is_remote(expname) or is_remote(str(given)):
        if given not in (None, ""):
            raise RampflowError(
                f"{source}: the member {expname!r} of {name!r} has a tweakreg_catalog, which is read from a disk, together "
                "with the exposure; fetch both, and the association file"
            )
        return _remote_member(expname if is_remote(expname) else f"{parent_of(str(source))}{expname}", association=name)
    exposure = source.parent / expname
    if stem_of(exposure) in exclude:
        return Member(exposure, name)
    if not _is_file(exposure):
        problem = f"{source}: the member {expname!r} of {name!r} does not exist beside the file"
        return Member(exposure, name, problem=problem)
    if given in (None, ""):
        return Member(exposure, name)
    catalog = source.parent / str(given)
    problem = f"{source}: the tweakreg_catalog {given!r} of the member {expname!r} does not exist beside the file"
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
        elif not _is_same_file(earlier, member):
            names = dict.fromkeys((earlier.path.name, member.path.name))
            problems.append(
                f"input: two files are named {' and '.join(names)} ({earlier.source} and {member.source}); their products "
                "would have the same names: process them in two runs"
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


def _is_same_file(one: Member, other: Member) -> bool:
    if one.remote or other.remote:
        return one.source == other.source
    return one.path.resolve() == other.path.resolve()
