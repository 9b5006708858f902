"""Progress of a run, with and without a terminal."""

import io
import logging
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from rampflow.workflow import progress

REFPIX, FIT = "r1: reference-pixel correction", "r2: ramp fit"


class Screen(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def logger(monkeypatch):
    """A logger as Snakemake's, with its handler for the screen; `clock` is the time of the run in seconds."""
    logger = logging.Logger("snakemake")
    logger.clock = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: logger.clock)
    return logger


def start(logger, terminal, **settings):
    screen = Screen(terminal)
    usual = logging.StreamHandler(screen)
    usual.name = "DefaultStreamHandler"
    logger.addHandler(usual)
    progress.show_progress(logger, SimpleNamespace(**{"quiet": None, "verbose": False, "printshellcmds": False} | settings))
    return screen


def run_two_jobs(logger):
    logger.info("Select jobs to execute...")
    logger.info("Execute 2 jobs...", extra={"event": LogEvent.JOB_STARTED, "jobs": [1, 2]})
    for job, message in ((1, REFPIX), (2, FIT)):
        logger.info(None, extra={"event": LogEvent.JOB_INFO, "jobid": job, "rule_msg": message, "rule_name": "rule"})
    logger.clock = 60.0
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 1})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 4})
    logger.info("Removing temporary output x.")


def test_without_a_terminal_each_job_that_ended_is_a_line(logger):
    screen = start(logger, terminal=False)
    run_two_jobs(logger)
    logger.error("something else")
    line, other = screen.getvalue().splitlines()
    assert line.split(" ", 1)[1] == f"[1/4 25%, 3 min left] {REFPIX}"
    assert other == "something else" and "\r" not in screen.getvalue() and "\033" not in screen.getvalue()
    logger.clock = 100.0
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 2})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 4, "total": 4})
    assert screen.getvalue().splitlines()[-1].endswith(f"[4/4 100%] {FIT}")


def test_on_a_terminal_one_line_says_what_runs(logger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = start(logger, terminal=True)
    run_two_jobs(logger)
    assert screen.getvalue().split("\r\033[K")[-1] == f"[1/4 25%, 3 min left] {FIT}"[:39]
    assert "\n" not in screen.getvalue()
    logger.error("bad news")
    *_, before, last = screen.getvalue().split("\n")
    assert before.endswith("\r\033[Kbad news") and last.startswith("[1/4"), "the line is taken off for it, and put back"
    # A job that fails runs no more.
    logger.error("failed", extra={"event": LogEvent.JOB_ERROR, "jobid": 2})
    assert screen.getvalue().endswith("failed\n")


@pytest.mark.parametrize("settings", [{"quiet": {"progress"}}, {"verbose": True}, {"printshellcmds": True}])
def test_verbose_and_quiet_keep_the_output_of_snakemake(logger, settings):
    screen = start(logger, terminal=False, **settings)
    run_two_jobs(logger)
    assert "Select jobs" in screen.getvalue() and REFPIX not in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")]
)
def test_durations_are_formatted(seconds, words):
    assert progress.duration(seconds) == words
