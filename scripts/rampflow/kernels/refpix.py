"""Compiled loops of the refpix step: what is done before and after the transforms, which are scipy's."""

import numpy as np
from numba import njit

from rampflow.detector import CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH

SAMPLES = CHANNEL_WIDTH + CHANNEL_DEAD_COLUMNS
BLOCK = 32  #: rows of a channel that are processed together: with 8, the loop takes 0.4 s more for nine resultants
CHUNK = 512  #: frequencies that stay in the first cache


@njit(cache=True, nogil=True, fastmath={"contract"})
def _combine(responses, channel, spectra, resultant, start, combined):
    gamma, zeta, alpha = responses
    for n in range(len(combined)):
        i = start + n
        combined[n] = (
            gamma[channel, i] * spectra[resultant, 0, i]
            + zeta[channel, i] * spectra[resultant, 1, i]
            + alpha[channel, i] * spectra[resultant, 2, i]
        )


@njit(cache=True, nogil=True)
def combine(
    responses: tuple[np.ndarray, np.ndarray, np.ndarray],
    spectra: np.ndarray,
    one: tuple[int, int],
    two: tuple[int, int],
    spectrum: np.ndarray,
) -> None:
    """Combine the spectra of two corrections, one for the real part of the samples and the other for the imaginary.

    Parameters
    ----------
    responses : tuple of numpy.ndarray
        Responses to the left, right and amp33 references, each complex64, (channel, frequency).
    spectra : numpy.ndarray
        Spectra of the references, complex64, (resultant, reference, frequency).
    one, two : tuple of int
        Channel and resultant of each correction.
    spectrum : numpy.ndarray
        Spectrum of both, complex64, (frequency,), with an even number of frequencies; written. Those above half are the
        conjugates of those below, since the samples of a correction are real.
    """
    last = spectrum.size // 2
    values = np.empty((2, CHUNK), np.complex64)
    for start in range(0, last + 1, CHUNK):
        count = min(CHUNK, last + 1 - start)
        first, second = values[0, :count], values[1, :count]
        _combine(responses, one[0], spectra, one[1], start, first)
        _combine(responses, two[0], spectra, two[1], start, second)
        if start == 0:
            first[0], second[0] = first[0].real, second[0].real
        if start + count > last:
            first[-1], second[-1] = first[-1].real, second[-1].real
        for n in range(count):
            spectrum[start + n] = complex(first[n].real - second[n].imag, first[n].imag + second[n].real)
        if start == 0:  # the constant is its own mirror image
            first, second, start, count = first[1:], second[1:], 1, count - 1
        for n in range(count):
            spectrum[2 * last - start - n] = complex(first[n].real + second[n].imag, second[n].real - first[n].imag)


@njit(cache=True, nogil=True)
def subtract(
    resultant: np.ndarray,
    offset: np.ndarray,
    channel: int,
    slope: float,
    intercept: float,
    mean_is_missing: bool,
    samples: np.ndarray,
    part: int,
) -> None:
    """Subtract the trend and the correction from a channel of a resultant; the offset stays in the result.

    Parameters
    ----------
    resultant, offset : numpy.ndarray
        Counts and their mean over the resultants, DN, float32, (row, column), all channels; `resultant` is changed.
    channel : int
        Number of the channel: odd ones are read from their last column to their first.
    slope, intercept : float
        The trend: DN per sample, and DN at the middle of the frame. It is not subtracted from missing samples, which are zero
        in all resultants.
    mean_is_missing : bool
        Whether samples that equal their offset count as missing, too.
    samples : numpy.ndarray
        Two corrections, complex64, (sample, row), in read order.
    part : int
        Which of them to subtract: 0 for their real part, 1 for the imaginary.
    """
    columns, rows = samples.shape
    first, stop, backward = channel * columns, (channel + 1) * columns, channel % 2 == 1
    times, correction, rest = np.empty(columns), np.empty((BLOCK, columns), np.float32), np.empty((BLOCK, columns), np.float32)
    for column in range(columns):
        times[column] = (columns - 1 - column if backward else column) - (rows * SAMPLES - 1) / 2
    for start in range(0, rows, BLOCK):
        # A short loop for each row: the processor then requests several rows from memory at a time.
        for row in range(start, min(start + BLOCK, rows)):
            counts, put_back, values = resultant[row, first:stop], offset[row, first:stop], rest[row - start]
            for column in range(columns):
                values[column] = counts[column] - put_back[column]
        for column in range(columns):  # transposed first, so that the main loop runs in vector registers
            sample = columns - 1 - column if backward else column
            for row in range(start, min(start + BLOCK, rows)):
                value = samples[sample, row]
                correction[row - start, column] = value.imag if part else value.real
        for row in range(start, min(start + BLOCK, rows)):
            counts, put_back = resultant[row, first:stop], offset[row, first:stop]
            begin, values, here = np.float64(row * SAMPLES), rest[row - start], correction[row - start]
            for column in range(columns):
                value = values[column]
                trend = (begin + times[column]) * slope + intercept
                there = value != 0 if mean_is_missing else counts[column] != 0
                value = np.float32(value - trend) if there else value
                counts[column] = value - here[column] + put_back[column]
