"""tests/validation/compare.py: what counts as a difference of angles and of flags."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import compare


def test_angles_on_both_sides_of_the_full_circle_are_near():
    ours, theirs = np.array([0.5, 359, -179.5, 10, np.nan], "f4"), np.array([359.5, 0.5, 179.5, 190, 5], "f4")
    row = compare.compare_arrays("orientation_pix", ours, theirs)
    assert row["largest"] == 180 and row["nan"] == {"ours": 1, "romancal": 0}
    assert compare.compare_arrays("orientation_sky", ours[:3], theirs[:3])["largest"] == 1.5
    assert compare.compare_arrays("ra", ours, theirs)["largest"] == 359
    assert compare._worst("orientation_pix", ours[:1], theirs[:1])["relative"] < 0.003


def test_warning_flags_are_compared_by_flag():
    row = compare.compare_arrays("warning_flags", np.array([0, 1 << 30, 257], "i4"), np.array([0, 0, 1], "i4"))
    assert row["flags"] == {
        "UNRELIABLE_ERROR": {"ours": 1, "romancal": 0},
        "OTHER_BAD_PIXEL": {"ours": 1, "romancal": 0},
    }
    assert row["differing"] == 2
