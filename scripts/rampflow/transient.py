"""The transient in the first read of detector WFI18: how it is measured, fitted, and judged.

The step wfi18_transient corrects with it; the report shows it.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from rampflow import dq as dqflags

#: The fit needs two resultants to extrapolate from, and one more to find dark pixels with and to see the ramps' curvature.
MIN_RESULTANTS = 4
MEASURING_RESULTANTS = 5  #: first resultants that the transient is measured with, where there are as many
#: Of four resultants, the last pair shares one with the extrapolation. A cut at the median would select its noise and bias the
#: rows by some DN; of a cut that is so many standard deviations above the median, 0.02 DN are left.
LIT_SIGMA = 3.0
#: Share of a row's pixels that must be left to measure the transient (of a sound row, half are), and of the rows to fit it.
ENOUGH_PIXELS, ENOUGH_ROWS = 0.125, 0.5
# Conditions of a fit of the transient. T. Brandt (2025, STScI, in preparation) and romancal's start values describe a signal
# of the first read that differs from exposure to exposure and falls to 1/e within the first 300 rows, with a weaker part within
# 1000: by the last row less than 1 % is left. No amplitude is published, so that the measured rows bound it.
LARGEST_REMAINDER = 0.1  #: of the peak: what may be left in the last row, and what the ramps' curvature may pretend
NEGLIGIBLE = 2.0  #: DN: a remainder or curvature that is less than a third of the noise of a read never matters
LARGEST_EXCESS = 2.0  #: times the largest row mean: beyond, the curve is an extrapolation
# Rows of a full detector: those that are masked, and those whose read times start the fit's two time constants.
FULL_ROWS, MASKED_ROWS, FULL_SCIENCE_ROWS, START_ROWS = 4096, 1000, 4088, (300, 1000)


def double_exponential(t: np.ndarray, a: float, b: float, tau_a: float, tau_b: float) -> np.ndarray:
    """Evaluate a · exp(−t/τa) + b · exp(−t/τb).

    Parameters
    ----------
    t : numpy.ndarray
        Times, seconds, any shape.
    a, b : float
        Amplitudes, DN.
    tau_a, tau_b : float
        Time constants, seconds.

    Returns
    -------
    numpy.ndarray
        The curve, DN, of the shape of `t`.
    """
    return a * np.exp(-t / tau_a) + b * np.exp(-t / tau_b)


def usable_pixels(groupdq: np.ndarray) -> np.ndarray:
    """Find pixels that can measure the transient.

    Parameters
    ----------
    groupdq : numpy.ndarray
        Flags of the ramp, uint8 of shape (resultant, row, column).

    Returns
    -------
    numpy.ndarray
        Whether none of the first five resultants (of all where there are four) is SATURATED or DO_NOT_USE, bool of shape
        (row, column).
    """
    return ~dqflags.has(np.bitwise_or.reduce(groupdq[:MEASURING_RESULTANTS]), dqflags.SATURATED | dqflags.DO_NOT_USE)


def _lit(data: np.ndarray) -> np.ndarray:
    """Where more light than in the row's other pixels is collected between the last two of four or five resultants (bool)."""
    last = min(len(data), MEASURING_RESULTANTS) - 1
    collected = data[last] - data[last - 1]
    limit = np.median(collected, axis=1, keepdims=True)
    if len(data) < MEASURING_RESULTANTS:
        from astropy.stats import mad_std

        limit = limit + LIT_SIGMA * mad_std(collected, axis=1)[:, np.newaxis]
    return collected > limit


def _excess(first: np.ndarray, second: np.ndarray, third: np.ndarray, times: np.ndarray) -> np.ndarray:
    """What a resultant has more than the line through the two after it predicts, DN; `times` are those of the three."""
    interval = np.diff(times)
    return first - (second - (third - second) / interval[1] * interval[0])


def transient_by_row(data: np.ndarray, resultant_times: np.ndarray, good: np.ndarray | None = None) -> np.ndarray:
    """Measure the transient in each row.

    The line through the second and third resultants predicts the first; the excess over it is the transient. The mean of a row,
    clipped at 3σ, is that of its faint half: the pixels that collect no more than the median between the fourth and the fifth
    resultant. These don't enter the prediction, so that its noise doesn't select the pixels. With four resultants, it is that
    of the pixels that collect no more than 3σ above the median between the third and the fourth.

    Parameters
    ----------
    data : numpy.ndarray
        The first five resultants, or all four, in DN (resultant, row, column), without the reference border.
    resultant_times : numpy.ndarray
        Their mean times in seconds.
    good : numpy.ndarray, optional
        From `usable_pixels`; other pixels don't count, and a row that has few left is NaN.

    Returns
    -------
    numpy.ndarray
        Mean transient of each row in DN, float64.
    """
    from astropy.stats import SigmaClip

    left_out = _lit(data)
    if good is not None:
        left_out |= ~good
    residual = np.ma.MaskedArray(_excess(data[0], data[1], data[2], resultant_times[:3]), left_out)
    clipped = SigmaClip(sigma=3.0)(residual, axis=1, masked=False)
    count = np.count_nonzero(~np.isnan(clipped), axis=1)
    means = np.full(len(clipped), np.nan)  # of a row without any pixel; nanmean would warn of it
    np.divide(np.nansum(clipped, axis=1, dtype=np.float64), count, out=means, where=count > 0)
    if good is not None:
        means[np.count_nonzero(~left_out, axis=1) < ENOUGH_PIXELS * data.shape[2]] = np.nan
    return means


def curvature(data: np.ndarray, resultant_times: np.ndarray, good: np.ndarray) -> float:
    """Measure what the curvature of a non-linear ramp adds to the measured transient.

    The second resultant has no transient: its excess over the line through the third and fourth is the curvature of the ramp.
    For a parabola, the excess of the first is (t₂−t₁)(t₃−t₁) / ((t₃−t₂)(t₄−t₂)) times as large.

    Parameters
    ----------
    data : numpy.ndarray
        The first five resultants of some rows, or all four, in DN (resultant, row, column), without the reference border.
    resultant_times : numpy.ndarray
        Their mean times in seconds.
    good : numpy.ndarray
        From `usable_pixels`.

    Returns
    -------
    float
        Median over the pixels that measure the transient, DN; NaN without any.
    """
    used = good & ~_lit(data)
    if not used.any():
        return np.nan
    one, two, three, four = resultant_times[:4]
    excess = np.median(_excess(data[1][used], data[2][used], data[3][used], resultant_times[1:4]))
    return float(excess * (two - one) * (three - one) / ((three - two) * (four - two)))


def largest_curvature(curved: Sequence[float]) -> float:
    """Get the largest curvature of some rows, apart from single odd ones.

    Parameters
    ----------
    curved : sequence of float
        From `curvature`, DN.

    Returns
    -------
    float
        The 90th percentile of the absolute values, DN; NaN if none is known.
    """
    known = np.abs(curved)[np.isfinite(curved)]
    return float(np.percentile(known, 90)) if known.size else np.nan


def fit_transient(row_times: np.ndarray, transient: np.ndarray) -> np.ndarray | None:
    """Fit a double exponential to the transient.

    Parameters
    ----------
    row_times : numpy.ndarray
        Mean read time of each row in seconds.
    transient : numpy.ndarray
        From `transient_by_row`; rows that are NaN don't count.

    Returns
    -------
    numpy.ndarray or None
        Amplitudes a and b, DN, and time constants τa and τb, seconds. `None` if the fit fails, or if fewer than half of all
        rows, or of those that the transient affects most, could be measured.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    there = np.isfinite(transient)
    if min(there.mean(), there[: MASKED_ROWS * len(there) // FULL_ROWS].mean()) < ENOUGH_ROWS:
        return None
    starts = [row_times[row * len(row_times) // FULL_SCIENCE_ROWS] for row in START_ROWS]
    values = transient[there]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # the covariance is not used
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow while the fit tries far values
        try:
            found, _ = curve_fit(double_exponential, row_times[there], values, p0=[1.1 * values[0], -0.1 * values[0], *starts])
        except (ValueError, RuntimeError):
            return None
        good = np.isfinite(double_exponential(row_times, *found)).all()
    return found if good else None


def why_implausible(
    fit: np.ndarray, row_times: np.ndarray, transient: np.ndarray, first_time: float, curved: float
) -> str | None:
    """Tell why a fit can't be that of the transient.

    The curve is judged, not its four parameters: two exponentials of nearly the same time constant may have large amplitudes
    that cancel, and one of negligible amplitude any time constant.

    Parameters
    ----------
    fit : numpy.ndarray
        From `fit_transient`.
    row_times, transient : numpy.ndarray
        What was fitted.
    first_time : float
        Read time of the first pixel in seconds, where the curve is farthest from its rows.
    curved : float
        From `largest_curvature`, of the rows that the transient affects most.

    Returns
    -------
    str or None
        The reason with its numbers; `None` for a plausible fit.
    """
    with np.errstate(over="ignore"):
        curve = double_exponential(np.r_[first_time, row_times], *fit)
    peak, measured = np.abs(curve).max(), np.nanmax(np.abs(transient))
    tolerated, last = max(LARGEST_REMAINDER * peak, NEGLIGIBLE), curve[1 + np.argmax(row_times)]
    if not peak <= max(LARGEST_EXCESS * measured, NEGLIGIBLE):
        return f"it reaches {peak:.4g} DN, and no row has more than {measured:.4g} DN"
    if abs(last) > tolerated:
        return f"it has not decayed by the end of the read: {last:.4g} DN of {peak:.4g} DN are left"
    if curved > tolerated:
        return f"the ramps are not straight, which pretends {curved:.4g} DN of its {peak:.4g} DN"
    return None
