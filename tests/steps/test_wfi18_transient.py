"""wfi18_transient: a known transient is removed from the first resultant; where that fails, rows are masked."""

import numpy as np
import pytest
from small_files import PATTERN, arrays_of, opened, succeed, write_ramp
from wfi18_transient import mask_affected_rows

from rampflow import dq as flags
from rampflow.detector import SCIENCE, mean_reads, pixel_read_times
from rampflow.transient import curvature, double_exponential, fit_transient, transient_by_row, why_implausible

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


def test_a_row_without_values_is_left_out(tmp_path):
    data = with_transient()
    data[0, 20] = np.nan
    program(tmp_path, data)
    after = arrays_of(tmp_path / "out.asdf")
    removed = np.delete(data[0] - after["data"][0], 20, axis=0)[4:-4, 4:-4]
    assert np.abs(removed - np.delete(transient(), 20, axis=0)[4:-4, 4:-4]).max() < 1
    assert not after["groupdq"].any()


# ------------------------------------------------------------------------------------ what passes for a transient
def straight(rate, resultants=6, curved=0.0):
    """A flat of `rate` DN/s with its photon noise (2 electrons/DN), in measured counts c − `curved` · c²."""
    rng = np.random.default_rng(6)
    counts = rate * mean_reads(PATTERN)[:resultants, None, None] * FRAME_TIME * np.ones((1, ROWS, COLUMNS))
    counts += np.cumsum(rng.normal(0, 1, counts.shape) * np.sqrt(rate * FRAME_TIME / 2), axis=0) + 1000
    counts -= curved * counts**2
    return (counts + rng.normal(0, NOISE, counts.shape)).astype(np.float32)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_flagged_pixels_do_not_count(tmp_path, share):
    # Saturated: the third resultant and those after it stand still, and so the pixels pass for the darkest of their rows.
    data = with_transient()
    groupdq = np.zeros(data.shape, np.uint8)
    saturated = np.random.default_rng(9).random((ROWS, COLUMNS)) < share
    data[1, saturated], data[2:, saturated] = 40000, 60000
    groupdq[2:, saturated] = flags.SATURATED
    said = program(tmp_path, data, groupdq=groupdq).stderr
    after = arrays_of(tmp_path / "out.asdf")
    if share > 0.5:  # 1 pixel in 10 is left: too few
        assert "(0 of 504 rows could be measured)" in said
        np.testing.assert_array_equal(after["groupdq"], expected_mask() | groupdq)
        np.testing.assert_array_equal(after["data"], data)
    else:
        removed = (data[0] - after["data"][0])[SCIENCE]
        assert np.abs(removed - transient()[SCIENCE])[~saturated[SCIENCE]].max() < 1
        assert not (after["groupdq"] & flags.WFI18_TRANSIENT).any()


@pytest.mark.slow
def test_non_linearity_is_not_taken_for_the_transient(tmp_path):
    # A flat of 7,900 DN per read: the first resultant lies some 150 DN below the line through the next two, in all rows.
    data = straight(20000, curved=1e-6)
    data[0] += transient()
    assert "has not decayed by the end of the read" in program(tmp_path, data).stderr
    check_masked(tmp_path, data)
    program(tmp_path, data, "--check_fit=false")  # as in romancal
    removed = arrays_of(tmp_path / "in.asdf")["data"][0] - arrays_of(tmp_path / "out.asdf")["data"][0]
    assert removed[-100:-4, 4:-4].max() < -100


def test_non_linearity_of_rows_that_are_brighter_at_the_beginning(tmp_path):
    # A falling illumination gives the curvature the shape of a decay: only the next resultants tell.
    bright = np.exp(-pixel_read_times((ROWS, COLUMNS), FRAME_TIME, 18) / 0.02)
    data = clean()
    counts = 20000 * FRAME_TIME * bright * mean_reads(PATTERN)[:, None, None]
    data = (data + counts - 2e-6 * counts**2).astype(np.float32)
    assert "the ramps are not straight" in program(tmp_path, data).stderr
    check_masked(tmp_path, data)


@pytest.mark.parametrize("rate", [1.0, 100.0, 300.0])
@pytest.mark.slow
def test_a_plausible_fit_corrects_a_flat(tmp_path, rate):
    data = straight(rate, curved=1e-6)
    data[0] += transient()
    said = program(tmp_path, data).stderr
    assert "WARNING" not in said
    removed = (data - arrays_of(tmp_path / "out.asdf")["data"])[0][SCIENCE]
    assert np.abs(removed - transient()[SCIENCE]).max() < 3


@pytest.mark.slow
def test_where_nothing_is_flagged_the_check_changes_no_number(tmp_path):
    data = with_transient()
    program(tmp_path, data)
    checked = arrays_of(tmp_path / "out.asdf")["data"]
    program(tmp_path, data, "--check_fit=false")
    np.testing.assert_array_equal(arrays_of(tmp_path / "out.asdf")["data"], checked)


def test_the_curvature_is_that_of_a_parabola():
    times = np.array([1.0, 2.0, 3.5, 6.5, 10.0])
    data = (100 + 50 * times - 0.3 * times**2)[:, None, None] * np.ones((1, 2, 8))
    excess = transient_by_row(data, times, np.ones((2, 8), bool))
    np.testing.assert_allclose(excess, -0.3 * (2 - 1) * (3.5 - 1))
    assert curvature(data, times, np.ones((2, 8), bool)) == pytest.approx(excess[0])
    assert np.isnan(curvature(data, times, np.zeros((2, 8), bool)))


@pytest.mark.parametrize(
    ("fit", "first_time", "curved", "reason"),
    [
        (TRUTH, 0.0, 0.0, None),
        (TRUTH, 0.0, np.nan, None),
        ((1e6, 180 - 1e6, 0.030001, 0.03), 0.0, 0.0, None),  # amplitudes that cancel
        ((180.0, -1e-3, 0.03, -50.0), 0.0, 0.0, None),  # a term without a part in the curve
        ((0.0, 0.0, 0.03, 0.15), 0.0, 0.0, None),
        ((180.0, -30.0, 0.03, 50.0), 0.0, 0.0, "-29.77 DN of 150 DN are left"),
        ((180.0, 1.0, 0.03, -0.05), 0.0, 0.0, "it reaches 2441 DN"),  # it grows
        ((180.0, 1e4, 0.03, 1e-4), -1e-3, 0.0, "it reaches 2.203e+08 DN"),
        (TRUTH, 0.0, 40.0, "which pretends 40 DN"),
    ],
)
def test_a_fit_is_judged_by_its_curve(fit, first_time, curved, reason):
    row_times = np.linspace(0.005, 0.39, 504)
    transient = double_exponential(row_times, *TRUTH)
    said = why_implausible(np.array(fit), row_times, transient, first_time, curved)
    assert (said is None) if reason is None else (reason in said)


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


@pytest.mark.parametrize(("resultants", "many"), [(1, "1 resultant is"), (2, "2 resultants are"), (3, "3 resultants are")])
def test_fewer_than_four_resultants_mask(tmp_path, resultants, many):
    data = with_transient(resultants)
    assert f"{many} too few to fit the transient (4 are needed)" in program(tmp_path, data).stderr
    check_masked(tmp_path, data)


@pytest.mark.parametrize("resultants", [4, 5])
@pytest.mark.parametrize("check_fit", ["true", "false"])
@pytest.mark.slow
def test_four_resultants_are_enough(tmp_path, resultants, check_fit):
    program(tmp_path, with_transient(resultants), f"--check_fit={check_fit}")
    after = arrays_of(tmp_path / "out.asdf")
    assert not after["groupdq"].any()
    assert np.abs(after["data"][0] - clean(resultants)[0])[SCIENCE].max() < 1


def test_the_last_pair_of_four_resultants_does_not_select_its_noise():
    # The third resultant is in the extrapolation too: of pixels below the median of the last pair, its noise is 0.56 σ too high
    # on average, and c = 1 of it would be missing from the excess: 2.3 DN. The mean is known to σ √(1 + 4 + 1) / √400,000.
    rng = np.random.default_rng(5)
    times = np.arange(1.0, 5)
    data = 3 * times[:, None, None] + rng.normal(0, NOISE, (4, 100, 4000))
    data[0] += 50
    assert transient_by_row(data, times).mean() == pytest.approx(50, abs=0.1)
    # Clearly lit pixels are left out, in each row by its own limit.
    data[:, 1::2] *= 100
    data[:, :, :400] += 1000 * times[:, None, None]
    data[0, :, :400] += 5000
    assert transient_by_row(data, times)[::2].mean() == pytest.approx(50, abs=0.1)


def test_a_failing_fit_masks(tmp_path):
    data = with_transient()
    data[0, 10:80] = np.nan  # of the 125 rows that the transient affects most
    assert "could not be fitted (434 of 504 rows" in program(tmp_path, data).stderr
    check_masked(tmp_path, data)


def test_failed_fits_are_reported():
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
def test_other_detectors_are_not_changed(tmp_path, options):
    data = with_transient()
    program(tmp_path, data, *options, detector="WFI17")
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step.wfi18_transient == "N/A"
        np.testing.assert_array_equal(model.data, data)
        assert not model.groupdq.any()
