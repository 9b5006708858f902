"""Snakemake logger plugin that shows the progress of a run: a line for each job that has ended, in place of Snakemake's six.

    snakemake --logger progress --cores 8

On a terminal, a single line at the bottom says how far the run is and what it is doing. Each job has the name of its rule,
which options such as ``--forcerun`` take. A dry-run is a table: how many jobs of each rule would run, and why. Warnings, errors
and all other messages are shown as Snakemake words them, and its log in .snakemake/log has everything. Errors about the command
line or a configuration file are followed by a hint. With ``--quiet``, ``--verbose`` or ``--printshellcmds``, Snakemake's own
messages are shown.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from snakemake_logger_plugin_progress.dry_run import JobTable
from snakemake_logger_plugin_progress.hints import find_hints

#: Beginnings of messages that the progress replaces.
ROUTINE = ("Select jobs to execute", "Execute ", "Removing temporary output", "Waiting for more resources")
#: Events of jobs, and of groups of them in a cluster job, that the progress replaces.
_JOB_EVENTS = (LogEvent.JOB_INFO, LogEvent.GROUP_INFO, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS)
#: Beginnings of messages of a dry-run that its table replaces, and of its last one.
_DRY_ROUTINE = (
    *ROUTINE,
    "Job stats:",
    "Would remove temporary",
    "Reasons:",
    "Some jobs were triggered by provenance",
    "Rules with provenance",
)
_DRY_END = "This was a dry-run"
#: Events of a dry-run that its table replaces.
_DRY_EVENTS = (*_JOB_EVENTS, LogEvent.RUN_INFO, LogEvent.WORKFLOW_STARTED)
_COLORS = {"WARNING": 33, "ERROR": 31, "CRITICAL": 31}


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """The plugin has no settings."""


class LogHandler(LogHandlerBase):
    """Show the log of a run on the screen.

    Attributes
    ----------
    stream : file
        The screen.
    terminal : bool
        Whether it is a terminal, whose last line can be replaced.
    running : dict
        Message of each running job, by its number.
    planned : JobTable
        Jobs of a dry-run.
    """

    def __post_init__(self) -> None:
        """Set up the state of a run."""
        logging.Handler.__init__(self)  # early versions of the interface leave this to the plugin
        settings = self.common_settings
        self.stream = sys.stdout if getattr(settings, "stdout", False) else sys.stderr
        self.terminal = self.stream.isatty()
        self.colored = self.terminal and not settings.nocolor
        self.verbatim = bool(settings.quiet or settings.verbose or settings.printshellcmds)
        self.dryrun = bool(settings.dryrun)
        self.planned = JobTable()
        self.begun: float | None = None
        self.state = ""
        self.running: dict[int, str] = {}
        self.ended: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record of Snakemake's log.

        Parameters
        ----------
        record : logging.LogRecord
            The record.
        """
        event = getattr(record, "event", None)
        if self.verbatim:
            self._show(record)
        elif self.dryrun:
            self._plan(record, event)
        else:
            self._follow(record, event)
        if event == LogEvent.ERROR:
            self.stream.writelines(f"Hint: {hint}\n" for hint in find_hints(sys.argv[1:]))
            self.stream.flush()

    def _plan(self, record: Any, event: LogEvent | None) -> None:
        """Take a record of a dry-run."""
        if event == LogEvent.JOB_INFO:
            output = list(getattr(record, "output", None) or ())
            self.planned.add(record.rule_name, getattr(record, "reason", None) or "", output, record.rule_msg)
        elif str(record.msg).startswith(_DRY_END):
            self.stream.write(f"{self.planned.text()}\n")
            self._show(record)
        elif event not in _DRY_EVENTS and not str(record.msg).startswith(_DRY_ROUTINE):
            self._show(record)

    def _follow(self, record: Any, event: LogEvent | None) -> None:
        """Take a record of a run."""
        if self.terminal:
            self.stream.write("\r\033[K")
        if event == LogEvent.JOB_INFO:
            self.begun = self.begun or time.monotonic()
            self.running[record.jobid] = job_name(record.rule_name, record.rule_msg)
        elif event == LogEvent.JOB_FINISHED:
            self.ended.append(self.running.pop(_job_of(record), "a job"))
        elif event == LogEvent.PROGRESS:
            self._count(record.done, record.total)
        elif event not in _JOB_EVENTS and not str(record.msg).startswith(ROUTINE):
            if event == LogEvent.JOB_ERROR:
                self.running.pop(_job_of(record), None)
            self._show(record)
        if self.terminal and self.running:
            line = f"{self.state}{' | '.join(self.running.values())}"
            self.stream.write(line[: shutil.get_terminal_size().columns - 1])
        self.stream.flush()

    def _show(self, record: logging.LogRecord) -> None:
        """Show a message as Snakemake words it."""
        text = self.format(record)
        if text and text != "None":
            color = _COLORS.get(record.levelname) if self.colored else None
            self.stream.write(f"\033[{color}m{text}\033[0m\n" if color else f"{text}\n")
            self.stream.flush()

    def _count(self, done: int, total: int) -> None:
        """Show how many jobs are done, and how long the others may take at the pace of the run so far."""
        elapsed = time.monotonic() - self.begun if self.begun else 0.0
        left = elapsed * (total - done) / done if done else 0.0
        self.state = f"[{done}/{total} {100 * done // total}%{f', {duration(left)} left' if done < total else ''}] "
        if not self.terminal:
            clock = time.strftime("%Y-%m-%dT%H:%M:%S")
            self.stream.writelines(f"{clock} {self.state}{name}\n" for name in self.ended)
        self.ended.clear()

    @property
    def writes_to_stream(self) -> bool:
        """Snakemake shows nothing itself.

        Returns
        -------
        bool
            True.
        """
        return True

    @property
    def writes_to_file(self) -> bool:
        """No file is written.

        Returns
        -------
        bool
            False.
        """
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's filter leaves out what the user does not want to see.

        Returns
        -------
        bool
            False.
        """
        return False

    @property
    def has_formatter(self) -> bool:
        """Snakemake's formatter words the messages.

        Returns
        -------
        bool
            False.
        """
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """The graph of the rules is not used.

        Returns
        -------
        bool
            False.
        """
        return False


def _job_of(record: Any) -> int:
    """Number of the job that a record is about, -1 without one; the field depends on the event and the version of Snakemake."""
    return getattr(record, "job_id", getattr(record, "jobid", -1))


def job_name(rule: str, message: str | None) -> str:
    """Name a job by its message and its rule.

    Parameters
    ----------
    rule : str
        Name of the rule.
    message : str or None
        Message of the rule.

    Returns
    -------
    str
        The message, with the rule in parentheses where the message doesn't have it.
    """
    if not message:
        return rule
    return message if message.endswith(rule) else f"{message} ({rule})"


def duration(seconds: float) -> str:
    """Write a time in words: 45 s, 12 min, 3.5 h.

    Parameters
    ----------
    seconds : float
        The time, seconds.

    Returns
    -------
    str
        The time in seconds, minutes or hours.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
