"""Schemas of the data models, and the check of products against them.

roman_datamodels makes objects of a file, and trees of these to check them. The trees are in the files already: asdf checks them
here against the same schemas, those of the package rad. The installed rad may be older than a data model that is written; then
`rampflow.files.newer_schemas` has the schemas.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

from rampflow.errors import RampflowError
from rampflow.files.newer_schemas import SCHEMAS
from rampflow.files.tags import ROMAN_PREFIX, ROMAN_SCHEMAS, TIME
from rampflow.files.yaml_tree import load_yaml, tagged
from rampflow.imports import asdf_with_schemas

#: Metadata where a file has none: RAD's own placeholders.
PLACEHOLDERS = {"string": "?", "number": -999999.0, "integer": -999999, "boolean": False, "array": [], "object": {}}
EMPTY_TIME = "2020-01-01T00:00:00.000"
TIME_TAG = TIME.rpartition("-")[0]  #: tag of a time of any version
#: Python's types of the types of a schema.
TYPES: dict[str, Any] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


@functools.cache
def _known_schemas() -> Any:
    """A context of asdf that knows the tags of all installed manifests, and those of the newer schemas."""
    import asdf

    resources = asdf.get_config().resource_manager
    manifests = [load_yaml(resources[uri]) for uri in resources if "/manifests/" in uri and "/core/" not in uri]
    known = {entry["tag_uri"] for manifest in manifests for entry in manifest.get("tags", ())}
    newer = [name for name in SCHEMAS if "/" not in name and ROMAN_PREFIX + name not in known]
    if newer:
        uri = f"{ROMAN_PREFIX.removesuffix('tags/')}extensions/rampflow"
        tags = [{"tag_uri": ROMAN_PREFIX + name, "schema_uri": ROMAN_SCHEMAS + name} for name in newer]
        manifests.append({"id": uri, "extension_uri": uri, "tags": tags})
    return asdf_with_schemas(manifests)


def check_product(path: Path, model: str) -> None:
    """Check a file against the schemas of its tags.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    model : str
        Name of the data model, for the message.

    Raises
    ------
    RampflowError
        It is not valid.
    """
    import asdf

    schemas = _known_schemas()  # before the context, whose copy of the configuration would list the packages' files again
    try:
        with asdf.config_context() as config:
            known = config.resource_manager
            config.add_resource_mapping(
                {ROMAN_SCHEMAS + name: text.encode() for name, text in SCHEMAS.items() if ROMAN_SCHEMAS + name not in known}
            )
            asdf.schema.validate(asdf.util.load_yaml(path, tagged=True), schemas)
    except asdf.ValidationError as error:
        lines = str(error).strip().splitlines()
        raise RampflowError(f"{path}: is not a valid {model} ({lines[0]}; {lines[-1].strip()}); report it") from error


@functools.cache
def read_schema(name: str) -> dict:
    """Read a schema of the package rad, or a newer one.

    Parameters
    ----------
    name : str
        Its name with its version, ``wfi_wcs-2.1.0`` for example.

    Returns
    -------
    dict
        The schema.
    """
    path = files("rad") / "resources/schemas" / f"{name}.yaml"
    return load_yaml(path.read_bytes()) if path.is_file() else json.loads(SCHEMAS[name])


def has_schema(name: str) -> bool:
    """Tell whether `read_schema` finds a schema.

    Parameters
    ----------
    name : str
        Its name with its version, ``ramp-2.1.0`` for example.

    Returns
    -------
    bool
        Whether the package rad has it, or it is a newer one that is known.
    """
    return name in SCHEMAS or (files("rad") / "resources/schemas" / f"{name}.yaml").is_file()


def resolved(node: dict) -> dict:
    """Follow the references of a part of a schema.

    Parameters
    ----------
    node : dict
        The part.

    Returns
    -------
    dict
        The part, or what it refers to.
    """
    # Older schemas refer to others by their tags. The schemas of other packages, as that of a time, have no entries.
    while node.get("$ref", "").startswith(ROMAN_SCHEMAS) or node.get("tag", "").startswith(ROMAN_PREFIX):
        if "$ref" in node:
            name, _, place = node["$ref"].removeprefix(ROMAN_SCHEMAS).partition("#/")
        else:
            name, place = _schema_of_tag(node["tag"]), ""
        node = read_schema(name)
        for key in filter(None, place.split("/")):
            node = node[key]
    return node


@functools.cache
def _schema_of_tag(tag: str) -> str:
    """Name of the schema of a tag: its own, or that of a single text or time in a folder of these."""
    name = tag.removeprefix(ROMAN_PREFIX)
    folder, _, last = name.rpartition("/")
    is_scalar = not (files("rad") / "resources/schemas" / f"{name}.yaml").is_file() and name not in SCHEMAS
    return f"{folder}/tagged_scalars/{last}".lstrip("/") if is_scalar else name


def properties(node: dict) -> tuple[dict[str, dict], set[str]]:
    """List the entries of a mapping, from its schema.

    Parameters
    ----------
    node : dict
        The schema.

    Returns
    -------
    entries : dict of dict
        Schema of each entry by its name.
    required : set of str
        Names of the entries that must be there.
    """
    node = resolved(node)
    entries, required = dict(node.get("properties", {})), set(node.get("required", ()))
    for part in node.get("allOf", ()):
        more = properties(part)
        entries |= more[0]
        required |= more[1]
    return entries, required


def metadata_schema(tag: str) -> dict:
    """Read the schema of a data model's ``meta``.

    Parameters
    ----------
    tag : str
        Tag of the data model.

    Returns
    -------
    dict
        The schema of ``meta``.
    """
    return read_schema(tag.removeprefix(ROMAN_PREFIX))["properties"]["meta"]


def required_part(node: dict, values: dict) -> dict:
    """Choose what a schema asks for of some metadata, as in roman_datamodels' minimal models.

    Parameters
    ----------
    node : dict
        The schema of the metadata.
    values : dict
        The metadata.

    Returns
    -------
    dict
        The metadata without what the schema leaves to choice.
    """
    entries, required = properties(node)
    result = {}
    for name in entries:
        if name in required and name in values:
            nested = isinstance(values[name], dict) and properties(entries[name])[0]
            result[name] = required_part(entries[name], values[name]) if nested else values[name]
    return result


def missing_entries(old: str, new: str) -> dict[str, Any]:
    """List the metadata that one data model requires and another one doesn't.

    Parameters
    ----------
    old, new : str
        Tags of the two data models, without prefix.

    Returns
    -------
    dict
        RAD's placeholder of each such entry, by its dotted name in ``meta``.
    """
    return copy.deepcopy(_missing_entries(old, new))


@functools.cache
def _missing_entries(old: str, new: str) -> dict[str, Any]:
    known = set(_required(metadata_schema(old)))
    return {name: placeholder(node) for name, node in _required(metadata_schema(new)).items() if name not in known}


@functools.cache
def required_entries(tag: str) -> tuple[str, ...]:
    """List the metadata that a data model requires.

    Parameters
    ----------
    tag : str
        Tag of the data model, without prefix.

    Returns
    -------
    tuple of str
        Dotted names in ``meta``.
    """
    return tuple(_required(metadata_schema(tag)))


def _required(node: dict, prefix: str = "") -> dict[str, dict]:
    """Schemas of the single values that a schema requires, by their dotted names."""
    entries, required = properties(node)
    result: dict[str, dict] = {}
    for name in entries:
        if name in required:
            nested = _required(entries[name], f"{prefix}{name}.")
            result |= nested or {f"{prefix}{name}": resolved(entries[name])}
    return result


def misfits(tag: str, meta: dict, left_out: Collection[str]) -> dict[str, str]:
    """Find metadata whose values a data model doesn't take: of another type, or none of those that it lists.

    Parameters
    ----------
    tag : str
        Tag of the data model, without prefix.
    meta : dict
        The metadata.
    left_out : collection of str
        Sections and entries that aren't looked at.

    Returns
    -------
    dict
        What the data model takes, by the dotted name of the entry in ``meta``.
    """
    entries = properties(metadata_schema(tag))[0]
    return _misfits({name: node for name, node in entries.items() if name not in left_out}, meta, "")


def _misfits(entries: dict[str, dict], values: dict, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in entries.keys() & values.keys():
        value, nested = values[name], properties(entries[name])[0]
        if nested and isinstance(value, dict):
            found |= _misfits(nested, value, f"{prefix}{name}.")
        elif takes := _takes(entries[name], value):
            found[prefix + name] = takes
    return found


def _takes(node: dict, value: Any) -> str:
    """What the schema of an entry takes, if it doesn't take a value; empty if it does."""
    node = resolved(node)
    if "anyOf" in node:
        choices = [_takes(part, value) for part in node["anyOf"]]
        return " or ".join(choices) if all(choices) else ""
    for part in map(resolved, (node, *node.get("allOf", ()))):
        if part.get("tag", "").startswith(TIME_TAG) and not getattr(value, "tag", "").startswith(TIME_TAG):
            return f"a time, with the tag !<{TIME}>"
        if "enum" in part and (hasattr(value, "dtype") or value not in part["enum"]):  # an array can't be compared
            return "one of " + ", ".join("null" if choice is None else str(choice) for choice in part["enum"])
        kinds = part.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        # A boolean is an integer in Python, and none in a schema.
        taken = ["boolean"] if isinstance(value, bool) else [name for name, kind in TYPES.items() if isinstance(value, kind)]
        if kinds and not set(kinds) & set(taken):
            return " or ".join(kinds)
    return ""


def placeholder(node: dict) -> Any:
    """Make a value that a schema accepts and that says nothing, as roman_datamodels does.

    Parameters
    ----------
    node : dict
        Schema of the entry.

    Returns
    -------
    object
        The first of the values that it lists, or RAD's placeholder of its type.
    """
    node = resolved(node)
    for part in (node, *node.get("allOf", ())):
        part = resolved(part)
        if "enum" in part:
            return "?" if "?" in part["enum"] else part["enum"][0]
    if "anyOf" in node:
        return placeholder(node["anyOf"][0])
    if node.get("tag", "").startswith(TIME_TAG):
        return tagged(EMPTY_TIME, TIME)
    for part in (node, *node.get("allOf", ())):
        if "type" in resolved(part):
            kind = resolved(part)["type"]
            return copy.copy(PLACEHOLDERS[kind if isinstance(kind, str) else kind[0]])
    return "?"
