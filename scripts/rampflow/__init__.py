"""The library that the step scripts share; each module is named for what it knows."""

from rampflow.version import find_version

SOFTWARE_NAME = "rampflow"
__version__ = find_version()
