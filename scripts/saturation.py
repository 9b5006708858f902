"""Step saturation: flag the resultants of a ramp that are saturated, partly saturated, or below the A/D floor."""

import sys

import numpy as np

from rampflow import dq as dqflags
from rampflow.chain import statuses_after
from rampflow.detector import BORDER
from rampflow.errors import RampflowError, counted
from rampflow.step.declaration import Parameter, Range, Reference, Step
from rampflow.step.job import Job
from rampflow.step.program import run_step

STEP = Step(
    name="saturation",
    summary="Flag the resultants of a ramp that are saturated, partly saturated, or below the A/D floor.",
    references=(
        Reference(
            "saturation",
            "saturation thresholds (data, DN) and their data quality",
            skip_without=True,
            plausible={
                "data": Range(
                    1000,
                    1e6,
                    "DN",
                    "full wells are 50,000 to 60,000 DN; a wrong threshold affects its own pixel only",
                )
            },
        ),
    ),
    parameters=(
        Parameter(
            "n_pix_grow_sat", int, 0, "growth of saturated regions on each side, for charge that spills", "pixels", minimum=0
        ),
        Parameter("backup", int, 0, "number of resultants to flag before a saturated one", "resultants", minimum=0),
    ),
)

LARGEST_COUNT = 65535  #: DN that a 16-bit A/D converter can give
NEVER_SATURATED = LARGEST_COUNT + 1.0  #: a threshold that is never reached
#: Share of the science pixels that must be checked before their saturation counts as that of the whole exposure.
MINIMUM_CHECKED = 0.5
#: Share of the science pixels without a check that is worth a warning: some in 100,000 of sound references have none.
MANY_UNCHECKED = 0.05


def checked_thresholds(threshold: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make thresholds that can be compared at every pixel.

    Parameters
    ----------
    threshold : numpy.ndarray
        Saturation thresholds of the reference, DN, of shape (row, column).
    dq : numpy.ndarray
        Their flags, uint32 of the same shape.

    Returns
    -------
    threshold : numpy.ndarray
        Thresholds, DN, float32 of the same shape; 65536 where the reference is NaN or flagged NO_SAT_CHECK.
    dq : numpy.ndarray
        Flags, uint32 of the same shape, with NO_SAT_CHECK where the threshold was NaN.
    """
    dq = np.where(np.isnan(threshold), dq | np.uint32(dqflags.NO_SAT_CHECK), dq)
    unchecked = dqflags.has(dq, dqflags.NO_SAT_CHECK)
    return np.where(unchecked, np.float32(NEVER_SATURATED), threshold.astype(np.float32)), dq


def flag_saturated(
    data: np.ndarray,
    groupdq: np.ndarray,
    threshold: np.ndarray,
    read_pattern: list[list[int]],
    *,
    n_pix_grow_sat: int = 0,
    backup: int = 0,
) -> None:
    """Flag saturated resultants, in place.

    There are three passes:

    - Forward: from the first resultant at or above the threshold on, all are SATURATED. A lost one (DROPOUT) doesn't count as
      the first. A count ≤ 0 is below the A/D floor (AD_FLOOR and DO_NOT_USE) in that resultant alone.
    - Backward: a resultant averages several reads, of which only the last may be saturated. A ramp that reaches the threshold
      in the last read of a resultant has the mean d × threshold there, with d = mean(reads) / last read. A resultant at or
      above this before a SATURATED one is marked DO_NOT_USE.
    - Second resultant: a cosmic ray can saturate the third resultant where the first does not predict it. The second then may
      hold saturated reads. It is marked DO_NOT_USE if it rose by more than one of its reads at the threshold would add.

    Parameters
    ----------
    data : numpy.ndarray
        Ramp in DN, float32 (resultant, row, column).
    groupdq : numpy.ndarray
        Its flags, uint8, of the same shape; changed in place.
    threshold : numpy.ndarray
        From `checked_thresholds`, (row, column).
    read_pattern : list of list of int
        1-based reads of each resultant.
    n_pix_grow_sat : int
        Saturated (and partly saturated) regions grow by this many pixels on each side, corners included.
    backup : int
        Number of repetitions of a pass in which each resultant of several reads takes SATURATED from the next one.
    """
    saturated = np.zeros(threshold.shape, bool)
    lost = bool(np.bitwise_or.reduce(groupdq, axis=None) & dqflags.DROPOUT)
    for counts, flags in zip(data, groupdq, strict=True):
        reached = counts >= threshold
        if lost:
            reached &= ~dqflags.has(flags, dqflags.DROPOUT)
        saturated |= reached
        flags |= saturated * np.uint8(dqflags.SATURATED)
        flags |= (counts <= 0) * np.uint8(dqflags.AD_FLOOR | dqflags.DO_NOT_USE)
        if n_pix_grow_sat:
            flags |= _grow(dqflags.has(flags, dqflags.SATURATED), n_pix_grow_sat) * np.uint8(dqflags.SATURATED)
    # The other passes concern the few pixels that saturate.
    rows, columns = np.nonzero(dqflags.has(np.bitwise_or.reduce(groupdq, axis=0), dqflags.SATURATED))
    if not rows.size:
        return
    counts, flags, limit = data[:, rows, columns], groupdq[:, rows, columns], threshold[rows, columns]
    partly = _partly_saturated(counts, flags, limit, read_pattern)
    if n_pix_grow_sat:
        for flags_of_resultant, of_pixels in zip(groupdq, partly, strict=True):
            grown = np.zeros(threshold.shape, bool)
            grown[rows, columns] = of_pixels
            flags_of_resultant |= _grow(grown, n_pix_grow_sat) * np.uint8(dqflags.DO_NOT_USE)
    if len(data) > 2:
        partly[1] |= _second_is_suspect(counts, flags, limit, read_pattern)
    groupdq[:, rows, columns] |= partly * np.uint8(dqflags.DO_NOT_USE)
    for _ in range(min(backup, len(data))):  # each pass reaches one resultant further
        for reads, flags, following in zip(read_pattern, groupdq[:-1], groupdq[1:], strict=False):
            if len(reads) > 1:
                flags |= following & np.uint8(dqflags.SATURATED)


def _partly_saturated(counts: np.ndarray, flags: np.ndarray, limit: np.ndarray, read_pattern: list[list[int]]) -> np.ndarray:
    """The backward pass on the ramps of some pixels: whether each resultant is partly saturated (resultant, pixel)."""
    before, after = flags[:-1], flags[1:]
    averaged = np.array([len(reads) > 1 for reads in read_pattern[: len(before)]], bool)[:, None]
    dilution = np.array([np.mean(reads) / reads[-1] for reads in read_pattern[: len(before)]])[:, None]
    partly = np.zeros(counts.shape, bool)
    partly[:-1] = counts[:-1] >= limit * np.where(limit >= NEVER_SATURATED, 1.0, dilution)
    partly[:-1] &= averaged & dqflags.has(after, dqflags.SATURATED)
    partly[:-1] &= ~dqflags.has(before, dqflags.SATURATED | dqflags.DO_NOT_USE)
    return partly


def _second_is_suspect(counts: np.ndarray, flags: np.ndarray, limit: np.ndarray, read_pattern: list[list[int]]) -> np.ndarray:
    """The pass on the second resultant, on the ramps of some pixels: whether it may hold saturated reads (pixel)."""
    first, second = counts[:2]
    suspect = first / np.mean(read_pattern[0]) * read_pattern[2][-1] < limit
    suspect &= second - first > (limit - first) / len(read_pattern[1])
    return suspect & dqflags.has(flags[2], dqflags.SATURATED) & ~dqflags.has(flags[1], dqflags.SATURATED)


def _grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a mask by a square of `pixels` on each side."""
    from scipy.ndimage import maximum_filter

    size = 2 * min(pixels, max(mask.shape)) + 1  # a wider square covers no more
    return maximum_filter(mask, size, mode="constant") if mask.any() else mask


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
    ramp, parameters = job.exposure, job.parameters
    data, groupdq, read_pattern = ramp.array("data", 3), ramp.array("groupdq", 3), ramp.read_pattern
    pixeldq = ramp.array("pixeldq", 2)
    rows, columns = pixeldq.shape
    # A flag grows once going forward and once more going backward: a block must see that far beyond its own rows.
    halo = 2 * parameters.n_pix_grow_sat
    with job.open_reference("saturation") as reference:
        threshold = reference.array("data", 2)
        threshold_dq = reference.array("dq", shape=threshold.shape)
        if threshold.shape != pixeldq.shape:
            raise RampflowError(
                f"{reference.path}: data has the shape {threshold.shape}, and the exposure {pixeldq.shape}; "
                "give the saturation reference of this detector"
            )

        # With a halo, a block reads flags that another block may have written.
        arrays = {"rewrite": ("groupdq",), "update": ("pixeldq",)} if halo else {"update": ("groupdq", "pixeldq")}
        with job.create(**arrays) as product:

            def flag_rows(start, stop):
                first, last = max(start - halo, 0), min(stop + halo, rows)
                own = slice(start - first, stop - first)
                limits, reference_dq = checked_thresholds(threshold.read_rows(first, last), threshold_dq.read_rows(first, last))
                pixel_flags = pixeldq.read_rows(start, stop) | reference_dq[own]
                product.write_rows("pixeldq", start, pixel_flags)
                flags = groupdq.read_rows(first, last)
                flag_saturated(
                    data.read_rows(first, last),
                    flags,
                    limits,
                    read_pattern,
                    n_pix_grow_sat=parameters.n_pix_grow_sat,
                    backup=parameters.backup,
                )
                flags = flags[:, own]
                product.write_rows("groupdq", start, flags)
                in_some, in_all = np.bitwise_or.reduce(flags, axis=0), np.bitwise_and.reduce(flags, axis=0)
                # Reference pixels see no light, and unchecked pixels are never flagged: neither speaks against full saturation.
                # A threshold that can't be reached is no missing check: the pixel is checked and never saturated.
                checked = ~dqflags.has(reference_dq[own], dqflags.NO_SAT_CHECK)
                science = checked & on_science(np.arange(start, stop)[:, None], rows)
                science &= on_science(np.arange(columns), columns)
                beyond = checked & (limits[own] > LARGEST_COUNT)
                return (
                    np.count_nonzero(dqflags.has(in_some, dqflags.SATURATED)),
                    np.count_nonzero(dqflags.has(in_some, dqflags.AD_FLOOR)),
                    np.count_nonzero(science),
                    dqflags.has(in_all, dqflags.SATURATED)[science].all(),
                    dqflags.has(pixel_flags, dqflags.SATURATED).all(),
                    limits[own][beyond],
                )

            found = job.map_rows(flag_rows, rows, block=16 + 4 * halo)
            saturated, below_floor, checked, full, full_pixeldq, beyond = zip(*found, strict=True)
            job.log.info("Pixels saturated in a resultant: %d", sum(saturated))
            job.log.info("Pixels below the A/D floor in a resultant: %d", sum(below_floor))
            warn_of_thresholds(job, np.concatenate(beyond), rows * columns)
            share = sum(checked) / ((rows - 2 * BORDER) * (columns - 2 * BORDER))
            if (all(full) and share > MINIMUM_CHECKED) or all(full_pixeldq):
                job.log.warning("All pixels are saturated in all resultants: the following steps are skipped")
                product.meta["cal_step"].update(dict.fromkeys(statuses_after(STEP.name), "SKIPPED"))
            elif all(full) and share:
                job.log.warning(
                    "All science pixels with a threshold in %s are saturated in all resultants, but these are only %.2g %% of "
                    "them (the others are flagged NO_SAT_CHECK): the exposure does not count as fully saturated; check the "
                    "reference",
                    job.reference_file("saturation").name,
                    100 * share,
                )
            elif 1 - share > MANY_UNCHECKED:
                job.log.warning(
                    "%s: %.3g %% of the science pixels have no threshold (NaN in data, or NO_SAT_CHECK in dq) and are never "
                    "flagged as saturated, so their count rates may be wrong; check the reference",
                    job.reference_file("saturation").name,
                    100 * (1 - share),
                )


def warn_of_thresholds(job: Job, beyond: np.ndarray, pixels: int) -> None:
    """Warn of thresholds beyond the range of the converter: no count reaches them.

    Parameters
    ----------
    job : Job
        The run of the step.
    beyond : numpy.ndarray
        Thresholds beyond the range, DN.
    pixels : int
        Number of all pixels.
    """
    if beyond.size:
        job.log.warning(
            "%s: the thresholds (data) of %s (%.2g %%, with a median of %.6g DN) are above %d DN, the largest count of "
            "the converter, so these pixels are never flagged as saturated; check the unit, and flag pixels that must not be "
            "checked NO_SAT_CHECK",
            job.reference_file("saturation").name,
            counted(beyond.size, "pixel"),
            100 * beyond.size / pixels,
            np.median(beyond),
            LARGEST_COUNT,
        )


def on_science(index: np.ndarray, size: int) -> np.ndarray:
    """Tell which rows or columns of a detector are not reference pixels.

    Parameters
    ----------
    index : numpy.ndarray
        Rows or columns.
    size : int
        Number of rows or columns of the detector.

    Returns
    -------
    numpy.ndarray
        Whether they lie within the reference border, bool of the shape of `index`.
    """
    return (index >= BORDER) & (index < size - BORDER)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
