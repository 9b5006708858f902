"""What became of the jobs of a run, from the events of Snakemake's log.

The events and their fields are those of the package snakemake-interface-logger-plugins.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import NamedTuple

from snakemake_interface_logger_plugins.common import LogEvent

#: A job that ends without an error of its own so few seconds before an interruption was ended by it: a batch system sends the
#: signal to Snakemake and to the steps at once.
SAME_SIGNAL = 2.0


class StartedJob(NamedTuple):
    """A job that Snakemake has started: its rule, its wildcards, and its logs."""

    rule: str
    wildcards: dict[str, str]
    logs: list[str]


class RunRecord(logging.Handler):
    """Log handler that keeps which jobs failed, how many are done, and whether the run was interrupted.

    Attributes
    ----------
    done, total : int
        Jobs that are done, and jobs of the run.
    interrupted_at : float or None
        Time of the first SIGINT or SIGTERM, by `time.monotonic`.
    """

    def __init__(self):
        super().__init__()
        self.done = self.total = 0
        self.interrupted_at: float | None = None
        self._jobs: dict[int, StartedJob] = {}
        self._failed: dict[tuple[int, ...], float] = {}  # the jobs of a cluster job, or one job: when it failed

    def emit(self, record: logging.LogRecord) -> None:
        """Note an event."""
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            self.total = int(record.stats.get("total", 0))
        elif event == LogEvent.PROGRESS:
            self.done = record.done  # its total has the jobs, too, that need not run
        elif event == LogEvent.JOB_INFO:
            self._forget_failure(record.jobid)  # it is tried again
            self._jobs[record.jobid] = StartedJob(record.rule_name, dict(record.wildcards), list(record.log))
        elif event == LogEvent.JOB_FINISHED:
            self._forget_failure(record.job_id)
        elif event == LogEvent.GROUP_ERROR:
            self._failed[tuple(job["jobid"] for job in record.job_error_info)] = time.monotonic()
        elif event == LogEvent.JOB_ERROR and not any(record.jobid in group for group in self._failed):
            self._failed[(record.jobid,)] = time.monotonic()

    def _forget_failure(self, jobid: int) -> None:
        self._failed = {group: moment for group, moment in self._failed.items() if jobid not in group}

    def note_interruptions(self) -> None:
        """Note SIGINT and SIGTERM, and pass them on to whoever handles them now."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                signal.signal(number, self._noting(before))

    def _noting(self, before):
        def note(number, frame):
            self.interrupted_at = self.interrupted_at or time.monotonic()
            return before(number, frame)

        return note

    @property
    def interrupted(self) -> bool:
        """Whether somebody or a batch system ended the run."""
        return self.interrupted_at is not None

    def failed_jobs(self, *, certain: bool = False) -> list[list[StartedJob]]:
        """The jobs that failed, those of one cluster job together.

        Parameters
        ----------
        certain : bool
            Only those that failed before the run was interrupted: the others may have been ended by the same signal.
        """
        limit = self.interrupted_at - SAME_SIGNAL if certain and self.interrupted else float("inf")
        return [[self._jobs[n] for n in group if n in self._jobs] for group, moment in self._failed.items() if moment <= limit]
