"""Schemas of the data models, and the check of products against them.

roman_datamodels makes objects of a file, and trees of these to check them. The trees are in the files already: asdf checks them
here against the same schemas, those of the package rad.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path
from typing import Any

from rampflow.errors import RampflowError
from rampflow.files.tags import ROMAN_PREFIX, ROMAN_SCHEMAS
from rampflow.files.yaml_tree import load_yaml
from rampflow.imports import asdf_with_schemas


@functools.cache
def _known_schemas() -> Any:
    """A context of asdf that knows the tags of all installed manifests."""
    import asdf

    resources = asdf.get_config().resource_manager
    return asdf_with_schemas([load_yaml(resources[uri]) for uri in resources if "/manifests/" in uri and "/core/" not in uri])


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

    try:
        asdf.schema.validate(asdf.util.load_yaml(path, tagged=True), _known_schemas())
    except asdf.ValidationError as error:
        lines = str(error).strip().splitlines()
        raise RampflowError(f"{path}: is not a valid {model} ({lines[0]}; {lines[-1].strip()}); report it") from error


@functools.cache
def schema(name: str) -> dict:
    """Read a schema of the package rad.

    Parameters
    ----------
    name : str
        Its name with its version, ``wfi_wcs-2.1.0`` for example.

    Returns
    -------
    dict
        The schema.
    """
    return load_yaml((files("rad") / "resources/schemas" / f"{name}.yaml").read_bytes())


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
    while "$ref" in node:
        name, _, place = node["$ref"].removeprefix(ROMAN_SCHEMAS).partition("#/")
        node = schema(name)
        for key in filter(None, place.split("/")):
            node = node[key]
    return node


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
    return schema(tag.removeprefix(ROMAN_PREFIX))["properties"]["meta"]


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
