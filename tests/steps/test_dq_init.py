"""dq_init: decoded counts, guide window, mask, border arrays, statuses; invalid input."""

import dq_init
import numpy as np
import pytest
import ramp_fitting
import saturation
from dq_init import decode_amp33, flag_guide_window
from small_files import (
    COLUMNS,
    META,
    PATTERN,
    ROWS,
    arrays_of,
    every_reference,
    meta_of,
    opened,
    refuse,
    run_here,
    statuses,
    succeed,
    write_ramp,
    write_raw,
    write_reference,
)

from rampflow import dq as flags
from rampflow.dq import has as dq_has
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.data_models import data_model
from rampflow.files.models import check_product
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure
from rampflow.workflow.headers import read_header

SHAPE = (len(PATTERN), ROWS, COLUMNS)
GW, BAD = flags.GW_AFFECTED_DATA, flags.DO_NOT_USE


def counts(low=100, high=60000):
    return np.random.default_rng(1).integers(low, high, SHAPE).astype(np.uint16)


def window(x, y):
    names = ("xstart", "xstop", "ystart", "ystop")
    return {f"guide_star.window_{name}": value for name, value in zip(names, (*x, *y), strict=True)}


@pytest.fixture
def mask(tmp_path):
    """Flags of a mask reference, which lies in mask.asdf."""
    dq = np.random.default_rng(2).choice(np.array([0, 0, flags.HOT, flags.DEAD | BAD], np.uint32), SHAPE[1:])
    write_reference(tmp_path / "mask.asdf", dq=dq)
    return dq


def initialize(folder, *options, mask="mask.asdf"):
    mask = mask if mask == "N/A" else folder / mask
    return succeed("dq_init", folder / "in_uncal.asdf", folder / "out.asdf", "--mask", mask, *options)


# ------------------------------------------------------------------------------------------------------- ramps as input
def write_input_ramp(folder, meta=None, **arrays):
    """A ramp whose border arrays hold nothing, with random counts and flags; returns its data, groupdq and pixeldq."""
    rng = np.random.default_rng(6)
    data = (rng.integers(100, 60000, SHAPE) + 0.25).astype(np.float32)
    groupdq = rng.choice(np.array([0, 0, flags.DROPOUT, flags.JUMP_DET], np.uint8), SHAPE)
    pixeldq = rng.choice(np.array([0, 0, flags.PERSISTENCE, flags.OTHER_BAD_PIXEL], np.uint32), SHAPE[1:])
    write_ramp(folder / "in_ramp.asdf", data, meta, groupdq=groupdq, pixeldq=pixeldq, **arrays)
    return data, groupdq, pixeldq


def initialize_ramp(folder):
    return succeed("dq_init", folder / "in_ramp.asdf", folder / "out.asdf", "--mask", folder / "mask.asdf")


def test_a_ramp_keeps_its_counts_and_flags(tmp_path, mask):
    log = ["an earlier line"]
    meta = {**window((40, 56), (20, 36)), "cal_logs": log, "cal_step": statuses("dq_init", "saturation")}
    data, groupdq, pixeldq = write_input_ramp(tmp_path, meta)
    assert "in_ramp.asdf is a ramp: its flags are kept" in initialize_ramp(tmp_path).stderr
    expected = pixeldq | mask
    expected[:, 40:56] |= GW
    expected[20:36, 40:56] |= BAD
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_array_equal(model.data, data)
        np.testing.assert_array_equal(model.groupdq, groupdq)
        np.testing.assert_array_equal(model.pixeldq, expected)
        np.testing.assert_array_equal(model.dq_border_ref_pix_left, expected[:, :4])
        np.testing.assert_array_equal(model.border_ref_pix_bottom, data[:, -4:])
        assert dict(model.meta.cal_step.items()) == statuses("dq_init")
        assert list(model.meta.cal_logs)[0] == log[0] and len(model.meta.cal_logs) > 1
        assert model.meta.filename == "out.asdf"


@pytest.mark.parametrize("status", ["COMPLETE", "SKIPPED", "INCOMPLETE"])
def test_a_ramp_is_decoded_once(tmp_path, mask, status):
    meta = {"instrument.data_encoding_offset": 300, "cal_step": statuses() | {"dq_init": status}}
    reads = {"reference_read": np.full(SHAPE[1:], 4000, np.uint16), "reference_amp33": np.full((ROWS, 128), 900, np.uint16)}
    data, _, _ = write_input_ramp(tmp_path, meta, **reads)
    initialize_ramp(tmp_path)
    arrays = arrays_of(tmp_path / "out.asdf")
    added = 4000 - 300 if status == "INCOMPLETE" else 0
    np.testing.assert_array_equal(arrays["data"], data + np.float32(added))
    assert (arrays["amp33"] == (5000 + 900 - 300 if status == "INCOMPLETE" else 5000)).all()
    assert "reference_read" not in arrays and "reference_amp33" not in arrays


def test_what_dq_init_has_made_comes_out_the_same(tmp_path, mask):
    raw = counts()
    raw[2] = 65535  # lost, and replaced by a line
    write_raw(tmp_path / "in_uncal.asdf", raw, {"instrument.data_encoding_offset": 50, **window((40, 56), (20, 36))})
    initialize(tmp_path)
    first = arrays_of(tmp_path / "out.asdf")
    (tmp_path / "out.asdf").rename(tmp_path / "in_ramp.asdf")
    initialize_ramp(tmp_path)
    second = arrays_of(tmp_path / "out.asdf")
    assert first.keys() == second.keys() and dq_has(first["groupdq"][2], flags.DROPOUT).all()
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values, err_msg=name)


@pytest.mark.parametrize("tag", ["ramp-2.0.0", "ramp-2.1.0"])
def test_a_ramp_of_an_older_data_model_becomes_one_of_the_newest(tmp_path, mask, tag):
    """What the newest requires and the older one doesn't gets RAD's placeholders, as for raw exposures."""
    data, _, _ = write_input_ramp(tmp_path)
    (tmp_path / "in_ramp.asdf").rename(tmp_path / "model.asdf")
    with AsdfFile(tmp_path / "model.asdf") as file:
        roman = tagged(file.tree["roman"], ROMAN_PREFIX + tag)
        with create_asdf(tmp_path / "in_ramp.asdf", {**file.tree, "roman": roman}, file.standard):
            pass
    assert not read_header(tmp_path / "in_ramp.asdf", "1.2")["refusals"]
    succeed("dq_init", tmp_path / "in_ramp.asdf", tmp_path / "out.asdf", "--mask", tmp_path / "mask.asdf", "--data_model=1.2")
    check_product(tmp_path / "out.asdf", "RampModel")
    with AsdfFile(tmp_path / "out.asdf") as file:
        ramp = Exposure(file)
        assert ROMAN_PREFIX + ramp.tag == data_model("1.2").ramp
        assert (ramp.meta["visit"]["wfi_acm_z_defocus_size"], ramp.meta["ref_file"]["bam"]) == (-999999.0, "?")
        np.testing.assert_array_equal(ramp.array("data").read(), data)


def test_a_ramp_that_lacks_what_its_own_data_model_requires_is_refused(tmp_path, mask):
    write_input_ramp(tmp_path)
    with AsdfFile(tmp_path / "in_ramp.asdf") as file:
        del file.tree["roman"]["meta"]["visit"]["nexposures"]
        with create_asdf(tmp_path / "bad_ramp.asdf", file.tree, file.standard):
            pass
    for model in ("1.1", "1.2"):
        assert "meta.visit.nexposures is missing" in read_header(tmp_path / "bad_ramp.asdf", model)["refusals"]["dq_init"]


@pytest.mark.parametrize("step", ["refpix", "dark_decay", "wfi18_transient", "linearity"])
def test_a_ramp_that_is_corrected_already_is_refused(tmp_path, mask, step):
    write_input_ramp(tmp_path, {"cal_step": statuses("dq_init", "saturation", step)})
    said = refuse("dq_init", tmp_path / "out.asdf", tmp_path / "in_ramp.asdf", tmp_path / "out.asdf", "--mask=N/A")
    assert f"in_ramp.asdf: {step} changed the counts of this ramp already" in said


def test_a_ramp_whose_arrays_do_not_fit_is_refused(tmp_path, mask):
    write_input_ramp(tmp_path)
    with AsdfFile(tmp_path / "in_ramp.asdf") as file:
        file.tree["roman"]["pixeldq"] = np.zeros((5, 5), np.uint32)
        with create_asdf(tmp_path / "bad.asdf", file.tree):
            pass
    said = refuse("dq_init", tmp_path / "out.asdf", tmp_path / "bad.asdf", tmp_path / "out.asdf", "--mask=N/A")
    assert "bad.asdf: pixeldq has the shape (5, 5)" in said


# ---------------------------------------------------------------------------------------------------------- the product
@pytest.mark.parametrize("threads", [1, 3])
def test_a_raw_exposure_becomes_a_valid_ramp(tmp_path, mask, threads):
    raw = counts()
    amp33 = np.random.default_rng(3).integers(4000, 6000, (*SHAPE[:2], 128)).astype(np.uint16)
    write_raw(tmp_path / "in_uncal.asdf", raw, amp33=amp33)
    initialize(tmp_path, f"--threads={threads}")
    with opened(tmp_path / "out.asdf") as model:
        assert type(model).__name__ == model.meta.model_type == "RampModel"
        assert (model.data.dtype, model.groupdq.dtype, model.pixeldq.dtype) == (np.float32, np.uint8, np.uint32)
        np.testing.assert_array_equal(model.data, raw)
        np.testing.assert_array_equal(model.pixeldq, mask)
        np.testing.assert_array_equal(model.amp33, amp33)
        assert model.groupdq.shape == SHAPE and not model.groupdq.any()
        statuses = dict(model.meta.cal_step.items())
        assert statuses.pop("dq_init") == "COMPLETE"
        assert set(statuses.values()) == {"INCOMPLETE"} and len(statuses) == 15
        assert [list(reads) for reads in model.meta.exposure.read_pattern] == PATTERN


def test_the_border_arrays_hold_the_border_with_its_corners(tmp_path, mask):
    raw = counts()
    write_raw(tmp_path / "in_uncal.asdf", raw, **{"reference_read": np.full(SHAPE[1:], 7, np.uint16)})
    initialize(tmp_path)
    arrays = arrays_of(tmp_path / "out.asdf")
    sides = {"left": np.s_[..., :4], "right": np.s_[..., 252:], "top": np.s_[..., :4, :], "bottom": np.s_[..., 68:, :]}
    for side, place in sides.items():
        np.testing.assert_array_equal(arrays[f"border_ref_pix_{side}"], raw[place].astype(np.float32) + 7)
        np.testing.assert_array_equal(arrays[f"dq_border_ref_pix_{side}"], mask[place])
        assert arrays[f"border_ref_pix_{side}"].dtype == np.float32
        assert arrays[f"dq_border_ref_pix_{side}"].dtype == np.uint32


@pytest.mark.parametrize("offset", [None, 0, 1000])
@pytest.mark.parametrize("with_reads", [False, True])
def test_the_downlink_encoding_is_undone(tmp_path, mask, offset, with_reads):
    raw, rng = counts(high=65536), np.random.default_rng(4)
    reference_read = rng.integers(2000, 9000, SHAPE[1:]).astype(np.uint16)
    reference_amp33 = rng.integers(2000, 9000, (ROWS, 128)).astype(np.uint16)
    reads = {"reference_read": reference_read, "reference_amp33": reference_amp33} if with_reads else {}
    meta = {} if offset is None else {"instrument.data_encoding_offset": offset}
    write_raw(tmp_path / "in_uncal.asdf", raw, meta, **reads)
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as model:
        # More than 16 bits: nothing may wrap around.
        expected = raw.astype(float) - (offset or 0) + (reference_read if with_reads else 0)
        np.testing.assert_array_equal(model.data, expected)
        decoded = np.full((*SHAPE[:2], 128), 5000) - (offset or 0) + (reference_amp33 if with_reads else 0)
        np.testing.assert_array_equal(model.amp33, decoded)
        assert model.amp33.dtype == np.uint16
        assert "reference_read" not in model and "reference_amp33" not in model


FLOOR = flags.AD_FLOOR | BAD


@pytest.mark.parametrize("brought", [False, True])
@pytest.mark.parametrize("encoding", ["offset", "reference_read"])
def test_lost_counts_of_an_encoded_exposure_are_flagged(tmp_path, mask, encoding, brought):
    # Decoded, a raw 0 would be 4000 DN, and a raw 65535 any count from there on.
    raw = counts()
    raw[2, 30, 40] = raw[:, 50, 60] = 0
    raw[3:, 31, 41] = 65535
    reads = {"reference_read": np.full(SHAPE[1:], 4000, np.uint16), "reference_amp33": np.full((ROWS, 128), 10, np.uint16)}
    before = np.zeros(SHAPE, np.uint8)
    if brought:
        before[2, 30, 40], before[4, 10, 10] = flags.DROPOUT, flags.JUMP_DET
        reads["resultantdq"] = before
    meta = {"instrument.data_encoding_offset": 300} if encoding == "offset" else {}
    write_raw(tmp_path / "in_uncal.asdf", raw, meta, **reads)
    said = initialize(tmp_path, "--threads=2").stderr
    expected = before.copy()
    expected[2, 30, 40] |= FLOOR
    expected[:, 50, 60] |= FLOOR
    expected[3:, 31, 41] |= flags.SATURATED
    np.testing.assert_array_equal(arrays_of(tmp_path / "out.asdf")["groupdq"], expected)
    assert f"{1 + len(PATTERN) + len(PATTERN) - 3} counts of data are 0 or 65535" in said


def test_counts_without_encoding_get_no_flag_for_lost_data(tmp_path, mask):
    raw = counts()
    raw[2, 30, 40], raw[3:, 31, 41] = 0, 65535
    write_raw(tmp_path / "in_uncal.asdf", raw, {"instrument.data_encoding_offset": 0})
    said = initialize(tmp_path).stderr
    assert "WARNING" not in said
    arrays = arrays_of(tmp_path / "out.asdf")
    assert not arrays["groupdq"].any()
    np.testing.assert_array_equal(arrays["data"], raw)


def test_reference_pixels_that_are_lost_in_an_encoded_file_decode_to_zero(tmp_path, mask):
    raw = counts()
    raw[2, 20:30, 1] = 0
    raw[3, 2, 70:90] = 65535
    write_raw(tmp_path / "in_uncal.asdf", raw, {"instrument.data_encoding_offset": 50})
    initialize(tmp_path)
    arrays = arrays_of(tmp_path / "out.asdf")
    expected = raw - np.float32(50)
    expected[2, 20:30, 1] = expected[3, 2, 70:90] = 0
    np.testing.assert_array_equal(arrays["data"], expected)
    np.testing.assert_array_equal(arrays["border_ref_pix_left"], expected[..., :4])
    np.testing.assert_array_equal(arrays["border_ref_pix_top"], expected[:, :4])
    assert (arrays["groupdq"][2, 20:30, 1] == FLOOR).all() and (arrays["groupdq"][3, 2, 70:90] == flags.SATURATED).all()


@pytest.mark.parametrize("offset", [0, 300])
@pytest.mark.parametrize(
    ("values", "lost"),
    [
        ({}, []),
        ({2: 0}, [2]),
        ({0: 0}, [0]),
        ({2: 12345}, [2]),
        ({1: 65535, 3: 0}, [1, 3]),
        ({5: 0}, [5]),
        ({5: 7}, [5]),
        ({4: 65535, 5: 65535}, []),  # saturated until the end
        ({3: 65535, 4: 65535, 5: 65535, 0: 0}, [0]),
        (dict.fromkeys(range(6), 5000), range(6)),
    ],
)
def test_lost_resultants_are_flagged_and_replaced(tmp_path, mask, values, lost, offset):
    reads = np.array([np.mean(reads) for reads in PATTERN])
    raw = np.random.default_rng(1).integers(2000, 3000, SHAPE[1:]) + np.rint(400 * reads)[:, None, None]
    expected = raw - offset
    for resultant, value in values.items():
        raw[resultant] = value
        raw[resultant, 30, 40] = 5000  # one pixel doesn't make it a good one
        expected[resultant] = raw[resultant] - offset
    write_raw(tmp_path / "in_uncal.asdf", raw, {"instrument.data_encoding_offset": offset})
    said = initialize(tmp_path)
    arrays = arrays_of(tmp_path / "out.asdf")
    there = [i for i in range(6) if i not in lost]
    if len(there) > 1:
        for i in lost:
            # The first of two that are there lies before it, unless none does.
            one = max([j for j in there if j < i], default=there[0])
            one, two = (one, next((j for j in there if j > one), None))
            one, two = (one, two) if two is not None else there[-2:]
            slope = (expected[two] - expected[one]) / (reads[two] - reads[one])
            expected[i] = expected[one] + slope * (reads[i] - reads[one])
    if offset:  # a reference pixel that is lost in an encoded file decodes to zero
        border = np.ones(SHAPE[1:], bool)
        border[4:-4, 4:-4] = False
        for i in there:
            expected[i][border & (raw[i] == 65535)] = 0
    np.testing.assert_allclose(arrays["data"], expected, atol=0.01)
    for side, index in {"top": np.s_[:, :4], "bottom": np.s_[:, -4:], "left": np.s_[..., :4]}.items():
        np.testing.assert_array_equal(arrays[f"border_ref_pix_{side}"], arrays["data"][index])
    assert (arrays["groupdq"][lost] == (flags.DROPOUT | BAD)).all()
    assert not dq_has(arrays["groupdq"], flags.DROPOUT)[there].any()
    lines = [line for line in said.stderr.splitlines() if "one value for all pixels" in line]
    assert len(lines) == (len(lost) > 0)
    assert all(f"(resultants from 1: {', '.join(str(i + 1) for i in lost)})" in line for line in lines)


def test_rows_of_a_resultant_that_are_lost_are_flagged(tmp_path, mask):
    data = counts()
    data[3, 16:64] = 65535
    write_raw(tmp_path / "in_uncal.asdf", data)
    said = initialize(tmp_path).stderr
    assert "(resultants from 1: 4 in 60% of the rows)" in said
    arrays = arrays_of(tmp_path / "out.asdf")
    expected = np.zeros(SHAPE, np.uint8)
    expected[3, 16:64] = flags.DROPOUT | BAD
    np.testing.assert_array_equal(arrays["groupdq"], expected)
    np.testing.assert_array_equal(arrays["data"][expected == 0], data[expected == 0])


@pytest.mark.parametrize(("resultant", "value"), [(0, 65535), (2, 0), (2, 65535), (3, 12345), (5, 65535), (5, 0)])
def test_slopes_of_a_ramp_with_a_lost_resultant_are_those_of_the_others(tmp_path, resultant, value):
    """From the raw file to the image: no value of a lost resultant gets into a count rate that is good."""
    rng = np.random.default_rng(1)
    shape = (PATTERN[-1][-1], *SHAPE[1:])
    reads = np.cumsum(rng.poisson(120, shape), axis=0) / 2 + rng.normal(0, 6, shape)
    resultants = np.array([reads[np.array(group) - 1].mean(axis=0) for group in PATTERN])
    raw = np.rint(resultants + rng.integers(2000, 3000, SHAPE[1:]))
    raw[resultant] = value
    write_raw(tmp_path / "in_uncal.asdf", raw)
    references = every_reference(tmp_path)
    frame = np.ones(SHAPE[1:], np.float32)
    references["readnoise"] = write_reference(tmp_path / "readnoise.asdf", data=6 * frame)
    references["gain"] = write_reference(tmp_path / "gain.asdf", data=2 * frame)
    run_here(dq_init, tmp_path / "in_uncal.asdf", tmp_path / "1.asdf", "--mask", references["mask"])
    run_here(saturation, tmp_path / "1.asdf", tmp_path / "2.asdf", "--saturation", references["saturation"])
    noise = ["--readnoise", references["readnoise"], "--gain", references["gain"]]
    run_here(ramp_fitting, tmp_path / "2.asdf", tmp_path / "3.asdf", *noise)
    image = arrays_of(tmp_path / "3.asdf")
    # The last resultant at 65535 may be a saturated one: it isn't used, and all pixels say so.
    good = image["dq"] == (flags.SATURATED if (resultant, value) == (5, 65535) else 0)
    assert good.mean() > 0.98
    rate = 60 / META["exposure.frame_time"]
    slopes = image["data"][good]
    assert abs(slopes.mean() / rate - 1) < 0.002
    pulls = (slopes - rate) / image["err"][good].astype(float)
    assert 0.97 < pulls.std() < 1.03
    assert np.abs(pulls).max() < 6


def test_amp33_never_wraps_around():
    raw = np.array([0, 1, 99, 100, 5000, 65534, 65535], np.uint16)[None, None, :]
    samples, at_limit, out_of_range = decode_amp33(raw, None, 100)
    np.testing.assert_array_equal(samples[0, 0], [0, 0, 0, 0, 4900, 65434, 0])  # 100 decodes to 0 itself
    assert (at_limit, out_of_range, samples.dtype) == (2, 2, np.uint16)
    samples, at_limit, out_of_range = decode_amp33(raw, np.full((1, 7), 60000, np.uint16), 100)
    np.testing.assert_array_equal(samples[0, 0], [0, 59901, 59999, 60000, 64900, 0, 0])
    assert (at_limit, out_of_range) == (2, 1)
    samples, *lost = decode_amp33(raw, None, 0)  # not encoded
    np.testing.assert_array_equal(samples, raw)
    assert lost == [0, 0]


def test_amp33_below_the_encoding_offset_gives_a_warning(tmp_path, mask):
    amp33 = np.full((*SHAPE[:2], 128), 5000, np.uint16)
    amp33[1, 20:25] = 40
    reads = {"reference_read": np.full(SHAPE[1:], 10, np.uint16), "reference_amp33": np.full((ROWS, 128), 10, np.uint16)}
    write_raw(tmp_path / "in_uncal.asdf", counts(), {"instrument.data_encoding_offset": 100}, amp33=amp33, **reads)
    said = initialize(tmp_path).stderr
    assert "0 samples of amp33 are 0 or 65535 in the encoded file, and 640 decode to less than 0" in said
    expected = np.full_like(amp33, 4910)
    expected[1, 20:25] = 0
    np.testing.assert_array_equal(arrays_of(tmp_path / "out.asdf")["amp33"], expected)


@pytest.mark.parametrize(
    ("offset", "reads", "messages"),
    [
        (300, {}, ["has no reference_read, although meta.instrument.data_encoding_offset is 300", "has no reference_amp33"]),
        (0, {"reference_read": 7}, ["has no reference_amp33, although it has the other reference read"]),
        (300, {"reference_read": 0, "reference_amp33": 7}, ["reference_read is zero everywhere"]),
        (300, {"reference_read": 7, "reference_amp33": 7}, []),
        (0, {}, []),
    ],
)
def test_an_encoding_without_its_reference_read_gives_a_warning(tmp_path, mask, offset, reads, messages):
    shapes = {"reference_read": SHAPE[1:], "reference_amp33": (ROWS, 128)}
    arrays = {name: np.full(shapes[name], value, np.uint16) for name, value in reads.items()}
    write_raw(tmp_path / "in_uncal.asdf", counts(), {"instrument.data_encoding_offset": offset}, **arrays)
    warnings = [line for line in initialize(tmp_path).stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == len(messages)
    for line, message in zip(warnings, messages, strict=True):
        assert message in line


def test_resultantdq_of_the_file_becomes_groupdq(tmp_path, mask):
    brought = np.random.default_rng(5).choice(np.array([0, flags.DROPOUT], np.uint8), SHAPE)
    write_raw(tmp_path / "in_uncal.asdf", counts(), resultantdq=brought)
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_array_equal(model.groupdq, brought)
        assert "resultantdq" not in model


@pytest.mark.parametrize(("given", "expected"), [(True, "True"), (False, None), (None, None), ("cosmic", "cosmic")])
def test_a_boolean_data_problem_becomes_text(tmp_path, mask, given, expected):
    write_raw(tmp_path / "in_uncal.asdf", counts(), {"exposure.data_problem": given})
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.exposure.data_problem == expected


def test_statuses_and_logs_of_earlier_processing_are_removed(tmp_path, mask):
    write_raw(tmp_path / "in_uncal.asdf", counts(), {"cal_step": {"linearity": "COMPLETE"}, "cal_logs": ["old"]})
    initialize(tmp_path)
    meta = meta_of(tmp_path / "out.asdf")
    assert meta["cal_step"]["linearity"] == "INCOMPLETE"
    assert "old" not in meta["cal_logs"]


# -------------------------------------------------------------------------------------------------------- guide window
def test_columns_and_box_of_the_guide_window_are_flagged(tmp_path, mask):
    write_raw(tmp_path / "in_uncal.asdf", counts(), window((100, 116), (20, 36)))
    initialize(tmp_path)
    expected = mask.copy()
    expected[:, 100:116] |= GW
    expected[20:36, 100:116] |= BAD
    np.testing.assert_array_equal(arrays_of(tmp_path / "out.asdf")["pixeldq"], expected)


def test_the_box_grows_and_the_columns_do_not(tmp_path, mask):
    write_raw(tmp_path / "in_uncal.asdf", counts(), window((2, 6), (66, 70)))
    initialize(tmp_path, "--expand_gw_flagging=5")
    expected = mask.copy()
    expected[:, 2:6] |= GW
    expected[61:, 0:11] |= GW | BAD
    np.testing.assert_array_equal(arrays_of(tmp_path / "out.asdf")["pixeldq"], expected)


@pytest.mark.parametrize("x", [(-1, 10), (256, 272), (-999999, -999999)])
def test_a_window_that_begins_outside_flags_nothing(x):
    for axes in (((x), (5, 10)), ((5, 10), x)):
        pixeldq = np.zeros((200, 256), np.uint32)
        assert not flag_guide_window(pixeldq, *axes, expand=3)
        assert not pixeldq.any()


def test_a_window_that_ends_outside_is_cut():
    pixeldq = np.zeros((72, 256), np.uint32)
    assert flag_guide_window(pixeldq, (250, 300), (70, 100))
    expected = np.zeros_like(pixeldq)
    expected[:, 250:] = GW
    expected[70:, 250:] |= BAD
    np.testing.assert_array_equal(pixeldq, expected)
    pixeldq[:] = 0
    assert flag_guide_window(pixeldq, (10, -999999), (10, -999999))
    assert not pixeldq.any()


# ----------------------------------------------------------------------------------------------------------------- mask
def test_without_a_mask_the_ramp_is_made_and_the_step_is_skipped(tmp_path):
    raw = counts()
    write_raw(tmp_path / "in_uncal.asdf", raw, window((100, 116), (20, 36)))
    said = initialize(tmp_path, mask="N/A").stderr
    assert "WARNING" in said and "no mask" in said
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step.dq_init == "SKIPPED" and model.meta.ref_file.mask == "N/A"
        np.testing.assert_array_equal(model.data, raw)
        assert model.pixeldq[0, 100] == GW and model.pixeldq[20, 100] == GW | BAD


def test_references_named_by_the_raw_file_are_not_recorded_as_used(tmp_path):
    named = {"ref_file.flat": "crds://roman_wfi_flat_0009.asdf", "ref_file.dark": "crds://roman_wfi_dark_0009.asdf"}
    write_raw(tmp_path / "in_uncal.asdf", counts(), named | {"ref_file.area": "?"})
    write_reference(tmp_path / "mask.asdf", dq=np.zeros((ROWS, COLUMNS), np.uint32))
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as model:
        assert (model.meta.ref_file.flat, model.meta.ref_file.dark, model.meta.ref_file.area) == ("N/A", "N/A", "?")
        assert model.meta.ref_file.mask == str(tmp_path / "mask.asdf")


def test_a_mask_of_another_shape_is_left_out(tmp_path):
    write_raw(tmp_path / "in_uncal.asdf", counts())
    write_reference(tmp_path / "mask.asdf", dq=np.ones((ROWS, COLUMNS + 1), np.uint32))
    said = initialize(tmp_path).stderr
    assert "WARNING" in said and "(72, 257)" in said
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step.dq_init == "SKIPPED"
        assert not model.pixeldq.any()


# -------------------------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resultantdq": np.zeros((6, 71, 256), np.uint8)}, "resultantdq has the shape (6, 71, 256)"),
        ({"reference_read": np.zeros((72, 128), np.uint16)}, "reference_read has the shape (72, 128)"),
        ({"reference_amp33": np.zeros((72, 256), np.uint16)}, "reference_amp33 has the shape (72, 256)"),
        ({"amp33": np.zeros((6, 71, 128), np.uint16)}, "amp33 has the shape (6, 71, 128)"),
        ({"meta": {"exposure.read_pattern": PATTERN[:-1]}}, "lists 5 resultants and data has 6"),
        ({"meta": {"exposure.frame_time": -1.0}}, "frame_time is -1.0"),
        ({"meta": {"instrument.detector": "WFI19"}}, "'WFI19'"),
        ({"meta": {"guide_star": ...}}, "meta.guide_star.window_xstart is missing"),
        ({"data": np.zeros((6, 72, 200), np.uint16)}, "columns a multiple of 128"),
    ],
)
def test_an_inconsistent_exposure_is_refused(tmp_path, mask, wrong, message):
    write_raw(tmp_path / "in_uncal.asdf", **{"data": counts(), **wrong})
    said = refuse("dq_init", tmp_path / "out.asdf", tmp_path / "in_uncal.asdf", tmp_path / "out.asdf", "--mask",
                  tmp_path / "mask.asdf")  # fmt: skip
    assert "in_uncal.asdf: " in said and message in said
