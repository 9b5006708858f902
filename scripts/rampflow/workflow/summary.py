"""What the jobs of a run have said in their logs that a user must know: what failed and why, and the warnings.

A log is ``logs/NAME/STEP.log``, NAME an exposure or an association; its lines are those of
`rampflow.step.logs.configure_logging`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rampflow import SOFTWARE_NAME

MOST = 20  #: lines of each kind that are shown; the file has all of them

_LINE = re.compile(r"\S+Z :: (?P<logger>\S+) :: (?P<level>[A-Z]+) :: (?P<text>.*)")
_KILLED = "ended without an error message, probably killed, as when memory or time runs out"


class Findings(NamedTuple):
    """What the logs say, a line for each: failures, warnings of this run, and warnings of jobs that this run did not repeat."""

    failures: list[str]
    warnings: list[str]
    earlier: list[str]


def read_log(log: Path) -> tuple[str, list[str]]:
    """The error that ended a step, empty where none did, and its warnings."""
    reason, warnings = "", []
    for line in log.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found and found["level"] == "ERROR" and found["logger"] == SOFTWARE_NAME:
            reason = found["text"]
        elif found and found["level"] in ("WARNING", "ERROR"):
            warnings.append(found["text"])
    return reason, warnings


def reason_without_error(log: Path) -> str:
    """Why a step ended that has logged no error: the last line of a traceback, or that it was killed and what it did last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if not lines:
        return _KILLED
    found = _LINE.match(lines[-1])
    return f"{_KILLED}; its last line: {found['text']}" if found else lines[-1]


def logs_of(names: Iterable[str], folder: Path = Path("logs")) -> list[Path]:
    """The logs of these exposures and associations, and those of the references that were fetched."""
    return [
        *(log for name in sorted(set(names)) for log in sorted((folder / name).glob("*.log"))),
        *sorted((folder / "fetch_reference").rglob("*.log")),
    ]


def summarize(logs: Iterable[str | Path], failed: Iterable[list[str]], since: float) -> Findings:
    """What failed, and what the steps warned of.

    Parameters
    ----------
    logs : iterable of str or pathlib.Path
        Logs of the exposures and associations of the run; those that are missing are passed over.
    failed : iterable of list of str
        For each job that failed, its log; for a cluster job, those of all its steps.
    since : float
        When the run began, as a file's time of modification.

    Returns
    -------
    Findings
        A failure names the exposure or association, the step, the reason and the log; a warning has one log as an example where
        several exposures have it.
    """
    failed = [list(map(str, job)) for job in failed]
    existing = {str(log): Path(log) for log in [*logs, *(log for job in failed for log in job)] if Path(log).exists()}
    times = {name: log.stat().st_mtime for name, log in existing.items()}
    failures: dict[str, str] = {}
    warnings: dict[tuple[str, str], list[str]] = {}
    earlier: dict[tuple[str, str], list[str]] = {}
    for name, log in sorted(existing.items()):
        reason, warned = read_log(log)
        if reason and times[name] >= since:
            failures[name] = f"{log.parent.name} {log.stem}: {reason.removeprefix(f'{log.stem}: ')} [{name}]"
        for text in [] if reason and times[name] < since else warned:
            # The same for all exposures but for their own names. (An association's begins those of its exposures, which stay.)
            text = re.sub(rf"{re.escape(log.parent.name)}(?!_\d)", "*", text)
            (warnings if times[name] >= since else earlier).setdefault((log.stem, text), []).append(name)
    for job in failed:
        begun = sorted((log for log in job if times.get(log, 0) >= since), key=times.__getitem__)
        if begun and not failures.keys() & set(begun):  # no error of ours: killed, or not even begun
            log = existing[begun[-1]]
            failures[begun[-1]] = f"{log.parent.name} {log.stem}: {reason_without_error(log)} [{log}]"
        elif not begun:
            log = Path(job[0]) if job else Path("?")
            failures[str(log)] = f"{log.parent.name} {log.stem}: did not begin; see the messages above"
    return Findings(list(failures.values()), _lines(warnings), _lines(earlier))


def _lines(warnings: dict[tuple[str, str], list[str]]) -> list[str]:
    """A line for each warning, from the logs that have it."""
    lines = []
    for (step, text), names in warnings.items():
        exposures = len({Path(name).parent for name in names})
        about = f"{exposures} exposures" if exposures > 1 else Path(names[0]).parent.name
        lines.append(f"{about} {step}: {text} [{names[0]}]")
    return lines


def count(number: int, noun: str, none: str = "no") -> str:
    """A number and its noun: no warning, 1 warning, 2 warnings."""
    return f"{number or none} {noun}{'s' * (number > 1)}"


def report(
    findings: Findings, path: Path, *, products: tuple[int, int], jobs: tuple[int, int], interrupted: bool, ended_well: bool
) -> str:
    """Write the summary to a file; what to show of it.

    Parameters
    ----------
    findings : Findings
    path : pathlib.Path
        The file.
    products : tuple of int
        Number of exposures whose products are all there, and of all exposures.
    jobs : tuple of int
        Number of jobs that are done, and of all jobs of the run.
    interrupted : bool
        Whether somebody or a batch system ended the run.
    ended_well : bool
        Whether Snakemake ended with success.

    Returns
    -------
    str
        The first line says what became of the run; each of the others begins with ``failed:``, ``warning:`` or
        ``earlier warning:``.
    """
    failures = list(findings.failures)
    if not (failures or interrupted or ended_well):
        failures.append("the run: Snakemake ended with an error that no step has logged; see the messages above")
    parts = []
    if interrupted:
        parts.append(f"interrupted: {jobs[0]} of {jobs[1]} jobs done; the same command goes on")
    if failures or not interrupted:
        parts.append(f"{len(failures) or 'nothing'} failed")
    parts.append(count(len(findings.warnings), "warning"))
    if findings.earlier:
        parts.append(f"{count(len(findings.earlier), 'warning')} of earlier runs")
    parts.append(f"{products[0]} of {products[1]} exposures have their products")
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
        for line in [*kind[:MOST], *([f"... and {len(kind) - MOST} more in {path}"] if len(kind) > MOST else [])]
    ]
    return "\n".join([f"{head} ({path})", *shown])
