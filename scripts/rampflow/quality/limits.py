"""Limits of numbers in the configuration, ``qa.limits``."""

from __future__ import annotations

import contextlib
import difflib
import math

from rampflow.errors import RampflowError
from rampflow.quality.numbers import LIMITED, Number

BOUNDS = ("minimum", "maximum")
EXAMPLE = "qa: {limits: {psf_fwhm: {maximum: 0.2}}}"


def read_limits(given: dict) -> dict[str, dict[str, float]]:
    """Check the limits of the configuration.

    Parameters
    ----------
    given : dict
        ``minimum``, ``maximum`` or both by the name of a number in `rampflow.quality.numbers`: a number in its unit, or a text
        with a number and another unit, as ``200 mas``.

    Returns
    -------
    dict
        The same, as numbers in the unit of the table.

    Raises
    ------
    RampflowError
        A name is unknown, a value is not a number, or its unit can't be converted.
    """
    limits: dict[str, dict[str, float]] = {}
    for name, bounds in given.items():
        number = LIMITED.get(name)
        if number is None:
            raise RampflowError(f"configuration: qa.limits has an unknown number {name!r}; {_hint(str(name))}")
        key = f"qa.limits.{name}"
        if not isinstance(bounds, dict) or not bounds or set(bounds) - set(BOUNDS):
            raise RampflowError(f"configuration: {key} is {bounds!r}; it takes minimum, maximum or both, as in {EXAMPLE}")
        limits[name] = {bound: _read_value(f"{key}.{bound}", value, number) for bound, value in bounds.items()}
        if limits[name].get("minimum", -math.inf) > limits[name].get("maximum", math.inf):
            raise RampflowError(f"configuration: {key}: its minimum is above its maximum; exchange them")
    return limits


def _hint(name: str) -> str:
    titles = {number.title: known for known, number in LIMITED.items()} | {known: known for known in LIMITED}
    near = difflib.get_close_matches(name, titles, 1)
    suggestion = f"did you mean {titles[near[0]]!r}? " if near else ""
    return f"{suggestion}docs/reference/numbers.md lists them"


def _read_value(key: str, value: object, number: Number) -> float:
    takes = f"a number{f' in {number.unit}' if number.unit else ' without a unit'}"
    if isinstance(value, str):  # --config gives numbers as texts, too
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, str):
        from astropy.units import Quantity, UnitConversionError

        try:
            value = float(Quantity(value).to_value(number.unit))
        except UnitConversionError as error:
            raise RampflowError(f"configuration: {key} is {value!r}: {error}; it takes {takes}") from None
        except (TypeError, ValueError):
            raise RampflowError(f"configuration: {key} is {value!r}; it takes {takes}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RampflowError(f"configuration: {key} is {value!r}; it takes {takes}")
    return float(value)
