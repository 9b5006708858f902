"""What a comparison measures of each exposure: names, units and meanings, in the order of the columns of its table."""

from __future__ import annotations

from typing import NamedTuple

from rampflow.errors import RampflowError


class Measure(NamedTuple):
    """One measure of a comparison.

    Attributes
    ----------
    name : str
        Name of the column.
    unit : str
        Unit, as astropy spells it; empty for a number without unit.
    meaning : str
        Description: one line, a noun phrase.
    """

    name: str
    unit: str
    meaning: str


#: The measures, all of them numbers. Each is 0 for equal products, except the counts of what was compared.
MEASURES = (
    Measure("pixels_compared", "", "number of pixels that are good (not DO_NOT_USE, finite) in both images"),
    Measure("pixels_different", "", "number of these pixels whose values differ"),
    Measure("image_median", "", "median of (new - old) / err over these pixels, with err of the old image"),
    Measure("image_rms", "", "root mean square of (new - old) / err over these pixels"),
    Measure("image_beyond_5", "", "share of these pixels with |new - old| > 5 err"),
    Measure("pixels_gained", "", "number of pixels that are good in the new image alone"),
    Measure("pixels_lost", "", "number of pixels that are good in the old image alone"),
    Measure("flags_different", "", "number of pixels whose flags (dq) differ"),
    Measure("wcs_shift_median", "mas", "median distance of the positions that both WCSs give a pixel, over a grid of 9 x 9"),
    Measure("wcs_shift_max", "mas", "largest of these distances"),
    Measure("segments_different", "", "number of pixels that belong to a source in one of the segmentation maps alone"),
    Measure("sources_matched", "", "number of sources in both catalogs: nearest to each other, within 1 pixel"),
    Measure("sources_gained", "", "number of sources in the new catalog alone"),
    Measure("sources_lost", "", "number of sources in the old catalog alone"),
    Measure("position_shift", "pix", "median distance of the centroids of a matched source"),
    Measure("segment_flux_shift", "", "median of new / old - 1 of the segment fluxes of matched sources"),
    Measure("segment_flux_scatter", "", "scatter of this ratio (1.4826 times the median absolute deviation)"),
    Measure("psf_flux_shift", "", "median of new / old - 1 of the PSF fluxes of matched sources"),
    Measure("psf_flux_scatter", "", "scatter of this ratio (1.4826 times the median absolute deviation)"),
)

#: Measures for which a tolerance makes no sense.
COUNTS = ("pixels_compared", "sources_matched")


def parse_tolerances(given: list[str]) -> dict[str, float]:
    """Parse tolerances.

    Parameters
    ----------
    given : list of str
        Tolerances as ``MEASURE=VALUE``.

    Returns
    -------
    dict of str to float
        The largest accepted absolute value of each measure.

    Raises
    ------
    RampflowError
        A measure is unknown, or its value is not a number of 0 or more.
    """
    known = [m.name for m in MEASURES if m.name not in COUNTS]
    tolerances = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise RampflowError(f"--tolerance {text}: unknown measure {name!r}; known are {', '.join(known)}")
        try:
            tolerances[name] = float(value)
        except ValueError:
            tolerances[name] = -1
        if not tolerances[name] >= 0:
            raise RampflowError(f"--tolerance {text}: expected {name}=VALUE with a number of 0 or more")
    return tolerances


def exceeded(measured: dict[str, float], tolerances: dict[str, float]) -> dict[str, float]:
    """Find the measures that are beyond their tolerance.

    Parameters
    ----------
    measured : dict of str to float
        Measures of an exposure. NaN and missing ones count as beyond: there was nothing to measure.
    tolerances : dict of str to float
        The largest accepted absolute values.

    Returns
    -------
    dict of str to float
        Those that are beyond, with their values.
    """
    values = {name: measured.get(name, float("nan")) for name in tolerances}
    return {name: value for name, value in values.items() if not abs(value) <= tolerances[name]}
