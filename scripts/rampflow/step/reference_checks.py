"""Checks of a reference before a step uses it: that it was made for the exposure, and that its values are plausible."""

from __future__ import annotations

import datetime
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from rampflow.errors import RampflowError
from rampflow.step.declaration import Range, Reference
from rampflow.step.exposure import Exposure, ExposureArray

#: Values of an unknown or arbitrary entry. They match any other value.
UNSET = frozenset(("", "?", "N/A", "NONE", "NULL", "ANY", "NOT_CONFIGURED"))

#: Entries of the metadata that say for what a reference was made. The first has one value, the second may have several,
#: separated by "|".
MADE_FOR = {
    "detector": ("instrument.detector", "instrument.p_detector"),
    "optical_element": ("instrument.optical_element", "instrument.p_optical_element"),
    "exposure_type": ("exposure.type", "exposure.p_exptype"),
}

#: Blocks of rows from which the median of a frame is estimated: 65,536 values of a full frame, for which a quarter of a
#: compressed array must be decompressed.
SAMPLED_BLOCKS = 4
SAMPLED_ROWS = 4  #: rows of each of these blocks

MANY_BAD = 0.01  #: share of bad pixels in a reference above which the log has a warning

#: Share of pixels beyond the limits of the median above which they are not single bad pixels, but a fault of the reference.
#: Sound references have less than 0.1 %.
MANY_UNUSUAL = 0.03


def metadata_value(meta: dict, field: str) -> Any:
    """Get an entry of nested metadata by its dotted name.

    Parameters
    ----------
    meta : dict
        The metadata.
    field : str
        Name, as ``exposure.frame_time``.

    Returns
    -------
    object
        The entry; `None` if it is missing.
    """
    node: Any = meta
    for name in field.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(name)
    return node


def alternatives(meta: dict, fields: tuple[str, ...]) -> frozenset[str]:
    """Collect the values of some entries of the metadata.

    Parameters
    ----------
    meta : dict
        The metadata.
    fields : tuple of str
        Dotted names of the entries.

    Returns
    -------
    frozenset of str
        The values in capitals; empty if one of them is in `UNSET`.
    """
    found: set[str] = set()
    for field in fields:
        value = metadata_value(meta, field)
        if isinstance(value, str):
            found.update(part.strip().upper() for part in value.split("|"))
    found.discard("")  # after the last "|"
    return frozenset() if found & UNSET else frozenset(found)


def parse_time(node: object) -> datetime.datetime | None:
    """Read a time of the metadata.

    Parameters
    ----------
    node : object
        The entry: text, or a tagged time.

    Returns
    -------
    datetime.datetime or None
        The time, in UTC if it names no time zone; `None` if it can't be read.
    """
    value = node.get("value") if isinstance(node, dict) else node  # a tagged time may be a mapping
    try:
        found = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        return _time_of_other_format(value, node)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _time_of_other_format(value: Any, node: object) -> datetime.datetime | None:
    """A time that is not ISO 8601: a number, as a Julian date, or another text, as a day of the year."""
    known = node if isinstance(node, dict) else {}
    is_text = isinstance(value, str)
    if not (re.search(r"\d", value) if is_text else "format" in known and isinstance(value, int | float)):
        return None  # a placeholder
    from astropy.time import Time  # it takes 0.3 s, and few files have such a time

    try:
        time = Time(value, format=None if is_text else known["format"], scale=known.get("scale", "utc"))
        found: datetime.datetime = time.utc.to_datetime(timezone=datetime.UTC)
    except Exception:  # of erfa and astropy, for what is no time
        return None
    return found


def mismatches(reference: dict, exposure: dict, declaration: Reference) -> list[tuple[str, str]]:
    """List the properties of an exposure that differ from those for which a reference was made.

    A value that is missing or unset in one of them matches any other.

    Parameters
    ----------
    reference, exposure : dict
        Metadata of both.
    declaration : Reference
        Declaration of the reference in the step.

    Returns
    -------
    list of (str, str)
        What differs (``telescope``, ``instrument`` or a key of `MADE_FOR`), and a text with both values.
    """
    fields: dict[str, tuple[str, ...]] = {"telescope": ("telescope",), "instrument": ("instrument.name",)}
    fields |= {name: MADE_FOR[name] for name in declaration.made_for}
    found = []
    for name, places in fields.items():
        theirs = alternatives(reference, places)
        ours = alternatives(exposure, places[:1])
        if theirs and ours and not theirs & ours:
            field = f"meta.{places[0]}"
            found.append((name, f"{field} is {'|'.join(sorted(theirs))}, and that of the exposure {'|'.join(sorted(ours))}"))
    return found


def check_made_for(
    reference: Exposure,
    exposure: Exposure,
    declaration: Reference,
    log: logging.Logger,
    *,
    allow_mismatch: bool = False,
    chosen_by_crds: bool = False,
) -> None:
    """Refuse a reference that was made for another telescope, instrument, detector or optical element.

    Another exposure type, or a useafter date later than the exposure, is a warning.

    Parameters
    ----------
    reference : Exposure
        The reference.
    exposure : Exposure
        The exposure that it is used for.
    declaration : Reference
        Declaration of the reference in the step.
    log : logging.Logger
        The step's log.
    allow_mismatch : bool
        Warn instead of refusing.
    chosen_by_crds : bool
        Whether CRDS's rules selected the file. Optical element and exposure type aren't compared then: one file may serve
        several of them, and its metadata name only one.

    Raises
    ------
    RampflowError
        The reference was made for something else.
    """
    name = reference.path.name
    meta = reference.meta
    for what, values in mismatches(meta, exposure.meta, declaration):
        if chosen_by_crds and what in ("optical_element", "exposure_type"):
            continue
        if what == "exposure_type" or allow_mismatch:
            log.warning("%s: %s", name, values)
        else:
            raise RampflowError(
                f"{reference.path}: {values}; give the {declaration.type} reference of this exposure's "
                f"{what.replace('_', ' ')}, or use this one with --allow_mismatch (in the configuration: "
                "references.override with references.allow_mismatch)"
            )
    useafter = parse_time(meta.get("useafter"))
    start = parse_time(metadata_value(exposure.meta, "exposure.start_time"))
    if useafter and start and useafter > start and not chosen_by_crds:
        log.warning(
            "%s: meta.useafter is %s, and meta.exposure.start_time of the exposure %s: the reference is for later exposures",
            name,
            useafter.isoformat(sep=" ", timespec="seconds"),
            start.isoformat(sep=" ", timespec="seconds"),
        )
    remarks = []
    if "reftype" not in meta:
        remarks.append("has no meta.reftype")
    if str(meta.get("pedigree", "")).upper().startswith("DUMMY"):
        remarks.append("is a dummy (meta.pedigree)")
    if remarks:
        log.info("%s %s", name, " and ".join(remarks))


# ------------------------------------------------------------------------------------------------------ plausible values
def refuse_implausible(path: Path, field: str, value: float, limits: tuple[float, float], unit: str, reftype: str) -> None:
    """Refuse a reference for a value beyond its limits.

    Parameters
    ----------
    path : pathlib.Path
        The reference.
    field : str
        The field, or what was derived from it.
    value : float
        Its value. NaN is beyond all limits.
    limits : tuple of float
        Smallest and largest plausible value.
    unit : str
        Unit of both; empty without one.
    reftype : str
        Type of the reference.

    Raises
    ------
    RampflowError
        The value is beyond the limits; the message has the file, field, value and limits.
    """
    low, high = limits
    if low <= value <= high:
        return
    unit = f" {unit}" if unit else ""
    raise RampflowError(
        f"{path}: {field} is {value:.6g}{unit}, and {low:g} to {high:g}{unit} is plausible; give a sound {reftype} reference "
        "(the limits are declared in the step's script)"
    )


def sample_rows(array: ExposureArray, first_planes: int | None = None) -> np.ndarray:
    """Read rows spread over a frame, from which its median is estimated.

    Parameters
    ----------
    array : ExposureArray
        A frame (row, column), planes of frames, or a table (one axis).
    first_planes : int, optional
        Number of planes to read, counted from the first; all by default.

    Returns
    -------
    numpy.ndarray
        These rows of each plane; all values of a table.
    """
    if array.ndim < 2:
        return array.read()
    rows = array.shape[-2]
    if rows <= SAMPLED_BLOCKS * SAMPLED_ROWS:
        return array.read_rows(0, rows, first_planes)
    starts = [(2 * i + 1) * rows // (2 * SAMPLED_BLOCKS) for i in range(SAMPLED_BLOCKS)]
    return np.concatenate([array.read_rows(start, start + SAMPLED_ROWS, first_planes) for start in starts], axis=-2)


def median_of(values: np.ndarray) -> float | None:
    """Compute the median of the finite values.

    Parameters
    ----------
    values : numpy.ndarray
        Values of any shape.

    Returns
    -------
    float or None
        The median; `None` without a finite value.
    """
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def check_plausible(reference: Exposure, declaration: Reference, names: dict[str, str]) -> None:
    """Refuse a reference with a value beyond its limits.

    It checks numbers, all values of tables (one axis), and the medians of frames. A frame without a finite value is refused
    too. Entries that are missing or not numbers are left to the step, which knows whether it needs them.

    Parameters
    ----------
    reference : Exposure
        The reference.
    declaration : Reference
        Its declaration in the step, with the limits.
    names : dict
        Values for ``{detector}`` and ``{optical_element}`` in the names of fields.

    Raises
    ------
    RampflowError
        A value is beyond its limits; the message has the file, field, value and limits.
    """
    for field, limits in declaration.plausible.items():
        if limits.quantity:
            continue
        field = field.format(**names)
        value = metadata_value(reference.roman, field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value):
                refuse_implausible(
                    reference.path, field, value, (limits.minimum, limits.maximum), limits.unit, declaration.type
                )
        elif hasattr(value, "dtype"):
            array = reference.array(field)
            fits = limits.plane is None or (array.ndim == 3 and array.shape[0] > limits.plane)
            if fits and math.prod(array.shape):
                _check_array(reference, declaration.type, field, array, limits)


def _check_array(reference: Exposure, reftype: str, field: str, array: ExposureArray, limits: Range) -> None:
    values = sample_rows(array, None if limits.plane is None else limits.plane + 1)
    if limits.plane is not None:
        field = f"{field}[{limits.plane}]"
        values = values[limits.plane]
    if array.ndim < 2:
        for value in (values.min(), values.max()) if values.size and np.isfinite(values).all() else ():
            refuse_implausible(reference.path, field, value, (limits.minimum, limits.maximum), limits.unit, reftype)
        return
    median = median_of(values)
    if median is None:  # other rows may have finite values
        values = array.read()
        median = median_of(values if limits.plane is None else values[limits.plane])
    if median is None:
        low, high = limits.median_limits
        raise RampflowError(
            f"{reference.path}: {field} has no finite value, and {low:g} to {high:g} is plausible; give a sound {reftype} "
            "reference"
        )
    refuse_implausible(reference.path, f"the median of {field}", median, limits.median_limits, limits.unit, reftype)
