"""The library that the scripts share. Packages and modules are named by what they hold.

Its interface for Python is `rampflow.calibrate`, and the functions on arrays in `rampflow.steps`.
"""

from importlib import import_module

SOFTWARE_NAME = "rampflow"
#: The interface for Python. As text, so that the fingerprint of a step (`rampflow.workflow.fingerprint`) does not cover it.
_INTERFACE = {"calibrate": "rampflow.calibration", "Calibration": "rampflow.calibration"}


def __getattr__(name: str) -> object:
    """Find what is not needed at once: a clone asks git for its version, and the interface imports the workflow."""
    value: object
    if name == "__version__":
        value = import_module("rampflow.version").find_version()
    elif name in _INTERFACE:
        value = getattr(import_module(_INTERFACE[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
