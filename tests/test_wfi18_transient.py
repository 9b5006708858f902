"""wfi18_transient: a known transient is taken out of the first resultant; where it can't be, rows are masked."""

import numpy as np
import pytest
from small_files import PATTERN, arrays_of, opened, succeed, write_ramp
from wfi18_transient import double_exponential, fit_transient, mask_affected_rows, transient_by_row

from rampflow import dq as flags
from rampflow.detector import SCIENCE, mean_reads, pixel_read_times

ROWS, COLUMNS = 512, 256
FRAME_TIME = 0.395  # as much longer than the rows take as that of a full detector
TRUTH = (180.0, -30.0, 0.03, 0.15)  # DN, DN, s, s
MASKED = flags.DO_NOT_USE | flags.WFI18_TRANSIENT
NOISE = 4.0


def clean(resultants=6, seed=1):
    """A ramp of a sky with stars and noise, without the transient."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.5, 1.5, (ROWS, COLUMNS))
    stars = rng.random((ROWS, COLUMNS)) < 0.02
    rate[stars] *= 500
    reads = mean_reads(PATTERN)[:resultants, None, None]
    counts = 1000 + rate * reads + rng.normal(0, NOISE, (resultants, ROWS, COLUMNS))
    return counts.astype(np.float32)


def transient():
    return double_exponential(pixel_read_times((ROWS, COLUMNS), FRAME_TIME, 18), *TRUTH)


def program(folder, data, *options, detector="WFI18", **arrays):
    write_ramp(folder / "in.asdf", data, {"instrument.detector": detector, "exposure.frame_time": FRAME_TIME}, **arrays)
    return succeed("wfi18_transient", folder / "in.asdf", folder / "out.asdf", *options)


def with_transient(resultants=6):
    data = clean(resultants)
    data[0] += transient()
    return data


# ----------------------------------------------------------------------------------------------------------- correction
@pytest.mark.parametrize("threads", [1, 3])
def test_a_known_transient_is_taken_out(tmp_path, threads):
    before, truth = with_transient(), transient()[SCIENCE]
    program(tmp_path, before, f"--threads={threads}")
    with opened(tmp_path / "out.asdf") as model:
        removed = (before - np.asarray(model.data))[0][SCIENCE]
        assert truth.max() > 100
        # A row's mean is known to NOISE · √(1 + (1 + c)² + c²) / √124, with the extrapolation's c = 2/3: to 0.75 DN. The fit
        # has four parameters for 504 rows, which leaves √(4 / 504) of that, 0.07 DN, and more at the ends.
        assert np.sqrt(np.mean((removed - truth) ** 2)) < 0.2
        assert np.abs(removed - truth).max() < 1
        np.testing.assert_array_equal(model.data[1:], before[1:])
        border = np.ones((ROWS, COLUMNS), bool)
        border[SCIENCE] = False
        np.testing.assert_array_equal(model.data[0][border], before[0][border])
        assert not model.groupdq.any()
        assert model.meta.cal_step.wfi18_transient == "COMPLETE"


def test_rows_are_measured_on_their_weakly_lit_pixels():
    times = mean_reads([[1], [2], [4], [5], [6]]) * FRAME_TIME
    rate = np.array([1.0, 2.0, 3.0, 50.0, 60.0])
    data = rate * times[:, None, None] + np.zeros((5, 3, 5))
    per_row = np.array([7.0, -3.0, 0.5])
    data[0] += per_row[:, None]
    np.testing.assert_allclose(transient_by_row(data, times), per_row, atol=1e-9)
    data[0, :, 3:] += 1000  # the median is 3: brighter pixels don't count
    np.testing.assert_allclose(transient_by_row(data, times), per_row, atol=1e-9)
    data[0, :, :3] += 1
    np.testing.assert_allclose(transient_by_row(data, times), per_row + 1, atol=1e-9)


def test_each_row_has_its_own_median():
    # Rows of different brightness: a common limit would leave out all of the bright row's pixels.
    times = np.arange(1.0, 6)
    rate = np.array([[1, 2, 3, 4], [101, 102, 103, 104]], float)
    data = rate * times[:, None, None]
    data[0, :, :2] += np.array([[10], [20]])
    data[0, :, 2:] += 500
    np.testing.assert_allclose(transient_by_row(data, times), [10, 20], atol=1e-9)


def test_outliers_are_clipped():
    times = np.arange(1.0, 6)
    data = np.zeros((5, 2, 200))
    data[0] = np.random.default_rng(2).normal(5, 1, (2, 200))
    data[0, 0, 17] = 1e5
    assert transient_by_row(data, times)[0] == pytest.approx(5, abs=0.3)


def test_the_fit_finds_the_parameters():
    row_times = np.linspace(0.001, 0.39, 4088)
    found = fit_transient(row_times, double_exponential(row_times, *TRUTH))
    np.testing.assert_allclose(double_exponential(row_times, *found), double_exponential(row_times, *TRUTH), atol=1e-3)


# -------------------------------------------------------------------------------------------------------------- masking
def expected_mask():
    groupdq = np.zeros((len(PATTERN), ROWS, COLUMNS), np.uint8)
    groupdq[0, :125] = MASKED  # 1000 of 4096
    return groupdq


def check_masked(folder, data, before=0):
    with opened(folder / "out.asdf") as model:
        np.testing.assert_array_equal(model.groupdq, expected_mask()[: len(data)] | before)
        np.testing.assert_array_equal(model.data, data)
        assert model.meta.cal_step.wfi18_transient == "COMPLETE"


def test_mask_rows_masks(tmp_path):
    data = with_transient()
    brought = np.zeros(data.shape, np.uint8)
    brought[:, 100:200] = flags.JUMP_DET
    program(tmp_path, data, "--mask_rows=true", groupdq=brought)
    check_masked(tmp_path, data, brought)


def test_fewer_than_five_resultants_mask(tmp_path):
    data = with_transient(4)
    assert "4 resultants are too few" in program(tmp_path, data).stderr
    check_masked(tmp_path, data)


def test_five_resultants_are_enough(tmp_path):
    program(tmp_path, with_transient(5))
    after = arrays_of(tmp_path / "out.asdf")
    assert not after["groupdq"].any()
    assert np.abs(after["data"][0] - clean(5)[0])[SCIENCE].max() < 1


def test_a_failing_fit_masks(tmp_path):
    data = with_transient()
    data[0, 20] = np.nan
    assert "could not be fitted" in program(tmp_path, data).stderr
    check_masked(tmp_path, data)


def test_fits_that_fail_say_so():
    row_times = np.linspace(0.001, 0.39, 504)
    assert fit_transient(row_times, np.full(504, np.nan)) is None
    noise = np.random.default_rng(3).normal(0, 1, 504) * 1e6
    noise[0] = 1e-9
    found = fit_transient(row_times, noise)
    assert found is None or np.isfinite(double_exponential(row_times, *found)).all()


def test_a_thousand_rows_of_a_full_detector_are_masked():
    groupdq = np.zeros((4096, 3), np.uint8)
    groupdq[999:1001] = flags.SATURATED
    mask_affected_rows(groupdq)
    assert (groupdq[:999] == MASKED).all() and (groupdq[999] == MASKED | flags.SATURATED).all()
    assert (groupdq[1000] == flags.SATURATED).all() and not groupdq[1001:].any()


@pytest.mark.parametrize("options", [[], ["--mask_rows=true"]])
def test_other_detectors_have_no_transient(tmp_path, options):
    data = with_transient()
    program(tmp_path, data, *options, detector="WFI17")
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step.wfi18_transient == "N/A"
        np.testing.assert_array_equal(model.data, data)
        assert not model.groupdq.any()
