"""Effects of the detector and its electronics, which the steps of the pipeline correct."""

from __future__ import annotations

import numpy as np

from rampflow import dq as flags
from rampflow.detector import BORDER, CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH, SCIENCE, pixel_read_times

PIXEL_PITCH = 1e-3  #: cm
#: Depth of the 5 µm of HgCdTe (pixels), and charge along one pixel (electrons): assumed, of the right order.
TRACK_DEPTH, ELECTRONS_PER_PIXEL = 0.5, 1500.0
LONGEST_TRACK = 60.0  #: pixels
SNOWBALL_CORE, SNOWBALL_WING = 3e5, 1.5  #: electrons per pixel (well over the full well); pixels
#: The grid of hits: spacing in rows and columns (pixels), and the charges (electrons).
JUMP_SPACING, JUMP_CHARGES = 8, np.rint(np.geomspace(30, 30000, 25))
DROPOUT_LENGTH = 64  #: length of a run of lost pixels in a row
COMMON_NOISE, AMPLIFIER_NOISE, DRIFT = 5.0, 7.0, 10.0  #: DN: 1/f noise and white noise of one read, drift of one resultant
#: The WFI18 transient: DN, and the fraction of the rows after which each term has fallen to 1/e.
TRANSIENT = ((60.0, 0.07), (-6.0, 0.25))


# ----------------------------------------------------------------------------------------------------------- cosmic rays
def throw_cosmic_rays(
    rng: np.random.Generator, shape: tuple[int, int], n_reads: int, exposure_time: float, flux: float, snowballs: int
) -> np.ndarray:
    """Draw the charges that particles leave in pixels.

    Tracks enter from all directions: the tangent of the angle to the normal gives their length. A snowball is a disk that
    saturates, with an exponential wing.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    shape : tuple of int
        Rows and columns without the reference border.
    n_reads : int
        Number of reads of the exposure.
    exposure_time : float
        Seconds.
    flux : float
        Particles per second and cm².
    snowballs : int
        Number of snowballs.

    Returns
    -------
    numpy.ndarray
        Structured, one element per hit pixel: row, column, read (from 0, the first that shows it), charge (electrons);
        sorted by row, then read.
    """
    rows, columns = shape
    count = rng.poisson(flux * rows * columns * PIXEL_PITCH**2 * exposure_time)
    cosine = np.sqrt(rng.random(count))  # isotropic particles cross a plane by cos θ
    length = np.minimum(TRACK_DEPTH * np.sqrt(1 / cosine**2 - 1), LONGEST_TRACK)
    deposit = ELECTRONS_PER_PIXEL * np.hypot(length, TRACK_DEPTH) * rng.lognormal(0, 0.5, count)
    angle, read = rng.uniform(0, 2 * np.pi, count), rng.integers(0, n_reads, count)
    steps = np.ceil(length / 0.2).astype(int) + 1
    track = np.repeat(np.arange(count), steps)
    along = (np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[track] * length[track]
    parts = [
        (
            rng.uniform(-0.5, rows - 0.5, count)[track] + along * np.sin(angle[track]),
            rng.uniform(-0.5, columns - 0.5, count)[track] + along * np.cos(angle[track]),
            read[track],
            (deposit / steps)[track],
        )
    ]
    for _ in range(snowballs):
        center_row, center_column, radius = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(3, 8)
        y, x = (grid.ravel() for grid in np.mgrid[-30:31, -30:31])
        charge = SNOWBALL_CORE * np.exp(-np.maximum(np.hypot(y, x) - radius, 0) / SNOWBALL_WING)
        parts.append((center_row + y, center_column + x, np.full(y.shape, rng.integers(0, n_reads)), charge))
    row, column, read, charge = (np.concatenate(values) for values in zip(*parts, strict=True))

    row, column = np.rint(row).astype(int), np.rint(column).astype(int)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    place = (row[inside] * n_reads + read[inside]) * columns + column[inside]
    place, index = np.unique(place, return_inverse=True)
    charge = np.rint(np.bincount(index, charge[inside], len(place)))
    kept = charge >= 1
    place, charge = place[kept], charge[kept]
    row, read, column = np.unravel_index(place, (rows, n_reads, columns))
    return _hits(row, column, read, charge)


def arrange_jumps(rng: np.random.Generator, shape: tuple[int, int], n_reads: int) -> np.ndarray:
    """Place single hits of known charge on a grid.

    Each charge occurs about equally often in each read but the first, in random order.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    shape : tuple of int
        Rows and columns without the reference border.
    n_reads : int
        Number of reads of the exposure.

    Returns
    -------
    numpy.ndarray
        The hits, see `throw_cosmic_rays`.
    """
    row, column = (grid.ravel() for grid in np.mgrid[tuple(slice(JUMP_SPACING // 2, n, JUMP_SPACING) for n in shape)])
    kind = rng.permutation(len(row)) % (len(JUMP_CHARGES) * (n_reads - 1))
    return _hits(row, column, 1 + kind // len(JUMP_CHARGES), JUMP_CHARGES[kind % len(JUMP_CHARGES)])


def _hits(row, column, read, charge) -> np.ndarray:
    """Structured array of hits, sorted by row, then read."""
    hits = np.empty(len(row), [("row", "i4"), ("column", "i4"), ("read", "i4"), ("charge", "f4")])
    hits["row"], hits["column"], hits["read"], hits["charge"] = row, column, read, charge
    return hits[np.lexsort((column, read, row))]


# ------------------------------------------------------------------------------------------------- flags of the raw file
def draw_resultantdq(rng: np.random.Generator, ramp: np.ndarray) -> np.ndarray:
    """Draw flags of single resultants for a raw file.

    In each resultant, one in 10,000 pixels each is DO_NOT_USE, SATURATED and JUMP_DET. A few runs of pixels in each resultant
    are DROPOUT and DO_NOT_USE: their counts are lost.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    ramp : numpy.ndarray
        Counts, DN, (resultant, row, column); set to 0 in place where they are lost.

    Returns
    -------
    numpy.ndarray
        Flags, uint8, of the shape of `ramp`.
    """
    resultants, rows, columns = ramp.shape
    resultantdq = np.zeros(ramp.shape, np.uint8)
    for flag in (flags.DO_NOT_USE, flags.SATURATED, flags.JUMP_DET):
        for frame in resultantdq:
            frame.ravel()[rng.choice(frame.size, max(frame.size // 10000, 3), replace=False)] |= flag
    for index in range(resultants):
        for _ in range(max(rows // 256, 2)):
            row, column = rng.integers(rows), rng.integers(columns - DROPOUT_LENGTH)
            run = (index, row, slice(column, column + DROPOUT_LENGTH))
            resultantdq[run] |= flags.DROPOUT | flags.DO_NOT_USE
            ramp[run] = 0
    return resultantdq


# ----------------------------------------------------------------------------------------------------- converter and drift
def converter_error(value: np.ndarray, corrections: np.ndarray, step: float) -> np.ndarray:
    """Compute the error of the analog-to-digital converter, the inverse of the pipeline's correction.

    The correction is a function of the written value w: true = w + correction(w). Its slope is below 1 %, so three iterations
    of w = true − correction(w) converge.

    Parameters
    ----------
    value : numpy.ndarray
        Values (DN) at which `corrections` are given.
    corrections : numpy.ndarray
        Corrections, (channels, values), DN.
    step : float
        Spacing of the true values, from 0, DN.

    Returns
    -------
    numpy.ndarray
        Written minus true value, (channels, 65536 / step + 1), DN.
    """
    true = np.arange(0, 2**16 + step, step)
    errors = []
    for correction in corrections:
        written = true
        for _ in range(3):
            written = true - np.interp(written, value, correction)
        errors.append(written - true)
    return np.array(errors)


class CommonNoise:
    """The 1/f noise that all amplifiers share, in the channels, the border and amplifier 33.

    Border columns and amplifier 33 show the common noise unchanged. A channel shows it times the sum of the three weights of
    the refpix reference, frequency by frequency.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns with the border.
    weights : numpy.ndarray
        Sum gamma + zeta + alpha of the reference, complex, (channels, frequencies).
    """

    def __init__(self, shape, weights: np.ndarray):
        self._rows, self._columns = shape
        self._clocks = CHANNEL_WIDTH + CHANNEL_DEAD_COLUMNS
        self._samples = self._rows * self._clocks
        self._weights = weights
        frequency = np.fft.rfftfreq(self._samples)
        frequency[0] = np.inf
        self._amplitude = frequency**-0.5
        # Variance of a series whose rfft has independent unit real and imaginary parts times the amplitude.
        self._amplitude *= self._samples / 2 / np.sqrt(np.sum(self._amplitude**2))

    def draw(self, rng: np.random.Generator, n_reads: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the noise of one resultant.

        Parameters
        ----------
        rng : numpy.random.Generator
            Random numbers.
        n_reads : int
            Number of reads averaged into the resultant.

        Returns
        -------
        image : numpy.ndarray
            Noise of the detector, DN, float32, (rows, columns) with the border.
        amp33 : numpy.ndarray
            Noise of amplifier 33, DN, float32, (rows, 128).
        """
        size = COMMON_NOISE / np.sqrt(n_reads)
        spectrum = size * self._amplitude * (rng.normal(size=(len(self._amplitude), 2)) @ [1, 1j])
        common = self._in_rows(np.fft.irfft(spectrum, self._samples))
        image = np.empty((self._rows, self._columns), np.float32)
        for channel, weights in enumerate(self._weights):
            noise = self._in_rows(np.fft.irfft(weights * spectrum, self._samples))
            columns = slice(channel * CHANNEL_WIDTH, (channel + 1) * CHANNEL_WIDTH)
            image[:, columns] = noise[:, ::-1] if channel % 2 else noise  # in the order of reading
        image[:, :BORDER] = common[:, :BORDER]
        image[:, -BORDER:] = common[:, BORDER - 1 :: -1]
        return image, common.astype(np.float32)

    def _in_rows(self, series: np.ndarray) -> np.ndarray:
        """Samples by row, without the clocks between rows."""
        return series.reshape(self._rows, self._clocks)[:, :CHANNEL_WIDTH]


def draw_drift(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw the offset and linear drift of each channel and of amplifier 33 over one resultant.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    shape : tuple of int
        Rows and columns with the border.

    Returns
    -------
    numpy.ndarray
        Drift, DN, float32, (rows, channels + 1); amplifier 33 last.
    """
    rows, columns = shape
    time = np.linspace(-0.5, 0.5, rows)[:, None]
    offset, slope = rng.normal(0, DRIFT, (2, columns // CHANNEL_WIDTH + 1))
    return (offset + slope * time).astype(np.float32)


# -------------------------------------------------------------------------------------------------------- decaying signals
def dark_decay(
    shape: tuple[int, int],
    read_pattern: list[list[int]],
    frame_time: float,
    detector: int,
    amplitude: float,
    time_constant: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the signal that decays after a reset.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns with the border.
    read_pattern : list of list of int
        1-based reads of each resultant.
    frame_time : float
        Seconds per read.
    detector : int
        Number of the detector, 1 to 18.
    amplitude : float
        Signal at the reset, DN.
    time_constant : float
        Seconds.

    Returns
    -------
    frame : numpy.ndarray
        Signal in the first read, DN, float64, (rows, columns); 0 in the border.
    factors : numpy.ndarray
        Factor on `frame` for each resultant, float64, (resultants,).
    """
    frame = np.zeros(shape)
    frame[SCIENCE] = (amplitude * np.exp(-pixel_read_times(shape, frame_time, detector) / time_constant))[SCIENCE]
    factors = [np.mean(np.exp(-(np.array(reads) - 1.5) * frame_time / time_constant)) for reads in read_pattern]
    return frame, np.array(factors)


def wfi18_transient(shape: tuple[int, int], frame_time: float) -> np.ndarray:
    """Compute the transient of the first read of WFI18.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns with the border.
    frame_time : float
        Seconds per read.

    Returns
    -------
    numpy.ndarray
        Signal, DN, float64, of `shape`; 0 in the border.
    """
    times = pixel_read_times(shape, frame_time, 18)
    by_row = times.mean(axis=1)
    signal = np.zeros(shape)
    for amplitude, fraction in TRANSIENT:
        signal[SCIENCE] += amplitude * np.exp(-times / by_row[int(fraction * len(by_row))])[SCIENCE]
    return signal
