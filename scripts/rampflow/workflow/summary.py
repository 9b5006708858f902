"""What the jobs of a run have said in their logs that a user must know: what failed and why, and the warnings.

A log is ``logs/NAME/STEP.log``, NAME an exposure or an association; its lines are those of
`rampflow.step.logs.configure_logging`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rampflow import SOFTWARE_NAME

MOST = 20  #: lines of each kind that are shown; the file has all of them

_LINE = re.compile(r"\S+Z :: (?P<logger>\S+) :: (?P<level>WARNING|ERROR) :: (?P<text>.*)")
_SILENT = "it ended without a word: killed, as when memory or time runs out"


def said(log: Path) -> tuple[str, list[str]]:
    """The error that ended a step, empty where none did, and its warnings."""
    reason, warnings = "", []
    for line in log.read_text(errors="replace").splitlines():
        if found := _LINE.match(line):
            if found["level"] == "ERROR" and found["logger"] == SOFTWARE_NAME:
                reason = found["text"]
            else:
                warnings.append(found["text"])
    return reason, warnings


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def summarize(logs: Iterable[str], failed: Iterable[list[str]], since: float) -> tuple[list[str], list[str]]:
    """What failed, and what the steps warned of.

    Parameters
    ----------
    logs : iterable of str
        Logs of all jobs of the run; those that are missing or older than the run are passed over.
    failed : iterable of list of str
        For each job that failed, its log; for a cluster job, those of all its steps.
    since : float
        When the run began, as a file's time of modification.

    Returns
    -------
    failures : list of str
        A line for each exposure or association: its name, the step, why, and the log.
    warnings : list of str
        A line for each warning, with one log as an example where several exposures have it.
    """
    written = {str(log): Path(log) for log in logs if Path(log).exists() and Path(log).stat().st_mtime >= since}
    failures, warnings = {}, {}
    for name, log in sorted(written.items()):
        reason, warned = said(log)
        if reason:
            failures[name] = f"{log.parent.name} {log.stem}: {reason.removeprefix(f'{log.stem}: ')} [{name}]"
        for text in warned:
            # The same for all exposures but for their own names. (An association's begins those of its exposures, which stay.)
            text = re.sub(rf"{re.escape(log.parent.name)}(?!_\d)", "*", text)
            warnings.setdefault((log.stem, text), []).append(name)
    for job in failed:
        begun = sorted((log for log in job if log in written), key=lambda log: written[log].stat().st_mtime)
        if begun and not failures.keys() & set(begun):  # no error of ours: killed, or not even begun
            log = written[begun[-1]]
            failures[begun[-1]] = f"{log.parent.name} {log.stem}: {last_line(log) or _SILENT} [{log}]"
        elif not begun:
            log = Path(job[0]) if job else Path("?")
            failures[str(log)] = f"{log.parent.name} {log.stem}: it did not begin; see what is said above"
    lines = []
    for (step, text), names in warnings.items():
        exposures = len({Path(name).parent for name in names})
        about = f"{exposures} exposures" if exposures > 1 else Path(names[0]).parent.name
        lines.append(f"{about} {step}: {text} [{names[0]}]")
    return list(failures.values()), lines


def report(failures: list[str], warnings: list[str], path: Path) -> str:
    """Write the summary to a file; what to show of it.

    Each line begins with ``failed:`` or ``warning:``.
    """
    kinds = [[f"failed: {line}" for line in failures], [f"warning: {line}" for line in warnings]]
    head = f"{SOFTWARE_NAME}: {len(failures) or 'nothing'} failed, {len(warnings) or 'no'} warning{'s' * (len(warnings) > 1)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *kinds[0], *kinds[1]]) + "\n")
    shown = [
        line
        for kind in kinds
        for line in [*kind[:MOST], *([f"... and {len(kind) - MOST} more in {path}"] if len(kind) > MOST else [])]
    ]
    return "\n".join([f"{head} ({path})", *shown])
