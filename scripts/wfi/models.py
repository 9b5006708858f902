"""What leaves the pipeline is checked against the schemas of its data model, as roman_datamodels does it.

roman_datamodels makes objects of a file first, with gwcs and half of astropy, and trees of these to check them, which takes
three seconds. The trees are in the files: asdf checks them against the same schemas, those of the package rad.
"""

from __future__ import annotations

import functools
from pathlib import Path

from wfi.errors import RampflowError

SCHEMAS = "asdf://stsci.edu/datamodels/roman/schemas/"


@functools.cache
def _schemas():
    """An asdf file whose tags are those of all installed manifests."""
    from importlib.metadata import entry_points

    import asdf
    import yaml
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


def metadata_names(model: str) -> set[str]:
    """Names of the metadata that the schema of a model, as ``wfi_wcs-2.1.0``, has."""
    import asdf

    parts = asdf.schema.load_schema(SCHEMAS + model)["properties"]["meta"]["allOf"]
    parts = [asdf.schema.load_schema(part["$ref"]) if "$ref" in part else part for part in parts]
    return {name for part in parts for name in part["properties"]}
