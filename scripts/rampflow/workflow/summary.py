"""Summary of a run: what failed and why, and the warnings, from the logs of its jobs.

A log is ``logs/NAME/STEP.log``, NAME an exposure or an association, or ``logs/JOB.log`` of a job of the whole run. Its lines
are those of `rampflow.step.logs.configure_logging`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from rampflow import SOFTWARE_NAME
from rampflow.chain import STEPS
from rampflow.workflow import rerun
from rampflow.workflow.exposure_states import find_outliers_of_run
from rampflow.workflow.paths import EXPOSURE_JOB, FETCH_REFERENCE, LOGS, benchmark_of
from rampflow.workflow.plan import Plan
from rampflow.workflow.running import is_run_alive

MAXIMUM_SHOWN = 20  #: lines of each kind that are shown; the file has all of them

FETCH = FETCH_REFERENCE  #: the step without a benchmark
#: Jobs of the whole run. They have no output, so that they run whenever they are asked for, and no benchmark.
RUN_JOBS = ("exposures", "remove_stale", "survey")

_LINE = re.compile(r"\S+Z :: (?P<logger>\S+) :: (?P<level>[A-Z]+) :: (?P<text>.*)")
#: The row of Snakemake's table "Job stats" that counts all jobs of a run.
_TOTAL = re.compile(r"^total +(\d+)$", re.MULTILINE)
#: What Snakemake writes of a job that has failed; the name of its log follows the name of its rule, with lines between them.
_REPORTED = re.compile(r"^Error in rule [^\n]*\n(?:    (?!log: )[^\n]*\n)*    log: (\S+)", re.MULTILINE)
_NOT_ENDED = f"{SOFTWARE_NAME}: not ended"
_KILLED = "ended without an error message, probably killed, as when memory or time runs out"


class Findings(NamedTuple):
    """What the logs say, a line for each: failures, warnings of this run, and warnings of jobs that this run did not repeat."""

    failures: list[str]
    warnings: list[str]
    earlier: list[str]


def read_log(log: Path) -> tuple[str, list[str]]:
    """Read the error that ended a step, and its warnings.

    Parameters
    ----------
    log : pathlib.Path
        Log of the job.

    Returns
    -------
    tuple of str and list of str
        The error, empty if there is none, and the warnings.
    """
    reason, warnings = "", []
    for line in log.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found and found["level"] == "ERROR" and found["logger"] == SOFTWARE_NAME:
            reason = found["text"]
        elif found and found["level"] in ("WARNING", "ERROR"):
            warnings.append(found["text"])
    return reason, warnings


def reason_without_error(log: Path) -> str:
    """Find why a step ended that has logged no error.

    Parameters
    ----------
    log : pathlib.Path
        Log of the job.

    Returns
    -------
    str
        The last line of a traceback, or that the step was killed and what it logged last.
    """
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if not lines:
        return _KILLED
    found = _LINE.match(lines[-1])
    return f"{_KILLED}; its last line: {found['text']}" if found else lines[-1]


def logs_of(plan: Plan) -> list[Path]:
    """List the logs of the exposures and associations of a run, of the references that were fetched, and of the whole run.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    list of pathlib.Path
        Logs that exist.
    """
    names = {*plan.exposures, *plan.associations()}
    return [
        *(log for name in sorted(names) for log in sorted((LOGS / name).glob("*.log"))),
        *sorted(LOGS.glob(f"*/*/{FETCH}.log")),
        *(log for job in RUN_JOBS if (log := LOGS / f"{job}.log").exists()),
    ]


def ended_well(log: Path) -> bool:
    """Test whether the job that writes a log has ended with success.

    Its benchmark is then not older than its log.

    Parameters
    ----------
    log : pathlib.Path
        Log of the job.

    Returns
    -------
    bool
        True if the job has ended with success.
    """
    benchmark = benchmark_of(log)
    return benchmark.exists() and benchmark.stat().st_mtime_ns >= log.stat().st_mtime_ns


def count_done(logs: Iterable[Path], since: float) -> int:
    """Count the jobs that have ended with success since a run began.

    Parameters
    ----------
    logs : iterable of pathlib.Path
        Logs of the jobs.
    since : float
        When the run began, as a file's time of modification.

    Returns
    -------
    int
        Number of jobs.
    """
    logs = list(logs)
    # One job has written the logs and benchmarks of these steps.
    together = {log.parent for log in logs if log.stem == EXPOSURE_JOB and log.stat().st_mtime >= since}
    jobs = [log for log in logs if log.parent not in together or log.stem not in STEPS]
    return sum(benchmark_of(log).exists() and benchmark_of(log).stat().st_mtime >= since for log in jobs)


def count_planned(logs: Iterable[Path]) -> int | None:
    """Count the jobs that a run began with, from Snakemake's own logs of it.

    Parameters
    ----------
    logs : iterable of pathlib.Path
        What Snakemake's handlers ``onsuccess`` and ``onerror`` get as ``log``.

    Returns
    -------
    int or None
        None where no log has the number: with ``--quiet``, or where no log can be written.
    """
    for log in logs:
        if log.is_file() and (found := _TOTAL.search(log.read_text(errors="replace"))):
            return int(found[1])
    return None


def reported_failures(logs: Iterable[Path]) -> set[Path]:
    """List the logs of the jobs that Snakemake calls failed.

    Parameters
    ----------
    logs : iterable of pathlib.Path
        Snakemake's own logs of the run.

    Returns
    -------
    set of pathlib.Path
        The logs.
    """
    texts = (log.read_text(errors="replace") for log in logs if log.is_file())
    return {Path(name) for text in texts for name in _REPORTED.findall(text)}


def failed_jobs(
    logs: Iterable[Path], since: float, *, interrupted: bool = False, reported: Collection[Path] = ()
) -> dict[Path, str]:
    """Find the jobs of a run that have failed.

    Parameters
    ----------
    logs : iterable of pathlib.Path
        Logs of the exposures and associations of the run.
    since : float
        When the run began, as a file's time of modification.
    interrupted : bool
        Whether the run was interrupted. Jobs that ended without an error message are then taken for interrupted ones.
    reported : collection of pathlib.Path
        Logs of the jobs that Snakemake calls failed, see `reported_failures`: it tells which jobs without a benchmark have
        ended without an error message.

    Returns
    -------
    dict
        Log of each failed job, and the reason.
    """
    failures = {}
    for log in logs:
        if log.stat().st_mtime < since:
            continue
        reason, _ = read_log(log)
        if reason:
            failures[log] = reason.removeprefix(f"{log.stem}: ")
        elif not interrupted and (log in reported if _is_without_benchmark(log) else not ended_well(log)):
            failures[log] = reason_without_error(log)
    # Of a cluster job that takes several steps, Snakemake makes empty logs for the steps after the one that failed. The log of
    # a job for all steps of an exposure ends with that of the step that failed.
    steps = {log for log in failures if log.stat().st_size and log.stem != EXPOSURE_JOB}
    begun = {log.parent for log in steps}
    return {log: reason for log, reason in failures.items() if log in steps or log.parent not in begun}


def _is_without_benchmark(log: Path) -> bool:
    return log.stem == FETCH or log.parent == LOGS


def _job_of(log: Path) -> str:
    """Name of the job that writes a log: exposure or association and step, or the job of the whole run."""
    return log.stem if log.parent == LOGS else f"{log.parent.name} {log.stem}"


def summarize(logs: Iterable[Path], since: float, *, interrupted: bool = False, reported: Collection[Path] = ()) -> Findings:
    """Collect what failed, and what the steps warned of.

    Parameters
    ----------
    logs : iterable of pathlib.Path
        Logs of the exposures and associations of the run.
    since : float
        When the run began, as a file's time of modification.
    interrupted : bool
        Whether the run was interrupted, see `failed_jobs`.
    reported : collection of pathlib.Path
        Logs of the jobs that Snakemake calls failed, see `failed_jobs`.

    Returns
    -------
    Findings
        A failure names the exposure or association, the step, the reason and the log; a warning has one log as an example where
        several exposures have it.
    """
    logs = list(logs)
    failed = failed_jobs(logs, since, interrupted=interrupted, reported=reported)
    warnings: dict[tuple[str, str], list[str]] = {}
    earlier: dict[tuple[str, str], list[str]] = {}
    for log in logs:
        if log.stem == EXPOSURE_JOB:  # the logs of its steps have the warnings
            continue
        reason, warned = read_log(log)
        is_earlier = log.stat().st_mtime < since
        if is_earlier and log.parent == LOGS:  # this run has no such job, and its products are not of it
            continue
        for text in [] if reason and is_earlier else warned:
            # The same for all exposures but for their own names. (An association's begins those of its exposures, which stay.)
            text = text if log.parent == LOGS else re.sub(rf"{re.escape(log.parent.name)}(?!_\d)", "*", text)
            (earlier if is_earlier else warnings).setdefault((log.stem, text), []).append(str(log))
    lines = [f"{_job_of(log)}: {reason} [{log}]" for log, reason in failed.items()]
    return Findings(lines, _lines(warnings), _lines(earlier))


def _lines(warnings: dict[tuple[str, str], list[str]]) -> list[str]:
    """A line for each warning, from the logs that have it."""
    lines = []
    for (step, text), names in warnings.items():
        exposures = len({Path(name).parent for name in names})
        about = f"{exposures} exposures {step}" if exposures > 1 else _job_of(Path(names[0]))
        lines.append(f"{about}: {text} [{names[0]}]")
    return lines


def count(number: int, noun: str, none: str = "no") -> str:
    """Write a number and its noun: no warning, 1 warning, 2 warnings.

    Parameters
    ----------
    number : int
        The number.
    noun : str
        The noun in the singular.
    none : str
        Word for zero.

    Returns
    -------
    str
        Number and noun.
    """
    return f"{number or none} {noun}{'s' * (number > 1)}"


def report(
    findings: Findings,
    path: Path,
    *,
    products: tuple[int, int, int],
    jobs: tuple[int, int | None],
    interrupted: bool,
    success: bool,
    unaligned: int = 0,
    left_out: int = 0,
) -> str:
    """Write the summary to a file, and return what to show of it.

    Parameters
    ----------
    findings : Findings
        What the logs say, as `summarize` returns it.
    path : pathlib.Path
        File of the summary.
    products : tuple of int
        Number of exposures whose products are all there and as this run would make them, of those whose products are outdated,
        and of all exposures.
    jobs : tuple of int
        Number of jobs of the run that have ended with success, and of all jobs that it began with; None where that is unknown.
    interrupted : bool
        Whether somebody or a batch system ended the run.
    success : bool
        Whether Snakemake ended with success.
    unaligned : int
        Number of exposures whose alignment is FAILED.
    left_out : int
        Number of exposures whose files can't be read yet.

    Returns
    -------
    str
        The first line says what became of the run; each of the others begins with ``failed:``, ``warning:`` or
        ``earlier warning:``.
    """
    failures = list(findings.failures)
    if not (failures or interrupted or success):
        failures.append("the run: Snakemake ended with an error that no step has logged; see the messages above")
    parts = []
    if interrupted:
        done, planned = jobs
        progress = count(done, "job") if planned is None else f"{done} of {count(planned, 'job')}"
        parts.append(f"interrupted: {progress} done; the same command continues")
    if failures or not interrupted:
        parts.append(f"{len(failures) or 'nothing'} failed")
    if unaligned:
        parts.append(f"{unaligned} not aligned")
    parts.append(count(len(findings.warnings), "warning"))
    if findings.earlier:
        parts.append(f"{count(len(findings.earlier), 'warning')} of earlier runs")
    finished, outdated, exposures = products
    parts.append(f"{finished} of {exposures} exposures have their products")
    if outdated:
        parts.append(f"{outdated} {'have' if outdated > 1 else 'has'} outdated ones")
    if left_out:
        parts.append(f"{count(left_out, 'exposure')} left out, {'they' if left_out > 1 else 'it'} can't be read yet")
    head = f"{SOFTWARE_NAME}: {', '.join(parts)}"
    kinds = [
        [f"{word}: {line}" for line in lines]
        for word, lines in (("failed", failures), ("warning", findings.warnings), ("earlier warning", findings.earlier))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *kinds[0], *kinds[1], *kinds[2]]) + "\n")
    shown = [
        line
        for kind in kinds[:2]
        for line in [
            *kind[:MAXIMUM_SHOWN],
            *([f"... and {len(kind) - MAXIMUM_SHOWN} more in {path}"] if len(kind) > MAXIMUM_SHOWN else []),
        ]
    ]
    return "\n".join([f"{head} ({path})", *shown])


def failures_in(path: Path) -> list[str]:
    """Read what failed from the file of the summary.

    Parameters
    ----------
    path : pathlib.Path
        The file, which `report_run` has written.

    Returns
    -------
    list of str
        A line for each failure; empty if there is no such file.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line.removeprefix("failed: ") for line in lines if line.startswith("failed: ")]


def report_begin(path: Path) -> None:
    """Write to the file of the summary that the run has not ended, which remains if it is killed.

    Parameters
    ----------
    path : pathlib.Path
        The file. It may hold the summary of an earlier run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{_NOT_ENDED}: the run continues, or was killed: then start the same command again\n")


def begin_of_killed_run(path: Path, plan: Plan) -> float | None:
    """Find a run that was killed while its last jobs went on, and which has left nothing to be done.

    Snakemake then calls no handler, and the summary would say forever that the run has not ended.

    Parameters
    ----------
    path : pathlib.Path
        File of the summary.
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    float or None
        When it began, seconds since 1970; `None` if the last run has ended or continues, or if products are missing or are
        others than a run would make now.
    """
    try:
        begun, is_open = path.stat().st_mtime, path.read_text().startswith(_NOT_ENDED)
    except OSError:
        return None
    if not is_open or is_run_alive(Path(plan.settings["results"])):
        return None
    made = all(Path(product).exists() for product in plan.all_products())
    return begun if made and all(rerun.is_current(plan, stem) for stem in plan.exposures) else None


def append_notices(path: Path, plan: Plan, stale: Iterable[Path]) -> None:
    """Add to the summary of a run what its start has shown, and the files that are left from other runs.

    Parameters
    ----------
    path : pathlib.Path
        File of the summary.
    plan : rampflow.workflow.plan.Plan
        Plan of the run. Its inventory has the selected settings and the notices.
    stale : iterable of pathlib.Path
        Files that `Plan.stale_files` has found.
    """
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in plan.inventory.selected)
        file.writelines(f"warning: {notice}\n" for notice in plan.inventory.notices)
        file.writelines(f"left from before: {left}\n" for left in stale)


def report_run(
    plan: Plan,
    path: Path,
    since: float,
    *,
    snakemake_logs: Iterable[Path],
    realigned: Collection[str] = (),
    interrupted: bool,
    success: bool,
    forget_others: bool = False,
) -> str:
    """Write the summary of a run to a file, and bring the table of exposures up to date.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    path : pathlib.Path
        File of the summary.
    since : float
        When the run began, as a file's time of modification.
    snakemake_logs : iterable of pathlib.Path
        Snakemake's own logs of the run.
    realigned : collection of str
        Exposures that a second pass has aligned without those that have failed.
    interrupted : bool
        Whether somebody or a batch system ended the run.
    success : bool
        Whether Snakemake ended with success.
    forget_others : bool
        Whether the table of exposures loses the rows of other runs without products.

    Returns
    -------
    str
        What to show of it.
    """
    logs, snakemake_logs = logs_of(plan), list(snakemake_logs)
    reported = reported_failures(snakemake_logs)
    failures = failed_jobs(logs, since, interrupted=interrupted, reported=reported)
    failed = {log.parent.name for log in failures}
    complete = [stem for stem in plan.exposures if all(Path(name).exists() for name in plan.products(stem))]
    # The products of an exposure that has failed are of an earlier run. So may be those that the run has not come to: one that
    # failed, or that ``--until`` ended. The comparison takes 2 ms per exposure.
    finished = [stem for stem in complete if stem not in failed and rerun.is_current(plan, stem, realigned)]
    findings = summarize(logs, since, interrupted=interrupted, reported=reported)
    findings.warnings.extend(find_outliers_of_run(plan, failures, finished, forget_others=forget_others))
    return report(
        findings,
        path,
        products=(len(finished), len(complete) - len(finished), len(plan.exposures)),
        jobs=(count_done(logs, since), count_planned(snakemake_logs)),
        interrupted=interrupted,
        success=success,
        unaligned=count_unaligned(plan),
        left_out=sum(map(len, plan.inventory.left_out.values())),
    )


def count_unaligned(plan: Plan) -> int:
    """Count the exposures of a run whose alignment is FAILED, by the summaries of the alignments.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    int
        Number of exposures; those without a summary of their alignment don't count.
    """
    failed: set[str] = set()
    for association in plan.aligned_associations():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            entries = json.loads(Path(plan.paths.product(association, "tweakreg.json")).read_text())["exposures"]
            failed |= {stem for stem, entry in entries.items() if entry["status"] == "FAILED"}
    return len(failed & set(plan.exposures))
