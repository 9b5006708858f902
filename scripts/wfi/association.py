"""From what the user names as input to a list of exposures, each in one association."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from wfi.errors import RampflowError

RAW_SUFFIX = "_uncal.asdf"


class Member(NamedTuple):
    """A raw file, the association that it belongs to, and the catalog to align it with in place of its own."""

    path: Path
    association: str
    tweakreg_catalog: Path | None = None


def stem_of(path: Path) -> str:
    """Name of an exposure: its file's name without ``_uncal.asdf``.

    Raises
    ------
    RampflowError
        The name doesn't end so.
    """
    if not path.name.endswith(RAW_SUFFIX) or path.name == RAW_SUFFIX:
        raise RampflowError(f"{path}: is not a raw exposure by its name, which must end in {RAW_SUFFIX}")
    return path.name.removesuffix(RAW_SUFFIX)


def find_members(inputs: list[str] | str, folder: Path) -> list[Member]:
    """List the exposures of files, folders and association files.

    Parameters
    ----------
    inputs : list of str or str
        Raw files, folders of them (each exposure is then on its own), or association files (``.json``).
    folder : pathlib.Path
        Where relative names are taken from.

    Returns
    -------
    list of Member
        A file named alone, or found in a folder, is an association of its own with the exposure's stem for a name.

    Raises
    ------
    RampflowError
        A folder holds no raw file, a file doesn't exist, two exposures have the same name, or one is in two associations.
    """
    members: list[Member] = []
    for name in [inputs] if isinstance(inputs, str) else inputs:
        path = folder / Path(name).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.name.endswith(RAW_SUFFIX) and p.is_file())
            if not found:
                raise RampflowError(f"input {name!r}: the folder holds no file that ends in {RAW_SUFFIX}")
            members.extend(Member(p, stem_of(p)) for p in found)
        elif not path.exists():
            raise RampflowError(f"input {name!r}: does not exist (relative names are taken from {folder})")
        elif path.suffix == ".json":
            members.extend(read_association(path))
        else:
            members.append(Member(path, stem_of(path)))
    return _checked(members)


def read_association(path: Path) -> list[Member]:
    """Members of an association file.

    The file has ``products``, each with a ``name`` and ``members``, each with an ``expname`` (relative to the file) and an
    ``exptype``; only science members are exposures to process. Each product is an association. A member's
    ``tweakreg_catalog`` (relative to the file too) is a catalog with columns x and y to align it with in place of its own.

    Raises
    ------
    RampflowError
        It can't be parsed, lacks these entries, or names a file that doesn't exist.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RampflowError(f"{path}: is not a readable JSON file ({error}); give an association file") from None
    products = content.get("products") if isinstance(content, dict) else None
    if not isinstance(products, list) or not products:
        raise RampflowError(f"{path}: has no list 'products'; it is not an association file")
    members = []
    for product in products:
        name = product.get("name") if isinstance(product, dict) else None
        listed = product.get("members") if isinstance(product, dict) else None
        if not isinstance(name, str) or not name or not isinstance(listed, list):
            raise RampflowError(f"{path}: each of 'products' must have a 'name' and a list 'members'")
        if "/" in name or name.startswith("."):
            raise RampflowError(f"{path}: the product name {name!r} can't be part of a file name; choose one without '/'")
        for member in listed:
            expname = member.get("expname") if isinstance(member, dict) else None
            if not isinstance(expname, str) or not expname:
                raise RampflowError(f"{path}: a member of {name!r} has no 'expname'")
            if member.get("exptype", "science") != "science":
                continue
            exposure = path.parent / expname
            stem_of(exposure)
            if not exposure.is_file():
                raise RampflowError(f"{path}: the member {expname!r} of {name!r} does not exist beside the file")
            members.append(Member(exposure, name, _own_catalog(path, expname, member.get("tweakreg_catalog"))))
    if not members:
        raise RampflowError(f"{path}: names no science member")
    return members


def _own_catalog(path: Path, expname: str, given) -> Path | None:
    """The ``tweakreg_catalog`` of a member."""
    if given in (None, ""):
        return None
    catalog = path.parent / str(given)
    if not catalog.is_file():
        raise RampflowError(f"{path}: the tweakreg_catalog {given!r} of the member {expname!r} does not exist beside the file")
    return catalog


def _checked(members: list[Member]) -> list[Member]:
    """One member per exposure, or an error that says which is there twice."""
    seen: dict[str, Member] = {}
    result = []
    for member in members:
        stem = stem_of(member.path)
        earlier = seen.setdefault(stem, member)
        if earlier is member:
            result.append(member)
        elif earlier.path.resolve() != member.path.resolve():
            raise RampflowError(
                f"input: two files are named {stem}{RAW_SUFFIX} ({earlier.path} and {member.path}); their products would "
                "have the same names: process them in two runs"
            )
        elif earlier.association != member.association:
            raise RampflowError(
                f"input: the exposure {stem} is in two associations, {earlier.association!r} and {member.association!r}; "
                "its products can only follow one: process them in two runs with different results folders"
            )
        else:
            raise RampflowError(f"input: the exposure {stem} is given twice in {member.association!r}; name it once")
    return result
