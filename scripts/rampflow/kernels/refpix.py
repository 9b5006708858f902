"""Compiled loops of the refpix step.

`transform`, `half_transform` and `combine` stand for transforms by `scipy.fft` in double precision: 1.2 s less CPU for the
correction of a full frame of nine resultants, and no less accurate. docs/development/in-place-of-libraries.md has the figures.
"""

import math

import numpy as np
from numba import njit

from rampflow.detector import CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH

SAMPLES = CHANNEL_WIDTH + CHANNEL_DEAD_COLUMNS
LANES = 32  #: transforms done side by side, in vector registers: the work of so many stays in the second cache
BLOCK = 8  #: rows of a channel that stay in the first cache
CHUNK = 512  #: frequencies that stay in the first cache
PLANE = SAMPLES * LANES  #: from the real to the imaginary part of their values

# In single precision, as all that they are multiplied by: the compiler would do the whole of it in double.
COS_5 = tuple(np.float32(math.cos(2 * math.pi * n / 5)) for n in range(3))
SIN_5 = tuple(np.float32(math.sin(2 * math.pi * n / 5)) for n in range(3))
COS_7 = tuple(np.float32(math.cos(2 * math.pi * n / 7)) for n in range(4))
SIN_7 = tuple(np.float32(math.sin(2 * math.pi * n / 7)) for n in range(4))

# 140 = 4 · 5 · 7 without a common factor, so a transform of 140 values is one of 4, 5 and 7 values along the axes of a box, if
# frequencies and samples are put into it in the right order (I. J. Good 1958, J. R. Stat. Soc. B 20, 361).
FREQUENCY_PLACES = np.array([((3 * f % 4) * 5 + 2 * f % 5) * 7 + 6 * f % 7 for f in range(SAMPLES)]) * LANES
SAMPLE_PLACES = np.array([((s % 4) * 5 + s % 5) * 7 + s % 7 for s in range(SAMPLES)]) * LANES


@njit(cache=True, nogil=True, fastmath={"contract"})
def transform(box):
    """Transform 140 frequencies to 140 samples, x[s] = Σ_f X[f] e^(2πi f s / 140), `LANES` times side by side.

    Parameters
    ----------
    box : numpy.ndarray
        Values, float32, flat in the order (real and imaginary part, place, lane): X at FREQUENCY_PLACES becomes x at
        SAMPLE_PLACES.
    """
    # All distances are constants: only then does the compiler see that what is written is not read in the same round.
    step = 35 * LANES
    for i in range(step):
        j = i + PLANE
        ar, ai = box[i] + box[i + 2 * step], box[j] + box[j + 2 * step]
        br, bi = box[i] - box[i + 2 * step], box[j] - box[j + 2 * step]
        cr, ci = box[i + step] + box[i + 3 * step], box[j + step] + box[j + 3 * step]
        dr, di = box[i + step] - box[i + 3 * step], box[j + step] - box[j + 3 * step]
        box[i], box[j] = ar + cr, ai + ci
        box[i + step], box[j + step] = br - di, bi + dr
        box[i + 2 * step], box[j + 2 * step] = ar - cr, ai - ci
        box[i + 3 * step], box[j + 3 * step] = br + di, bi - dr
    step = 7 * LANES
    for first in range(0, PLANE, 5 * step):
        for i in range(first, first + step):
            j = i + PLANE
            xr, xi = box[i], box[j]
            ar, ai = box[i + step] + box[i + 4 * step], box[j + step] + box[j + 4 * step]
            br, bi = box[i + step] - box[i + 4 * step], box[j + step] - box[j + 4 * step]
            cr, ci = box[i + 2 * step] + box[i + 3 * step], box[j + 2 * step] + box[j + 3 * step]
            dr, di = box[i + 2 * step] - box[i + 3 * step], box[j + 2 * step] - box[j + 3 * step]
            box[i], box[j] = xr + ar + cr, xi + ai + ci
            mr, mi = xr + COS_5[1] * ar + COS_5[2] * cr, xi + COS_5[1] * ai + COS_5[2] * ci
            nr, ni = SIN_5[1] * br + SIN_5[2] * dr, SIN_5[1] * bi + SIN_5[2] * di
            box[i + step], box[j + step] = mr - ni, mi + nr
            box[i + 4 * step], box[j + 4 * step] = mr + ni, mi - nr
            mr, mi = xr + COS_5[2] * ar + COS_5[1] * cr, xi + COS_5[2] * ai + COS_5[1] * ci
            nr, ni = SIN_5[2] * br - SIN_5[1] * dr, SIN_5[2] * bi - SIN_5[1] * di
            box[i + 2 * step], box[j + 2 * step] = mr - ni, mi + nr
            box[i + 3 * step], box[j + 3 * step] = mr + ni, mi - nr
    step = LANES
    for first in range(0, PLANE, 7 * step):
        for i in range(first, first + step):
            j = i + PLANE
            xr, xi = box[i], box[j]
            ar, ai = box[i + step] + box[i + 6 * step], box[j + step] + box[j + 6 * step]
            br, bi = box[i + step] - box[i + 6 * step], box[j + step] - box[j + 6 * step]
            cr, ci = box[i + 2 * step] + box[i + 5 * step], box[j + 2 * step] + box[j + 5 * step]
            dr, di = box[i + 2 * step] - box[i + 5 * step], box[j + 2 * step] - box[j + 5 * step]
            er, ei = box[i + 3 * step] + box[i + 4 * step], box[j + 3 * step] + box[j + 4 * step]
            fr, fi = box[i + 3 * step] - box[i + 4 * step], box[j + 3 * step] - box[j + 4 * step]
            box[i], box[j] = xr + ar + cr + er, xi + ai + ci + ei
            mr = xr + COS_7[1] * ar + COS_7[2] * cr + COS_7[3] * er
            mi = xi + COS_7[1] * ai + COS_7[2] * ci + COS_7[3] * ei
            nr = SIN_7[1] * br + SIN_7[2] * dr + SIN_7[3] * fr
            ni = SIN_7[1] * bi + SIN_7[2] * di + SIN_7[3] * fi
            box[i + step], box[j + step] = mr - ni, mi + nr
            box[i + 6 * step], box[j + 6 * step] = mr + ni, mi - nr
            mr = xr + COS_7[2] * ar + COS_7[3] * cr + COS_7[1] * er
            mi = xi + COS_7[2] * ai + COS_7[3] * ci + COS_7[1] * ei
            nr = SIN_7[2] * br - SIN_7[3] * dr - SIN_7[1] * fr
            ni = SIN_7[2] * bi - SIN_7[3] * di - SIN_7[1] * fi
            box[i + 2 * step], box[j + 2 * step] = mr - ni, mi + nr
            box[i + 5 * step], box[j + 5 * step] = mr + ni, mi - nr
            mr = xr + COS_7[3] * ar + COS_7[1] * cr + COS_7[2] * er
            mi = xi + COS_7[3] * ai + COS_7[1] * ci + COS_7[2] * ei
            nr = SIN_7[3] * br - SIN_7[1] * dr + SIN_7[2] * fr
            ni = SIN_7[3] * bi - SIN_7[1] * di + SIN_7[2] * fi
            box[i + 3 * step], box[j + 3 * step] = mr - ni, mi + nr
            box[i + 4 * step], box[j + 4 * step] = mr + ni, mi - nr


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
def combine(responses, spectra, one, two, spectrum):
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
        Real and imaginary part at the frequency k + rows·f, float32, (part, f, k); written. Those above half of the
        frequencies are the conjugates of those below, since the samples of a correction are real.
    """
    _, samples, rows = spectrum.shape
    last = samples * rows // 2
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
        real, imaginary = spectrum[0].reshape(-1), spectrum[1].reshape(-1)
        for n in range(count):
            real[start + n] = first[n].real - second[n].imag
            imaginary[start + n] = first[n].imag + second[n].real
        if start == 0:  # the constant is its own mirror image
            first, second, start, count = first[1:], second[1:], 1, count - 1
        stop = 2 * last - start + 1
        real, imaginary = real[stop - count : stop], imaginary[stop - count : stop]
        for n in range(count):
            real[count - 1 - n] = first[n].real + second[n].imag
            imaginary[count - 1 - n] = second[n].real - first[n].imag


@njit(cache=True, nogil=True, fastmath={"contract"})
def half_transform(spectrum, coarse, fine, turned):
    """Do the first half of a transform to time.

    With the frequency k + rows·f and the sample s of row r,

        x[r, s] = Σ_k e^(2πi k r / rows) · e^(2πi k s / (140 rows)) · Σ_f X[k, f] e^(2πi f s / 140)

    (D. H. Bailey 1990, J. Supercomputing 4, 23). This is all but the sum over k, which is left to a library.

    Parameters
    ----------
    spectrum : numpy.ndarray
        From `combine`: X, float32, (part, f, k).
    coarse, fine : numpy.ndarray
        Factors of the second exponential and the norm of the transform: coarse[k // LANES, s] · fine[s, k % LANES],
        complex64.
    turned : numpy.ndarray
        Result, complex64, (sample, k), without the samples of the dead time; written.
    """
    rows = spectrum.shape[2]
    box = np.zeros(2 * PLANE, np.float32)
    for block in range(len(coarse)):
        start = block * LANES
        count = min(LANES, rows - start)
        for f in range(SAMPLES):
            place = FREQUENCY_PLACES[f]
            for n in range(count):
                box[place + n] = spectrum[0, f, start + n]
            for n in range(count):
                box[place + PLANE + n] = spectrum[1, f, start + n]
        transform(box)
        for s in range(len(turned)):
            place = SAMPLE_PLACES[s]
            for n in range(count):
                turned[s, start + n] = complex(box[place + n], box[place + PLANE + n]) * (coarse[block, s] * fine[s, n])


@njit(cache=True, nogil=True)
def subtract(resultant, offset, channel, slope, intercept, mean_is_missing, samples, part):
    """Subtract the trend and the correction from the samples of a channel; the offset stays in the result.

    Parameters
    ----------
    resultant, offset : numpy.ndarray
        Counts and their mean over the resultants, DN, float32, (row, column), all channels; `resultant` is changed.
    channel : int
        Number of the channel: odd ones are read from their last column to their first.
    slope, intercept : float
        The trend: DN per sample and DN at the middle of the frame; missing samples, zero in all resultants, have none.
    mean_is_missing : bool
        Samples that are their offset exactly have none either.
    samples : numpy.ndarray
        Two corrections, complex64, (sample, row), in read order.
    part : int
        Which of them it is: 0 is their real part, 1 the imaginary.
    """
    columns, rows = samples.shape
    first, stop, backwards = channel * columns, (channel + 1) * columns, channel % 2 == 1
    times, correction, rest = np.empty(columns), np.empty((BLOCK, columns), np.float32), np.empty((BLOCK, columns), np.float32)
    for column in range(columns):
        times[column] = (columns - 1 - column if backwards else column) - (rows * SAMPLES - 1) / 2
    for start in range(0, rows, BLOCK):
        # A channel's part of a row is short, and comes from memory. Of a short loop the processor asks for several at a time.
        for row in range(start, min(start + BLOCK, rows)):
            counts, put_back, values = resultant[row, first:stop], offset[row, first:stop], rest[row - start]
            for column in range(columns):
                values[column] = counts[column] - put_back[column]
        for column in range(columns):  # turned to rows first: then the main loop runs in vector registers
            sample = columns - 1 - column if backwards else column
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
