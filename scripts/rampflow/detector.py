"""The geometry and timing of a WFI detector, derived from the shape of its data so that small detectors work alike."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError

BORDER = 4  #: reference pixels on each side of a detector
PIXEL_SCALE = 0.11  #: width of a pixel on the sky, arcsec, mean of the detectors
CHANNEL_WIDTH = 128  #: columns of a readout channel, and of amplifier 33
CHANNEL_DEAD_COLUMNS = 12  #: columns' worth of clock between two rows in the reference-pixel correction
CLOCK_PERIOD = 4.915263e-6  #: seconds per pixel clock
ROW_OVERHEAD_CLOCKS = 14  #: clocks between two rows
GUIDE_WINDOW_STRIDE = 256  #: rows read between two visits to the guide window
GUIDE_WINDOW_TIME_FACTOR = 1.5  #: a visit counts this much longer: the WFI18 transient decays faster during it
TRANSIENT_DETECTOR = 18  #: number of the detector whose first read has the transient

MINIMUM_RESULTANTS = 2  #: of a ramp: a slope needs a difference
SEARCHABLE_RESULTANTS = 4  #: of a ramp, for a search for jumps: with fewer, a jump can't be distinguished from a bad fit

#: Columns of the data that the arrays of reference pixels on the left and right hold.
BORDER_COLUMNS = {"border_ref_pix_left": slice(None, BORDER), "border_ref_pix_right": slice(-BORDER, None)}

SCIENCE = (Ellipsis, slice(BORDER, -BORDER), slice(BORDER, -BORDER))  #: index that trims the reference border


def detector_number(detector: str) -> int:
    """Get the number of a detector.

    Parameters
    ----------
    detector : str
        Its name, as ``WFI07``.

    Returns
    -------
    int
        From 1 to 18.

    Raises
    ------
    RampflowError
        The name is not WFI01 to WFI18.
    """
    found = re.fullmatch(r"WFI(0[1-9]|1[0-8])", str(detector))
    if not found:
        raise RampflowError(f"meta.instrument.detector is {detector!r}; it must be one of WFI01 to WFI18")
    return int(found[1])


def mean_reads(read_pattern: list[list[int]]) -> np.ndarray:
    """Compute the mean read number of each resultant; times the frame time it is the mean time of the resultant.

    Parameters
    ----------
    read_pattern : list of list of int
        1-based reads of each resultant.

    Returns
    -------
    numpy.ndarray
        Mean read numbers, float64 of shape (resultant,).
    """
    return np.array([np.mean(reads) for reads in read_pattern])


def pixel_read_times(shape: tuple[int, int], frame_time: float, detector: int) -> np.ndarray:
    """Time at which each pixel is read within a frame.

    Each channel reads its 128 columns row after row, 14 clocks apart. The clocks of a frame that the science pixels don't
    take are spent in the guide window, once after every 256 rows, and count 1.5 times; the result is scaled so that a frame
    with one last such visit lasts `frame_time`. Neighboring channels read in opposite directions; detectors whose number
    is a multiple of 3 flip the columns, the others the rows. (The provisional timing of romancal's dark_decay and
    wfi18_transient, where it is fixed to 4096 × 4096.)

    Parameters
    ----------
    shape : tuple of int
        Rows and columns with the reference border.
    frame_time : float
        Seconds per read.
    detector : int
        1 to 18.

    Returns
    -------
    numpy.ndarray
        Seconds since the frame's start, float64, of `shape`.
    """
    rows, columns = shape
    row, column = np.arange(rows)[:, None], np.arange(CHANNEL_WIDTH)[None, :]
    clock = (column + row * (CHANNEL_WIDTH + ROW_OVERHEAD_CLOCKS)).astype(float)
    visits = max(rows // GUIDE_WINDOW_STRIDE, 1)
    per_visit = (frame_time / CLOCK_PERIOD - clock[-1, -1]) / visits * GUIDE_WINDOW_TIME_FACTOR
    clock += np.minimum(row // GUIDE_WINDOW_STRIDE, visits - 1) * per_visit
    times = frame_time * clock / (clock[-1, -1] + per_visit)
    pair = np.concatenate([times, times[:, ::-1]], axis=1)
    times = np.tile(pair, (1, -(-columns // (2 * CHANNEL_WIDTH))))[:, :columns]
    return times[:, ::-1] if detector % 3 == 0 else times[::-1]


def border_pixels(start: int, stop: int, shape: tuple[int, int]) -> np.ndarray:
    """Find the reference pixels in some rows of a detector.

    Parameters
    ----------
    start, stop : int
        First row and the one after the last.
    shape : tuple of int
        Rows and columns of the detector.

    Returns
    -------
    numpy.ndarray
        Whether each pixel is a reference pixel, bool of shape (row, column).
    """
    rows, columns = shape
    row, column = np.arange(start, stop)[:, None], np.arange(columns)
    return (row < BORDER) | (row >= rows - BORDER) | (column < BORDER) | (column >= columns - BORDER)


def check_shape(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse a ramp whose shape is not that of a WFI detector.

    Parameters
    ----------
    path : Path
        The file, for the message.
    shape : tuple of int
        Shape of its data.

    Raises
    ------
    RampflowError
        There are not three axes, or the columns are not a multiple of 128, or there are too few rows.
    """
    if len(shape) != 3 or shape[2] % CHANNEL_WIDTH or shape[1] <= 2 * BORDER or not shape[0]:
        raise RampflowError(
            f"{path}: data has the shape {tuple(shape)}; it must be (resultants, rows, columns) with columns a multiple of "
            f"{CHANNEL_WIDTH} and more than {2 * BORDER} rows"
        )
