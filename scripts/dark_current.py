"""Step dark_current: subtract the dark current from the count-rate image."""

import sys

import numpy as np

from rampflow import dq as dqflags
from rampflow.detector import BORDER, SCIENCE
from rampflow.errors import RampflowError
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.job import Job
from rampflow.step.program import run_step

DARK = Range(
    -100,
    1e5,
    "DN/s",
    "the median of a detector is 0.001 to 0.1 DN/s; the hottest pixel fills its well, 60,000 DN, within a frame of 3 s",
    median=(-0.5, 5),
)

STEP = Step(
    name="dark_current",
    summary="Subtract the dark current from a count-rate image.",
    references=(
        Reference(
            "dark",
            "dark current (dark_slope, DN/s) and its data quality, with the reference border",
            skip_without=True,
            plausible={"dark_slope": DARK},
            made_for=("detector", "exposure_type"),
        ),
    ),
)


def subtract_dark_current(
    image: np.ndarray, dq: np.ndarray, dark_slope: np.ndarray, dark_dq: np.ndarray, *, plausible: Range = DARK
) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the dark current and add its flags.

    Parameters
    ----------
    image : numpy.ndarray
        Count rate, DN/s, float32 of shape (row, column), without the reference border.
    dq : numpy.ndarray
        Its flags, uint32 of the same shape.
    dark_slope : numpy.ndarray
        Dark current, DN/s, float32 of shape (row, column), with the reference border.
    dark_dq : numpy.ndarray
        Its flags, uint32 of the same shape.
    plausible : Range
        Limits of the dark current, DN/s.

    Returns
    -------
    image : numpy.ndarray
        Count rate without the dark current, DN/s, of the shape of `image`.
    dq : numpy.ndarray
        Flags with those of the dark current, and DO_NOT_USE where it is not plausible, uint32 of the same shape.
    """
    unknown = ~plausible.contains(dark_slope[SCIENCE])
    return image - dark_slope[SCIENCE], dq | dark_dq[SCIENCE] | unknown * np.uint32(dqflags.DO_NOT_USE)


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.

    Raises
    ------
    RampflowError
        The shape of the reference is not that of the exposure.
    """
    image, dq = job.exposure.array("data", 2), job.exposure.array("dq", 2)
    with job.open_reference("dark") as reference:
        dark_slope = reference.array("dark_slope", 2)
        if dark_slope.shape != tuple(n + 2 * BORDER for n in image.shape):
            raise RampflowError(
                f"{reference.path}: dark_slope has the shape {dark_slope.shape}, and the image {image.shape} without its "
                "border; give the dark of this detector"
            )
        dark_dq = reference.array("dq", shape=dark_slope.shape)
        with job.create(rewrite=("data", "dq")) as product:

            def subtract_rows(start, stop):
                with_border = start, stop + 2 * BORDER
                slope = dark_slope.read_rows(*with_border)
                limits = job.plausible("dark", "dark_slope")
                rows, flags = subtract_dark_current(
                    image.read_rows(start, stop),
                    dq.read_rows(start, stop),
                    slope,
                    dark_dq.read_rows(*with_border),
                    plausible=limits,
                )
                product.write_rows("data", start, rows)
                product.write_rows("dq", start, flags)
                return np.count_nonzero(~limits.contains(slope[SCIENCE])), limits.count_unusual(slope[SCIENCE])

            job.map_rows_with_reference("dark", "dark_slope", subtract_rows, image.plane_shape, "DO_NOT_USE")


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
