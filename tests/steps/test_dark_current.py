"""dark_current: the dark is trimmed and subtracted, and its flags are added."""

import numpy as np
import pytest
from dark_current import subtract_dark_current
from small_files import (
    COLUMNS,
    FRAME,
    IMAGE_ARRAYS,
    ROWS,
    TRIMMED,
    assert_same_arrays,
    image,
    opened,
    random_flags,
    refuse,
    succeed,
    write_image,
    write_reference,
)

from rampflow import dq as flags


def test_the_trimmed_dark_is_subtracted_and_its_flags_added(tmp_path):
    data, dq = image(), random_flags(flags.JUMP_DET)
    slope = np.random.default_rng(2).normal(0.01, 0.1, FRAME).astype(np.float32)
    dark_dq = random_flags(flags.HOT, flags.DO_NOT_USE, shape=FRAME, seed=4)
    write_image(tmp_path / "in.asdf", data, dq=dq)
    write_reference(tmp_path / "dark.asdf", dark_slope=slope, dq=dark_dq)
    succeed("dark_current", tmp_path / "in.asdf", tmp_path / "out.asdf", "--dark", tmp_path / "dark.asdf")
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_array_equal(model.data, data - slope[4:-4, 4:-4])
        np.testing.assert_array_equal(model.dq, dq | dark_dq[4:-4, 4:-4])
        assert model.data.dtype == np.float32 and model.dq.dtype == np.uint32
        assert model.meta.cal_step.dark == "COMPLETE"
    assert_same_arrays(tmp_path / "in.asdf", tmp_path / "out.asdf", IMAGE_ARRAYS[2:])


def test_a_dark_is_trimmed_by_four_pixels():
    slope, dq = np.arange(100.0).reshape(10, 10), np.arange(100, dtype=np.uint32).reshape(10, 10)
    data, flagged = subtract_dark_current(np.zeros((2, 2)), np.zeros((2, 2), np.uint32), slope, dq)
    np.testing.assert_array_equal(data, [[-44, -45], [-54, -55]])
    np.testing.assert_array_equal(flagged, [[44, 45], [54, 55]])


@pytest.mark.parametrize(("rate", "share", "warned"), [(50.0, 0.5, "50 %"), (-20.0, 0.04, "4 %"), (50.0, 0.02, None)])
def test_a_dark_with_an_implausible_region_is_flagged_there(tmp_path, rate, share, warned):
    """Plausible for a hot pixel, not for so many."""
    rows, columns = (n - 8 for n in FRAME)
    number = round(share * rows * columns)
    slope = np.full(FRAME, 0.01, np.float32)
    slope[4:-4, 4:-4] = np.where(np.arange(rows * columns) < number, np.float32(rate), slope[0, 0]).reshape(rows, columns)
    write_image(tmp_path / "in.asdf", image())
    write_reference(tmp_path / "dark.asdf", dark_slope=slope[::-1].copy(), dq=np.zeros(FRAME, np.uint32))
    said = succeed("dark_current", tmp_path / "in.asdf", tmp_path / "out.asdf", "--dark", tmp_path / "dark.asdf").stderr
    assert (f"dark.asdf: {warned} of dark_slope lie beyond -0.5 to 5 DN/s" in said) == (warned is not None) == ("WARN" in said)
    trimmed = slope[::-1][4:-4, 4:-4]
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_allclose(model.data, image() - trimmed, rtol=1e-6)
        np.testing.assert_array_equal(model.dq != 0, (trimmed == np.float32(rate)) & (warned is not None))


@pytest.mark.parametrize("shape", [TRIMMED, (ROWS, COLUMNS + 128)])
def test_a_dark_of_another_shape_is_refused(tmp_path, shape):
    write_image(tmp_path / "in.asdf", image())
    write_reference(tmp_path / "dark.asdf", dark_slope=np.zeros(shape, np.float32), dq=np.zeros(shape, np.uint32))
    said = refuse("dark_current", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--dark",
                  tmp_path / "dark.asdf")  # fmt: skip
    assert "dark.asdf: dark_slope has the shape" in said


@pytest.mark.parametrize("broken", ["dq", "dark_slope"])
def test_a_dark_whose_arrays_differ_in_shape_is_refused(tmp_path, broken):
    write_image(tmp_path / "in.asdf", image())
    content = {"dark_slope": np.zeros(FRAME, np.float32), "dq": np.zeros(FRAME, np.uint32)}
    content[broken] = content[broken][:-2].copy()
    write_reference(tmp_path / "dark.asdf", **content)
    said = refuse("dark_current", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--dark",
                  tmp_path / "dark.asdf")  # fmt: skip
    assert "dark.asdf" in said
