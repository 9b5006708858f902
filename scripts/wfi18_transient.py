"""wfi18_transient: correct the transient in the first read of detector WFI18, or mask the rows that it affects most."""

import sys
import warnings

import numpy as np

from rampflow import dq as dqflags
from rampflow.detector import BORDER, SCIENCE, mean_reads, pixel_read_times
from rampflow.step.declaration import Parameter, Step
from rampflow.step.job import Job
from rampflow.step.program import run_step

STEP = Step(
    name="wfi18_transient",
    status="wfi18_transient",
    suffix="wfi18_transient",
    takes="ramp",
    summary="Correct the transient in the first read of detector WFI18, or mask the rows that it affects most.",
    parameters=(Parameter("mask_rows", bool, False, "mask the affected rows instead of fitting the transient"),),
)

DETECTOR = 18
MIN_RESULTANTS = 5  #: the fit needs two resultants to extrapolate from and two others to find dark pixels with
# Rows of a full detector: those that are masked, and those whose read times start the fit's two time constants.
FULL_ROWS, MASKED_ROWS, FULL_SCIENCE_ROWS, START_ROWS = 4096, 1000, 4088, (300, 1000)


def mask_affected_rows(groupdq: np.ndarray) -> None:
    """Mark the first rows (1000 of 4096) of the first resultant DO_NOT_USE and WFI18_TRANSIENT, in place.

    Parameters
    ----------
    groupdq : numpy.ndarray
        Flags of the first resultant, uint8 (row, column), with the reference border.
    """
    groupdq[: MASKED_ROWS * len(groupdq) // FULL_ROWS] |= np.uint8(dqflags.DO_NOT_USE | dqflags.WFI18_TRANSIENT)


def double_exponential(t, a, b, tau_a, tau_b):
    """A · exp(−t/τa) + b · exp(−t/τb)."""
    return a * np.exp(-t / tau_a) + b * np.exp(-t / tau_b)


def transient_by_row(data: np.ndarray, resultant_times: np.ndarray) -> np.ndarray:
    """Measure the transient in each row.

    The first resultant is predicted from the second and third by extrapolating their count rate; what it has more is the
    transient. Its mean in each row is taken over the pixels that collect little light between the fourth and the fifth
    resultant (no more than the row's median: other resultants than those of the prediction, so that their noise doesn't
    choose), clipped at 3σ.

    Parameters
    ----------
    data : numpy.ndarray
        The first five resultants in DN (5, row, column), without the reference border.
    resultant_times : numpy.ndarray
        Their mean times in seconds.

    Returns
    -------
    numpy.ndarray
        Mean transient of each row in DN, float64.
    """
    from astropy.stats import SigmaClip

    first, second, third, fourth, fifth = data[:5]
    interval = np.diff(resultant_times)
    residual = first - (second - (third - second) / interval[1] * interval[0])
    collected = fifth - fourth
    lit = collected > np.median(collected, axis=1, keepdims=True)
    clipped = SigmaClip(sigma=3.0)(np.ma.MaskedArray(residual, lit), axis=1, masked=False)
    return np.nanmean(clipped, axis=1, dtype=np.float64)


def fit_transient(row_times: np.ndarray, transient: np.ndarray) -> np.ndarray | None:
    """Fit a double exponential to the transient.

    Parameters
    ----------
    row_times : numpy.ndarray
        Mean read time of each row in seconds.
    transient : numpy.ndarray
        From `transient_by_row`.

    Returns
    -------
    numpy.ndarray or None
        a and b in DN, τa and τb in seconds; `None` when the fit fails.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    starts = [row_times[row * len(row_times) // FULL_SCIENCE_ROWS] for row in START_ROWS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # the covariance is not used
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow while the fit tries far values
        try:
            found, _ = curve_fit(
                double_exponential, row_times, transient, p0=[1.1 * transient[0], -0.1 * transient[0], *starts]
            )
        except (ValueError, RuntimeError):
            return None
        good = np.isfinite(double_exponential(row_times, *found)).all()
    return found if good else None


def run(job: Job) -> None:
    """Process one exposure."""
    ramp = job.exposure
    if ramp.detector != DETECTOR:
        job.log.info("The transient is WFI18's alone")
        with job.create() as product:
            product.status = "N/A"
        return
    data, read_pattern, frame_time = ramp.array("data", 3), ramp.read_pattern, ramp.frame_time
    fit = None
    if job.parameters.mask_rows:
        job.log.info("Masking the affected rows, as mask_rows says")
    elif data.shape[0] < MIN_RESULTANTS:
        job.log.warning("%d resultants are too few to fit the transient: masking the affected rows", data.shape[0])
    else:
        times = pixel_read_times(data.shape[1:], frame_time, DETECTOR)
        resultant_times = mean_reads(read_pattern) * frame_time

        def measure(start, stop):
            return transient_by_row(data.read_rows(start, stop)[:MIN_RESULTANTS, :, BORDER:-BORDER], resultant_times)

        transient = np.concatenate(job.map_rows(measure, data.shape[1]))[BORDER:-BORDER]
        fit = fit_transient(times[SCIENCE].mean(axis=1), transient)
        if fit is None:
            job.log.warning("The transient could not be fitted: masking the affected rows")
    with job.create() as product:
        if fit is None:
            flags = ramp.array("groupdq", 3).read_plane(0)
            mask_affected_rows(flags)
            product.write_plane("groupdq", 0, flags)
        else:
            job.log.info("Transient: %.4g DN · exp(−t / %.4g s) + %.4g DN · exp(−t / %.4g s)", fit[0], fit[2], fit[1], fit[3])
            first = data.read_plane(0)
            science, science_times = first[SCIENCE], times[SCIENCE]

            def correct(start, stop):
                science[start:stop] -= double_exponential(science_times[start:stop], *fit)

            job.map_rows(correct, len(science))
            product.write_plane("data", 0, first)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
