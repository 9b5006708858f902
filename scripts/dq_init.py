"""Step dq_init: turn a raw exposure into a ramp with data-quality arrays, and flag its bad pixels and guide window."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rampflow import dq as dqflags
from rampflow.chain import LATER_STATUSES, STATUSES
from rampflow.detector import BORDER, border_pixels, check_shape, mean_reads
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_writer import EmptyArray
from rampflow.files.checksums import log_checksum
from rampflow.files.data_models import GROUND_TEST_MODELS, DataModel, data_model, describe_newer
from rampflow.files.level1 import forget_extensions, spell_data_problem, update_processed, update_raw
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.files.yaml_tree import map_tree, tagged
from rampflow.step.consistency import contradictions
from rampflow.step.declaration import NOT_APPLICABLE, Parameter, Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step
from rampflow.step.ramp_input import check_ramp, is_decoded, is_ramp

STEP = Step(
    name="dq_init",
    summary="Turn a raw exposure into a ramp with data-quality arrays, and flag its bad pixels and guide window.",
    references=(
        Reference(
            "mask",
            "bad pixels (dq)",
            plausible={
                "dq": Range(
                    0,
                    0.5,
                    source="a few per cent of a detector's pixels are bad",
                    quantity="share of pixels that are DO_NOT_USE",
                )
            },
        ),
    ),
    parameters=(
        Parameter(
            "expand_gw_flagging",
            int,
            0,
            "growth on each side of the guide window's box, which is flagged DO_NOT_USE",
            unit="pixels",
            minimum=0,
        ),
    ),
)


LARGEST_RAW = 65535  #: DN in 16 bits
FEW_LOST = 0.01  #: share of amplifier 33's samples that may be lost without a warning
MOST_LOST = 0.99  #: share of the pixels with the same count that makes a resultant a lost one: noise alone prevents it
SAMPLING = 16  #: every so many columns are looked at first for a lost resultant
BLOCK = 16  #: rows decoded at a time; lost resultants are looked for in each block


def flag_guide_window(pixeldq: np.ndarray, x: tuple[int, int], y: tuple[int, int], *, expand: int = 0) -> bool:
    """Flag the pixels that the reads of the guide window disturb, in place.

    Parameters
    ----------
    pixeldq : numpy.ndarray
        Flags of the whole detector, uint32. All rows of the window's columns get GW_AFFECTED_DATA, and the window's box
        DO_NOT_USE too.
    x, y : tuple of int
        First column (row) of the window and the one after its last.
    expand : int
        Pixels by which the box grows on each side.

    Returns
    -------
    bool
        Whether the window begins on the detector; if not, nothing is flagged.
    """
    rows, columns = pixeldq.shape
    if not (0 <= x[0] < columns and 0 <= y[0] < rows):
        return False
    pixeldq[:, x[0] : max(x[1], 0)] |= dqflags.GW_AFFECTED_DATA
    box = (slice(max(y[0] - expand, 0), max(y[1] + expand, 0)), slice(max(x[0] - expand, 0), max(x[1] + expand, 0)))
    pixeldq[box] |= dqflags.DO_NOT_USE | dqflags.GW_AFFECTED_DATA
    return True


def decode_counts(raw: np.ndarray, reference_read: np.ndarray | None, offset: float) -> np.ndarray:
    """Decode the counts of a raw exposure: add the reference read, and subtract the offset.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts as they came, DN; the last two axes are rows and columns.
    reference_read : numpy.ndarray or None
        The read that was subtracted on board, DN, of the shape of one resultant; it is added back.
    offset : float
        ``meta.instrument.data_encoding_offset``, DN, which was added; it is subtracted.

    Returns
    -------
    numpy.ndarray
        Counts in DN, float32.
    """
    counts = raw.astype(np.float32)
    if reference_read is not None:
        counts += reference_read
    if offset:
        counts -= offset
    return counts


def flag_lost_counts(raw: np.ndarray) -> np.ndarray:
    """Flag encoded counts at the limits of their 16 bits, whose true values are lost and which decode to plausible ones.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts of the raw exposure, DN, uint16 of shape (resultant, row, column).

    Returns
    -------
    numpy.ndarray
        Flags, uint8 of the same shape: AD_FLOOR and DO_NOT_USE where a count is 0, SATURATED where it is 65535.
    """
    flags = (raw == 0) * np.uint8(dqflags.AD_FLOOR | dqflags.DO_NOT_USE)
    flags |= (raw == LARGEST_RAW) * np.uint8(dqflags.SATURATED)
    return flags


def lost_resultants(raw: np.ndarray) -> np.ndarray:
    """Find resultants that were lost: all pixels have the same count, a fill value.

    Read noise makes that impossible in a measurement. A bright field that stays at 65535, the limit of the converter, until the
    end of the ramp is saturated, not lost.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts as they came, DN, uint16 of shape (resultant, row, column), all rows or some, without the reference border.

    Returns
    -------
    numpy.ndarray
        Indices of the lost resultants.
    """
    # A part of one row suffices to see that nothing is lost, in a hundredth of the time.
    sample = raw[:, raw.shape[1] // 2, ::SAMPLING]
    if ((sample == np.median(sample, axis=1, keepdims=True)).mean(axis=1) < MOST_LOST / 2).all():
        return np.empty(0, np.intp)
    value = np.median(raw, axis=(1, 2), keepdims=True)
    filled = (raw == value).mean(axis=(1, 2)) > MOST_LOST
    counted = np.flatnonzero(~filled)
    last = counted[-1] if counted.size else -1
    saturated = (value[:, 0, 0] == LARGEST_RAW) & (np.arange(len(raw)) > last)
    return np.flatnonzero(filled & ~saturated)


def replace_resultants(counts: np.ndarray, lost: np.ndarray, read_pattern: list[list[int]]) -> None:
    """Replace lost resultants by the straight line through the two nearest that were measured, in place.

    No fit uses them, since they are flagged. The replacement keeps the fill value out of what later steps compute from all
    resultants, as the means of refpix and the count rates of linearity.

    Parameters
    ----------
    counts : numpy.ndarray
        Counts, DN, float32 of shape (resultant, row, column); changed in place, unless fewer than two resultants are left.
    lost : numpy.ndarray
        From `lost_resultants`.
    read_pattern : list of list of int
        1-based reads of each resultant.
    """
    there = np.setdiff1d(np.arange(len(counts)), lost)
    if there.size < 2:
        return
    times = mean_reads(read_pattern)
    for resultant in lost:
        second = int(np.clip(np.searchsorted(there, resultant), 1, there.size - 1))
        before, after = there[second - 1], there[second]
        share = np.float32((times[resultant] - times[before]) / (times[after] - times[before]))
        counts[resultant] = counts[before] + share * (counts[after] - counts[before])


@dataclasses.dataclass(frozen=True)
class DecodedBlock:
    """Rows of a raw exposure, decoded.

    Attributes
    ----------
    counts : numpy.ndarray
        Counts, DN, float32 of shape (resultant, row, column).
    flags : numpy.ndarray or None
        Flags of the same shape, uint8; `None` if nothing is flagged.
    at_limit : int
        Number of encoded counts that are 0 or 65535.
    lost : numpy.ndarray
        From `lost_resultants`.
    """

    counts: np.ndarray
    flags: np.ndarray | None
    at_limit: int
    lost: np.ndarray


def decode_block(
    raw: np.ndarray, reference_read: np.ndarray | None, offset: float, read_pattern: list[list[int]], border: np.ndarray
) -> DecodedBlock:
    """Decode some rows of a raw exposure, and flag the counts that are lost.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts as they came, DN, uint16 of shape (resultant, row, column).
    reference_read : numpy.ndarray or None
        The read that was subtracted on board, DN, of shape (row, column).
    offset : float
        ``meta.instrument.data_encoding_offset``, DN.
    read_pattern : list of list of int
        1-based reads of each resultant.
    border : numpy.ndarray
        Which pixels are reference pixels, bool of shape (row, column).

    Returns
    -------
    DecodedBlock
        Counts and flags. Lost reference pixels are 0 DN, which refpix takes for missing.
    """
    counts = decode_counts(raw, reference_read, offset)
    inside = np.flatnonzero(~border.all(axis=1))
    science = raw[:, inside[0] : inside[-1] + 1, BORDER:-BORDER] if inside.size else raw[:, :0]
    lost = lost_resultants(science) if science.size else np.empty(0, np.intp)
    encoded = bool(offset) or reference_read is not None
    # Without an encoding, saturation and refpix see such counts. The extremes take a tenth of the time of the flags.
    beyond = encoded and (raw.min() == 0 or raw.max() == LARGEST_RAW)
    if not beyond and not lost.size:
        return DecodedBlock(counts, None, 0, lost)
    flags = flag_lost_counts(raw) if beyond else np.zeros(raw.shape, np.uint8)
    counts[(flags != 0) & border] = 0
    replace_resultants(counts, lost, read_pattern)
    flags[lost] = 0
    at_limit = int(np.count_nonzero(flags))
    flags[lost] = dqflags.DROPOUT | dqflags.DO_NOT_USE
    return DecodedBlock(counts, flags, at_limit, lost)


def decode_amp33(raw: np.ndarray, reference_read: np.ndarray | None, offset: float) -> tuple[np.ndarray, int, int]:
    """Decode the samples of amplifier 33.

    Parameters
    ----------
    raw : numpy.ndarray
        Samples as they came, DN, uint16 (resultant, row, column).
    reference_read : numpy.ndarray or None
        The read that was subtracted on board, DN, (row, column); it is added back.
    offset : float
        ``meta.instrument.data_encoding_offset``, DN; it is subtracted.

    Returns
    -------
    samples : numpy.ndarray
        DN, uint16; 0, which refpix takes for a missing sample, where the sample is lost.
    at_limit, out_of_range : int
        How many of the lost ones came as 0 or 65535, and how many decode to what 16 bits can't hold.
    """
    decoded = raw.astype(np.int32) + (reference_read.astype(np.int32) if reference_read is not None else 0) - offset
    encoded = bool(offset) or reference_read is not None
    at_limit = ((raw == 0) | (raw == LARGEST_RAW)) & encoded
    out_of_range = ((decoded < 0) | (decoded > LARGEST_RAW)) & ~at_limit
    samples = np.where(at_limit | out_of_range, 0, decoded).astype(np.uint16)
    return samples, int(np.count_nonzero(at_limit)), int(np.count_nonzero(out_of_range))


def border_arrays(data: dict[str, np.ndarray], pixeldq: np.ndarray) -> dict[str, np.ndarray]:
    """Make the arrays of the reference border.

    Parameters
    ----------
    data : dict
        Counts of each side (``left``, ``right``, ``top``, ``bottom``), DN, of shape (resultant, row, column), with corners.
    pixeldq : numpy.ndarray
        Flags of the detector, uint32 of shape (row, column).

    Returns
    -------
    dict
        Counts and flags of each side, by the names of the ramp data model.
    """
    sides: dict[str, slice | tuple[slice, slice]] = {
        "left": np.s_[:, :BORDER],
        "right": np.s_[:, -BORDER:],
        "top": np.s_[:BORDER],
        "bottom": np.s_[-BORDER:],
    }
    flags = {f"dq_border_ref_pix_{side}": pixeldq[index].copy() for side, index in sides.items()}
    return {f"border_ref_pix_{side}": data[side] for side in sides} | flags


def ramp_tree(raw: Exposure, model: DataModel) -> dict:
    """Make the tree of a ramp, with the metadata of a raw exposure and without arrays.

    Parameters
    ----------
    raw : Exposure
        Raw exposure, of the version of the data model or a newer one, or a ramp, which keeps its log.
    model : DataModel
        Data model of the ramp.

    Returns
    -------
    dict
        Tagged tree of the ramp.
    """
    meta = map_tree(raw.meta, lambda node: node)  # a copy; arrays in it stay in the file
    meta["cal_step"] = dict.fromkeys((*STATUSES, *LATER_STATUSES), "INCOMPLETE")
    if not is_ramp(raw):
        meta["cal_logs"] = []
    # Simulators write the references here that they made the exposure with. No step has read them.
    for reftype, name in meta.get("ref_file", {}).items():
        if isinstance(name, str) and name != "?":
            meta["ref_file"][reftype] = NOT_APPLICABLE
    meta["model_type"] = "RampModel"
    spell_data_problem(meta)
    left_out = {"meta", "resultantdq", "reference_read", "reference_amp33"}
    if not model.has_second_flags:
        left_out.add("pixeldq2")
    carried = {name: node for name, node in raw.roman.items() if name not in left_out}
    return tagged({"meta": meta, **carried}, model.ramp)


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.
    """
    raw = job.exposure
    # A single wrong reference pixel would spread over a whole channel.
    log_checksum(job.log, raw.path, raw.file.verify_whole())
    model, tag = data_model(job.data_model), raw.tag
    written = model.ramp.removeprefix(ROMAN_PREFIX)
    if is_ramp(raw):
        check_ramp(raw)
        update_processed(raw, model.ramp)
        job.log.info("%s is a ramp: its flags are kept", raw.path.name)
        job.log.info("Data model: %s, written as %s", tag, written)
        initialize(job, raw, model, decoded=is_decoded(raw))
        return
    version = update_raw(raw, model)
    forget_extensions(raw.tree)
    if version.newer:
        job.log.warning("%s: %s", raw.path.name, describe_newer(tag, version.nearest))
    job.log.info("Data model: %s, written as %s", tag, written)
    initialize(job, raw, model, ground_test=version.model in GROUND_TEST_MODELS)


def initialize(job: Job, raw: Exposure, model: DataModel, *, ground_test: bool = False, decoded: bool = False) -> None:
    """Write the ramp of a raw exposure, or of a ramp.

    A ramp keeps its flags, to which those of the mask, the guide window and lost counts are added.

    Parameters
    ----------
    job : Job
        The run of the step.
    raw : Exposure
        The raw exposure, as `update_raw` leaves it, or the ramp.
    model : DataModel
        Data model of the ramp that is written.
    ground_test : bool
        Whether it comes from a ground test: then the reference read has been added back already.
    decoded : bool
        Whether dq_init has processed it already: then the offset has been subtracted too.

    Raises
    ------
    RampflowError
        Arrays or metadata don't fit each other.
    """
    counts, amp33 = raw.array("data", 3), raw.array("amp33", 3)
    check_shape(raw.path, counts.shape)
    read_pattern = raw.read_pattern
    _ = raw.frame_time, raw.detector  # later steps need them: refuse the exposure now without them
    resultants, rows, columns = shape = counts.shape
    if amp33.shape[:2] != (resultants, rows):
        raise RampflowError(f"{raw.path}: amp33 has the shape {amp33.shape}, which doesn't fit data of shape {shape}")
    has_offset = raw.meta["instrument"].get("data_encoding_offset") is not None
    offset = raw.number("meta.instrument.data_encoding_offset") if has_offset and not decoded else 0
    reference_read = reference_amp33 = None
    if not (ground_test or decoded):
        reference_read = _optional(raw, "reference_read", (rows, columns))
        reference_amp33 = _optional(raw, "reference_amp33", amp33.shape[1:])
        _warn_of_encoding(job, raw, offset, reference_read, reference_amp33)
    flags_in = "groupdq" if is_ramp(raw) else "resultantdq"
    brought = raw.array(flags_in, shape=shape) if raw.roman.get(flags_in) is not None else None
    for line in contradictions(raw.meta, resultants, job.exposure.path.name):
        job.log.warning("%s", line)

    mask = _read_mask(job, (rows, columns))
    pixeldq = np.zeros((rows, columns), np.uint32) if mask is None else mask
    if is_ramp(raw):
        pixeldq |= raw.array("pixeldq").read()
    _flag_guide_window(job, raw, pixeldq)

    def _read_block(start, stop):
        read = None if reference_read is None else reference_read[start:stop]
        border = border_pixels(start, stop, (rows, columns))
        return decode_block(counts.read_rows(start, stop), read, offset, read_pattern, border)

    border = {
        "left": EmptyArray((resultants, rows, BORDER), np.float32),
        "right": EmptyArray((resultants, rows, BORDER), np.float32),
        "top": _read_block(0, min(BLOCK, rows)).counts[:, :BORDER].copy(),
        "bottom": _read_block(max(rows - BLOCK, 0), rows).counts[:, -BORDER:].copy(),
    }
    arrays = {
        "data": EmptyArray(shape, np.float32),
        "pixeldq": pixeldq,
        # A file made longer reads as zeros where nothing was written: no flags need no writing.
        "groupdq": EmptyArray(shape, np.uint8) if brought is None else raw.roman[flags_in],
        "amp33": _decoded_amp33(job, raw, amp33.read(), reference_amp33, offset),
        **border_arrays(border, pixeldq),
    }
    if model.has_second_flags and raw.roman.get("pixeldq2") is None:
        arrays["pixeldq2"] = EmptyArray((rows, columns), np.uint32)  # no reference has such flags yet
    with job.create(roman=ramp_tree(raw, model), arrays=arrays) as product:
        product.status = "SKIPPED" if mask is None else "COMPLETE"

        def write_block(start, stop):
            block = _read_block(start, stop)
            product.write_rows("data", start, block.counts)
            product.write_rows("border_ref_pix_left", start, block.counts[:, :, :BORDER])
            product.write_rows("border_ref_pix_right", start, block.counts[:, :, -BORDER:])
            if block.flags is not None:
                flags = block.flags if brought is None else block.flags | brought.read_rows(start, stop)
                product.write_rows("groupdq", start, flags)
            return block.at_limit, block.lost

        at_limit, lost = zip(*job.map_rows(write_block, rows, block=BLOCK), strict=True)
        warn_of_lost_counts(job, sum(at_limit), lost)


def warn_of_lost_counts(job: Job, at_limit: int, lost: Sequence[np.ndarray]) -> None:
    """Warn of counts at the limits of an encoded file, and of resultants that were lost.

    Parameters
    ----------
    job : Job
        The run of the step.
    at_limit : int
        Number of encoded counts that are 0 or 65535.
    lost : sequence of numpy.ndarray
        From `lost_resultants`, for each block of rows.
    """
    if at_limit:
        job.log.warning(
            "%s 0 or 65535 in the encoded file, so that the true value is lost: flagged AD_FLOOR and DO_NOT_USE, or SATURATED",
            counted(at_limit, "count of data is", "counts of data are"),
        )
    resultants, blocks = np.unique(np.concatenate(lost), return_counts=True)
    if resultants.size:
        job.log.warning(
            "%s: data has one value for all pixels of a resultant (resultants from 1: %s): their counts were lost. They are "
            "flagged DROPOUT and DO_NOT_USE, left out of the fit, and replaced by a line through the neighboring resultants; "
            "if they can be restored, process the restored file",
            job.exposure.path.name,
            ", ".join(
                f"{resultant + 1}" if number == len(lost) else f"{resultant + 1} in {number / len(lost):.0%} of the rows"
                for resultant, number in zip(resultants, blocks, strict=True)
            ),
        )


def _flag_guide_window(job: Job, raw: Exposure, pixeldq: np.ndarray) -> None:
    """Flag the guide window of an exposure in `pixeldq`, and log where it is."""
    window = {name: raw.get(f"meta.guide_star.window_{name}", int) for name in ("xstart", "xstop", "ystart", "ystop")}
    columns, rows = (window["xstart"], window["xstop"]), (window["ystart"], window["ystop"])
    if flag_guide_window(pixeldq, columns, rows, expand=job.parameters.expand_gw_flagging):
        job.log.info("Guide window: columns %d to %d are flagged", columns[0], columns[1] - 1)
    else:
        job.log.info("The guide window does not lie on the detector: %s", window)


def _warn_of_encoding(
    job: Job, raw: Exposure, offset: float, reference_read: np.ndarray | None, reference_amp33: np.ndarray | None
) -> None:
    """Warn where the metadata and the arrays disagree on what was done for the downlink."""
    for name, read, other in (
        ("reference_read", reference_read, reference_amp33),
        ("reference_amp33", reference_amp33, reference_read),
    ):
        if read is None and (offset or other is not None):
            sign = f"meta.instrument.data_encoding_offset is {offset}" if offset else "it has the other reference read"
            job.log.warning(
                "%s has no %s, although %s: nothing is added back. If a read was subtracted on board, counts are too low by it",
                raw.path.name,
                name,
                sign,
            )
        elif read is not None and not read.any():
            job.log.warning("%s: %s is zero everywhere: nothing is added back", raw.path.name, name)


def _decoded_amp33(
    job: Job, raw: Exposure, samples: np.ndarray, reference_amp33: np.ndarray | None, offset: float
) -> np.ndarray:
    """Amplifier 33 decoded, with a word on what is lost."""
    decoded, at_limit, out_of_range = decode_amp33(samples, reference_amp33, offset)
    if at_limit or out_of_range:
        many = at_limit + out_of_range > FEW_LOST * decoded.size
        (job.log.warning if many or out_of_range else job.log.info)(
            "%s: %s 0 or 65535 in the encoded file, and %s to less than 0 or more than 65535 DN (offset %d): these count as "
            "missing (0), %.2g %% of all samples",
            raw.path.name,
            counted(at_limit, "sample of amp33 is", "samples of amp33 are"),
            counted(out_of_range, "decodes", "decode"),
            offset,
            100 * (at_limit + out_of_range) / decoded.size,
        )
    return decoded


def _read_mask(job: Job, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask's flags, uint32, if there is a mask that fits."""
    if job.references["mask"] is None:
        job.log.warning("There is no mask reference: bad pixels are not flagged, and the step is SKIPPED")
        return None
    with job.open_reference("mask") as mask:
        flags = mask.array("dq").read()
        if flags.shape == shape:
            job.refuse_implausible("mask", "dq", float(np.mean(dqflags.has(flags, dqflags.DO_NOT_USE))))
    if flags.shape != shape:
        job.log.warning(
            "%s: dq has the shape %s, and the exposure %s: bad pixels are not flagged, and the step is SKIPPED",
            Path(mask.path).name,
            flags.shape,
            shape,
        )
        return None
    return flags.astype(np.uint32, copy=False)


def _optional(raw: Exposure, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """An array that a raw exposure may bring."""
    if raw.roman.get(name) is None:
        return None
    array = raw.array(name)
    if array.shape != shape:
        raise RampflowError(f"{raw.path}: {name} has the shape {array.shape}; it must be {shape}, to fit data")
    return array.read()


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
