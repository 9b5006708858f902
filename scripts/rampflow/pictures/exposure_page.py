"""The page of one exposure in a report: its jobs, numbers and warnings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rampflow.chain import STEPS
from rampflow.pictures.pages import format_number
from rampflow.quality.benchmarks import read_benchmark
from rampflow.quality.numbers import NUMBERS, OF_THE_RUN, STATUSES
from rampflow.quality.outliers import Finding

SYMBOLS = {"COMPLETE": "✓", "SKIPPED": "–", "FAILED": "✗", "N/A": "·", "INCOMPLETE": "?"}
#: The jobs of an exposure in order, and the name of each in meta.cal_step, where it has one.
JOBS = {**{step.name: step.status for step in STEPS.values()}, "finalize": None}
#: Numbers in the heading of the page of an exposure.
HEADING = ("exposure_type", "detector", "optical_element", "exposure_start_time")
FORMATS = {"scale": ".8f"}  #: of numbers that five digits don't tell apart
#: Sections of numbers that are closed when the page of an exposure is opened.
CLOSED = ("Identification", "Pixels by flag", "Provenance")


def jobs_of(facts: dict, reasons: Mapping[str, str], benchmarks: Path) -> list[dict]:
    """List the jobs of an exposure, with status, time and memory.

    Parameters
    ----------
    facts : dict
        What image_pictures.py wrote of the exposure.
    reasons : mapping of str to str
        Why steps are not COMPLETE, of ``STEM_qa.json``.
    benchmarks : pathlib.Path
        Folder with ``STEM/STEP.tsv``.

    Returns
    -------
    list of dict
        ``name``, ``status``, ``reason``, ``seconds``, ``cpu`` and ``memory`` of each.
    """
    jobs = []
    for name, status in JOBS.items():
        # A step that had no part in this image may have a file of an earlier run.
        measured = name in facts["ran"] or status is None
        path = benchmarks / facts["stem"] / f"{name}.tsv"
        known = {"name": name, "status": facts["statuses"].get(status), "reason": reasons.get(name, "")}
        jobs.append(known | read_benchmark(path if measured else None))
    return jobs


def total(jobs: list[dict], key: str, combine: Callable[[list[float]], float] = sum) -> float | None:
    """Sum up the known values of jobs.

    Parameters
    ----------
    jobs : list of dict
        The jobs.
    key : str
        Name of the value.
    combine : callable
        Takes the list of the values.

    Returns
    -------
    float or None
        The sum, or what `combine` gives; `None` where no value is known.
    """
    values = [job[key] for job in jobs if job[key] is not None]
    return combine(values) if values else None


def sections_of(row: Mapping[str, Any], findings: Sequence[Finding]) -> list[tuple[dict, list[dict]]]:
    """List the numbers of an exposure by section, as its page shows them.

    Parameters
    ----------
    row : mapping
        Row of the table of exposures.
    findings : sequence of Finding
        Outliers of the exposure.

    Returns
    -------
    list of tuple
        ``title`` and ``opened`` of each section, and for each of its numbers ``title``, ``meaning``, ``value``, ``unit`` and
        ``text`` (of an outlier). Statuses and what only a run knows are left out.
    """
    texts = {finding.name: finding.text for finding in findings}
    sections: dict[str, list[dict]] = {}
    for name, number in NUMBERS.items():
        if number in STATUSES or name in OF_THE_RUN or number.section == "Cost":  # the table of jobs has them
            continue
        value = row.get(name)
        if number.is_text or value is None:
            spelled = str(value or "–")
        else:
            spelled = format_number(value, FORMATS.get(name) or (",.0f" if float(value).is_integer() else ".5g"))
        sections.setdefault(number.section, []).append(
            {"title": number.title, "meaning": number.meaning, "value": spelled, "text": texts.get(name, "")}
            | {"unit": number.unit.replace(" / ", "/") if spelled != "–" else ""}
        )
    return [({"title": title, "opened": title not in CLOSED}, numbers) for title, numbers in sections.items()]


def own_warnings(lines: list[str], stem: str, stems: list[str]) -> list[str]:
    """Choose the lines of an exposure's log that are not about another exposure.

    Parameters
    ----------
    lines : list of str
        Lines with time, logger and level.
    stem : str
        Name of the exposure.
    stems : list of str
        Names of all exposures of the association.

    Returns
    -------
    list of str
        The name of the step and the message of each line.
    """
    others = set(stems) - {stem}
    spelled = []
    for line in lines:
        _, name, _, message = line.split(" :: ", 3)
        if not any(other in message for other in others):
            spelled.append(f"{name.rpartition('.')[2]}: {message}")
    return spelled


def read_reasons(path: Path) -> dict[str, str]:
    """Read why steps of an exposure are not COMPLETE.

    Parameters
    ----------
    path : pathlib.Path
        File of the numbers of the exposure, ``STEM_qa.json``.

    Returns
    -------
    dict of str to str
        Reason by the name of the step; empty if the file can't be read.
    """
    try:
        return dict(json.loads(path.read_text())["reasons"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}
