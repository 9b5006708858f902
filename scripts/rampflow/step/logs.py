"""The log of a step: to standard error or a file, and kept for ``meta.cal_logs``."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from rampflow import SOFTWARE_NAME

log = logging.getLogger(SOFTWARE_NAME)

_NUMBERS = re.compile(r" :: INFO :: Numbers (\{.*\})$")
_STEP = re.compile(r" :: rampflow \S+, step (\w+): ")


class _MemoryHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


_memory = _MemoryHandler()


def configure_logging(stream: TextIO | None = None) -> None:
    """Begin a log in the format of romancal, with times in UTC, and keep its lines for ``meta.cal_logs``.

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


def log_numbers(logger: logging.Logger, numbers: dict[str, float]) -> None:
    """Log numbers that only this step can measure. As a part of ``meta.cal_logs`` they reach finalize.

    Parameters
    ----------
    logger : logging.Logger
        Logger of the step.
    numbers : dict of float
        Numbers by their names in `rampflow.quality.numbers`. Those that are not finite are left out.
    """
    known = {name: float(f"{value:.7g}") for name, value in numbers.items() if abs(value) < float("inf")}
    logger.info("Numbers %s", json.dumps(known))


def recorded_numbers(lines: Iterable[str]) -> dict[str, float]:
    """Read the numbers that steps have logged.

    Parameters
    ----------
    lines : iterable of str
        Log of the exposure, ``meta.cal_logs``.

    Returns
    -------
    dict of float
        The numbers. If a step ran twice, they are those of its last run.
    """
    numbers: dict[str, float] = {}
    for line in lines:
        if found := _NUMBERS.search(line):
            numbers |= json.loads(found[1])
    return numbers


def steps_in_log(lines: Iterable[str]) -> list[str]:
    """List the steps that ran on an exposure, by the first log line of each.

    Parameters
    ----------
    lines : iterable of str
        Log of the exposure, ``meta.cal_logs``.

    Returns
    -------
    list of str
        Names of the steps, sorted.
    """
    return sorted({match[1] for line in lines if (match := _STEP.search(line))})
