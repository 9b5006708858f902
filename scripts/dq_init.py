"""Turn a raw exposure into a ramp with data-quality arrays, and flag its bad pixels and guide window."""

import copy
import sys
from pathlib import Path

import numpy as np

from rampflow import dq as dqflags
from rampflow.chain import LATER_STATUSES, STATUSES
from rampflow.detector import BORDER, check_shape
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import EmptyArray
from rampflow.files.level1 import GROUND_TEST_MODELS, RAW_TAG, spell_data_problem, updated_raw_file
from rampflow.files.tags import RAMP
from rampflow.files.yaml_tree import tagged
from rampflow.step.consistency import contradictions
from rampflow.step.declaration import NOT_APPLICABLE, Parameter, Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step

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
                    source="some per cent of a detector's pixels are bad",
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
            "grow the box of the guide window that is marked DO_NOT_USE by this much on each side",
            unit="pixel",
            minimum=0,
        ),
    ),
)


LARGEST_RAW = 65535  #: DN in 16 bits
FEW_LOST = 0.01  #: share of amplifier 33's samples that may be lost without a warning
MOST_LOST = 0.99  #: share of the counts of a resultant at 0 or 65535 that makes it one that was lost
MIDDLE_ROWS = 16  #: rows that lost resultants are looked for in


def flag_guide_window(pixeldq: np.ndarray, x: tuple[int, int], y: tuple[int, int], *, expand: int = 0) -> bool:
    """Flag what the guide window's reads disturb, in place.

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


def decode_counts(raw: np.ndarray, reference_read: np.ndarray | None, offset: int) -> np.ndarray:
    """Undo what was done to the counts for the downlink.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts as they came, DN; the last two axes are rows and columns.
    reference_read : numpy.ndarray or None
        The read that was subtracted on board, DN, of the shape of one resultant; it is added back.
    offset : int
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
    """Flags of encoded counts at the limits of their 16 bits: what was beyond is lost, and decoding gives a plausible count.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts as they came, uint16.

    Returns
    -------
    numpy.ndarray
        uint8: AD_FLOOR and DO_NOT_USE where a count is 0, SATURATED where it is 65535.
    """
    flags = (raw == 0) * np.uint8(dqflags.AD_FLOOR | dqflags.DO_NOT_USE)
    flags |= (raw == LARGEST_RAW) * np.uint8(dqflags.SATURATED)
    return flags


def lost_resultants(raw: np.ndarray) -> list[int]:
    """Resultants without counts: those of zeros, and those of 65535 that others of lower counts follow.

    Parameters
    ----------
    raw : numpy.ndarray
        Counts as they came, uint16 (resultant, row, column), without the reference border.

    Returns
    -------
    list of int
        From 0 on.
    """
    empty = (raw == 0).mean(axis=(1, 2)) > MOST_LOST
    full = (raw == LARGEST_RAW).mean(axis=(1, 2)) > MOST_LOST
    counted = np.flatnonzero(~empty & ~full)
    last = counted[-1] if counted.size else -1  # a bright field is saturated until the end
    return np.flatnonzero(empty | (full & (np.arange(len(raw)) < last))).tolist()


def decode_amp33(raw: np.ndarray, reference_read: np.ndarray | None, offset: int) -> tuple[np.ndarray, int, int]:
    """Undo for amplifier 33 what was done for the downlink.

    Parameters
    ----------
    raw : numpy.ndarray
        Samples as they came, DN, uint16 (resultant, row, column).
    reference_read : numpy.ndarray or None
        The read that was subtracted on board, DN, (row, column); it is added back.
    offset : int
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
    return samples, np.count_nonzero(at_limit), np.count_nonzero(out_of_range)


def border_arrays(data: dict[str, np.ndarray], pixeldq: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of the reference border: counts (resultant, row, column) and flags of each side, corners included."""
    sides = {
        "left": np.s_[:, :BORDER],
        "right": np.s_[:, -BORDER:],
        "top": np.s_[:BORDER],
        "bottom": np.s_[-BORDER:],
    }
    flags = {f"dq_border_ref_pix_{side}": pixeldq[index].copy() for side, index in sides.items()}
    return {f"border_ref_pix_{side}": data[side] for side in sides} | flags


def ramp_tree(raw: Exposure) -> dict:
    """The tree of a ramp with the metadata of a raw exposure; arrays come later."""
    meta = copy.deepcopy(raw.meta)
    meta["cal_step"] = dict.fromkeys((*STATUSES, *LATER_STATUSES), "INCOMPLETE")
    meta["cal_logs"] = []
    # What raw files name here nobody has read: the simulators write what they made the exposure with.
    for reftype, name in meta.get("ref_file", {}).items():
        if isinstance(name, str) and name != "?":
            meta["ref_file"][reftype] = NOT_APPLICABLE
    meta["model_type"] = "RampModel"
    spell_data_problem(meta)
    carried = {k: v for k, v in raw.roman.items() if k not in ("meta", "resultantdq", "reference_read", "reference_amp33")}
    return tagged({"meta": meta, **carried}, RAMP)


def run(job: Job) -> None:
    """Process one exposure."""
    raw = job.exposure
    raw.file.verify()  # once, where it comes in: a wrong reference pixel would spread over a whole channel
    if raw.tag == RAW_TAG:
        return initialize(job, raw, ground_test=False)
    job.log.info("%s holds %s: it is brought to %s first", raw.path.name, raw.tag or "no tag", RAW_TAG)
    with updated_raw_file(raw) as path, AsdfFile(path) as file:
        initialize(job, Exposure(file), ground_test=raw.tag.rpartition("-")[0] in GROUND_TEST_MODELS)


def initialize(job: Job, raw: Exposure, *, ground_test: bool) -> None:
    """Write the ramp of a raw exposure of the newest model.

    Files of ground tests have had their reference read added back already.
    """
    counts, amp33 = raw.array("data", 3), raw.array("amp33", 3)
    check_shape(raw.path, counts.shape)
    _ = raw.read_pattern, raw.frame_time, raw.detector  # refuse now what a later step would stumble over
    for line in contradictions(raw.meta, counts.shape[0], job.exposure.path.name):
        job.log.warning("%s", line)
    shape = counts.shape
    if amp33.shape[:2] != shape[:2]:
        raise RampflowError(f"{raw.path}: amp33 has the shape {amp33.shape}, which doesn't fit data of shape {shape}")
    has_offset = raw.meta["instrument"].get("data_encoding_offset") is not None
    offset = raw.number("meta.instrument.data_encoding_offset") if has_offset else 0
    reference_read = _optional(raw, "reference_read", shape[1:]) if not ground_test else None
    reference_amp33 = _optional(raw, "reference_amp33", amp33.shape[1:]) if not ground_test else None
    resultantdq = _optional(raw, "resultantdq", shape)

    middle = max(shape[1] // 2 - MIDDLE_ROWS // 2, BORDER)
    if empty := lost_resultants(counts.read_rows(middle, min(middle + MIDDLE_ROWS, shape[1] - BORDER))[..., BORDER:-BORDER]):
        job.log.warning(
            "%s: the resultants %s (from 1) of data are 0 or %d DN throughout: they were lost. Those of 0 are not used, and "
            "from one of %d DN on all count as saturated; if they can be restored, process the restored file",
            job.exposure.path.name,
            ", ".join(str(resultant + 1) for resultant in empty),
            LARGEST_RAW,
            LARGEST_RAW,
        )
    encoded = bool(offset) or reference_read is not None
    if not ground_test:
        _warn_of_encoding(job, raw, offset, reference_read, reference_amp33)

    flags = _read_mask(job, shape[1:])
    status = "SKIPPED" if flags is None else "COMPLETE"
    pixeldq = np.zeros(shape[1:], np.uint32) if flags is None else flags
    guide = {k: raw.get(f"meta.guide_star.window_{k}", int) for k in ("xstart", "xstop", "ystart", "ystop")}
    if flag_guide_window(
        pixeldq, (guide["xstart"], guide["xstop"]), (guide["ystart"], guide["ystop"]), expand=job.parameters.expand_gw_flagging
    ):
        job.log.info("Flagged columns %d to %d, which the guide window's reads disturb", guide["xstart"], guide["xstop"] - 1)
    else:
        job.log.info("The guide window is not on the detector: %s", guide)

    decoded_amp33 = _decoded_amp33(job, raw, amp33.read(), reference_amp33, offset)
    edges = {"left": (shape[1], BORDER), "right": (shape[1], BORDER), "top": (BORDER, shape[2]), "bottom": (BORDER, shape[2])}
    border = {side: np.empty((shape[0], *size), np.float32) for side, size in edges.items()}
    for rows, side in ((slice(0, BORDER), "top"), (slice(shape[1] - BORDER, shape[1]), "bottom")):
        edge = counts.read_rows(rows.start, rows.stop)
        border[side][:] = decode_counts(edge, None if reference_read is None else reference_read[rows], offset)
    empty = EmptyArray(shape, np.float32)
    for side in ("left", "right"):
        border[side] = EmptyArray((shape[0], *edges[side]), np.float32)
    arrays = {
        "data": empty,
        "pixeldq": pixeldq,
        # A file made longer reads as zeros where nothing was written: no flags need no writing.
        "groupdq": EmptyArray(shape, np.uint8) if resultantdq is None else resultantdq,
        "amp33": decoded_amp33,
        **border_arrays(border, pixeldq),
    }
    with job.create(roman=ramp_tree(raw), arrays=arrays) as product:
        product.status = status

        def decode_rows(start, stop):
            raw_rows = counts.read_rows(start, stop)
            rows = decode_counts(raw_rows, None if reference_read is None else reference_read[start:stop], offset)
            product.write_rows("data", start, rows)
            product.write_rows("border_ref_pix_left", start, rows[:, :, :BORDER])
            product.write_rows("border_ref_pix_right", start, rows[:, :, -BORDER:])
            # Without an encoding, saturation sees such counts itself. The extremes take a tenth of the time of the flags.
            if not encoded or (raw_rows.min() > 0 and raw_rows.max() < LARGEST_RAW):
                return 0
            lost = flag_lost_counts(raw_rows)
            brought = 0 if resultantdq is None else resultantdq[:, start:stop]
            product.write_rows("groupdq", start, lost | brought)
            return np.count_nonzero(lost)

        lost = sum(job.map_rows(decode_rows, shape[1]))
        if lost:
            job.log.warning(
                "%d counts of data are 0 or 65535 in the encoded file: their values are lost, and they are flagged AD_FLOOR "
                "and DO_NOT_USE, or SATURATED",
                lost,
            )


def _warn_of_encoding(job, raw, offset, reference_read, reference_amp33) -> None:
    """Warn where the metadata and the arrays disagree on what was done for the downlink."""
    for name, read, other in (
        ("reference_read", reference_read, reference_amp33),
        ("reference_amp33", reference_amp33, reference_read),
    ):
        if read is None and (offset or other is not None):
            sign = f"meta.instrument.data_encoding_offset is {offset}" if offset else "the other reference read is there"
            job.log.warning(
                "%s: has no %s, though %s: nothing is added back; if a read was subtracted on board, counts are too low by it",
                raw.path.name,
                name,
                sign,
            )
        elif read is not None and not read.any():
            job.log.warning("%s: %s is zero everywhere: nothing is added back", raw.path.name, name)


def _decoded_amp33(job, raw, samples, reference_amp33, offset) -> np.ndarray:
    """Amplifier 33 decoded, with a word on what is lost."""
    decoded, at_limit, out_of_range = decode_amp33(samples, reference_amp33, offset)
    if at_limit or out_of_range:
        many = at_limit + out_of_range > FEW_LOST * decoded.size
        (job.log.warning if many or out_of_range else job.log.info)(
            "%s: %d samples of amp33 came as 0 or 65535 and %d decode to less than 0 or more than 65535 DN (offset %d): they "
            "count as missing (0), %.2g %% of all",
            raw.path.name,
            at_limit,
            out_of_range,
            offset,
            100 * (at_limit + out_of_range) / decoded.size,
        )
    return decoded


def _read_mask(job: Job, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask's flags, uint32, if there is a mask that fits."""
    if job.references["mask"] is None:
        job.log.warning("There is no mask reference: bad pixels are not flagged, and the step is marked SKIPPED")
        return None
    with job.open_reference("mask") as mask:
        flags = mask.array("dq").read()
        if flags.shape == shape:
            job.refuse_implausible("mask", "dq", float(np.mean(dqflags.has(flags, dqflags.DO_NOT_USE))))
    if flags.shape != shape:
        job.log.warning(
            "%s: dq has the shape %s, and the exposure %s: bad pixels are not flagged, and the step is marked SKIPPED",
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
