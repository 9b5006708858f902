"""The library that the scripts share. Packages and modules are named by what they hold."""

from rampflow.version import find_version

SOFTWARE_NAME = "rampflow"
__version__ = find_version()
