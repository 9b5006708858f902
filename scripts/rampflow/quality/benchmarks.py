"""Time and memory of jobs, from the benchmarks that Snakemake writes."""

from __future__ import annotations

import csv
from pathlib import Path


def read_benchmark(path: Path | None) -> dict:
    """Read the time and the memory of a job.

    Parameters
    ----------
    path : pathlib.Path or None
        As Snakemake writes it; it need not exist.

    Returns
    -------
    dict
        Values ``seconds`` of the clock, ``cpu`` seconds and ``memory`` in MB; `None` where unknown: there is no such job, or it
        was too short.
    """
    row = {}
    if path and path.is_file():
        with path.open() as file:
            *_, row = csv.DictReader(file, delimiter="\t")
    return {"seconds": _number(row, "s"), "cpu": _number(row, "cpu_time"), "memory": _number(row, "max_rss")}


def _number(row, column):
    """Read a number in a row of a table; `None` where it is missing or no number."""
    try:
        return float(row[column])
    except (KeyError, ValueError):
        return None


def measure_cost(folder: Path, steps: list[str]) -> dict[str, float | None]:
    """Sum up the time of the steps of an exposure, and find their largest memory.

    Parameters
    ----------
    folder : pathlib.Path
        Folder with the benchmark of each step, ``STEP.tsv``.
    steps : list of str
        Steps that ran on the exposure. Others may have a file of an earlier run.

    Returns
    -------
    dict
        ``cpu_time`` and ``wall_time`` in seconds, ``peak_memory`` in MB; `None` where no step has the value.
    """
    jobs = [read_benchmark(folder / f"{step}.tsv") for step in steps]
    return {
        name: combine(values) if (values := [job[key] for job in jobs if job[key] is not None]) else None
        for name, key, combine in (("cpu_time", "cpu", sum), ("wall_time", "seconds", sum), ("peak_memory", "memory", max))
    }
