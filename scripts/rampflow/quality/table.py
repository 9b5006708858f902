"""The table of the exposures of a results folder, ``exposures.parquet`` and ``exposures.ecsv``, from each ``STEM_qa.json``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rampflow import SOFTWARE_NAME, __version__
from rampflow.files.atomic import replacing
from rampflow.quality.numbers import IDENTIFICATION, NUMBERS, OF_THE_RUN
from rampflow.quality.outliers import Finding, find_outliers

if TYPE_CHECKING:
    from astropy.table import Table

PARQUET, ECSV = "exposures.parquet", "exposures.ecsv"
ENDING = "_qa.json"
#: States of exposures that have no file of numbers.
WITHOUT_NUMBERS = ("failed", "missing")
#: Visit, number, detector and optical element in the name of an exposure in the archive.
_NAME = re.compile(r"^r(\d{19})_(\d{4})_(wfi\d\d)_(\w+)$")

Row = dict[str, Any]


def read_numbers(results: Path) -> dict[str, Row]:
    """Read the numbers of all exposures of a results folder.

    Parameters
    ----------
    results : pathlib.Path
        Results folder.

    Returns
    -------
    dict
        Numbers of each exposure by its name. Of a damaged file, the name alone. The reason of an alignment that isn't COMPLETE
        is the ``reason``.
    """
    rows = {}
    for path in sorted(results.glob(f"*{ENDING}")):
        stem = path.name.removesuffix(ENDING)
        rows[stem] = {"reason": "its numbers are damaged"}
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads(path.read_text())
            rows[stem] = {**content["numbers"], "reason": content["reasons"].get("tweakreg", "")}
        rows[stem]["stem"] = stem
    return rows


def identify(stem: str) -> Row:
    """Identify an exposure by its name.

    Parameters
    ----------
    stem : str
        Name of the exposure.

    Returns
    -------
    dict
        ``stem``; with a name of the archive also ``visit_id``, ``exposure``, ``detector`` and ``optical_element``.
    """
    found = _NAME.match(stem)
    if not found:
        return {"stem": stem}
    visit, number, detector, element = found.groups()
    return {
        "stem": stem,
        "visit_id": visit,
        "exposure": int(number),
        "detector": detector.upper(),
        "optical_element": element.upper(),
    }


def combine_rows(
    numbers: Mapping[str, Row], run: Mapping[str, Row], earlier: Mapping[str, Row], dropped: Collection[str] = ()
) -> list[Row]:
    """Combine what is known of the exposures of a results folder.

    Parameters
    ----------
    numbers : mapping
        From `read_numbers`.
    run : mapping
        What the present run knows of its exposures: columns `OF_THE_RUN`, and the identification.
    earlier : mapping
        Rows of the table before this run, for the exposures of other runs.
    dropped : collection of str
        Exposures of other runs that get no row if they have no numbers.

    Returns
    -------
    list of dict
        A row for each exposure, by name.
    """
    rows = []
    lasting = {stem for stem, row in earlier.items() if row.get("state") in WITHOUT_NUMBERS and stem not in dropped}
    for stem in sorted({*numbers, *run, *lasting}):
        measured = {name: value for name, value in numbers.get(stem, {}).items() if value is not None}
        known = run[stem] if stem in run else _of_earlier_run(earlier.get(stem, {}), measured)
        # What the run knows of the products' states has precedence; the products identify the exposure better.
        of_run = {name: value for name, value in known.items() if name in OF_THE_RUN and value}
        rows.append({**identify(stem), **known, **measured, **of_run})
    return rows


def _of_earlier_run(before: Row, measured: Row) -> Row:
    """Values from the previous table for an exposure that this run doesn't have."""
    if not measured:
        return {number.name: before.get(number.name) for number in IDENTIFICATION}
    kept = {"association": before.get("association", ""), "state": "complete"}
    if before.get("state") == "outdated" and before.get("filedate") == measured.get("filedate"):
        kept |= {name: before.get(name, "") for name in ("state", "failed_step", "reason")}
    return kept


def to_columns(rows: list[Row]) -> dict[str, np.ndarray]:
    """Make the columns of the table.

    Parameters
    ----------
    rows : list of dict
        From `combine`.

    Returns
    -------
    dict of numpy.ndarray
        Every column of `NUMBERS`: texts, empty where they are unknown, and float64, NaN where a number is unknown.
    """
    columns = {}
    for name, number in NUMBERS.items():
        values = [row.get(name) for row in rows]
        if number.is_text:
            columns[name] = np.array([_text(value) for value in values], dtype=str)
        else:
            columns[name] = np.array([_number(value) for value in values], dtype=float)
    return columns


def _text(value: Any) -> str:
    """A text that can be written; JSON can have halves of characters."""
    text = "" if value is None else str(value)
    return text if text.isascii() else text.encode(errors="replace").decode()


def _number(value: Any) -> float:
    """A number; NaN in place of anything else, such as a whole number of JSON that no float can hold."""
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.nan


def compare_exposures(
    rows: list[Row], limits: Mapping[str, Mapping[str, float]]
) -> tuple[dict[str, np.ndarray], list[list[Finding]]]:
    """Make the columns of the table, and find the outliers.

    Parameters
    ----------
    rows : list of dict
        From `combine`.
    limits : mapping
        See `rampflow.quality.outliers.find_outliers`.

    Returns
    -------
    columns : dict of numpy.ndarray
        From `to_columns`, with ``outliers`` and ``outlier_text``.
    findings : list of list of Finding
        Outliers of each exposure.
    """
    columns = to_columns(rows)
    findings = find_outliers(columns, limits)
    columns["outliers"] = np.array([",".join(f.name for f in found) for found in findings], dtype=str)
    columns["outlier_text"] = np.array(["; ".join(f.text for f in found) for found in findings], dtype=str)
    return columns, findings


def make_table(rows: list[Row], limits: Mapping[str, Mapping[str, float]]) -> tuple[Table, list[list[Finding]]]:
    """Make the table of exposures, with their outliers.

    Parameters
    ----------
    rows : list of dict
        From `combine`.
    limits : mapping
        See `rampflow.quality.outliers.find_outliers`.

    Returns
    -------
    table : astropy.table.Table
        A row for each exposure, with units and descriptions of the columns.
    findings : list of list of Finding
        Outliers of each exposure.
    """
    from astropy.table import Column, Table

    columns, findings = compare_exposures(rows, limits)
    table = Table(
        [Column(columns[name], name, unit=number.unit or None, description=number.meaning) for name, number in NUMBERS.items()],
        copy=False,
    )
    table.meta["software"] = f"{SOFTWARE_NAME} {__version__}"
    return table, findings


def write_exposure_table(table: Table, results: Path) -> None:
    """Write the table of exposures: both files appear whole.

    Parameters
    ----------
    table : astropy.table.Table
        From `make_table`.
    results : pathlib.Path
        Results folder.
    """
    with replacing(results / PARQUET, shared=True) as partial:
        table.write(partial, format="parquet")
    with replacing(results / ECSV, shared=True) as partial:
        table.write(partial, format="ascii.ecsv")


def read_exposure_table(results: Path) -> dict[str, Row]:
    """Read the table of exposures of a results folder.

    Parameters
    ----------
    results : pathlib.Path
        Results folder.

    Returns
    -------
    dict
        Row of each exposure by its name; empty if there is no table, or a damaged one.
    """
    from rampflow.files import parquet

    try:
        rows = parquet.read_table(results / PARQUET).to_pylist()
        return {row["stem"]: row for row in rows}
    except (OSError, ValueError, LookupError, parquet.pyarrow.ArrowException):
        return {}


@contextlib.contextmanager
def locked(results: Path) -> Iterator[None]:
    """Keep other runs from writing the table until the block ends: each takes over what the others know.

    Parameters
    ----------
    results : pathlib.Path
        Results folder.

    Yields
    ------
    None
        The lock is held, where the disk offers locks.
    """
    results.mkdir(parents=True, exist_ok=True)
    with (results / ".exposures.lock").open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def update_table(
    results: Path, run: Mapping[str, Row], limits: Mapping[str, Mapping[str, float]], dropped: Collection[str] | None = ()
) -> dict[str, list[Finding]]:
    """Bring the table of exposures up to date.

    Parameters
    ----------
    results : pathlib.Path
        Results folder.
    run : mapping
        What the present run knows of its exposures, see `combine`.
    limits : mapping
        See `rampflow.quality.outliers.find_outliers`.
    dropped : collection of str or None
        Exposures of other runs that get no row if they have no numbers; `None` for all of them.

    Returns
    -------
    dict of list of Finding
        Outliers of each exposure by its name.
    """
    with locked(results):
        earlier = read_exposure_table(results)
        rows = combine_rows(read_numbers(results), run, earlier, earlier if dropped is None else dropped)
        table, findings = make_table(rows, limits)
        write_exposure_table(table, results)
    return {row["stem"]: found for row, found in zip(rows, findings, strict=True)}
