"""Compare the steps from dq_init to flatfield with romancal's step functions, on the same arrays and files."""

from types import SimpleNamespace

import numpy as np
import pytest
import small_files
from dark_current import subtract_dark_current
from dark_decay import decay_factors, subtract_dark_decay
from roman_datamodels import datamodels
from saturation import checked_thresholds, flag_saturated
from simulator.simulate_references import Detector, make_distortion
from small_files import FRAME_TIME, PATTERN, image, succeed, write_image, write_ramp, write_raw, write_reference
from wfi18_transient import mask_affected_rows

from rampflow import dq as flags
from rampflow.detector import SCIENCE, mean_reads, pixel_read_times
from rampflow.transient import double_exponential, fit_transient, transient_by_row
from rampflow.wcs.building import build_wcs

pytest.importorskip("romancal")

pytestmark = pytest.mark.peer

SIZE = 256


def check_same(ours, theirs, names):
    for name in names:
        np.testing.assert_array_equal(np.asarray(ours[name]), np.asarray(theirs[name]), err_msg=name)
        assert ours[name].dtype == theirs[name].dtype, name


# -------------------------------------------------------------------------------------------------------------- dq_init
@pytest.mark.parametrize("expand", [0, 3])
@pytest.mark.parametrize("window", [None, (40, 56, 100, 116), (1, 17, 250, 256), (250, 266, 2, 18), (300, 316, 10, 26)])
@pytest.mark.parametrize("full", [False, True])
def test_dq_init(tmp_path, window, expand, full):
    from romancal.dq_init.dq_initialization import do_dqinit

    rng, shape = np.random.default_rng(1), (len(PATTERN), SIZE, SIZE)
    meta, extra = {}, {}
    if window:
        meta = dict(zip((f"guide_star.window_{k}" for k in ("xstart", "xstop", "ystart", "ystop")), window, strict=True))
    if full:
        meta["instrument.data_encoding_offset"] = 300
        extra = {
            "reference_read": rng.integers(1000, 5000, shape[1:]).astype(np.uint16),
            "reference_amp33": rng.integers(1000, 5000, (SIZE, 128)).astype(np.uint16),
            "resultantdq": rng.choice(np.array([0, flags.DROPOUT], np.uint8), shape),
        }
    # An encoded count at the limits of its 16 bits is lost: romancal takes it for a count.
    write_raw(
        tmp_path / "in_uncal.asdf", rng.integers(1, 65535, shape) if full else rng.integers(0, 65536, shape), meta, **extra
    )
    mask_dq = rng.choice(np.array([0, 0, flags.DEAD, flags.HOT | flags.DO_NOT_USE], np.uint32), shape[1:])
    write_reference(tmp_path / "mask.asdf", dq=mask_dq)
    mask = datamodels.MaskRefModel.create_fake_data(shape=shape[1:])
    mask.dq = mask_dq
    with datamodels.open(tmp_path / "in_uncal.asdf") as raw:
        theirs = do_dqinit(raw, mask, expand_gw_flagging=expand)
        succeed("dq_init", tmp_path / "in_uncal.asdf", tmp_path / "out.asdf", f"--mask={tmp_path / 'mask.asdf'}",
                f"--expand_gw_flagging={expand}")  # fmt: skip
        with datamodels.open(tmp_path / "out.asdf") as ours:
            borders = [f"{dq}border_ref_pix_{side}" for dq in ("", "dq_") for side in ("left", "right", "top", "bottom")]
            check_same(ours, theirs, ["data", "groupdq", "pixeldq", "amp33", *borders])
            assert dict(ours.meta.cal_step.items()) == dict(theirs.meta.cal_step.items())


@pytest.mark.parametrize("window", [None, (40, 56, 100, 116)])
@pytest.mark.parametrize("encoded", [False, True])
def test_dq_init_of_a_ramp(tmp_path, window, encoded):
    from romancal.dq_init.dq_initialization import do_dqinit

    rng, shape = np.random.default_rng(1), (len(PATTERN), SIZE, SIZE)
    meta, extra = {"cal_step": small_files.statuses()}, {}
    if window:
        meta |= dict(zip((f"guide_star.window_{k}" for k in ("xstart", "xstop", "ystart", "ystop")), window, strict=True))
    if encoded:
        meta["instrument.data_encoding_offset"] = 300
        extra = {
            "reference_read": rng.integers(1000, 5000, shape[1:]).astype(np.uint16),
            "reference_amp33": rng.integers(1000, 5000, (SIZE, 128)).astype(np.uint16),
        }
    pixeldq = rng.choice(np.array([0, 0, flags.PERSISTENCE, flags.OTHER_BAD_PIXEL], np.uint32), shape[1:])
    groupdq = rng.choice(np.array([0, flags.DROPOUT], np.uint8), shape)
    data = rng.integers(1, 65535, shape) + 0.5
    write_ramp(tmp_path / "in_ramp.asdf", data, meta, groupdq=groupdq, pixeldq=pixeldq, **extra)
    mask_dq = rng.choice(np.array([0, 0, flags.DEAD, flags.HOT | flags.DO_NOT_USE], np.uint32), shape[1:])
    write_reference(tmp_path / "mask.asdf", dq=mask_dq)
    mask = datamodels.MaskRefModel.create_fake_data(shape=shape[1:])
    mask.dq = mask_dq
    succeed("dq_init", tmp_path / "in_ramp.asdf", tmp_path / "out.asdf", f"--mask={tmp_path / 'mask.asdf'}")
    with datamodels.open(tmp_path / "in_ramp.asdf") as ramp:
        theirs = do_dqinit(ramp, mask)
        if window:  # romancal replaces the ramp's flags in the columns of the window
            columns = slice(*window[:2])
            theirs.pixeldq[:, columns] |= pixeldq[:, columns]
            theirs.dq_border_ref_pix_top[:, columns] |= pixeldq[:4, columns]
            theirs.dq_border_ref_pix_bottom[:, columns] |= pixeldq[-4:, columns]
        with datamodels.open(tmp_path / "out.asdf") as ours:
            borders = [f"{dq}border_ref_pix_{side}" for dq in ("", "dq_") for side in ("left", "right", "top", "bottom")]
            check_same(ours, theirs, ["data", "groupdq", "pixeldq", "amp33", *borders])
            assert dict(ours.meta.cal_step.items()) == dict(theirs.meta.cal_step.items())


# ----------------------------------------------------------------------------------------------------------- saturation
PATTERNS = {"mixed": PATTERN, "long": [[1, 2], [3, 4, 5, 6], [7, 8, 9, 10], [11], [12, 14, 16], [20, 21]], "two": [[1], [2, 3]]}


@pytest.mark.parametrize("backup", [0, 2])
@pytest.mark.parametrize("grow", [0, 1, 3])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_saturation(pattern, grow, backup):
    from romancal.saturation.saturation import flag_saturation

    reads, rng = PATTERNS[pattern], np.random.default_rng(2)
    shape = (len(reads), 60, 80)
    rate = rng.uniform(0, 300, shape[1:])
    bright = rng.random(shape[1:]) < 0.05
    rate[bright] = rng.uniform(500, 20000, bright.sum())
    data = (1000 + rate * mean_reads(reads)[:, None, None]).clip(0, 65000)
    hit = rng.random(shape[1:]) < 0.03
    for at in range(1, len(reads)):
        data[at:, hit & (rng.integers(1, len(reads), shape[1:]) == at)] += rng.uniform(20000, 70000)
    data[rng.random(shape) < 0.002] = 0
    data = data.astype(np.float32)
    threshold = rng.uniform(45000, 60000, shape[1:]).astype(np.float32)
    threshold[rng.random(shape[1:]) < 0.02] = np.nan
    threshold_dq = rng.choice(np.array([0, flags.NO_SAT_CHECK, flags.HOT], np.uint32), shape[1:], p=[0.9, 0.05, 0.05])
    groupdq = rng.choice(np.array([0, flags.DO_NOT_USE], np.uint8), shape, p=[0.98, 0.02])
    pixeldq = rng.choice(np.array([0, flags.DEAD], np.uint32), shape[1:])

    ramp = datamodels.RampModel.create_fake_data(shape=shape)
    ramp.data, ramp.groupdq, ramp.pixeldq = data.copy(), groupdq.copy(), pixeldq.copy()
    ramp.meta.exposure.read_pattern = reads
    reference = datamodels.SaturationRefModel.create_fake_data(shape=shape[1:])
    reference.data, reference.dq = threshold.copy(), threshold_dq.copy()
    theirs = flag_saturation(ramp, reference, n_pix_grow_sat=grow, backup=backup)

    limits, limits_dq = checked_thresholds(threshold, threshold_dq)
    ours = groupdq.copy()
    flag_saturated(data, ours, limits, reads, n_pix_grow_sat=grow, backup=backup)
    np.testing.assert_array_equal(ours, theirs.groupdq)
    np.testing.assert_array_equal(pixeldq | limits_dq, theirs.pixeldq)
    assert (ours & flags.SATURATED).any() and (ours & flags.AD_FLOOR).any()


# ----------------------------------------------------------------------------------- dark decay and the WFI18 transient
@pytest.mark.parametrize("detector", [1, 2, 3, 18])
def test_read_times(detector):
    from romancal.lib.basic_utils import frame_read_times

    theirs = frame_read_times(FRAME_TIME, detector)
    np.testing.assert_allclose(pixel_read_times((4096, 4096), FRAME_TIME, detector), theirs, rtol=1e-13, atol=1e-13)


def test_dark_decay():
    from romancal.dark_decay.dark_decay import subtract_dark_decay as subtract_theirs

    pattern, amplitude, time_constant = [[1], [2, 3, 4]], 3.5, 21.0
    data = np.full((2, 4096, 4096), 1000, np.float32)
    data += np.arange(4096, dtype=np.float32)
    theirs = data.copy()
    subtract_theirs(theirs, amplitude, time_constant, FRAME_TIME, pattern, 7)
    decay = amplitude * np.exp(-pixel_read_times((4096, 4096), FRAME_TIME, 7) / time_constant)
    before = data.copy()
    subtract_dark_decay(data, decay, decay_factors(time_constant, FRAME_TIME, pattern))
    assert np.abs(data - before).min() > 0.5
    # The order of a mean's sums decides the last digit of float32 counts.
    np.testing.assert_allclose(data, theirs, atol=5e-4)


def full_transient():
    """The science pixels' first five resultants of a full WFI18 with the transient, and their read times."""
    rng = np.random.default_rng(3)
    times = pixel_read_times((4096, 4096), FRAME_TIME, 18)[SCIENCE]
    data = np.empty((5, 4096, 4096), np.float32)
    # romancal compares each pixel with the median of the row that has the pixel's column as its number: so that this is the
    # median of its own row, the light between the fourth and the fifth resultant is the same in all rows.
    rate = np.sort(rng.uniform(1, 3, 4096)).astype(np.float32)
    for resultant, read in enumerate(mean_reads(PATTERN)[:5]):
        data[resultant] = 1000 + rate * np.float32(read)
    data[:3] += rng.normal(0, 4, (3, 4096, 4096)).astype(np.float32)
    data[0][SCIENCE] += double_exponential(times, 60, -6, 0.22, 0.79)
    return data, times


def test_wfi18_transient():
    from romancal.wfi18_transient.wfi18_transient import correct_anomaly

    data, times = full_transient()
    exposure = SimpleNamespace(frame_time=FRAME_TIME, read_pattern=PATTERN[:5])
    theirs = SimpleNamespace(
        data=data.copy(), groupdq=np.zeros((1, 4096, 8), np.uint8), meta=SimpleNamespace(exposure=exposure)
    )
    correct_anomaly(theirs)
    assert not theirs.groupdq.any()
    transient = transient_by_row(data[SCIENCE], mean_reads(PATTERN[:5]) * FRAME_TIME)
    ours = double_exponential(times, *fit_transient(times.mean(axis=1), transient))
    removed = (data[0] - theirs.data[0])[SCIENCE]
    assert removed.max() > 30
    # The mean of float32 residuals and of float64 ones: the fit shows it in the third digit after the point.
    np.testing.assert_allclose(ours, removed, atol=2e-3)
    np.testing.assert_array_equal(theirs.data[1:], data[1:])


def test_masked_rows():
    from romancal.wfi18_transient.wfi18_transient import mask_affected_rows as mask_theirs

    groupdq = np.random.default_rng(4).choice(np.array([0, flags.SATURATED], np.uint8), (2, 4096, 8))
    theirs = groupdq.copy()
    mask_theirs(theirs)
    mask_affected_rows(groupdq[0])
    np.testing.assert_array_equal(groupdq, theirs)


# --------------------------------------------------------------------------------------------------------------- images
def test_dark_current():
    from romancal.dark_current.dark_current_step import subtract_dark_current as subtract_theirs

    rng, frame, shape = np.random.default_rng(5), (SIZE, SIZE), (SIZE - 8, SIZE - 8)
    theirs = datamodels.ImageModel.create_fake_data(shape=shape)
    theirs.meta["cal_step"] = small_files.statuses()
    theirs.data, theirs.dq = image(*shape), rng.choice(np.array([0, flags.HOT], np.uint32), shape)
    dark = datamodels.DarkRefModel.create_fake_data(shape=(2, *frame))
    dark.dark_slope = rng.normal(0, 1, frame).astype(np.float32)
    dark.dq = rng.choice(np.array([0, flags.DO_NOT_USE], np.uint32), frame)
    data, dq = subtract_dark_current(theirs.data.copy(), theirs.dq.copy(), dark.dark_slope, dark.dq)
    subtract_theirs(theirs, dark)
    check_same({"data": data, "dq": dq}, theirs, ("data", "dq"))


def distortion(folder):
    model = next(iter(make_distortion(Detector("WFI07", SIZE, 1)).values()))
    model.save(folder / "distortion.asdf")
    return folder / "distortion.asdf"


@pytest.mark.parametrize("scale", [1.0, 1.0001, 0.99993, 0.0, -1.0])
def test_assign_wcs(tmp_path, scale):
    from romancal.assign_wcs.assign_wcs import load_wcs

    path, shape = distortion(tmp_path), (SIZE - 8, SIZE - 8)
    write_image(tmp_path / "in.asdf", image(*shape), {"velocity_aberration.scale_factor": scale})
    succeed("assign_wcs", tmp_path / "in.asdf", tmp_path / "out.asdf", "--distortion", path)
    x, y = np.meshgrid(np.linspace(-0.5, shape[1] - 0.5, 30), np.linspace(-0.5, shape[0] - 0.5, 30))
    with datamodels.open(tmp_path / "in.asdf") as image_model, datamodels.open(tmp_path / "out.asdf") as ours:
        theirs = load_wcs(image_model, {"distortion": str(path)})
        sky = theirs.meta.wcs(x, y)
        np.testing.assert_allclose(ours.meta.wcs(x, y), sky, rtol=1e-13)
        assert ours.meta.wcsinfo.s_region == theirs.meta.wcsinfo.s_region
        assert ours.meta.wcs.available_frames == theirs.meta.wcs.available_frames
        assert ours.meta.wcs.bounding_box == theirs.meta.wcs.bounding_box
        np.testing.assert_allclose(ours.meta.wcs.invert(*sky), theirs.meta.wcs.invert(*sky), atol=1e-9)


def test_a_wcs_without_aberration():
    from romancal.assign_wcs.assign_wcs import _dva_corr_model

    theirs = _dva_corr_model(None, 1500.0, -900.0)
    meta = {k.partition(".")[2]: v for k, v in small_files.META.items() if k.startswith("wcsinfo.")}
    reference = next(iter(make_distortion(Detector("WFI07", SIZE, 1)).values()))
    wcs = build_wcs(reference.coordinate_distortion_transform, meta, 1.0, (SIZE - 8, SIZE - 8))
    assert type(wcs.get_transform("v2v3", "v2v3vacorr")) is type(theirs)


@pytest.mark.parametrize("element", ["F158", "F062", "GRISM"])
def test_photom(tmp_path, element):
    from romancal.photom.photom import apply_photom

    row = {"photmjsr": 0.5, "uncertainty": 0.01, "pixelareasr": 2.8e-13}
    table = {"F158": row, "F062": {**row, "photmjsr": 0.25, "uncertainty": 0.002}, "GRISM": dict.fromkeys(row)}
    write_image(tmp_path / "in.asdf", image(), {"instrument.optical_element": element})
    write_reference(tmp_path / "photom.asdf", phot_table=table)
    succeed("photom", tmp_path / "in.asdf", tmp_path / "out.asdf", f"--photom={tmp_path / 'photom.asdf'}")
    reference = datamodels.WfiImgPhotomRefModel.create_fake_data()
    reference.phot_table = table
    with datamodels.open(tmp_path / "in.asdf") as image_model, datamodels.open(tmp_path / "out.asdf") as ours:
        theirs = apply_photom(image_model, reference)
        assert dict(ours.meta.photometry.items()) == dict(theirs.meta.photometry.items())


@pytest.mark.parametrize("include_var_flat", [False, True])
def test_flatfield(tmp_path, include_var_flat):
    from romancal.flatfield.flat_field import do_flat_field

    rng, data = np.random.default_rng(6), image()
    halves = {name: rng.uniform(0.25, 4, data.shape).astype(np.float16) for name in ("err", "var_poisson", "dumo")}
    write_image(tmp_path / "in.asdf", data, dq=rng.choice(np.array([0, flags.HOT], np.uint32), data.shape), **halves)
    reference = datamodels.FlatRefModel.create_fake_data(shape=data.shape)
    reference.data = rng.uniform(0.5, 2, data.shape).astype(np.float32)
    reference.data[3, :5], reference.data[4, :5] = np.nan, 0
    reference.err = rng.uniform(0.01, 0.1, data.shape).astype(np.float32)
    reference.dq = rng.choice(np.array([0, flags.NO_FLAT_FIELD, flags.DEAD], np.uint32), data.shape, p=[0.9, 0.05, 0.05])
    write_reference(tmp_path / "flat.asdf", **{name: np.asarray(reference[name]) for name in ("data", "err", "dq")})
    succeed("flatfield", tmp_path / "in.asdf", tmp_path / "out.asdf", f"--flat={tmp_path / 'flat.asdf'}",
            f"--include_var_flat={str(include_var_flat).lower()}")  # fmt: skip
    with datamodels.open(tmp_path / "in.asdf", memmap=False, lazy_load=False) as theirs:
        for name in ("data", "dq", *halves):
            theirs[name] = np.asarray(theirs[name]).copy()
        do_flat_field(theirs, reference, include_var_flat=include_var_flat)
        with datamodels.open(tmp_path / "out.asdf") as ours:
            np.testing.assert_allclose(ours.data, theirs.data, rtol=2e-7)
            np.testing.assert_array_equal(ours.dq, theirs.dq)
            for name in (*halves, *(["var_flat"] if include_var_flat else [])):
                # float16, and romancal rounds the divisor where it divides in place.
                np.testing.assert_allclose(np.asarray(ours[name], float), np.asarray(theirs[name], float), rtol=3e-3, atol=1e-6)
            assert ours.meta.cal_step.flat_field == theirs.meta.cal_step.flat_field == "COMPLETE"
