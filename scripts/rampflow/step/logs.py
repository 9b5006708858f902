"""The log of a step: to standard error or a file, and kept for ``meta.cal_logs``."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from rampflow import SOFTWARE_NAME

log = logging.getLogger(SOFTWARE_NAME)


class _MemoryHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


_memory = _MemoryHandler()


def configure_logging(stream: TextIO | None = None) -> None:
    """Begin a log, and keep it for ``meta.cal_logs``, in romancal's form with times in UTC.

    Parameters
    ----------
    stream : file, optional
        Where the log goes; standard error by default.
    """
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ :: %(name)s :: %(levelname)s :: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    log.handlers.clear()
    _memory.lines.clear()
    for handler in (logging.StreamHandler(stream or sys.stderr), _memory):
        handler.setFormatter(formatter)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = log.handlers


def recorded_log() -> list[str]:
    """List the lines that have been logged since `configure_logging`.

    Returns
    -------
    list of str
        The lines.
    """
    return list(_memory.lines)


def step_logger(name: str) -> logging.Logger:
    """Get the logger of a step or a module.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    logging.Logger
        The logger, whose lines begin with ``rampflow.NAME``.
    """
    return log.getChild(name)
