"""The progress of a run: a line for each job that has ended, in place of Snakemake's six.

Without a terminal these lines come one after the other; on one, a single line at the bottom says how far the run is and what it
is at. Warnings, errors and what else Snakemake says come as ever, and its own log in .snakemake/log has everything.
"""

from __future__ import annotations

import logging
import shutil
import time

from snakemake_interface_logger_plugins.common import LogEvent

#: How lines begin that say no more than these do.
ROUTINE = ("Select jobs to execute", "Removing temporary output")


def duration(seconds: float) -> str:
    """A time in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Progress(logging.Handler):
    """Takes the place of Snakemake's handler for the screen, `usual`, which goes on to show what is not progress."""

    def __init__(self, usual: logging.StreamHandler):
        super().__init__()
        self.usual, self.stream, self.terminal = usual, usual.stream, usual.stream.isatty()
        self.begun, self.state = time.monotonic(), ""
        self.running: dict[int, str] = {}
        self.ended: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record of Snakemake's log."""
        event = getattr(record, "event", None)
        if self.terminal:
            self.stream.write("\r\033[K")
        if event == LogEvent.JOB_INFO:
            self.running[record.jobid] = record.rule_msg or record.rule_name
        elif event == LogEvent.JOB_FINISHED:
            self.ended.append(self.running.pop(record.job_id, "a job"))
        elif event == LogEvent.PROGRESS:
            self._count(record.done, record.total)
        elif event != LogEvent.JOB_STARTED and not record.getMessage().startswith(ROUTINE):
            if event == LogEvent.JOB_ERROR:
                self.running.pop(record.jobid, None)
            self.usual.handle(record)
        if self.terminal and self.running:
            line = f"{self.state}{' | '.join(self.running.values())}"
            self.stream.write(line[: shutil.get_terminal_size().columns - 1])
        self.stream.flush()

    def _count(self, done: int, total: int) -> None:
        """What is done, and what the rest may take at the pace of the run so far."""
        left = (time.monotonic() - self.begun) * (total - done) / done
        self.state = f"[{done}/{total} {100 * done // total}%{f', {duration(left)} left' if done < total else ''}] "
        if not self.terminal:
            clock = time.strftime("%Y-%m-%dT%H:%M:%S")
            self.stream.writelines(f"{clock} {self.state}{name}\n" for name in self.ended)
        self.ended.clear()


def show_progress(logger: logging.Logger, settings) -> None:
    """Show progress in this way, unless other words are asked for: --quiet, --verbose, --printshellcmds, --logger."""
    usual = next((handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"), None)
    if usual and not (settings.quiet or settings.verbose or settings.printshellcmds):
        logger.handlers[logger.handlers.index(usual)] = Progress(usual)
