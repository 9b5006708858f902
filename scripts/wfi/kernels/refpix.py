"""Compiled loops of the refpix step."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fill_zeros(stream, weights, lead, filled):
    """Fill the zeros of a stream with the weighted mean of the samples around them that are not zero.

    Parameters
    ----------
    stream : numpy.ndarray
        float32, 1-D.
    weights : numpy.ndarray
        float64: weight of the sample ``lead - j`` places after the zero, for each j.
    lead : int
    filled : numpy.ndarray
        Written like `stream`: zero where there is nothing to fill from.
    """
    for i in range(stream.size):
        filled[i] = stream[i]
        if stream[i] == 0:
            total = weight = 0.0
            for j in range(weights.size):
                k = i + lead - j
                if 0 <= k < stream.size and stream[k] != 0:
                    total += weights[j] * stream[k]
                    weight += weights[j]
            if weight != 0:
                filled[i] = total / weight


@njit(cache=True, nogil=True, fastmath={"contract"})
def combine(responses, spectra, combined):
    """Sum of the products of three responses and three spectra, (reference, frequency), complex64."""
    for k in range(combined.size):
        combined[k] = responses[0, k] * spectra[0, k] + responses[1, k] * spectra[1, k] + responses[2, k] * spectra[2, k]


@njit(cache=True, nogil=True)
def subtract(channel, offset, slope, intercept, correction, backwards, corrected):
    """Subtract the trend and the correction from the samples of a channel; the offset stays in the result.

    Parameters
    ----------
    channel, offset : numpy.ndarray
        float32, (row, column), as they lie on the detector.
    slope, intercept : numpy.float32
        The trend: DN per sample and DN at the middle of the frame. Samples that are their offset exactly have none.
    correction : numpy.ndarray
        float32, (row, sample), in read order, with the padding.
    backwards : bool
        The channel is read from its last column to its first.
    corrected : numpy.ndarray
        Written like `channel`.
    """
    rows, columns = channel.shape
    samples = correction.shape[1]
    middle = np.float32((rows * samples - 1) / 2)
    for row in range(rows):
        for column in range(columns):
            sample = columns - 1 - column if backwards else column
            value = channel[row, column] - offset[row, column]
            time = np.float32(row * samples + sample) - middle
            trend = time * slope + intercept
            value -= trend if value != 0 else np.float32(0)
            corrected[row, column] = value - correction[row, sample] + offset[row, column]
