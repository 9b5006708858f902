"""Shortcuts around slow imports of other packages, each with the processor time that it saves.

Nothing outside this module changes another package. The times are medians of seven runs.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any


class _Absent:
    """Import finder that reports one package as missing."""

    def __init__(self, package: str):
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse the package, and leave all others to the other finders."""
        if name == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextlib.contextmanager
def without(package: str) -> Iterator[None]:
    """Hide an optional package from the imports in this block, unless it is loaded already.

    pyarrow imports pandas if it is installed, to recognize its types, and has no option against that. Without pandas, each
    process that reads or writes a table saves 0.33 s.

    Parameters
    ----------
    package : str
        An optional dependency of what is imported, or called, in the block.
    """
    finder = _Absent(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def import_asdf() -> Any:
    """Import asdf with the extensions of all installed packages.

    asdf and roman_datamodels read the manifests of their extensions with `yaml.safe_load`, PyYAML's loader in Python, and don't
    accept another one. During the import, this function replaces it by the loader in C, which gives the same objects. This
    saves 0.5 s in each process that converts between trees and objects.

    Returns
    -------
    module
        Package asdf.
    """
    import yaml

    in_python = yaml.safe_load
    yaml.safe_load = functools.partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        import asdf

        asdf.AsdfFile()  # it loads the extensions
    finally:
        yaml.safe_load = in_python
    return asdf


def asdf_with_schemas(manifests: list[dict]) -> Any:
    """Make an asdf file that knows the schemas of all tags, but not the classes that they stand for.

    An `asdf.AsdfFile` always loads the extensions of all installed packages, and with them roman_datamodels, gwcs and half of
    astropy. To check a tree against its schemas, it needs only the tags and asdf's own extensions, which check the data types
    and dimensions of arrays. This saves 1.0 s in each process that checks a product.

    Parameters
    ----------
    manifests : list of dict
        Lists of tags and their schemas, as the packages install them.

    Returns
    -------
    asdf.AsdfFile
        A context for `asdf.schema.validate`.
    """
    from importlib.metadata import entry_points

    import asdf
    from asdf.extension import ExtensionProxy, ManifestExtension

    class _OwnExtensionsOnly(asdf.AsdfFile):
        def _process_plugin_extensions(self) -> list:
            """List asdf's own extensions."""
            points = (point for point in entry_points(group="asdf.extensions") if point.dist and point.dist.name == "asdf")
            own = [ExtensionProxy.maybe_wrap(extension) for point in points for extension in point.load()()]
            return [extension for extension in own if self.version_string in extension.asdf_standard_requirement]

    return _OwnExtensionsOnly(extensions=[ManifestExtension(manifest) for manifest in manifests])
