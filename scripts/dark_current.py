"""Subtract the dark current's slope from the count-rate image."""

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
    "detectors have 0.001 to 0.1 DN/s in the median; the hottest pixel fills its well, 60,000 DN, in less than a frame of 3 s",
    median=(-0.5, 5),
)

#: Share of the pixels beyond the limits of the median that is worth a warning: 0.03 % of sound detectors are that hot.
MANY_UNUSUAL = 0.03

STEP = Step(
    name="dark_current",
    summary="Subtract the dark current from a count-rate image.",
    references=(
        Reference(
            "dark",
            "dark current (dark_slope, DN/s) and its data quality, with the reference border",
            plausible={"dark_slope": DARK},
            made_for=("detector", "exposure_type"),
        ),
    ),
)


def subtract_dark_current(
    image: np.ndarray, dq: np.ndarray, dark_slope: np.ndarray, dark_dq: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the dark current and add its flags.

    Parameters
    ----------
    image : numpy.ndarray
        Count rate, DN/s, float32, without the reference border.
    dq : numpy.ndarray
        Its flags, uint32.
    dark_slope : numpy.ndarray
        Dark current, DN/s, with the reference border.
    dark_dq : numpy.ndarray
        Its flags, uint32, with the reference border.

    Returns
    -------
    image, dq : numpy.ndarray
        ``image − dark_slope`` and ``dq | dark_dq``, both trimmed; DO_NOT_USE where the dark current is not plausible (`DARK`).
    """
    unknown = ~DARK.contains(dark_slope[SCIENCE])
    return image - dark_slope[SCIENCE], dq | dark_dq[SCIENCE] | unknown * np.uint32(dqflags.DO_NOT_USE)


def is_unusual(dark_slope: np.ndarray) -> np.ndarray:
    """Whether a dark current (DN/s) is plausible for a hot pixel alone (bool)."""
    low, high = DARK.median_limits
    return DARK.contains(dark_slope) & ((dark_slope < low) | (dark_slope > high))


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["dark"] is None:
        return job.skip("There is no dark reference")
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
                rows, flags = subtract_dark_current(
                    image.read_rows(start, stop), dq.read_rows(start, stop), slope, dark_dq.read_rows(*with_border)
                )
                product.write_rows("data", start, rows)
                product.write_rows("dq", start, flags)
                return np.count_nonzero(~DARK.contains(slope[SCIENCE])), np.count_nonzero(is_unusual(slope[SCIENCE]))

            bad, unusual = np.sum(job.map_rows(subtract_rows, image.shape[0]), axis=0)
            pixels = image.shape[0] * image.shape[1]
            job.log_bad_pixels("dark", "dark_slope", bad, pixels, "DO_NOT_USE")
            if unusual > MANY_UNUSUAL * pixels:
                job.log.warning(
                    "%s: %.3g %% of dark_slope are beyond %g to %g DN/s, where all but the hottest pixels of a detector are: "
                    "they are subtracted as they are, and the count rates there may be wrong; check the reference",
                    reference.path.name,
                    100 * unusual / pixels,
                    *DARK.median_limits,
                )


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
