"""Numbers that are measured on pixels: flags, the sky over the detector, the scatter of rows, the quality of fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from rampflow import dq
from rampflow.detector import BORDER, CHANNEL_WIDTH

MAD_TO_SIGMA = 1.482602218505602  #: 1 / Φ⁻¹(3/4)
PIXEL_AREA = 1e-6  #: of the detector, cm²
CELL_ROWS = 256  #: rows of a cell of the sky; it has the columns of one channel
SKY_CLIP = 2.0  #: standard deviations from the median of a cell beyond which a pixel does not show the sky
#: Probability above which a χ² counts as beyond its distribution.
EXPECTED_SHARE = 0.999


def robust_scatter(values: np.ndarray) -> float:
    """Estimate a standard deviation from the median absolute deviation.

    Parameters
    ----------
    values : numpy.ndarray
        Values; those that are not finite are left out.

    Returns
    -------
    float
        1.4826 × the median absolute deviation; NaN without a finite value.
    """
    values = values[np.isfinite(values)]
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values)))) if values.size else np.nan


def count_flags(flags: np.ndarray, counts: dict[str, int]) -> None:
    """Add the pixels with each flag to counts, in place.

    Parameters
    ----------
    flags : numpy.ndarray
        Data quality of some pixels, uint32.
    counts : dict of int
        Number of pixels by the flag's name, in lower case with ``dq_`` before it.
    """
    flagged = flags[flags != 0]
    present = int(np.bitwise_or.reduce(flagged)) if flagged.size else 0
    for name, value in dq.pixel_flags().items():
        if present & value:
            key = f"dq_{name.lower()}"
            counts[key] = counts.get(key, 0) + int(np.count_nonzero(dq.has(flagged, value)))


def sky_cells(sample: np.ndarray, every: int) -> np.ndarray:
    """Compute the sky in cells of one channel by `CELL_ROWS` rows.

    Parameters
    ----------
    sample : numpy.ndarray
        Rows of the image, DN/s, of shape (row, column); NaN for pixels that are not good.
    every : int
        Distance of these rows in the image.

    Returns
    -------
    numpy.ndarray
        Median of the good pixels in each cell without those far from it, DN/s, of shape (cell row, channel); NaN where a cell
        has none.
    """
    rows, columns = sample.shape
    bands = max(round(rows * every / CELL_ROWS), 1)
    row_edges = np.linspace(0, rows, bands + 1).round().astype(int)
    # The image begins after the reference pixels, which are a part of the first channel.
    column_edges = np.clip(np.arange(0, columns + 2 * BORDER + 1, CHANNEL_WIDTH) - BORDER, 0, columns)
    cells = np.full((bands, len(column_edges) - 1), np.nan)
    for i, band in enumerate(cells):
        for j in range(len(band)):
            cell = sample[row_edges[i] : row_edges[i + 1], column_edges[j] : column_edges[j + 1]]
            good = cell[np.isfinite(cell)]
            if good.size:
                # The wings of stars and galaxies raise the median of a cell by percents, more in one cell than in another.
                distance = np.abs(good - np.median(good))
                band[j] = np.median(good[distance <= SKY_CLIP * MAD_TO_SIGMA * np.median(distance)])
    return cells


def measure_sky(cells: np.ndarray, level: float, noise: float) -> dict[str, float]:
    """Measure how uniform the sky of an image is.

    Parameters
    ----------
    cells : numpy.ndarray
        From `sky_cells`.
    level, noise : float
        Sky level and noise of the image, DN/s.

    Returns
    -------
    dict of float
        ``sky_nonuniformity`` and ``channel_deviation`` as fractions of the level; NaN where the sky is not brighter than its
        noise in a pixel, so that the fractions would say nothing.
    """
    known = np.isfinite(cells).any(axis=0)
    if not (level > noise and known.any()):
        return {"sky_nonuniformity": np.nan, "channel_deviation": np.nan}
    channels = np.nanmedian(cells[:, known], axis=0)
    return {
        "sky_nonuniformity": robust_scatter(cells) / level,
        "channel_deviation": float(np.abs(channels - np.median(channels)).max()) / level,
    }


def measure_row_scatter(differences: np.ndarray) -> float:
    """Measure the scatter of rows that are read one after the other.

    Parameters
    ----------
    differences : numpy.ndarray
        Pairs of neighboring rows in the difference of two resultants, DN, of shape (pair, 2, column).

    Returns
    -------
    float
        Robust standard deviation of the rows' interquartile means in each channel, DN; NaN without a pair. The noise of the
        pixels contributes a tenth of it.
    """
    pairs, _, columns = differences.shape
    if not pairs:
        return np.nan
    ordered = np.sort(differences.reshape(pairs, 2, columns // CHANNEL_WIDTH, CHANNEL_WIDTH), axis=3)
    # Without stars and cosmic rays. The median of whole numbers would be a whole number, too.
    means = ordered[..., CHANNEL_WIDTH // 4 : -CHANNEL_WIDTH // 4].mean(axis=3, dtype=np.float64)
    return robust_scatter(means[:, 1] - means[:, 0]) / np.sqrt(2)


def measure_reference_level(border: np.ndarray, sides: Sequence[np.ndarray], beside: Sequence[np.ndarray]) -> dict[str, float]:
    """Measure the level of the reference pixels.

    Parameters
    ----------
    border : numpy.ndarray
        Counts of the reference pixels in one resultant, DN, of shape (pixel,).
    sides : sequence of numpy.ndarray
        Those of the left and those of the right border.
    beside : sequence of numpy.ndarray
        Counts of the light-sensitive pixels in the columns beside each of these borders, in the same resultant, DN.

    Returns
    -------
    dict of float
        ``reference_level``, the median, and ``reference_offset``, the median of a side less that of the pixels beside it, on
        average over both sides, DN. A change of the bias of a whole channel is in the level, and not in the offset.
    """
    offsets = [float(np.median(side)) - float(np.median(pixels)) for side, pixels in zip(sides, beside, strict=True)]
    return {"reference_level": float(np.median(border)), "reference_offset": sum(offsets) / len(offsets)}


def chi2_survival(chi2: float, degrees: int) -> float:
    """Compute the probability of a larger χ².

    As `scipy.special.chdtrc` (SciPy 1.17), whose import would take 0.16 s of each exposure.

    Parameters
    ----------
    chi2 : float
        Value of χ², positive.
    degrees : int
        Degrees of freedom, at least 1.

    Returns
    -------
    float
        The probability.
    """
    half, first = chi2 / 2, 2 - degrees % 2
    probability = math.exp(-half) if first == 2 else math.erfc(math.sqrt(half))
    # Q(n + 2) = Q(n) + (x/2)^(n/2) exp(-x/2) / Γ(n/2 + 1)
    powers = (n / 2 * math.log(half) - half - math.lgamma(n / 2 + 1) for n in range(first, degrees, 2))
    return probability + sum(map(math.exp, powers))


def largest_chi2(degrees: int) -> np.ndarray:
    """Tabulate the χ² that `EXPECTED_SHARE` of good fits don't exceed.

    Parameters
    ----------
    degrees : int
        Largest number of degrees of freedom.

    Returns
    -------
    numpy.ndarray
        Its value for 0 to `degrees` degrees of freedom; infinite for 0.
    """
    limits = [math.inf]
    for n in range(1, degrees + 1):
        low, high = 0.0, 20.0 + 2 * n
        while high - low > 1e-6 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if chi2_survival(middle, n) > 1 - EXPECTED_SHARE else (low, middle)
        limits.append(high)
    return np.array(limits)


def judge_fits(chi2: np.ndarray, unused: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, int]:
    """Compare the χ² of fits of ramps with its distribution.

    Parameters
    ----------
    chi2 : numpy.ndarray
        Value of χ² of each fit, of shape (pixel,).
    unused : numpy.ndarray
        Not zero where a fit left out a difference of two resultants, of shape (difference, pixel).
    largest : numpy.ndarray
        From `largest_chi2`, for one degree less than there are differences.

    Returns
    -------
    reduced : numpy.ndarray
        Value of χ² by degrees of freedom, of the fits that have any.
    number : int
        Number of these fits beyond `largest`.
    """
    degrees = np.count_nonzero(unused == 0, axis=0) - 1
    known = (degrees > 0) & np.isfinite(chi2)
    degrees, chi2 = degrees[known], chi2[known]
    return chi2 / degrees, int(np.count_nonzero(chi2 > largest[degrees]))


def summarize_fits(fits: Iterable[tuple[np.ndarray, int]]) -> dict[str, float]:
    """Summarize the quality of fits of ramps.

    Parameters
    ----------
    fits : iterable of tuple
        What `judge_fits` returned for each block of pixels.

    Returns
    -------
    dict of float
        ``chi2_median``, the median of the reduced χ², and ``chi2_excess``, the share of fits beyond `EXPECTED_SHARE` of the
        distribution, less the expected one; NaN where no fit has a degree of freedom.
    """
    blocks, beyond = zip(*fits, strict=True)
    reduced = np.concatenate(blocks)
    if not reduced.size:
        return {"chi2_median": np.nan, "chi2_excess": np.nan}
    return {
        "chi2_median": float(np.median(reduced)),
        "chi2_excess": sum(beyond) / reduced.size - (1 - EXPECTED_SHARE),
    }


def summarize_jumps(jumps: Sequence[int], pixels: Sequence[int], seconds: float) -> dict[str, float]:
    """Summarize the jumps of an exposure.

    Parameters
    ----------
    jumps : sequence of int
        Number of jumps in each block of rows.
    pixels : sequence of int
        Number of pixels of each block.
    seconds : float
        Exposure time.

    Returns
    -------
    dict of float
        ``jumps``, their number, and ``jump_rate``, the median of all blocks per time and area (1 / (cm² s)). A large event,
        which flags hundreds of pixels, is in few blocks.
    """
    rates = np.array(jumps) / (np.array(pixels) * PIXEL_AREA * seconds)
    return {"jumps": int(np.sum(jumps)), "jump_rate": float(np.median(rates))}
