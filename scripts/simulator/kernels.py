"""Compiled loops of the simulator: accumulate charge in every pixel read by read, and convert it to counts."""

import numba
import numpy as np

#: Linear counts (DN) up to which the inverse polynomial is valid; there its value exceeds the full well, which is the limit.
LARGEST = 80000.0


@numba.njit(cache=True, nogil=True)
def _draw_poisson(rng, mean, zero_probability):
    """Poisson number of the given mean; `zero_probability` is exp(-mean), computed once for all reads of a pixel.

    For means up to 10, the cumulative distribution is inverted, which takes about `mean` steps.
    """
    if mean <= 0.0:
        return 0.0
    if mean > 10.0:
        return float(rng.poisson(mean))
    left, probability, number = rng.random(), zero_probability, 0.0
    while left > probability and number < 100.0:
        left -= probability
        number += 1.0
        probability *= mean / number
    return number


@numba.njit(cache=True, nogil=True)
def expose_rows(
    out: np.ndarray,
    resultants: np.ndarray,
    rate: np.ndarray,
    gain: np.ndarray,
    pedestal: np.ndarray,
    inverse: np.ndarray,
    full_well: np.ndarray,
    conversion: np.ndarray,
    step: float,
    hits: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Expose a block of rows and average the reads into resultants.

    In each read, the charge q (electrons) grows by cosmic rays and a Poisson number. The linear counts are
    y = pedestal + q / gain, and the non-linear ones v = inverse(y), at most the full well. The converter writes
    v + conversion(v).

    Parameters
    ----------
    out : numpy.ndarray
        Result, (resultants, rows, columns), DN, float32.
    resultants : numpy.ndarray
        Resultant that each read is averaged into, (reads,), in ascending order; −1 for none.
    rate : numpy.ndarray
        Electrons per read, (rows, columns).
    gain : numpy.ndarray
        Electrons per DN, (rows, columns).
    pedestal : numpy.ndarray
        Linear counts after reset, DN, (rows, columns).
    inverse : numpy.ndarray
        Inverse linearity coefficients, constant first, (terms, rows, columns).
    full_well : numpy.ndarray
        Largest value of each pixel, DN, (rows, columns).
    conversion : numpy.ndarray
        Error of the converter, DN, in steps of `step` DN from 0, (channels, values); channels are equally wide.
    step : float
        Spacing of `conversion`, DN.
    hits : numpy.ndarray
        Cosmic-ray charges sorted by row, then read: (n, 4) of row in this block, read (from 0), column, electrons.
    rng : numpy.random.Generator
        Random numbers for this block alone.
    """
    terms, rows, columns = inverse.shape
    width = columns // conversion.shape[0]
    charge, zero_probability = np.empty(columns), np.empty(columns)
    hit = 0
    for row in range(rows):
        charge[:] = 0.0
        out[:, row] = 0.0
        for column in range(columns):
            zero_probability[column] = np.exp(-rate[row, column])
        for read in range(len(resultants)):
            while hit < len(hits) and hits[hit, 0] == row and hits[hit, 1] == read:
                charge[int(hits[hit, 2])] += hits[hit, 3]
                hit += 1
            resultant = resultants[read]
            for column in range(columns):
                charge[column] += _draw_poisson(rng, rate[row, column], zero_probability[column])
                if resultant < 0:
                    continue
                linear = min(pedestal[row, column] + charge[column] / gain[row, column], LARGEST)
                value = 0.0
                for term in range(terms - 1, -1, -1):
                    value = value * linear + inverse[term, row, column]
                value = max(min(value, full_well[row, column]), 0.0)
                place = value / step
                index = min(int(place), conversion.shape[1] - 2)
                channel = column // width
                below, above = conversion[channel, index], conversion[channel, index + 1]
                out[resultant, row, column] += value + below + (above - below) * (place - index)
        for resultant in range(len(out)):
            out[resultant, row] /= np.sum(resultants == resultant)
