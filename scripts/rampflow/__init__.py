"""The library that the step scripts share; each module is named for what it knows."""

SOFTWARE_NAME = "rampflow"
__version__ = "0.1.0"
