"""Rounding to half precision by the compiled loop, against NumPy."""

import numpy as np
import pytest

from rampflow.kernels.float16 import PIECE, to_float16


def assert_as_numpy(values):
    with np.errstate(all="ignore"):
        expected = values.astype(np.float16)
    rounded = to_float16(values)
    assert rounded.dtype == np.float16
    np.testing.assert_array_equal(rounded.view(np.uint16), expected.view(np.uint16))


def test_every_half_its_neighbors_and_the_points_between_them():
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)  # from zero to the largest
    between = (halves[1:] + halves[:-1]) / 2  # in float32 without rounding
    exact = np.concatenate([halves, between]).astype(np.float32)
    near = [exact, np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))]
    assert_as_numpy(np.concatenate([*near, *(-values for values in near)]))


@pytest.mark.parametrize("limit", [65504, 65519.99, 65520, 65536, 1e38, np.inf])
def test_values_beyond_the_largest_half(limit):
    assert_as_numpy(np.array([limit, -limit], np.float32))


def test_values_that_are_not_finite():
    quiet = np.array([0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFFFFFFFF, 0x7F800000, 0xFF800000], np.uint32)
    assert_as_numpy(quiet.view(np.float32))


def test_any_bits():
    bits = np.random.default_rng(5).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    signaling = ((bits & 0x7FFFFFFF) > 0x7F800000) & ((bits & 0x400000) == 0)  # no arithmetic gives these
    assert_as_numpy(bits[~signaling].view(np.float32))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7])
def test_any_number_of_values(size):
    assert_as_numpy(np.random.default_rng(size).lognormal(-8, 4, size).astype(np.float32))


def test_a_part_of_an_array():
    values = np.random.default_rng(1).normal(0, 1, (5, 7, 9)).astype(np.float32)
    for part in (values[:, 2:-1], values[..., ::2], values[3], values.T):
        assert_as_numpy(part)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4", np.uint32])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="takes float32, and not"):
        to_float16(np.ones(3, dtype))
