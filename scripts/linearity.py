"""Step linearity: correct the non-linear response of the detector, at the level of single reads."""

import logging
import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rampflow import dq
from rampflow.detector import BORDER, CHANNEL_WIDTH, mean_reads
from rampflow.errors import RampflowError, counted
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step
from rampflow.step.reference_checks import MANY_BAD, refuse_implausible, sample_rows

#: Linear term of a polynomial in DN.
LINEAR_TERM = Range(0.2, 5, source="a polynomial is the identity with corrections of a few per cent", median=(0.5, 2), plane=1)
TYPICAL = 20000.0  #: DN; counts near half of the full well
#: Value of a polynomial at `TYPICAL` counts, divided by these counts. A polynomial that includes the gain has about 2.
NEAR_IDENTITY = Range(0.6, 1.6, source="the response is linear within some per cent at half the full well")
#: Correction of an analog-to-digital converter.
CONVERTER = Range(-1000, 1000, "DN", "measured converters are off by a few DN", quantity="largest correction of a channel")

STEP = Step(
    name="linearity",
    summary="Correct the non-linear response of the detector and of its converters, read by read.",
    references=(
        Reference(
            "linearity",
            "polynomials from measured to linear counts (coeffs), and their flags (dq)",
            skip_without=True,
            plausible={"coeffs": LINEAR_TERM},
        ),
        Reference(
            "inverselinearity",
            "polynomials from linear to measured counts (coeffs)",
            skip_without=True,
            plausible={"coeffs": LINEAR_TERM},
        ),
        Reference(
            "integralnonlinearity",
            "correction of the analog-to-digital converters of each channel (inl_table), by counts (value)",
            plausible={
                "value": Range(-1000, 70000, "DN", "counts of a 16-bit converter"),
                "inl_table": CONVERTER,
            },
        ),
    ),
)

#: Limits of the polynomials that `rampflow.kernels.linearity.correct_rows` uses: counts (DN), minimum and maximum of
#: the linear term, and minimum and maximum of the polynomial at these counts (DN). `ANY_POLYNOMIAL` has no limits.
PLAUSIBLE_POLYNOMIALS = np.array(
    [
        TYPICAL,
        LINEAR_TERM.minimum,
        LINEAR_TERM.maximum,
        TYPICAL * NEAR_IDENTITY.minimum,
        TYPICAL * NEAR_IDENTITY.maximum,
    ]
)
ANY_POLYNOMIAL = np.array([0, -np.inf, np.inf, -np.inf, np.inf])

LARGEST_COUNT = 1e6  #: DN, many times the full well; larger values come from a bad polynomial


@dataclass(frozen=True)
class IntegralNonlinearity:
    """Correction of the analog-to-digital converters on a uniform grid of counts.

    Attributes
    ----------
    start, step : float
        Start and step of the grid, DN.
    correction : numpy.ndarray
        Correction to be added to the counts, DN, float32 of shape (channel, grid point).
    """

    start: float
    step: float
    correction: np.ndarray

    @cached_property
    def entries(self) -> np.ndarray:
        """Each correction with its difference from the next one, for the compiled loop.

        Returns
        -------
        numpy.ndarray
            Both as float32, packed in a float64 so that one access reads them, of shape (channel, grid point).
        """
        change = np.diff(self.correction, axis=1, append=self.correction[:, -1:])
        return np.stack([self.correction, change], axis=2, dtype=np.float32).view(np.float64)[..., 0]


def grid_nonlinearity(value: np.ndarray, correction: np.ndarray) -> IntegralNonlinearity:
    """Resample a table of integral nonlinearity on the coarsest uniform grid that contains all its points.

    Linear interpolation on the grid and in the table gives the same values. A uniform table is not changed.

    Parameters
    ----------
    value : numpy.ndarray
        Counts, increasing whole numbers of DN, of shape (point,).
    correction : numpy.ndarray
        Correction to be added there, DN, of shape (channel, point).

    Returns
    -------
    IntegralNonlinearity
        The same corrections on the grid.

    Raises
    ------
    ValueError
        There are fewer than two counts, the counts are not increasing whole numbers, or a correction is not finite.
    """
    whole = np.asarray(value).astype(np.int64)
    steps = np.diff(whole)
    if not (np.array_equal(whole, value) and whole.size > 1 and np.all(steps > 0)):
        raise ValueError("must be two or more increasing whole numbers of DN")
    if not np.all(np.isfinite(correction)):
        raise ValueError("has corrections that are not finite")
    step = np.gcd.reduce(steps)
    grid = np.arange(whole[0], whole[-1] + 1, step)
    on_grid = np.stack([np.interp(grid, whole, c) for c in correction])
    return IntegralNonlinearity(float(whole[0]), float(step), on_grid.astype(np.float32))


def correct_linearity(
    data: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    coefficients: np.ndarray,
    coefficients_dq: np.ndarray,
    inverse_coefficients: np.ndarray,
    read_pattern: list[list[int]],
    *,
    nonlinearity: IntegralNonlinearity | None = None,
    any_polynomial: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correct a ramp, or some rows of it, for non-linear response.

    A resultant is a mean of reads. The polynomial of a mean is not the mean of the polynomials, so each read must be corrected.
    The exposure does not contain the reads. They are predicted, and the resultants corrected, in these steps:

    1. Linearize the first resultant and the last good one: the one before the last that is not SATURATED, but at least the
       second. The line through both, at their mean read numbers, gives the linear counts of every read.
    2. The inverse polynomial gives the measured counts of the reads; shift them so that their mean is the observed resultant.
    3. Add the integral nonlinearity, apply the polynomial, and take the mean.

    Parameters
    ----------
    data : numpy.ndarray
        Counts, DN, float32 of shape (resultant, row, column). The columns are complete channels of 128 columns, beginning with
        the first channel.
    groupdq : numpy.ndarray
        Flags per resultant, uint8 of the same shape. SATURATED resultants keep their values.
    pixeldq : numpy.ndarray
        Flags per pixel, uint32 of shape (row, column).
    coefficients : numpy.ndarray
        Polynomials from measured to linear counts, ascending powers, of shape (term, row, column).
    coefficients_dq : numpy.ndarray
        Their flags, uint32 of shape (row, column). Pixels with NO_LIN_CORR are corrected by neither polynomial.
    inverse_coefficients : numpy.ndarray
        Polynomials from linear to measured counts, of shape (term, row, column).
    read_pattern : list of list of int
        1-based reads of each resultant.
    nonlinearity : IntegralNonlinearity, optional
        Correction of the converters.
    any_polynomial : bool
        Whether polynomials beyond `LINEAR_TERM` or `NEAR_IDENTITY` are used, too.

    Returns
    -------
    data : numpy.ndarray
        Linear counts, DN, float32 of the shape of `data`, clipped to ±1e6.
    groupdq : numpy.ndarray
        Flags, uint8 of the same shape, with DO_NOT_USE where the result was clipped or is not a number.
    pixeldq : numpy.ndarray
        Flags with those of `coefficients_dq`, and with NO_LIN_CORR where the identity replaces a polynomial that has a NaN
        coefficient or no linear term, or is not plausible.

    Raises
    ------
    ValueError
        The shapes don't fit.
    """
    from rampflow.kernels.linearity import correct_rows

    # The compiled loop needs plain arrays; those of an open data model are wrapped.
    data, groupdq, pixeldq, coefficients, coefficients_dq, inverse_coefficients = map(
        np.asarray, (data, groupdq, pixeldq, coefficients, coefficients_dq, inverse_coefficients)
    )
    pixels = data.shape[1:]
    if (
        pixels[1] % CHANNEL_WIDTH
        or groupdq.shape != data.shape
        or len(read_pattern) != data.shape[0]
        or any(a.shape[-2:] != pixels for a in (pixeldq, coefficients, coefficients_dq, inverse_coefficients))
        or (nonlinearity is not None and len(nonlinearity.correction) * CHANNEL_WIDTH < pixels[1])
    ):
        raise ValueError("the ramp, its flags, read pattern and references must have the same resultants, rows and columns")
    means = mean_reads(read_pattern)
    counts = [len(reads) for reads in read_pattern]
    table = nonlinearity or IntegralNonlinearity(0.0, 1.0, np.empty((pixels[1] // CHANNEL_WIDTH, 0), np.float32))
    corrected, corrected_groupdq, corrected_pixeldq = (np.empty(a.shape, a.dtype) for a in (data, groupdq, pixeldq))
    correct_rows(
        _by_channel(data),
        _by_channel(groupdq),
        _by_channel(pixeldq),
        _by_channel(coefficients),
        _by_channel(coefficients_dq),
        _by_channel(inverse_coefficients),
        ANY_POLYNOMIAL if any_polynomial else PLAUSIBLE_POLYNOMIALS,
        (np.concatenate(read_pattern) - means[0]).astype(np.float32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.intp),
        (means - means[0]).astype(np.float32),
        table.entries,
        np.float32(table.start),
        np.float32(1 / table.step),
        np.uint8(dq.SATURATED),
        np.uint8(dq.DO_NOT_USE),
        np.uint32(dq.NO_LIN_CORR),
        np.float32(LARGEST_COUNT),
        _by_channel(corrected),
        _by_channel(corrected_groupdq),
        _by_channel(corrected_pixeldq),
    )
    return corrected, corrected_groupdq, corrected_pixeldq


def _by_channel(array: np.ndarray) -> np.ndarray:
    """View the last axis of an array, the columns, as two: channel and column."""
    return array.reshape(*array.shape[:-1], -1, CHANNEL_WIDTH)


def response_ratio(coefficients: np.ndarray) -> np.ndarray:
    """Evaluate polynomials at `TYPICAL` counts, divided by these counts.

    Parameters
    ----------
    coefficients : numpy.ndarray
        Ascending powers, of shape (term, row, column).

    Returns
    -------
    numpy.ndarray
        Ratios, float64 of shape (row, column); near 1 for a sound detector.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.polynomial.polynomial.polyval(TYPICAL, coefficients.astype(np.float64))) / TYPICAL


def check_polynomials(reference: Exposure, shape: tuple[int, int], reftype: str) -> None:
    """Refuse a reference whose polynomials don't fit the exposure, or are far from the identity.

    Parameters
    ----------
    reference : Exposure
        The reference, with ``coeffs`` and ``dq``.
    shape : tuple of int
        Rows and columns of the exposure.
    reftype : str
        Type of the reference, for the message.

    Raises
    ------
    RampflowError
        An array has another shape, there is no linear term, or the median `response_ratio` is beyond `NEAR_IDENTITY`.
    """
    for name, ndim in (("coeffs", 3), ("dq", 2)):
        array = reference.array(name, ndim)
        if array.shape[-2:] != shape:
            raise RampflowError(
                f"{reference.path}: {name} has the shape {array.shape}, and the exposure has {shape[0]} rows and {shape[1]} "
                "columns; give the reference of this detector"
            )
    if reference.array("coeffs").shape[0] < 2:
        raise RampflowError(f"{reference.path}: coeffs has no linear term; it must hold two or more terms per pixel")
    ratios = response_ratio(sample_rows(reference.array("coeffs")))
    ratios = ratios[np.isfinite(ratios)]
    median = float(np.median(ratios)) if ratios.size else np.nan
    limits = NEAR_IDENTITY.minimum, NEAR_IDENTITY.maximum
    refuse_implausible(reference.path, f"coeffs at {TYPICAL:g} DN, as a ratio,", median, limits, "", reftype)


def read_nonlinearity(reference: Exposure, columns: int) -> IntegralNonlinearity:
    """Read the correction of the converters of a detector.

    Parameters
    ----------
    reference : Exposure
        The reference, with ``value`` and ``inl_table``.
    columns : int
        Columns of the detector, whole channels of 128.

    Returns
    -------
    IntegralNonlinearity
        The tables of all channels.

    Raises
    ------
    RampflowError
        A channel is missing, or a table has the wrong shape or unusable values.
    """
    value = reference.array("value", 1).read()
    corrections = []
    for channel in range(1, columns // CHANNEL_WIDTH + 1):
        name = f"inl_table.science_channel_{channel:02d}.correction"
        correction = reference.array(name, 1)
        if correction.shape != value.shape:
            raise RampflowError(
                f"{reference.path}: {name} has {correction.shape[0]} points and value has {value.shape[0]}; give a reference "
                "whose tables agree"
            )
        corrections.append(correction.read())
        largest = float(np.max(np.abs(corrections[-1]), initial=0))
        if np.isfinite(largest):  # values that are not finite are refused below
            limits = CONVERTER.minimum, CONVERTER.maximum
            refuse_implausible(reference.path, f"the largest value of {name}", largest, limits, "DN", "integralnonlinearity")
    try:
        return grid_nonlinearity(value, np.stack(corrections))
    except ValueError as error:
        raise RampflowError(f"{reference.path}: value {error}; give a reference with usable tables") from None


def correct_exposure(
    job: Job,
    linearity: Exposure,
    inverse: Exposure,
    nonlinearity: IntegralNonlinearity | None,
) -> None:
    """Correct an exposure by blocks of rows, and write it.

    Parameters
    ----------
    job : Job
        The run of the step.
    linearity, inverse : Exposure
        The references of both polynomials.
    nonlinearity : IntegralNonlinearity or None
        Correction of the converters.
    """
    ramp = job.exposure.array("data")
    groupdq = job.exposure.array("groupdq")
    pixeldq = job.exposure.array("pixeldq")
    read_pattern = job.exposure.read_pattern
    rows, columns = pixeldq.shape
    science_pixels = (rows - 2 * BORDER) * (columns - 2 * BORDER)

    borders = job.exposure.border_columns
    with job.create(update=("data", "groupdq", "pixeldq", *borders)) as product:

        def correct_block(start, stop):
            flags = groupdq.read_rows(start, stop)
            pixel_flags = pixeldq.read_rows(start, stop)
            reference_dq = linearity.array("dq").read_rows(start, stop)
            corrected, corrected_dq, corrected_pixeldq = correct_linearity(
                ramp.read_rows(start, stop),
                flags,
                pixel_flags,
                linearity.array("coeffs").read_rows(start, stop),
                reference_dq,
                inverse.array("coeffs").read_rows(start, stop),
                read_pattern,
                nonlinearity=nonlinearity,
            )
            product.write_rows("data", start, corrected)
            for name, border_columns in borders.items():
                product.write_rows(name, start, corrected[..., border_columns])
            product.write_rows("groupdq", start, corrected_dq)
            product.write_rows("pixeldq", start, corrected_pixeldq)
            newly_flagged = dq.has(corrected_pixeldq & ~(pixel_flags | reference_dq), dq.NO_LIN_CORR)
            science = newly_flagged[max(BORDER - start, 0) : max(rows - BORDER - start, 0), BORDER:-BORDER]
            return np.count_nonzero(corrected_dq != flags), np.count_nonzero(science)

        implausible_values, without_polynomial = np.sum(job.map_rows(correct_block, rows), axis=0)
        if without_polynomial:
            job.log.log(
                logging.WARNING if without_polynomial > MANY_BAD * science_pixels else logging.INFO,
                "%d of %d pixels have polynomials that are not finite, or have no plausible linear term, or are far from the "
                "identity, in %s or %s: flagged NO_LIN_CORR, not corrected",
                without_polynomial,
                science_pixels,
                linearity.path.name,
                inverse.path.name,
            )
        if implausible_values:
            job.log.warning(
                "%s implausible (beyond %g DN, or not a number): flagged DO_NOT_USE",
                counted(implausible_values, "value is", "values are"),
                LARGEST_COUNT,
            )


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.

    Raises
    ------
    RampflowError
        A reference does not fit the exposure, or its values are not plausible.
    """
    rows, columns = job.exposure.array("pixeldq").shape
    nonlinearity = None
    if job.references["integralnonlinearity"] is not None:
        with job.open_reference("integralnonlinearity") as reference:
            nonlinearity = read_nonlinearity(reference, columns)
    with job.open_reference("linearity") as linearity, job.open_reference("inverselinearity") as inverse:
        check_polynomials(linearity, (rows, columns), "linearity")
        check_polynomials(inverse, (rows, columns), "inverselinearity")
        correct_exposure(job, linearity, inverse, nonlinearity)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
