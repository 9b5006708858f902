"""What leaves the pipeline is checked against the schemas of its data model, as roman_datamodels does it.

roman_datamodels makes objects of a file first, with gwcs and half of astropy, and trees of these to check them, which takes
three seconds. The trees are in the files: asdf checks them against the same schemas, those of the package rad.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path

import yaml

from rampflow.errors import RampflowError
from rampflow.files.tags import ROMAN_PREFIX, ROMAN_SCHEMAS

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def _schemas():
    """An asdf file whose tags are those of all installed manifests."""
    from importlib.metadata import entry_points

    import asdf
    from asdf.extension import ExtensionProxy, ManifestExtension

    class Schemas(asdf.AsdfFile):
        # The packages' extensions would bring their converters, and with them the packages. asdf's own is needed for what it
        # adds to JSON schemas: data types and dimensions of arrays.
        def _process_plugin_extensions(self):
            points = (point for point in entry_points(group="asdf.extensions") if point.dist.name == "asdf")
            own = [ExtensionProxy.maybe_wrap(extension) for point in points for extension in point.load()()]
            return [extension for extension in own if self.version_string in extension.asdf_standard_requirement]

    resources = asdf.get_config().resource_manager
    manifests = [yaml.safe_load(resources[uri]) for uri in resources if "/manifests/" in uri and "/core/" not in uri]
    return Schemas(extensions=[ManifestExtension(manifest) for manifest in manifests])


def check_product(path: Path, model: str) -> None:
    """Check a file against the schemas of its tags.

    Parameters
    ----------
    path : pathlib.Path
    model : str
        Name of the data model, for the message.

    Raises
    ------
    RampflowError
        It is not valid.
    """
    import asdf

    try:
        asdf.schema.validate(asdf.util.load_yaml(path, tagged=True), _schemas())
    except asdf.ValidationError as error:
        lines = str(error).strip().splitlines()
        raise RampflowError(f"{path}: is not a valid {model} ({lines[0]}; {lines[-1].strip()}); report it") from error


# ------------------------------------------------------------------------------------------------------------- schemas
@functools.cache
def schema(name: str) -> dict:
    """A schema of the package rad, as ``wfi_wcs-2.1.0``."""
    return yaml.load((files("rad") / "resources/schemas" / f"{name}.yaml").read_bytes(), Loader=_Loader)


def resolved(node: dict) -> dict:
    """A part of a schema, or what it refers to."""
    while "$ref" in node:
        name, _, place = node["$ref"].removeprefix(ROMAN_SCHEMAS).partition("#/")
        node = schema(name)
        for key in filter(None, place.split("/")):
            node = node[key]
    return node


def properties(node: dict) -> tuple[dict[str, dict], set[str]]:
    """Schemas of a mapping's entries by name, and the names of those that must be there."""
    node = resolved(node)
    entries, required = dict(node.get("properties", {})), set(node.get("required", ()))
    for part in node.get("allOf", ()):
        more = properties(part)
        entries |= more[0]
        required |= more[1]
    return entries, required


def metadata_schema(tag: str) -> dict:
    """The schema of a data model's ``meta``."""
    return schema(tag.removeprefix(ROMAN_PREFIX))["properties"]["meta"]


def required_part(node: dict, values: dict) -> dict:
    """What a schema asks for of some metadata; without what it leaves to choice, as in roman_datamodels' minimal models."""
    entries, required = properties(node)
    result = {}
    for name in entries:
        if name in required and name in values:
            nested = isinstance(values[name], dict) and properties(entries[name])[0]
            result[name] = required_part(entries[name], values[name]) if nested else values[name]
    return result
