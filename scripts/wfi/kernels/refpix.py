"""Compiled loops of the refpix step."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath={"contract"})
def combine(responses, spectra, spectrum):
    """The spectrum of the corrections of one channel, or of two: the second in the imaginary part of the samples.

    Parameters
    ----------
    responses : numpy.ndarray
        complex128, (channel, reference, frequency), of one or two channels.
    spectra : numpy.ndarray
        complex128, (reference, frequency).
    spectrum : numpy.ndarray
        complex128, (k, f): the frequency is k + len(spectrum)·f; those above the half of them are conjugates of those below,
        for each channel's samples are real. Written.
    """
    period = len(spectrum)
    frequencies = spectrum.size
    for f in range(spectrum.shape[1] // 2 + 1):
        for k in range(min(period, frequencies // 2 + 1 - f * period)):
            i = k + f * period
            one, two = 0j, 0j
            for reference in range(3):
                one += responses[0, reference, i] * spectra[reference, i]
            if len(responses) > 1:
                for reference in range(3):
                    two += responses[1, reference, i] * spectra[reference, i]
            mirror = frequencies - i
            if 0 < i < mirror:
                spectrum[mirror % period, mirror // period] = complex(one.real + two.imag, two.real - one.imag)
                spectrum[k, f] = complex(one.real - two.imag, one.imag + two.real)
            else:
                spectrum[k, f] = complex(one.real, two.real)


@njit(cache=True, nogil=True)
def subtract(resultant, offset, first, columns, slope, intercept, mean_is_missing, correction, backwards, corrected):
    """Subtract the trend and the correction from the samples of a channel; the offset stays in the result.

    Parameters
    ----------
    resultant, offset : numpy.ndarray
        float32, (row, column), all channels.
    first, columns : int
        First column of the channel, and their number.
    slope, intercept : float
        The trend: DN per sample and DN at the middle of the frame; missing samples, zero in all resultants, have none.
    mean_is_missing : bool
        Samples that are their offset exactly have none either.
    correction : numpy.ndarray
        float64, (row, sample), in read order, with the padding.
    backwards : bool
        The channel is read from its last column to its first.
    corrected : numpy.ndarray
        Written like `resultant`.
    """
    rows, samples = correction.shape
    # In the order of the detector's columns first: then the main loop runs in vector registers, whichever the direction.
    times, here = np.empty(columns), np.empty(columns, np.float32)
    for column in range(columns):
        times[column] = (columns - 1 - column if backwards else column) - (rows * samples - 1) / 2
    for row in range(rows):
        counts, put_back = resultant[row, first : first + columns], offset[row, first : first + columns]
        result = corrected[row, first : first + columns]
        for column in range(columns):
            here[column] = correction[row, column]
        if backwards:
            here[:] = here[::-1].copy()
        start = np.float64(row * samples)
        for column in range(columns):
            value = counts[column] - put_back[column]
            trend = (start + times[column]) * slope + intercept
            there = value != 0 if mean_is_missing else counts[column] != 0
            value = np.float32(value - trend) if there else value
            result[column] = value - here[column] + put_back[column]
