"""The library that the scripts share. Packages and modules are named by what they hold.

Its interface for Python is `rampflow.calibrate`, and the functions on arrays in `rampflow.steps`.
"""

from importlib import import_module

SOFTWARE_NAME = "rampflow"
#: What is imported when it is asked for: a clone asks git for its version, and the interface for Python needs the workflow. As
#: text, so that the fingerprint of a step (`rampflow.workflow.fingerprint`) has only what the step imports.
_LATE = {"__version__": "rampflow.version", "calibrate": "rampflow.calibration", "Calibration": "rampflow.calibration"}


def __getattr__(name: str) -> object:
    """Import what is not needed at once."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATE[name]), name)
    return value
