"""The logger plugin: what a run shows while it goes on, with and without a terminal."""

import io
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import snakemake_logger_plugin_progress as progress
from repository import PLUGIN
from snakemake_interface_logger_plugins.common import LogEvent

REFPIX, FIT = "r1: reference-pixel correction", "r2: ramp fit"


class Screen(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def logger(monkeypatch):
    """A logger with the plugin's handler; `clock` is the time of the run in seconds."""
    logger = logging.Logger("snakemake")
    logger.clock = 1.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: logger.clock)
    return logger


def start(logger, monkeypatch, terminal, **settings):
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    usual = {"quiet": None, "verbose": False, "printshellcmds": False, "dryrun": False, "stdout": False, "nocolor": False}
    logger.addHandler(progress.LogHandler(SimpleNamespace(**usual | settings), progress.LogHandlerSettings()))
    return screen


def run_two_jobs(logger):
    logger.info("Select jobs to execute...")
    logger.info("Execute 2 jobs...", extra={"event": LogEvent.JOB_STARTED, "jobs": [1, 2]})
    for job, message in ((1, REFPIX), (2, FIT)):
        logger.info(None, extra={"event": LogEvent.JOB_INFO, "jobid": job, "rule_msg": message, "rule_name": "rule"})
    logger.clock += 60.0
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 1})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 4})
    logger.info("Removing temporary output x.")


def test_without_a_terminal_each_job_that_ended_is_a_line(logger, monkeypatch):
    screen = start(logger, monkeypatch, terminal=False)
    run_two_jobs(logger)
    logger.error("something else")
    line, other = screen.getvalue().splitlines()
    assert line.split(" ", 1)[1] == f"[1/4 25%, 3 min left] {REFPIX}"
    assert other == "something else" and "\r" not in screen.getvalue() and "\033" not in screen.getvalue()
    logger.clock += 40.0
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 2})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 4, "total": 4})
    assert screen.getvalue().splitlines()[-1].endswith(f"[4/4 100%] {FIT}")


def test_on_a_terminal_one_line_says_what_runs(logger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = start(logger, monkeypatch, terminal=True)
    run_two_jobs(logger)
    assert screen.getvalue().split("\r\033[K")[-1] == f"[1/4 25%, 3 min left] {FIT}"[:39]
    assert "\n" not in screen.getvalue()
    logger.error("bad news")
    *_, before, last = screen.getvalue().split("\n")
    assert before.endswith("\r\033[K\033[31mbad news\033[0m") and last.startswith("[1/4"), "the line is replaced, and put back"
    # A job that fails runs no more.
    logger.error("failed", extra={"event": LogEvent.JOB_ERROR, "jobid": 2})
    assert screen.getvalue().endswith("\033[31mfailed\033[0m\n")


@pytest.mark.parametrize("settings", [{"quiet": {"progress"}}, {"verbose": True}, {"printshellcmds": True}, {"dryrun": True}])
def test_with_other_options_the_messages_are_snakemake_s(logger, monkeypatch, settings):
    screen = start(logger, monkeypatch, terminal=False, **settings)
    run_two_jobs(logger)
    assert "Select jobs" in screen.getvalue() and f"] {REFPIX}" not in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")]
)
def test_times_in_words(seconds, words):
    assert progress.duration(seconds) == words


@pytest.mark.workflow
def test_any_workflow_can_use_it(tmp_path):
    """One of two jobs fails: its log is shown as Snakemake shows it, and the other one is a line."""
    (tmp_path / "Snakefile").write_text(
        "rule all:\n    input: 'good', 'bad'\n"
        "rule good:\n    output: 'good'\n    message: 'make the good one'\n    shell: 'touch {output}'\n"
        "rule bad:\n    output: 'bad'\n    log: 'bad.log'\n    shell: 'echo a reason > {log}; false'\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "--logger", "progress", "--show-failed-logs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")])},
    )
    assert run.returncode == 1
    said = run.stdout + run.stderr
    assert said.count("make the good one") == 1 and "] make the good one" in said
    assert "Error in rule bad:" in said and "a reason" in said and "Job stats:" in said
    assert "Finished jobid" not in said and "steps (" not in said
