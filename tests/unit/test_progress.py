"""The logger plugin: what a run shows while it goes on, with and without a terminal."""

import importlib.metadata
import io
import logging
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import snakemake_logger_plugin_progress as progress
from repository import PLUGIN
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_progress.hints import find_hints

SNAKEMAKE = tuple(map(int, importlib.metadata.version("snakemake").split(".")[:2]))
REFPIX, FIT = "r1: reference-pixel correction", "r2: ramp fit"
NAMES = {REFPIX: "refpix", FIT: "ramp_fitting"}


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
        logger.info(None, extra={"event": LogEvent.JOB_INFO, "jobid": job, "rule_msg": message, "rule_name": NAMES[message]})
    logger.clock += 60.0
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 1})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 4})
    logger.info("Removing temporary output x.")


def test_without_a_terminal_each_job_that_ended_is_a_line(logger, monkeypatch):
    screen = start(logger, monkeypatch, terminal=False)
    run_two_jobs(logger)
    logger.error("something else")
    line, other = screen.getvalue().splitlines()
    assert line.split(" ", 1)[1] == f"[1/4 25%, 3 min left] {REFPIX} (refpix)"
    assert other == "something else" and "\r" not in screen.getvalue() and "\033" not in screen.getvalue()
    logger.clock += 40.0
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 2})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 4, "total": 4})
    assert screen.getvalue().splitlines()[-1].endswith(f"[4/4 100%] {FIT} (ramp_fitting)")


def test_a_group_of_jobs_is_shown_by_its_jobs(logger, monkeypatch):
    """As on a cluster. What the executor says of its jobs is shown."""
    screen = start(logger, monkeypatch, terminal=False)
    logger.info("Group job exposure", extra={"event": LogEvent.GROUP_INFO, "group_id": "exposure"})
    run_two_jobs(logger)
    logger.info("Job 1 has been submitted with SLURM jobid 7")
    line, submitted = screen.getvalue().splitlines()
    assert line.endswith(f"{REFPIX} (refpix)") and submitted == "Job 1 has been submitted with SLURM jobid 7"


def test_on_a_terminal_one_line_says_what_runs(logger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "45")
    screen = start(logger, monkeypatch, terminal=True)
    run_two_jobs(logger)
    assert screen.getvalue().split("\r\033[K")[-1] == f"[1/4 25%, 3 min left] {FIT} (ramp_fitting)"[:44]
    assert "\n" not in screen.getvalue()
    logger.error("bad news")
    *_, before, last = screen.getvalue().split("\n")
    assert before.endswith("\r\033[K\033[31mbad news\033[0m") and last.startswith("[1/4"), "the line is replaced, and put back"
    # A job that fails runs no more.
    logger.error("failed", extra={"event": LogEvent.JOB_ERROR, "jobid": 2})
    assert screen.getvalue().endswith("\033[31mfailed\033[0m\n")


@pytest.mark.parametrize("settings", [{"quiet": {"progress"}}, {"verbose": True}, {"printshellcmds": True}])
def test_with_other_options_the_messages_are_those_of_snakemake(logger, monkeypatch, settings):
    screen = start(logger, monkeypatch, terminal=False, **settings)
    run_two_jobs(logger)
    assert "Select jobs" in screen.getvalue() and f"] {REFPIX}" not in screen.getvalue()


def test_a_job_has_the_name_of_its_rule_once():
    assert progress.job_name("refpix", REFPIX) == f"{REFPIX} (refpix)"
    assert progress.job_name("linearity", "r1: linearity") == "r1: linearity" and progress.job_name("all", None) == "all"


def test_a_dry_run_is_a_table_by_rule_and_reason(logger, monkeypatch):
    screen = start(logger, monkeypatch, terminal=False, dryrun=True)
    logger.info("SNAKEMAKE", extra={"event": LogEvent.WORKFLOW_STARTED})
    logger.info("Job stats", extra={"event": LogEvent.RUN_INFO})
    follows = "Input files updated by another job: x"
    jobs = [
        ("refpix", "Missing output files: a; Params have changed since last execution", ["a"], REFPIX),
        ("refpix", f"Missing output files: b; {follows}", ["b"], REFPIX),
        ("refpix", "Missing output files: c", ["c"], REFPIX),
        ("ramp_fitting", follows, ["d"], FIT),
        ("remove_stale", "", [], "remove these files"),
        ("all", follows, [], None),
    ]
    for number, (rule, reason, output, message) in enumerate(jobs):
        extra = {"jobid": number, "rule_name": rule, "reason": reason, "output": output, "rule_msg": message}
        logger.info(None, extra={"event": LogEvent.JOB_INFO, **extra})
    logger.info("Group job finalize", extra={"event": LogEvent.GROUP_INFO})
    logger.info("Would remove temporary output x")
    logger.warning("something else")
    logger.info("Reasons:\n    refpix")
    logger.info("This was a dry-run (flag -n).")
    assert screen.getvalue().splitlines() == [
        "something else",
        "job           count  reason",
        "refpix            2  missing output files",
        "refpix            1  missing output files; params have changed since last execution",
        "ramp_fitting      1  input files updated by another job",
        "remove_stale      1",
        "all               1  input files updated by another job",
        "total             6",
        "remove these files",
        "This was a dry-run (flag -n).",
    ]


def test_with_options_a_dry_run_is_that_of_snakemake(logger, monkeypatch):
    screen = start(logger, monkeypatch, terminal=False, dryrun=True, printshellcmds=True)
    logger.info("Job stats", extra={"event": LogEvent.RUN_INFO})
    assert screen.getvalue() == "Job stats\n"


def test_an_error_is_followed_by_hints(logger, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("input: raw\nresults:out\n")
    monkeypatch.setattr(sys, "argv", ["snakemake", "--configfile", "my.yaml"])
    screen = start(logger, monkeypatch, terminal=False, quiet={"rules"})
    logger.error("Config file is not valid", extra={"event": LogEvent.ERROR})
    hint = "Hint: my.yaml, line 2: a space is missing after the colon; write results: out"
    assert screen.getvalue().splitlines() == ["Config file is not valid", hint]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("results: out\n    backup: 2\n", "line 2: 'backup: 2' is not YAML"),  # the lines of its sections are comments
        ("steps:\n  refpix:\n\tskip: true\n", "line 3: 'skip: true' is not YAML"),
        ("steps: {refpix: {skip: true}\n", "is not YAML"),
        ("results: \x07\n", ": is not YAML"),
        ("# results: out\n", ": has no key"),
        ("- input: raw\n", "line 1: begins with a list"),
    ],
)
def test_what_yaml_refuses_in_a_configuration_file_is_named_with_its_line(text, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(text)
    (hint,) = find_hints(["--configfile", "my.yaml"])
    assert hint.startswith("my.yaml") and expected in hint
    assert ("write spaces" in hint) == ("\t" in text)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--configfile", "my.yaml", "report"], ["write targets first: snakemake report --configfile my.yaml"]),
        (["--configfile", "my.yaml", "other.yaml"], []),
        (["report", "--configfile=my.yaml", "--cores", "2"], []),
        (["--config", "input=a", "results:b"], ["write results=b in place of 'results:b'"]),
        (["--config", "input:", "a", "results=b"], ["write input=a in place of 'input: a'"]),
        (["--config", "input:"], ["write input=VALUE in place of 'input: VALUE'"]),
        (["-C", "input=a", "report"], ["write targets first: snakemake report --config ..."]),
        (["--config", "input=a", "--cores", "2", "report"], []),
    ],
)
def test_mistakes_in_a_command_line_are_found(arguments, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("input: raw\n")
    found = find_hints(arguments)
    assert len(found) == len(expected) and all(hint.endswith(end) for hint, end in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("results:foo", "results: foo"),
        ("  edge_size:2", "edge_size: 2"),
        ("steps: {ramp_fitting: {edge_size:2}}", "edge_size: 2"),
        ("override: {dark: d.asdf, flat:my.asdf}", "flat: my.asdf"),
        ("- exposure:a", "exposure: a"),
        ("results: foo", None),
        ("url: https://a.b", None),
        ("# results:foo\nresults: foo", None),
        ("results: foo # a:b", None),
        ("steps: {ramp_fitting: {edge_size: 2}}", None),
        ("time: 12:30", None),
    ],
)
def test_a_missing_space_is_found_by_its_line(line, written, tmp_path):
    (tmp_path / "my.yaml").write_text(f"{line}\n")
    found = find_hints(["--configfile", str(tmp_path / "my.yaml")])
    assert [hint.partition("; write ")[2] for hint in found] == ([written] if written else [])


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


@pytest.fixture
def dry_run(tmp_path):
    """Runs Snakemake without jobs on a workflow with three; returns what it shows."""
    (tmp_path / "Snakefile").write_text(
        "rule all:\n    input: 'a.txt', 'b.txt'\n"
        "rule good:\n    output: '{name}.txt'\n    message: 'make {wildcards.name}'\n    shell: 'touch {output}'\n"
    )
    (tmp_path / "my.yaml").write_text("results:foo\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")])}

    def show(*arguments):
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--logger", "progress", *arguments]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        return run.stdout + run.stderr

    return show


@pytest.mark.workflow
def test_a_dry_run_of_any_workflow_is_a_table(dry_run):
    said = dry_run()
    rows = [line.split("  ")[0] for line in said.splitlines() if line.startswith(("job", "good", "all", "total"))]
    assert rows == ["job", "all", "good", "total"] or rows == ["job", "good", "all", "total"]
    assert re.search(r"^good +2  missing output files$", said, re.MULTILINE)
    assert "make a" not in said and "Job stats" not in said and "Reasons:" not in said
    assert "make a" in dry_run("--printshellcmds")


@pytest.mark.workflow
@pytest.mark.skipif(SNAKEMAKE < (9, 12), reason="it reads the configuration before it starts a logger plugin")
def test_mistakes_in_the_command_line_get_a_hint(dry_run):
    assert "Hint: my.yaml, line 1: a space is missing after the colon; write results: foo" in dry_run("--configfile", "my.yaml")
    assert "write targets first: snakemake good --configfile my.yaml" in dry_run("--configfile", "my.yaml", "good")
    assert "write results=b in place of 'results:b'" in dry_run("--config", "input=a", "results:b")
