"""Compiled loops, a module for each step that has them.

They are compiled at the first run and cached: in NUMBA_CACHE_DIR if it is set, else beside their source, else in the user's
cache folder. Where none of these can be written (a cluster node, a container) they are compiled by each process. The cache has
a version for each kind of processor. ``python scripts/compile_kernels.py`` compiles all of them beforehand.

No loop assigns an array to a slice of another: numba then compiles the words of its error, too, for seven seconds.
"""

import sys
import tempfile
import warnings

import numba
from numba.core import event
from numba.core.caching import FunctionCache


class _Announcement(event.Listener):
    """Say once for each module that its loops are being compiled: a step waits for them, and seems to hang."""

    def __init__(self) -> None:
        self._announced: set[str] = set()

    def on_start(self, event: event.Event) -> None:
        package, _, module = event.data["dispatcher"].py_func.__module__.rpartition(".")
        if package != __name__ or module in self._announced:
            return
        self._announced.add(module)
        # Not in the log that a product keeps: what was compiled has no influence on it.
        print(
            f"rampflow: compiling the loops of {module} for this kind of processor (once, for up to a minute)",
            file=sys.stderr,
            flush=True,
        )

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcement())


def _probe():
    pass


try:
    FunctionCache(_probe)
except RuntimeError:  # numba refuses to go on without a folder
    warnings.warn("no folder to cache compiled code in: set NUMBA_CACHE_DIR, and jobs start seconds earlier", stacklevel=1)
    _folder = tempfile.TemporaryDirectory(prefix="rampflow-")
    numba.config.CACHE_DIR = _folder.name  # type: ignore[attr-defined]
