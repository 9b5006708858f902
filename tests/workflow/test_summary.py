"""What a run tells at its end, and what it does for an association of which an exposure fails."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from demo_visit import ASSOCIATION, SMALL_CONFIGURATION, SMALL_FIRST, SMALL_SECOND, SMALL_SPECTRUM
from repository import ROOT
from small_files import damage_pixels

from rampflow.quality.table import read_exposure_table
from rampflow.workflow import paths, summary
from rampflow.workflow.interruptions import Interruptions

BEGUN = 1_000_000.0
#: Steps that the alignment does without.
SKIPPED = ("saturation", "refpix", "dark_decay", "linearity", "dark_current", "photom", "flatfield")


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Writes logs of a run into the working folder: name, lines as (logger, level, text), age in seconds."""
    monkeypatch.chdir(tmp_path)

    def write(name, *lines, age=-1.0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{' :: '.join(('2026-01-01T00:00:00.000Z', *line))}\n" for line in lines))
        os.utime(path, (BEGUN - age, BEGUN - age))
        return name

    return write


INFO = ("rampflow.refpix", "INFO", "fine")


# -------------------------------------------------------------------------------------------------------------- the words
def benchmark(log, age=-1.0):
    """The job that writes a log has ended with success."""
    path = paths.benchmark_of(Path(log))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("s\n1\n")
    os.utime(path, (BEGUN - age, BEGUN - age))


def summarize(*logs, **state):
    return summary.summarize([Path(log) for log in logs], BEGUN, **state)


def test_a_failure_is_one_line_with_exposure_step_reason_and_log(logs):
    log = logs("logs/r1/refpix.log", INFO, ("rampflow", "ERROR", "refpix: r1_uncal.asdf: data is missing; make it again"))
    failures, warnings, _ = summarize(log)
    assert failures == ["r1 refpix: r1_uncal.asdf: data is missing; make it again [logs/r1/refpix.log]"]
    assert warnings == []


def test_warnings_of_earlier_runs_are_told_apart_and_earlier_failures_left_out(logs):
    failed = logs("logs/r1/refpix.log", ("rampflow.refpix", "WARNING", "x"), ("rampflow", "ERROR", "refpix: old"), age=1)
    kept = logs("logs/r2/refpix.log", ("rampflow.refpix", "WARNING", "r2_uncal.asdf: old"), age=1)
    assert summarize(failed, kept) == ([], [], ["r2 refpix: *_uncal.asdf: old [logs/r2/refpix.log]"])


def test_logs_are_found_by_the_names_of_exposures_and_associations(logs):
    mine = [
        logs("logs/r1/refpix.log", INFO),
        logs("logs/r/tweakreg.log", INFO),
        logs("logs/0a/b.asdf/fetch_reference.log", INFO),
        *(logs(f"logs/{job}.log", INFO) for job in summary.RUN_JOBS),
    ]
    logs("logs/excluded/refpix.log", INFO)
    logs("logs/watch_snakemake.log", INFO)
    plan = SimpleNamespace(exposures={"r1": None, "r9": None}, associations=lambda: ["r"])
    assert {str(log) for log in summary.logs_of(plan)} == set(mine)


def test_logs_of_all_rules_are_read():
    """A log without a wildcard is that of a job of the whole run."""
    found = set()
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        found |= set(re.findall(r"^ +f?\"logs/(.+)\.log\",$", path.read_text(), re.MULTILINE))
    assert {name for name in found if "{" not in name} == set(summary.RUN_JOBS)
    places = {name.rpartition("/")[0] for name in found - set(summary.RUN_JOBS)}
    assert places == {"{stem}", "{{stem}}", "{association}", "{name}", "{content}/{reference}"}


#: What Snakemake writes to its own log of a job that has failed.
REPORTED = """\
RuleException:
CalledProcessError in file "report.smk", line 40:
[Mon Nov 30 03:00:14 2026]
Error in rule survey:
    message: None
    jobid: 0
    input: a, b
    log: logs/survey.log (check log file(s) for error details)
    shell:
        python survey.py results > logs/survey.log 2>&1
"""


def test_a_job_of_the_whole_run_has_its_error_in_the_summary(logs):
    error = ("rampflow", "ERROR", "survey: results/exposures.parquet: has no exposures; run the workflow first")
    log = logs("logs/survey.log", INFO, error)
    assert summarize(log).failures == [
        "survey: results/exposures.parquet: has no exposures; run the workflow first [logs/survey.log]"
    ]
    logs("logs/survey.log", INFO, error, age=10)
    assert summarize(log) == ([], [], []), "of an earlier run"
    logs("logs/survey.log", ("rampflow.survey", "WARNING", "no logs of survey"))
    assert summarize(log) == ([], ["survey: no logs of survey [logs/survey.log]"], [])
    logs("logs/survey.log", ("rampflow.survey", "WARNING", "odd"), age=10)
    assert summarize(log).earlier == []


def test_a_job_without_a_benchmark_that_was_killed_is_known_from_the_log_of_snakemake(logs, tmp_path):
    snakemake_log = tmp_path / "snakemake.log"
    snakemake_log.write_text(REPORTED)
    reported = summary.reported_failures([snakemake_log, tmp_path / "absent.log"])
    assert reported == {Path("logs/survey.log")}
    log, other = logs("logs/survey.log", INFO), logs("logs/exposures.log", INFO)
    assert summarize(log, other).failures == []
    (line,) = summarize(log, other, reported=reported).failures
    assert line.startswith("survey: ended without an error message") and line.endswith("last line: fine [logs/survey.log]")
    assert summarize(log, other, reported=reported, interrupted=True).failures == []


def test_of_a_cluster_job_the_step_that_was_killed_is_named(logs):
    """Steps that were killed leave no error: the one whose benchmark is missing, or of an earlier run, is meant."""
    done, killed = logs("logs/r1/dq_init.log", INFO, age=-1), logs("logs/r1/refpix.log", INFO, age=-2)
    benchmark(done)
    for _ in range(2):
        (line,), *_ = summarize(done, killed)
        assert line.startswith("r1 refpix: ended without an error message, probably killed")
        assert line.endswith("; its last line: fine [logs/r1/refpix.log]")
        benchmark(killed, age=10)
    logs(killed, age=-2)
    (line,), *_ = summarize(done, killed)
    assert line == f"r1 refpix: {summary._KILLED} [logs/r1/refpix.log]"
    assert summary.count_done([Path(done), Path(killed)], BEGUN) == 1


def test_steps_of_a_cluster_job_that_did_not_begin_have_not_failed(logs):
    """Snakemake makes their logs, which stay empty."""
    failed = logs("logs/r1/dq_init.log", ("rampflow", "ERROR", "dq_init: damaged"))
    never = logs("logs/r1/refpix.log", age=-3)
    Path(never).write_text("")
    assert summarize(failed, never).failures == [f"r1 dq_init: damaged [{failed}]"]
    assert [line.split(":")[0] for line in summarize(never).failures] == ["r1 refpix"]


def test_of_a_job_for_all_steps_the_step_that_failed_is_named(logs):
    """The job's own log ends with that of the step."""
    warning, error = ("rampflow.refpix", "WARNING", "odd"), ("rampflow", "ERROR", "refpix: r1_uncal.asdf: data is missing")
    done, failed = logs("logs/r1/dq_init.log", INFO), logs("logs/r1/refpix.log", warning, error)
    benchmark(done)
    job = logs("logs/r1/exposure.log", ("rampflow.process_exposure", "INFO", "Step 2 of 3: refpix"), warning, error)
    failures, warnings, _ = summarize(done, failed, job)
    assert failures == ["r1 refpix: r1_uncal.asdf: data is missing [logs/r1/refpix.log]"]
    assert warnings == ["r1 refpix: odd [logs/r1/refpix.log]"]
    killed = logs("logs/r1/refpix.log", INFO)
    job = logs("logs/r1/exposure.log", ("rampflow.process_exposure", "INFO", "Step 2 of 3: refpix"))
    (line,) = summarize(done, killed, job).failures
    assert line.startswith("r1 refpix: ended without an error message, probably killed")
    (line,) = summarize(done, job).failures
    assert line.startswith("r1 exposure: ") and line.endswith("its last line: Step 2 of 3: refpix [logs/r1/exposure.log]")


def test_a_job_for_all_steps_counts_once(logs):
    names = [logs(f"logs/r1/{step}.log", INFO) for step in ("dq_init", "refpix", "exposure", "finalize")]
    for log in names:
        benchmark(log)
    paths_of_logs = [Path(log) for log in names]
    assert summary.count_done(paths_of_logs, BEGUN) == 2
    logs(names[2], INFO, age=10)
    assert summary.count_done(paths_of_logs, BEGUN) == 4, "this run has had a job for each step"


def test_what_an_interruption_ends_has_not_failed(logs):
    ended = logs("logs/r1/refpix.log", INFO)
    failed = logs("logs/r2/refpix.log", INFO, ("rampflow", "ERROR", "refpix: no data"))
    failures, *_ = summarize(ended, failed, interrupted=True)
    assert failures == ["r2 refpix: no data [logs/r2/refpix.log]"]


def test_a_fetched_reference_has_no_benchmark(logs):
    fetched = logs("logs/0a/b.asdf/fetch_reference.log", INFO)
    failed = logs("logs/0a/c.asdf/fetch_reference.log", ("rampflow", "ERROR", "c.asdf: no server"))
    assert summarize(fetched, failed).failures == [f"c.asdf fetch_reference: c.asdf: no server [{failed}]"]


def test_the_end_of_a_traceback_is_a_reason(logs):
    log = Path(logs("logs/r1/refpix.log", INFO, age=-1))
    log.write_text("Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'numba'\n")
    (line,), *_ = summarize(log)
    assert line == "r1 refpix: ModuleNotFoundError: No module named 'numba' [logs/r1/refpix.log]"


def test_warnings_of_many_exposures_are_one_line(logs):
    names = [
        logs(f"logs/r{n:02d}/saturation.log", ("rampflow.saturation", "WARNING", f"r{n:02d}_uncal.asdf: bright"))
        for n in range(30)
    ]
    association = logs("logs/r/tweakreg.log", ("rampflow.tweakreg", "WARNING", "r_0001 of r: FAILED"))
    other = logs("logs/r1/source_catalog.log", ("rampflow.source_catalog", "ERROR", "All pixels are masked"))
    for log in (*names, other, association):
        benchmark(log)
    failures, warnings, _ = summarize(*names, other, association)
    assert failures == [], "an error that a step goes on after is a warning"
    assert sorted(warnings) == [
        "30 exposures saturation: *_uncal.asdf: bright [logs/r00/saturation.log]",
        "r tweakreg: r_0001 of *: FAILED [logs/r/tweakreg.log]",
        "r1 source_catalog: All pixels are masked [logs/r1/source_catalog.log]",
    ]


def report_of(path, failures=(), warnings=(), earlier=(), **state):
    state = {"products": (3, 0, 3), "jobs": (41, 41), "interrupted": False, "success": not failures} | state
    return summary.report(summary.Findings(list(failures), list(warnings), list(earlier)), path, **state)


def test_the_file_has_every_line_and_the_screen_some(tmp_path):
    path = tmp_path / "logs" / "summary.txt"
    shown = report_of(path, [f"r{n} refpix: x" for n in range(50)], ["w"], ["e"], products=(2, 1, 52)).splitlines()
    written = path.read_text().splitlines()
    head = "rampflow: 50 failed, 1 warning, 1 warning of earlier runs, 2 of 52 exposures have their products"
    head += ", 1 has outdated ones"
    assert shown[0] == f"{head} ({path})" and written[0] == head
    assert written[1:] == [*(f"failed: r{n} refpix: x" for n in range(50)), "warning: w", "earlier warning: e"]
    assert shown[1:] == [*written[1 : 1 + summary.MAXIMUM_SHOWN], f"... and 30 more in {path}", "warning: w"]
    assert report_of(path) == f"rampflow: nothing failed, no warning, 3 of 3 exposures have their products ({path})"


def test_the_first_line_counts_exposures_that_are_not_aligned(tmp_path):
    assert ": nothing failed, 2 not aligned, no warning, " in report_of(tmp_path / "summary.txt", unaligned=2)


def test_an_interrupted_run_reports_its_progress(tmp_path):
    head = report_of(tmp_path / "summary.txt", products=(0, 0, 3), jobs=(7, 41), interrupted=True, success=False)
    assert head.startswith("rampflow: interrupted: 7 of 41 jobs done; the same command continues, no warning, 0 of 3 ")
    assert "nothing failed" not in head
    head = report_of(tmp_path / "summary.txt", jobs=(1, None), interrupted=True, success=False)
    assert head.startswith("rampflow: interrupted: 1 job done; the same command continues, "), "with --quiet"


def test_the_number_of_all_jobs_is_that_of_the_first_table_of_snakemakes_logs(tmp_path):
    empty, log = tmp_path / "empty.log", tmp_path / "run.log"
    empty.touch()
    log.write_text("Job stats:\njob      count\n-----  -------\nall          1\ntotal       41\n\n7 of 41 steps (17%) done\n")
    assert summary.count_planned([tmp_path / "missing.log", empty, log]) == 41
    assert summary.count_planned([empty]) is None


def test_a_failed_run_never_reports_success(tmp_path):
    shown = report_of(tmp_path / "summary.txt", success=False)
    assert shown.startswith("rampflow: 1 failed, ") and "failed: the run: Snakemake ended with an error" in shown


# ------------------------------------------------------------------------------------------------------- the interruptions
def test_signals_are_noted_and_passed_on():
    interruptions, passed = Interruptions(), []
    before = {n: signal.signal(n, lambda number, frame: passed.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        interruptions.watch()
        assert not interruptions.noted
        os.kill(os.getpid(), signal.SIGTERM)
        assert passed == [signal.SIGTERM] and interruptions.noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


#: A run of a second pass, and a module in the place of Snakemake that takes a while to end its jobs.
SECOND_PASS = """
import sys
from types import SimpleNamespace
from rampflow.workflow.second_pass import run_second_pass
inventory = SimpleNamespace(left_out={})
run_second_pass(SimpleNamespace(exposures={"r1": None, "r2": None}, inventory=inventory), ["r2"], ["--cores", "1"])
open("after", "w").close()
"""
SLOW_TO_END = """
import time
try:
    open("begun", "w").close()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    open("ended", "w").close()
"""


def test_a_second_pass_ends_its_jobs_after_ctrl_c_and_the_summary_follows(tmp_path):
    (tmp_path / "snakemake.py").write_text(SLOW_TO_END)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    run = subprocess.Popen(
        [sys.executable, "-c", SECOND_PASS],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(30) == 0
    assert (tmp_path / "ended").exists() and (tmp_path / "after").exists()


# ------------------------------------------------------------------------------------------------------------ whole visits
@pytest.fixture(scope="module")
def workflow(small_visit):
    """The small visit, to be processed without the steps that its alignment does without."""
    steps = ", ".join(f"{name}: {{skip: true}}" for name in SKIPPED)
    small_visit.arguments = [*SMALL_CONFIGURATION, "--config", f"steps={{{steps}}}", "--keep-going"]
    return small_visit


@pytest.mark.workflow
def test_one_bad_exposure_does_not_hold_back_the_others_of_its_association(workflow):
    association, first, second, spectrum = ASSOCIATION, SMALL_FIRST, SMALL_SECOND, SMALL_SPECTRUM
    raw, results = workflow.folder / "demo" / f"{first}_uncal.asdf", workflow.folder / "results"
    aligned = results / f"{association}_tweakreg.json"
    good = raw.read_bytes()
    damage_pixels(raw)

    failed = workflow.snakemake(*workflow.arguments, "--forcerun", "dq_init")
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert {path.name.removesuffix("_cal.asdf") for path in results.glob("*_cal.asdf")} == {second, spectrum}
    assert set(json.loads(aligned.read_text())["exposures"]) == {second}
    head, line, *_ = (workflow.folder / "logs" / "summary.txt").read_text().splitlines()
    assert head.startswith("rampflow: 1 failed, ") and head.endswith(", 2 of 3 exposures have their products")
    assert line.startswith(f"failed: {first} dq_init: ") and "doesn't match its checksum" in line
    assert line.endswith(f"[logs/{first}/dq_init.log]")
    assert said.count(line) == 1 and said.count(f"Job 0: {second}: raw exposure") <= 1
    assert said.count(f"{second}: raw exposure to ramp") == 1, "what was forced is done once"

    rows = read_exposure_table(results)
    assert {stem: row["state"] for stem, row in rows.items()} == {first: "failed", second: "complete", spectrum: "complete"}
    assert rows[first]["failed_step"] == "dq_init" and "doesn't match its checksum" in rows[first]["reason"]
    assert (rows[first]["detector"], rows[first]["association"]) == ("WFI01", association)

    # The same command again tries what failed, and does nothing else.
    def times():
        return {path: path.stat().st_mtime_ns for path in results.iterdir() if path.stem not in ("exposures", "run")}

    before = times()
    again = workflow.snakemake(*workflow.arguments)
    assert again.returncode == 1
    assert times() == before

    # Mended, it is processed, and the association is aligned anew with it.
    raw.write_bytes(good)
    mended = workflow.snakemake(*workflow.arguments)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert set(json.loads(aligned.read_text())["exposures"]) == {first, second}
    assert (results / f"{first}_cal.asdf").exists()
    row = read_exposure_table(results)[first]
    assert (row["state"], row["failed_step"], row["reason"]) == ("complete", "", "") and row["image_median"] > 0
    head, *_ = (workflow.folder / "logs" / "summary.txt").read_text().splitlines()
    assert head.startswith("rampflow: nothing failed, ") and head.endswith(", 3 of 3 exposures have their products")
    assert workflow.jobs(*workflow.arguments) == {}

    # With other parameters, the products that it has are outdated.
    damage_pixels(raw)
    changed = [word.replace("{", "{source_catalog: {bkg_boxsize: 200}, ", 1) for word in workflow.arguments]
    failed = workflow.snakemake(*changed)
    assert failed.returncode == 1
    head, *_ = (workflow.folder / "logs" / "summary.txt").read_text().splitlines()
    assert head.endswith(", 2 of 3 exposures have their products, 1 has outdated ones")
    raw.write_bytes(good)


@pytest.mark.workflow
def test_without_keep_going_a_failure_ends_the_run(workflow):
    raw = next((workflow.folder / "demo").glob("*_0001_*_uncal.asdf"))
    copy = workflow.folder / raw.name
    shutil.copy(raw, copy)
    damage_pixels(copy)
    others = [workflow.folder / "demo" / path.name for path in (workflow.folder / "demo").glob("*_000[23]_*_uncal.asdf")]
    asked = f"input=[{', '.join(map(str, [copy, *others]))}]"
    arguments = [*workflow.arguments, "results=elsewhere"]
    arguments = [word for word in arguments if word != "--keep-going"]
    failed = workflow.snakemake(*arguments, asked)
    assert failed.returncode == 1 and "Running again" not in failed.stdout + failed.stderr
    assert (workflow.folder / "logs" / "summary.txt").read_text().startswith("rampflow: 1 failed")


@pytest.mark.workflow
def test_jobs_of_the_whole_run_are_refused_or_explained(workflow):
    """A folder that does not exist is refused before the first job; the error of a job is in the summary."""
    for target in ("survey", "exposures", "remove_stale"):
        done = workflow.snakemake(target, "--config", "results=nowhere")
        assert done.returncode == 1 and "results: the folder nowhere does not exist in" in done.stdout + done.stderr
        assert not (workflow.folder / "nowhere").exists()
    (workflow.folder / "empty").mkdir()
    (workflow.folder / "empty" / "run.json").write_text("{}")
    done = workflow.snakemake("survey", "--config", "results=empty")
    assert done.returncode == 1
    head, line, *_ = (workflow.folder / "logs" / "summary.txt").read_text().splitlines()
    assert head.startswith("rampflow: 1 failed, ")
    assert line.startswith("failed: survey: empty/exposures.parquet: has no exposures; run the workflow first")
    assert line.endswith("[logs/survey.log]")
    assert (workflow.folder / "empty" / "run.json").read_text() == "{}", "the record is that of the run"
    for target in ("affected", "remove_stale"):
        without = workflow.snakemake(target, "--config", "results=empty")
        assert without.returncode == 1 and "input: no exposure is given" in without.stdout + without.stderr
