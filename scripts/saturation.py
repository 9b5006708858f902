"""saturation: flag the resultants of a ramp that are saturated, partly saturated, or below the A/D floor."""

import sys

import numpy as np

from wfi import dq as dqflags
from wfi.detector import BORDER
from wfi.errors import RampflowError
from wfi.step import Job, Parameter, Reference, Step

STEP = Step(
    name="saturation",
    status="saturation",
    suffix="saturation",
    takes="ramp",
    summary="Flag the resultants of a ramp that are saturated, partly saturated, or below the A/D floor.",
    references=(Reference("saturation", "saturation thresholds (data, DN) and their data quality"),),
    parameters=(
        Parameter(
            "n_pix_grow_sat", int, 0, "grow saturated regions by this much on each side (charge spills)", "pixel", minimum=0
        ),
        Parameter("backup", int, 0, "number of resultants before a saturated one to flag too", "resultant", minimum=0),
    ),
)

#: One more than a 16-bit A/D converter can give: a threshold that is never reached.
NEVER_SATURATED = 65536.0

#: Statuses of the steps that a fully saturated exposure does not go through.
AFTER_SATURATION = (
    "refpix dark_decay wfi18_transient linearity ramp_fit dark assign_wcs photom flat_field source_catalog tweakreg".split()
)


def checked_thresholds(threshold: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make thresholds usable at every pixel.

    Parameters
    ----------
    threshold : numpy.ndarray
        Saturation thresholds of the reference, DN.
    dq : numpy.ndarray
        Its flags, uint32.

    Returns
    -------
    threshold : numpy.ndarray
        float32; 65536 where the reference is NaN or says NO_SAT_CHECK.
    dq : numpy.ndarray
        The flags, with NO_SAT_CHECK where the threshold was NaN.
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

    Three passes. Forward: from the first resultant at or above the threshold on, all are SATURATED; a count ≤ 0 is below the
    A/D floor (AD_FLOOR and DO_NOT_USE) in that resultant alone. Backward: a resultant averages several reads, of which only
    the last may be saturated. A ramp that reaches the threshold in the resultant's last read averages d = mean(reads) / last
    read of it, so a resultant at or above d × threshold before a SATURATED one is marked DO_NOT_USE. Second resultant: where
    the first does not predict saturation by the end of the third and yet the third is saturated (a cosmic ray), the second
    may hold saturated reads: it is marked DO_NOT_USE if it rose by more than one of its reads at the threshold would add.

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
        So many times, in ascending order, a resultant of several reads takes SATURATED from the next one.
    """
    saturated = np.zeros(threshold.shape, bool)
    for counts, flags in zip(data, groupdq, strict=True):
        saturated |= counts >= threshold
        flags |= saturated * np.uint8(dqflags.SATURATED)
        flags |= (counts <= 0) * np.uint8(dqflags.AD_FLOOR | dqflags.DO_NOT_USE)
        if n_pix_grow_sat:
            flags |= _grow(dqflags.has(flags, dqflags.SATURATED), n_pix_grow_sat) * np.uint8(dqflags.SATURATED)
    if not dqflags.has(groupdq, dqflags.SATURATED).any():
        return
    _flag_partly_saturated(data, groupdq, threshold, read_pattern, n_pix_grow_sat)
    if len(data) > 2:
        _flag_second_resultant(data, groupdq, threshold, read_pattern)
    for _ in range(backup):
        for reads, flags, following in zip(read_pattern, groupdq[:-1], groupdq[1:], strict=False):
            if len(reads) > 1:
                flags |= following & np.uint8(dqflags.SATURATED)


def _flag_partly_saturated(data, groupdq, threshold, read_pattern, n_pix_grow_sat):
    unchecked = threshold >= NEVER_SATURATED
    for index in range(len(data) - 2, -1, -1):
        reads = read_pattern[index]
        if len(reads) == 1:
            continue
        dilution = np.where(unchecked, 1.0, np.mean(reads) / reads[-1])
        partly = data[index] >= threshold * dilution
        partly &= ~dqflags.has(groupdq[index], dqflags.SATURATED | dqflags.DO_NOT_USE)
        partly &= dqflags.has(groupdq[index + 1], dqflags.SATURATED)
        if n_pix_grow_sat:
            partly = _grow(partly, n_pix_grow_sat)
        groupdq[index] |= partly * np.uint8(dqflags.DO_NOT_USE)


def _flag_second_resultant(data, groupdq, threshold, read_pattern):
    predicted = data[0] / np.mean(read_pattern[0]) * read_pattern[2][-1]
    suspect = predicted < threshold
    suspect &= data[1] - data[0] > (threshold - data[0]) / len(read_pattern[1])
    suspect &= dqflags.has(groupdq[2], dqflags.SATURATED) & ~dqflags.has(groupdq[1], dqflags.SATURATED)
    groupdq[1] |= suspect * np.uint8(dqflags.DO_NOT_USE)


def _grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Grow a mask by a square of `pixels` on each side."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, 2 * pixels + 1, mode="constant") if mask.any() else mask


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["saturation"] is None:
        return job.skip("There is no saturation reference")
    ramp, parameters = job.exposure, job.parameters
    data, groupdq, read_pattern = ramp.array("data", 3), ramp.array("groupdq", 3), ramp.read_pattern
    pixeldq = ramp.array("pixeldq", 2).read()
    with job.open_reference("saturation") as reference:
        threshold = reference.array("data", 2).read()
        threshold, reference_dq = checked_thresholds(threshold, reference.array("dq", shape=threshold.shape).read())
        if threshold.shape != pixeldq.shape:
            raise RampflowError(
                f"{reference.path}: data has the shape {threshold.shape}, and the exposure {pixeldq.shape}; "
                "give the saturation reference of this detector"
            )
    pixeldq |= reference_dq
    rows, columns = pixeldq.shape
    # A flag grows once going forward and once more going backward: a block must see that far beyond its own rows.
    halo = 2 * parameters.n_pix_grow_sat
    science = np.zeros((rows, columns), bool)
    science[BORDER:-BORDER, BORDER:-BORDER] = threshold[BORDER:-BORDER, BORDER:-BORDER] < NEVER_SATURATED

    with job.create(rewrite=("groupdq",), arrays={"pixeldq": pixeldq}) as product:

        def flag_rows(start, stop):
            first, last = max(start - halo, 0), min(stop + halo, rows)
            flags = groupdq.read_rows(first, last)
            flag_saturated(
                data.read_rows(first, last),
                flags,
                threshold[first:last],
                read_pattern,
                n_pix_grow_sat=parameters.n_pix_grow_sat,
                backup=parameters.backup,
            )
            flags = flags[:, start - first : stop - first]
            product.write_rows("groupdq", start, flags)
            saturated = dqflags.has(flags, dqflags.SATURATED)
            floor = dqflags.has(flags, dqflags.AD_FLOOR).any(axis=0)
            return saturated.any(axis=0).sum(), floor.sum(), saturated.all(axis=0)[science[start:stop]].all()

        found = job.map_rows(flag_rows, rows)
        job.log.info("%d pixels are saturated in some resultant", sum(n for n, _, _ in found))
        job.log.info("%d pixels are below the A/D floor in some resultant", sum(n for _, n, _ in found))
        # Reference pixels see no light, and unchecked pixels are never flagged: neither speaks against full saturation.
        all_resultants = science.any() and all(full for *_, full in found)
        if all_resultants or dqflags.has(pixeldq, dqflags.SATURATED).all():
            job.log.warning("All pixels are saturated in all resultants: the steps that follow have nothing to do")
            product.meta["cal_step"].update(dict.fromkeys(AFTER_SATURATION, "SKIPPED"))


if __name__ == "__main__":
    sys.exit(STEP.main(run))
