"""The detector's geometry and timing, and the data-quality flags."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roman_datamodels import dqflags

from rampflow import detector, dq
from rampflow.errors import RampflowError

FRAME_TIME = 3.16247


def test_flags_are_those_of_the_data_models():
    ours = {name: value for name, value in vars(dq).items() if name.isupper()}
    assert len(ours) > 10
    groupdq_only = {"WFI18_TRANSIENT"}
    for name, value in ours.items():
        assert value == (dqflags.group if name in groupdq_only else dqflags.pixel)[name]
    for flag in dqflags.group:
        if flag.name != "GOOD":
            assert getattr(dq, flag.name) == flag


@given(st.integers(0, 255), st.integers(0, 2**31 - 1))
def test_has_tests_the_bits_of_a_flag(value, wanted):
    assert dq.has(np.array([value], np.uint32), wanted)[0] == bool(value & wanted)
    assert dq.has(np.array([value], np.uint8), wanted & 255)[0] == bool(value & wanted & 255)


def test_has_tests_the_highest_bit():
    flags = np.array([0, dq.REFERENCE_PIXEL, dq.HOT], np.uint32)
    np.testing.assert_array_equal(dq.has(flags, dq.REFERENCE_PIXEL), [False, True, False])
    assert dq.has(flags, dq.REFERENCE_PIXEL).dtype == bool


@pytest.mark.parametrize("number", range(1, 19))
def test_detectors_have_numbers(number):
    assert detector.detector_number(f"WFI{number:02d}") == number


@pytest.mark.parametrize("name", ["WFI00", "WFI19", "WFI1", "wfi01", "WFI011", " WFI01", "WFI01\n", "", None, 1])
def test_unknown_detectors_are_refused(name):
    with pytest.raises(RampflowError, match="must be one of WFI01 to WFI18"):
        detector.detector_number(name)


def test_mean_reads():
    np.testing.assert_array_equal(detector.mean_reads([[1], [2, 3], [4, 5, 9]]), [1, 2.5, 6])


def test_science_trims_four_pixels_of_the_last_two_axes():
    assert np.zeros((3, 20, 30))[detector.SCIENCE].shape == (3, 12, 22)
    trimmed = np.arange(600).reshape(20, 30)[detector.SCIENCE]
    assert trimmed[0, 0] == 4 * 30 + 4 and trimmed[-1, -1] == 15 * 30 + 25


# --------------------------------------------------------------------------------------------------------- read times
def read_times(rows, channels, frame_time, number):
    """Read times, one pixel after another, from the definition."""
    clocks_per_row = 128 + 14
    last = (rows - 1) * clocks_per_row + 127
    visits = max(rows // 256, 1)
    window = (frame_time / 4.915263e-6 - last) / visits * 1.5
    whole = last + visits * window
    times = np.empty((rows, channels * 128))
    for row in range(rows):
        for position in range(128):
            clock = row * clocks_per_row + position + min(row // 256, visits - 1) * window
            for channel in range(channels):
                column = channel * 128 + (position if channel % 2 == 0 else 127 - position)
                times[row, column] = clock / whole * frame_time
    return times[:, ::-1] if number % 3 == 0 else times[::-1]


@pytest.mark.parametrize("number", [1, 2, 3, 18])
@pytest.mark.parametrize(("rows", "channels"), [(72, 2), (256, 2), (512, 4), (600, 2)])
def test_read_times_follow_the_definition(rows, channels, number):
    ours = detector.pixel_read_times((rows, channels * 128), FRAME_TIME, number)
    np.testing.assert_allclose(ours, read_times(rows, channels, FRAME_TIME, number), rtol=1e-12, atol=1e-12)


def test_a_full_frame_lasts_the_frame_time():
    times = detector.pixel_read_times((4096, 256), FRAME_TIME, 18)
    assert times.min() == 0
    # One visit to the guide window is left at the end.
    clocks = 4095 * 142 + 127
    visit = (FRAME_TIME / 4.915263e-6 - clocks) / 16 * 1.5
    assert times.max() == pytest.approx(FRAME_TIME * (1 - visit / (clocks + 16 * visit)), rel=1e-12)
    assert 0.9 * FRAME_TIME < times.max() < FRAME_TIME


def test_read_order():
    times = detector.pixel_read_times((600, 512), FRAME_TIME, 1)
    assert (np.diff(times, axis=0) < 0).all()  # detector 1: the last row is read first
    assert (np.diff(times[:, :128]) > 0).all() and (np.diff(times[:, 128:256]) < 0).all()
    flipped = detector.pixel_read_times((600, 512), FRAME_TIME, 3)
    assert (np.diff(flipped, axis=0) > 0).all()
    np.testing.assert_array_equal(flipped, times[::-1, ::-1])
    np.testing.assert_allclose(detector.pixel_read_times((600, 512), 2 * FRAME_TIME, 1)[-1, 0], 0)


# -------------------------------------------------------------------------------------------------------------- shapes
@pytest.mark.parametrize("shape", [(1, 9, 128), (6, 4096, 4096), (3, 72, 256)])
def test_valid_detector_shapes_are_accepted(shape):
    detector.check_shape("file", shape)


@pytest.mark.parametrize("shape", [(72, 256), (3, 8, 128), (3, 72, 200), (0, 72, 256), (1, 3, 72, 256), ()])
def test_other_shapes_are_refused_with_the_file(shape):
    with pytest.raises(RampflowError, match=r"x\.asdf: data has the shape"):
        detector.check_shape("x.asdf", shape)
