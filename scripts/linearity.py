"""Correct the detector's non-linear response, at the level of single reads."""

import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rampflow import dq
from rampflow.detector import BORDER, CHANNEL_WIDTH, mean_reads
from rampflow.errors import RampflowError
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step
from rampflow.step.reference_checks import MANY, refuse_implausible, sample_rows

#: Polynomials in DN are the identity with small corrections, so that their linear term is near 1.
LINEAR_TERM = Range(0.2, 5, source="a polynomial is the identity with corrections of some per cent", median=(0.5, 2), plane=1)
#: Counts (DN) of a well that is half full, and what all terms of a polynomial may make of them.
TYPICAL = 20000.0
NEAR_IDENTITY = Range(0.6, 1.6, source="the response is linear within some per cent at half the full well; gains are larger")
CONVERTER = Range(-1000, 1000, "DN", "measured converters are off by a few DN", quantity="largest correction of a channel")

STEP = Step(
    name="linearity",
    summary="Correct the non-linear response of the detector and of its converters, read by read.",
    references=(
        Reference(
            "linearity",
            "polynomials from measured to linear counts (coeffs) and their data quality",
            plausible={"coeffs": LINEAR_TERM},
        ),
        Reference(
            "inverselinearity",
            "polynomials from linear to measured counts (coeffs)",
            plausible={"coeffs": LINEAR_TERM},
        ),
        Reference(
            "integralnonlinearity",
            "correction of the converters, by channel and counts (inl_table, value)",
            plausible={
                "value": Range(-1000, 70000, "DN", "counts of a 16-bit converter"),
                "inl_table": CONVERTER,
            },
        ),
    ),
)

LARGEST = 1e6  #: DN; many times the full well: what is beyond comes from a bad polynomial


@dataclass(frozen=True)
class IntegralNonlinearity:
    """What the analog-to-digital converters add to the counts, on a uniform grid.

    Attributes
    ----------
    start, step : float
        Start and step of the grid, DN.
    correction : numpy.ndarray
        DN to be added, float32, (channel, grid point).
    """

    start: float
    step: float
    correction: np.ndarray

    @cached_property
    def entries(self) -> np.ndarray:
        """Each correction beside its change to the next, two float32 that are looked up as one float64, (channel, point)."""
        change = np.diff(self.correction, axis=1, append=self.correction[:, -1:])
        return np.stack([self.correction, change], axis=2, dtype=np.float32).view(np.float64)[..., 0]


def grid_nonlinearity(value: np.ndarray, correction: np.ndarray) -> IntegralNonlinearity:
    """Put a table of integral nonlinearity on the coarsest uniform grid that holds all its points.

    The points are whole numbers of DN, so that linear interpolation on the grid is that of the table. A uniform table stays
    as it is.

    Parameters
    ----------
    value : numpy.ndarray
        Counts, whole DN, increasing, (point).
    correction : numpy.ndarray
        DN to be added there, (channel, point).

    Returns
    -------
    IntegralNonlinearity

    Raises
    ------
    ValueError
        The counts are not increasing whole numbers, or fewer than two, or a correction is not finite.
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


def usable_polynomials(coefficients: np.ndarray) -> np.ndarray:
    """Polynomials whose linear term is zero, which stands for none, where it is not plausible (`LINEAR_TERM`).

    Parameters
    ----------
    coefficients : numpy.ndarray
        Ascending powers, (term, row, column).
    """
    implausible = ~LINEAR_TERM.contains(coefficients[1])
    if not implausible.any():
        return coefficients
    coefficients = coefficients.copy()
    coefficients[1][implausible] = 0
    return coefficients


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correct a ramp, or rows of it, for non-linear response.

    A resultant is a mean of reads, and the polynomial of a mean is not the mean of polynomials; so the correction is that of
    the reads. The first resultant and the last good one (the one before the last unsaturated, at least the second) are
    linearized; the line through them, at their mean read numbers, predicts the linear counts of every read, and the inverse
    polynomial its measured counts. These are shifted so that their mean is the observed resultant; then the integral
    nonlinearity is added, the polynomial applied, and the mean taken.

    Parameters
    ----------
    data : numpy.ndarray
        Counts, DN, float32, (resultant, row, column); columns are a multiple of 128, whole channels from the first on.
    groupdq : numpy.ndarray
        uint8, like `data`. SATURATED resultants keep their values.
    pixeldq : numpy.ndarray
        uint32, (row, column).
    coefficients : numpy.ndarray
        Polynomials from measured to linear counts, ascending powers, (term, row, column).
    coefficients_dq : numpy.ndarray
        Their flags, uint32, (row, column). Pixels with NO_LIN_CORR get no correction by either polynomial.
    inverse_coefficients : numpy.ndarray
        Polynomials from linear to measured counts, likewise.
    read_pattern : list of list of int
        The 1-based reads of each resultant.
    nonlinearity : IntegralNonlinearity, optional
        Added to the measured counts.

    Returns
    -------
    data : numpy.ndarray
        Linear counts, DN, float32. Beyond ±1e6 they are clipped.
    groupdq : numpy.ndarray
        With DO_NOT_USE where the result was clipped or is not a number.
    pixeldq : numpy.ndarray
        With the flags of `coefficients_dq`, and with NO_LIN_CORR where a polynomial has a NaN coefficient or no linear term
        and the identity takes its place.

    Raises
    ------
    ValueError
        The shapes don't go together.
    """
    from rampflow.kernels.linearity import correct_rows

    # The arrays of an open data model are wrappers that the compiled loop doesn't know.
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
        raise ValueError("the ramp, its flags, its read pattern and the references must be of the same pixels and resultants")
    means = mean_reads(read_pattern)
    counts = [len(reads) for reads in read_pattern]
    table = nonlinearity or IntegralNonlinearity(0.0, 1.0, np.empty((pixels[1] // CHANNEL_WIDTH, 0), np.float32))
    corrected, corrected_groupdq, corrected_pixeldq = (np.empty(a.shape, a.dtype) for a in (data, groupdq, pixeldq))

    def by_channel(array):
        return array.reshape(*array.shape[:-1], -1, CHANNEL_WIDTH)

    correct_rows(
        by_channel(data),
        by_channel(groupdq),
        by_channel(pixeldq),
        by_channel(coefficients),
        by_channel(coefficients_dq),
        by_channel(inverse_coefficients),
        (np.concatenate(read_pattern) - means[0]).astype(np.float32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.intp),
        (means - means[0]).astype(np.float32),
        table.entries,
        np.float32(table.start),
        np.float32(1 / table.step),
        np.uint8(dq.SATURATED),
        np.uint8(dq.DO_NOT_USE),
        np.uint32(dq.NO_LIN_CORR),
        np.float32(LARGEST),
        by_channel(corrected),
        by_channel(corrected_groupdq),
        by_channel(corrected_pixeldq),
    )
    return corrected, corrected_groupdq, corrected_pixeldq


def typical_ratio(coefficients: np.ndarray) -> float:
    """Median over the pixels of what a polynomial makes of `TYPICAL` counts, over these; NaN without a finite one.

    Parameters
    ----------
    coefficients : numpy.ndarray
        Ascending powers, (term, row, column).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.polynomial.polynomial.polyval(TYPICAL, coefficients.astype(np.float64)) / TYPICAL
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan


def check_polynomials(reference: Exposure, shape: tuple[int, int], reftype: str) -> None:
    """Refuse polynomials that are not those of a detector of this shape, or far from the identity.

    Raises
    ------
    RampflowError
    """
    for name, expected in (("coeffs", 3), ("dq", 2)):
        array = reference.array(name, expected)
        if array.shape[-2:] != shape:
            raise RampflowError(
                f"{reference.path}: {name} has the shape {array.shape}, and the exposure has {shape[0]} rows and {shape[1]} "
                "columns; give the reference of this detector"
            )
    if reference.array("coeffs").shape[0] < 2:
        raise RampflowError(f"{reference.path}: coeffs has no linear term; it must hold two or more terms per pixel")
    ratio, limits = typical_ratio(sample_rows(reference.array("coeffs"))), (NEAR_IDENTITY.minimum, NEAR_IDENTITY.maximum)
    refuse_implausible(reference.path, f"coeffs at {TYPICAL:g} DN, as a ratio,", ratio, limits, "", reftype)


def read_nonlinearity(reference: Exposure, columns: int) -> IntegralNonlinearity:
    """Read the tables of the channels of a detector.

    Raises
    ------
    RampflowError
        A channel is missing, or a table is of the wrong shape or not usable.
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
        if np.isfinite(largest):  # NaN is told below
            limits = CONVERTER.minimum, CONVERTER.maximum
            refuse_implausible(reference.path, f"the largest value of {name}", largest, limits, "DN", "integralnonlinearity")
    try:
        return grid_nonlinearity(value, np.stack(corrections))
    except ValueError as error:
        raise RampflowError(f"{reference.path}: value {error}; give a reference with usable tables") from None


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["linearity"] is None or job.references["inverselinearity"] is None:
        return job.skip("There is no linearity or no inverselinearity reference")
    ramp, groupdq, pixeldq = (job.exposure.array(name) for name in ("data", "groupdq", "pixeldq"))
    _, rows, columns = ramp.shape
    read_pattern = job.exposure.read_pattern
    nonlinearity = None
    if job.references["integralnonlinearity"] is not None:
        with job.open_reference("integralnonlinearity") as reference:
            nonlinearity = read_nonlinearity(reference, columns)
    with job.open_reference("linearity") as linearity, job.open_reference("inverselinearity") as inverse:
        check_polynomials(linearity, (rows, columns), "linearity")
        check_polynomials(inverse, (rows, columns), "inverselinearity")

        borders = job.exposure.border_columns
        with job.create(rewrite=("data", "groupdq", "pixeldq", *borders)) as product:

            def correct(start, stop):
                flags, pixel_flags = groupdq.read_rows(start, stop), pixeldq.read_rows(start, stop)
                reference_dq = linearity.array("dq").read_rows(start, stop)
                known = pixel_flags | reference_dq
                block, block_dq, block_pixeldq = correct_linearity(
                    ramp.read_rows(start, stop),
                    flags,
                    pixel_flags,
                    usable_polynomials(linearity.array("coeffs").read_rows(start, stop)),
                    reference_dq,
                    usable_polynomials(inverse.array("coeffs").read_rows(start, stop)),
                    read_pattern,
                    nonlinearity=nonlinearity,
                )
                product.write_rows("data", start, block)
                for name, columns in borders.items():
                    product.write_rows(name, start, block[..., columns])
                product.write_rows("groupdq", start, block_dq)
                product.write_rows("pixeldq", start, block_pixeldq)
                unusable = dq.has(block_pixeldq & ~known, dq.NO_LIN_CORR)
                science = unusable[max(BORDER - start, 0) : max(rows - BORDER - start, 0), BORDER:-BORDER]
                return np.count_nonzero(block_dq != flags), np.count_nonzero(science)

            implausible, unusable = map(sum, zip(*job.map_rows(correct, rows), strict=True))
            pixels = (rows - 2 * BORDER) * (columns - 2 * BORDER)
            if unusable:
                say = job.log.warning if unusable > MANY * pixels else job.log.info
                say(
                    "%d of %d pixels have polynomials that are not finite or have no plausible linear term: NO_LIN_CORR, not "
                    "corrected",
                    unusable,
                    pixels,
                )
            if implausible:
                job.log.warning("%d values are implausible (beyond %g DN, or not a number): DO_NOT_USE", implausible, LARGEST)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
