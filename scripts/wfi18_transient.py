"""Step wfi18_transient: correct the transient in the first read of detector WFI18, or mask the rows that it affects most."""

import sys

import numpy as np

from rampflow import dq as dqflags
from rampflow.detector import BORDER, SCIENCE, TRANSIENT_DETECTOR, mean_reads, pixel_read_times
from rampflow.errors import counted
from rampflow.step.declaration import Parameter, Step
from rampflow.step.job import Job
from rampflow.step.logs import log_numbers
from rampflow.step.program import run_step
from rampflow.transient import (
    FULL_ROWS,
    MASKED_ROWS,
    MEASURING_RESULTANTS,
    MIN_RESULTANTS,
    curvature,
    double_exponential,
    fit_transient,
    largest_curvature,
    transient_by_row,
    usable_pixels,
    why_implausible,
)

STEP = Step(
    name="wfi18_transient",
    summary="Correct the transient in the first read of detector WFI18, or mask the rows that it affects most.",
    parameters=(
        Parameter("mask_rows", bool, False, "flag the most affected rows instead of fitting the transient"),
        Parameter(
            "check_fit",
            bool,
            True,
            "leave flagged pixels out, flag the most affected rows if the fit is implausible; false: neither, as in romancal",
            in_romancal=False,
        ),
    ),
)


def mask_affected_rows(groupdq: np.ndarray) -> None:
    """Mark the first rows (1000 of 4096) of the first resultant DO_NOT_USE and WFI18_TRANSIENT, in place.

    Parameters
    ----------
    groupdq : numpy.ndarray
        Flags of the first resultant, uint8 (row, column), with the reference border.
    """
    groupdq[: MASKED_ROWS * len(groupdq) // FULL_ROWS] |= np.uint8(dqflags.DO_NOT_USE | dqflags.WFI18_TRANSIENT)


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.
    """
    ramp = job.exposure
    if ramp.detector != TRANSIENT_DETECTOR:
        job.log.info("Only WFI18 has the transient")
        with job.create() as product:
            product.status = "N/A"
        return
    data, read_pattern, frame_time = ramp.array("data", 3), ramp.read_pattern, ramp.frame_time
    fit = None
    if job.parameters.mask_rows:
        job.log.info("mask_rows: the most affected rows are flagged")
    elif data.shape[0] < MIN_RESULTANTS:
        job.log.warning(
            "%s too few to fit the transient (%d are needed): the most affected rows are flagged",
            counted(data.shape[0], "resultant is", "resultants are"),
            MIN_RESULTANTS,
        )
    else:
        times = pixel_read_times(data.plane_shape, frame_time, TRANSIENT_DETECTOR)
        resultant_times = mean_reads(read_pattern) * frame_time

        checked, groupdq = job.parameters.check_fit, ramp.array("groupdq", 3)
        measuring = min(MEASURING_RESULTANTS, data.shape[0])

        def measure(start, stop):
            counts = data.read_rows(start, stop, measuring)[..., BORDER:-BORDER]
            if not checked:
                return transient_by_row(counts, resultant_times), np.nan
            good = usable_pixels(groupdq.read_rows(start, stop, measuring)[..., BORDER:-BORDER])
            middle = (stop - start) // 2
            row = slice(middle, middle + 1)  # one in a block shows the curvature
            return transient_by_row(counts, resultant_times, good), curvature(counts[:, row], resultant_times, good[row])

        by_row, curved = zip(*job.map_rows(measure, data.shape[1]), strict=True)
        transient, row_times = np.concatenate(by_row)[BORDER:-BORDER], times[SCIENCE].mean(axis=1)
        fit = fit_transient(row_times, transient)
        if fit is None:
            job.log.warning(
                "The transient could not be fitted (%d of %d rows could be measured): the most affected rows are flagged",
                np.count_nonzero(np.isfinite(transient)),
                len(transient),
            )
        elif checked:
            affected = curved[: max(MASKED_ROWS * len(curved) // FULL_ROWS, 1)]
            reason = why_implausible(fit, row_times, transient, times[SCIENCE].min(), largest_curvature(affected))
            if reason:
                job.log.warning("The fit is not that of the transient: %s. The most affected rows are flagged", reason)
                fit = None
    with job.create(change=("data", "groupdq")) as product:
        if fit is None:
            flags = ramp.array("groupdq", 3).read_plane(0)
            mask_affected_rows(flags)
            product.write_plane("groupdq", 0, flags)
        else:
            job.log.info("Transient: %.4g DN · exp(−t / %.4g s) + %.4g DN · exp(−t / %.4g s)", fit[0], fit[2], fit[1], fit[3])
            log_numbers(job.log, {"transient": fit[0] + fit[1]})
            first = data.read_plane(0)
            science, science_times = first[SCIENCE], times[SCIENCE]

            def correct(start, stop):
                science[start:stop] -= double_exponential(science_times[start:stop], *fit)

            job.map_rows(correct, len(science))
            product.write_plane("data", 0, first)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
