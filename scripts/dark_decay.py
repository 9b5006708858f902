"""Step dark_decay: subtract the signal that decays after a detector's reset from a ramp."""

import sys

import numpy as np

from rampflow.detector import CHANNEL_WIDTH, pixel_read_times
from rampflow.errors import RampflowError
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step

STEP = Step(
    name="dark_decay",
    summary="Subtract the signal that decays after a detector's reset from a ramp.",
    references=(
        Reference(
            "darkdecaysignal",
            "decay of each detector (decay_table: amplitude in DN, time_constant in seconds)",
            skip_without=True,
            plausible={
                "decay_table.{detector}.amplitude": Range(-500, 500, "DN", "measured amplitudes are a few DN"),
                "decay_table.{detector}.time_constant": Range(0.5, 1000, "s", "measured time constants are tens of seconds"),
            },
            made_for=(),  # one file has all detectors
        ),
    ),
)

#: Frames: the amplitude of the reference is that in the middle of the first read, 1.5 frames after the (virtual) read zero.
FIRST_READ_MIDDLE = 1.5


def decay_factors(time_constant: float, frame_time: float, read_pattern: list[list[int]]) -> np.ndarray:
    """Compute the mean of exp(−t/τ) over the reads of each resultant, where t is the start of each frame.

    A pixel that is read at the time p within a frame that starts at t decays as exp(−(p + t)/τ) = exp(−p/τ) · exp(−t/τ). One
    frame of the first factor and a number per resultant for the second suffice.

    Parameters
    ----------
    time_constant : float
        Time constant τ, seconds.
    frame_time : float
        Seconds per read.
    read_pattern : list of list of int
        1-based reads of each resultant.

    Returns
    -------
    numpy.ndarray
        Factors, float64 of shape (resultant,).
    """
    frame_start = [(np.asarray(reads) - FIRST_READ_MIDDLE) * frame_time for reads in read_pattern]
    return np.array([np.mean(np.exp(-t / time_constant)) for t in frame_start])


def subtract_dark_decay(data: np.ndarray, decay: np.ndarray, factors: np.ndarray) -> None:
    """Subtract the decaying signal, in place.

    Parameters
    ----------
    data : numpy.ndarray
        Ramp, DN, float32 of shape (resultant, row, column); changed in place.
    decay : numpy.ndarray
        Decay of each pixel at the start of the ramp, amplitude · exp(−p/τ), DN, float64 of shape (row, column).
    factors : numpy.ndarray
        From `decay_factors`.
    """
    for counts, factor in zip(data, factors, strict=True):
        counts -= decay * factor


def _decay_of(reference: Exposure, detector: str) -> tuple[float, float]:
    """Amplitude (DN) and time constant (s) of a detector."""
    table = reference.get("decay_table", dict)
    if detector not in table:
        raise RampflowError(f"{reference.path}: decay_table has no entry for {detector}; give a reference that has one")
    amplitude = reference.get(f"decay_table.{detector}.amplitude", (int, float))
    time_constant = reference.get(f"decay_table.{detector}.time_constant", (int, float))
    if not (np.isfinite(amplitude) and np.isfinite(time_constant) and time_constant > 0):
        raise RampflowError(f"{reference.path}: decay_table.{detector} must have a finite amplitude and time_constant > 0")
    return float(amplitude), float(time_constant)


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.
    """
    ramp = job.exposure
    data, frame_time = ramp.array("data", 3), ramp.frame_time
    with job.open_reference("darkdecaysignal") as reference:
        amplitude, time_constant = _decay_of(reference, f"WFI{ramp.detector:02d}")
    factors = decay_factors(time_constant, frame_time, ramp.read_pattern)
    job.log.info("Amplitude %.4g DN, time constant %.4g s", amplitude, time_constant)
    # The read times of two channels, of opposite directions, are those of the next two.
    height, width = data.plane_shape
    period = width if width % (2 * CHANNEL_WIDTH) else 2 * CHANNEL_WIDTH
    times = pixel_read_times((height, period), frame_time, ramp.detector)
    borders = ramp.border_columns
    with job.create(update=("data", *borders)) as product:

        def correct_rows(start, stop):
            rows = data.read_rows(start, stop)
            decay = amplitude * np.exp(-times[start:stop] / time_constant)
            subtract_dark_decay(rows, np.tile(decay, width // period), factors)
            product.write_rows("data", start, rows)
            for name, columns in borders.items():
                product.write_rows(name, start, rows[..., columns])

        job.map_rows(correct_rows, data.shape[1])


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
