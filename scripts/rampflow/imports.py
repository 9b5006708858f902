"""Keep out packages that a library looks for, has no need of here, and would take a part of a second to import."""

import contextlib
import sys


class _Absent:
    """A finder of modules that says of one package that it is not there."""

    def __init__(self, package):
        self._package = package

    def find_spec(self, name, path=None, target=None):
        if name == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextlib.contextmanager
def without(package: str):
    """Let the imports in this block find `package` missing, unless it is loaded already.

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
