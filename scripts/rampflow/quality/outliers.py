"""Exposures unlike the others: by the median and the scatter of like exposures, and by limits of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rampflow.quality.measures import robust_scatter
from rampflow.quality.numbers import NUMBERS, STATUSES, Number

FEWEST = 5  #: exposures of which one may be an outlier
#: Scatters from the median beyond which an exposure may be an outlier, for large groups. The scatter of a few exposures is
#: known badly, see `threshold`.
SCATTERS = 6.0
#: Groups of like exposures, the narrowest first: what they have in common, and how messages name it.
GROUPS = (
    (("detector", "optical_element", "exposure_type", "exposure_time"), "detector and element"),
    (("optical_element", "exposure_type", "exposure_time"), "element"),
)
#: The same for numbers by which sound detectors differ by much, and which no optical element changes.
GROUPS_OF_DETECTORS = ((("detector", "exposure_type"), "detector"),)
#: Exposures of one field, which share its sky, stars and galaxies.
FIELD = ("visit_id", "optical_element", "exposure_type", "exposure_time")
FEWEST_OF_FIELD = 3  #: exposures whose median tells what a field is like
#: How many times larger the differences that count are where all exposures of the field have them.
SHARED = 3.0
MUCH = 1.5  #: factor from which messages have a factor


class Finding(NamedTuple):
    """A number that is an outlier or beyond a limit.

    Attributes
    ----------
    name : str
        Name of the number.
    text : str
        What messages say.
    """

    name: str
    text: str


def threshold(size: int) -> float:
    """Give the number of scatters from the median beyond which an exposure of a group may be an outlier.

    Parameters
    ----------
    size : int
        Number of exposures of the group.

    Returns
    -------
    float
        `SCATTERS` for large groups, and more for small ones, whose scatter is known badly.
    """
    return SCATTERS * (1 + 5 / size)


def spell_value(number: Number, value: float) -> str:
    """Write a value with its unit.

    Parameters
    ----------
    number : Number
        The number.
    value : float
        Its value.

    Returns
    -------
    str
        The text.
    """
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return f"{text} {number.unit.replace(' / ', '/')}".rstrip()


def find_outliers(columns: Mapping[str, np.ndarray], limits: Mapping[str, Mapping[str, float]]) -> list[list[Finding]]:
    """Find the outliers of each exposure, its numbers beyond a limit, and its steps that FAILED.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray
        Columns of the table of exposures by name: numbers are NaN where they are unknown.
    limits : mapping
        ``minimum`` and ``maximum`` by the name of the number; either may be missing.

    Returns
    -------
    list of list of Finding
        Findings of each exposure, in the order of `NUMBERS`.
    """
    found: list[dict[str, Finding]] = [{} for _ in columns["stem"]]
    for step in STATUSES:
        for row in _rows(columns[step.name] == "FAILED"):
            found[row][step.name] = Finding(step.name, f"{step.title} FAILED")
    groups, of_detectors = (
        [(_groups(_group_keys(columns, names)), kind) for names, kind in of_kind] for of_kind in (GROUPS, GROUPS_OF_DETECTORS)
    )
    fields = _group_keys(columns, FIELD)
    for number in NUMBERS.values():
        if number.compared:
            for row, text in _compare(number, columns[number.name], of_detectors if number.same_detector else groups, fields):
                found[row][number.name] = Finding(number.name, text)
            if not number.same_detector:
                (detectors, _), (elements, kind) = groups
                for row, text in _compare_detectors(number, columns[number.name], detectors, elements, kind):
                    found[row].setdefault(number.name, Finding(number.name, text))
        for bound, limit in limits.get(number.name, {}).items():
            values = columns[number.name]
            beyond, word = (values < limit, "below") if bound == "minimum" else (values > limit, "above")
            for row in _rows(beyond):
                spelled = f"{number.title} {spell_value(number, values[row])}"
                text = f"{spelled}, {word} the limit of {spell_value(number, limit)} (qa.limits)"
                found[row][number.name] = Finding(number.name, text)
    order = {name: place for place, name in enumerate(NUMBERS)}
    return [sorted(row.values(), key=lambda finding: order[finding.name]) for row in found]


def _rows(condition: np.ndarray) -> list[int]:
    """Numbers of the rows where a condition holds."""
    return [int(row) for row in np.flatnonzero(condition)]


def _group_keys(columns: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Number of the group of each exposure."""
    # Exposure times of one MA table differ in their last digits.
    parts = [np.round(columns[name], 1) if name == "exposure_time" else columns[name] for name in names]
    numbered = [np.unique(part, return_inverse=True)[1] for part in parts]
    return np.unique(np.stack(numbered), axis=1, return_inverse=True)[1].ravel()


def _groups(of_row: np.ndarray) -> list[np.ndarray]:
    """Numbers of the rows of each group."""
    order = np.argsort(of_row, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of_row[order])) + 1)


def _compare(
    number: Number, values: np.ndarray, kinds: Sequence[tuple[list[np.ndarray], str]], fields: np.ndarray
) -> Iterator[tuple[int, str]]:
    """Rows that are outliers by a number, with the text of each."""
    waiting = np.isfinite(values)
    known = waiting.copy()
    like_field = _like_field(number, values, fields)
    for is_wider, (groups, kind) in enumerate(kinds):
        wide = 2.0 if is_wider and number.varies_by_detector else 1.0
        for rows in groups:
            members = rows[known[rows]]
            judged = rows[waiting[rows]]
            if members.size < FEWEST or not judged.size:
                continue
            waiting[judged] = False
            median = float(np.median(values[members]))
            scatter = threshold(members.size) * robust_scatter(values[members])
            for row in judged[np.abs(values[judged] - median) > scatter]:
                if _differs(number, values[row], median, wide * (SHARED if like_field[row] else 1), scatter):
                    yield int(row), _describe(number, float(values[row]), median, kind, members.size)


def _compare_detectors(
    number: Number, values: np.ndarray, detectors: list[np.ndarray], elements: list[np.ndarray], kind: str
) -> Iterator[tuple[int, str]]:
    """Rows of detectors that are outliers as a whole: compared with each other, exposures with the same fault are alike."""
    known = [rows[np.isfinite(values[rows])] for rows in detectors]
    known = [rows for rows in known if rows.size >= FEWEST]
    wide = (2.0 if number.varies_by_detector else 1.0) * (SHARED if number.varies_by_field else 1.0)
    for rows in elements:
        members = [group for group in known if group[0] in rows]
        if len(members) < FEWEST:
            continue
        medians = np.array([np.median(values[group]) for group in members])
        median = float(np.median(medians))
        scatter = threshold(len(members)) * robust_scatter(medians)
        for group, of_detector in zip(members, medians, strict=True):
            for row in group if _differs(number, of_detector, median, wide, scatter) else ():
                if _differs(number, values[row], median, wide, scatter):
                    yield int(row), _describe(number, float(values[row]), median, kind, len(members), "detectors")


def _like_field(number: Number, values: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Whether the exposures of the same field share a number, which depends on the field."""
    found = np.zeros(values.shape, bool)
    if not number.varies_by_field:
        return found
    wide = 2.0 if number.varies_by_detector else 1.0
    for rows in _groups(fields):
        members = rows[np.isfinite(values[rows])]
        if members.size >= FEWEST_OF_FIELD:
            median = float(np.median(values[members]))
            found[members] = [not _differs(number, value, median, wide) for value in values[members]]
    return found


def _differs(number: Number, value: float, median: float, wide: float, scatter: float = 0.0) -> bool:
    """Whether a number differs from a median by its factor and its difference, widened, and by more than a scatter."""
    if not abs(value - median) > max(scatter, wide * number.difference):
        return False
    return _differs_by_factor(value, median, 1 + wide * (number.factor - 1))


def _differs_by_factor(value: float, median: float, factor: float) -> bool:
    """Whether a positive number is so many times its median, or so small a part of it; always true of others."""
    return median <= 0 or not median / factor <= value <= median * factor


def _describe(number: Number, value: float, median: float, kind: str, size: int, members: str = "exposures") -> str:
    ratio = value / median if median > 0 and value > 0 else 1.0
    spelled = f"{number.title} {spell_value(number, value)}"
    if max(ratio, 1 / ratio) >= MUCH:
        return f"{spelled}, {ratio:.3g} times that of its {kind} ({size} {members})"
    return f"{spelled}, and {spell_value(number, median)} is the median of its {kind} ({size} {members})"
