"""Compiled loops, a module for each step that has them.

They are compiled at the first run and cached: in NUMBA_CACHE_DIR if it is set, else beside their source, else in the user's
cache folder. Where none of these can be written (a cluster node, a container) they are compiled by each process.

No loop assigns an array to a slice of another: numba then compiles the words of its error, too, for seven seconds.
"""

import tempfile
import warnings

import numba
from numba.core.caching import FunctionCache


def _probe():
    pass


try:
    FunctionCache(_probe)
except RuntimeError:  # numba refuses to go on without a folder
    warnings.warn("no folder to cache compiled code in: set NUMBA_CACHE_DIR, and jobs start seconds earlier", stacklevel=1)
    _folder = tempfile.TemporaryDirectory(prefix="rampflow-")
    numba.config.CACHE_DIR = _folder.name  # type: ignore[attr-defined]
