"""saturation: each rule with a ramp that meets it and one that just misses it, a direct implementation, and the program."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saturation import NEVER_SATURATED, checked_thresholds, flag_saturated
from small_files import COLUMNS, PATTERN, ROWS, arrays_of, meta_of, opened, ramp, refuse, succeed, write_ramp, write_reference

from rampflow import dq as flags
from rampflow.chain import statuses_after

AFTER_SATURATION = statuses_after("saturation")

READS = [[1], [2, 3], [4, 5, 6, 7], [8]]
LIMIT = 60000.0
SAT, BAD, FLOOR = flags.SATURATED, flags.DO_NOT_USE, flags.AD_FLOOR | flags.DO_NOT_USE


def flags_of(*counts, limit=LIMIT, before=None, reads=READS, **options):
    """Flags of the ramp of a single pixel."""
    data = np.array(counts, np.float32)[:, None, None]
    groupdq = np.zeros(data.shape, np.uint8) if before is None else np.array(before, np.uint8)[:, None, None]
    flag_saturated(data, groupdq, np.full((1, 1), limit, np.float32), reads, **options)
    return groupdq[:, 0, 0].tolist()


# ------------------------------------------------------------------------------------------------------------ the rules
def test_from_the_threshold_on_all_resultants_are_saturated():
    assert flags_of(100, 200, 60000, 300) == [0, 0, SAT, SAT]
    assert flags_of(100, 200, 300, 59999) == [0, 0, 0, 0]
    assert flags_of(60000, 1, 1, 1) == [SAT] * 4


def test_the_lower_limit_applies_to_its_resultant_alone():
    assert flags_of(100, 0, 300, 400) == [0, FLOOR, 0, 0]
    assert flags_of(-5, 200, 300, 400) == [FLOOR, 0, 0, 0]
    assert flags_of(1, 1, 1, 1) == [0, 0, 0, 0]
    assert flags_of(60000, 0, 1, 1) == [SAT, SAT | FLOOR, SAT, SAT]


def test_a_resultant_whose_last_read_may_be_saturated_is_not_used():
    diluted = LIMIT * 5.5 / 7  # mean read of the third over its last
    assert flags_of(100, 200, diluted + 1, 60000) == [0, 0, BAD, SAT]
    assert flags_of(100, 200, diluted - 1, 60000) == [0, 0, 0, SAT]
    assert flags_of(100, 200, diluted + 1, 59999) == [0, 0, 0, 0]
    # With one read there is nothing to dilute; an unchecked pixel is not diluted.
    assert flags_of(100, 200, 59999, 60000, reads=[[1], [2, 3], [7], [8]]) == [0, 0, 0, SAT]
    assert flags_of(100, 200, 65000, 65536, limit=NEVER_SATURATED) == [0, 0, 0, SAT]


def test_the_second_resultant_of_an_event_is_not_used():
    # It may rise by (60000 − 1000) / 2 reads.
    assert flags_of(1000, 30501, 60000, 60000) == [0, BAD, SAT, SAT]
    assert flags_of(1000, 30499, 60000, 60000) == [0, 0, SAT, SAT]
    # The first predicts saturation by the seventh read: no event.
    assert flags_of(8571, 40000, 60000, 60000) == [0, BAD, SAT, SAT]
    assert flags_of(8572, 40000, 60000, 60000) == [0, 0, SAT, SAT]
    assert flags_of(1000, 30501, 45000, 60000) == [0, 0, 0, SAT]
    assert flags_of(1000, 60000, 60000, 60000) == [0, SAT, SAT, SAT]
    assert flags_of(1000, 60000 - 1, reads=READS[:2]) == [0, 0]


def test_backup_flags_resultants_of_several_reads_before():
    counts = 100, 200, 300, 60000
    assert flags_of(*counts) == [0, 0, 0, SAT]
    assert flags_of(*counts, backup=1) == [0, 0, SAT, SAT]
    assert flags_of(*counts, backup=2) == [0, SAT, SAT, SAT]
    assert flags_of(*counts, backup=5) == [0, SAT, SAT, SAT]  # the first has one read
    # In ascending order: one turn doesn't run down the whole ramp.
    assert flags_of(*counts, backup=1, reads=[[1, 2], [3, 4], [5, 6], [7, 8]]) == [0, 0, SAT, SAT]


def test_earlier_flags_are_kept():
    assert flags_of(100, 200, 300, 400, before=[4, 8, 0, 1]) == [4, 8, 0, 1]
    assert flags_of(100, 200, 60000, 1, before=[4, 8, 0, 1]) == [4, 8, SAT, SAT | BAD]


@pytest.mark.parametrize("pixels", [1, 2])
@pytest.mark.parametrize("place", [(0, 0), (0, 5), (4, 4), (8, 9), (8, 0)])
def test_regions_grow_by_a_square_clipped_at_the_edges(pixels, place):
    data = np.full((4, 9, 10), 100, np.float32)
    data[2:, *place] = 60000
    data[1, *place] = 0  # the floor doesn't grow
    groupdq = np.zeros(data.shape, np.uint8)
    flag_saturated(data, groupdq, np.full((9, 10), LIMIT), READS, n_pix_grow_sat=pixels)
    square = np.zeros((9, 10), bool)
    square[max(place[0] - pixels, 0) : place[0] + pixels + 1, max(place[1] - pixels, 0) : place[1] + pixels + 1] = True
    assert not groupdq[0].any()
    np.testing.assert_array_equal(np.argwhere(groupdq[1]), [place])
    for resultant in (2, 3):
        np.testing.assert_array_equal(groupdq[resultant], square * SAT)


def test_partly_saturated_regions_grow_but_not_from_pixels_that_were_bad():
    data = np.full((4, 9, 12), 100, np.float32)
    data[2, 4, [3, 8]], data[3, 4, [3, 8]] = 50000, 60000
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[2, 4, 8] = BAD
    flag_saturated(data, groupdq, np.full((9, 12), LIMIT), READS, n_pix_grow_sat=1)
    expected = np.zeros((9, 12), np.uint8)
    expected[3:6, 2:5] = BAD
    expected[4, 8] = BAD
    np.testing.assert_array_equal(groupdq[2], expected)
    assert np.count_nonzero(groupdq[3] & SAT) == 18


def test_unusable_thresholds_are_never_reached():
    threshold = np.array([[50000, np.nan, 50000, np.nan]], np.float32)
    dq = np.array([[flags.HOT, flags.DEAD, flags.NO_SAT_CHECK, flags.NO_SAT_CHECK]], np.uint32)
    checked, checked_dq = checked_thresholds(threshold, dq)
    np.testing.assert_array_equal(checked, [[50000, 65536, 65536, 65536]])
    off = flags.NO_SAT_CHECK
    np.testing.assert_array_equal(checked_dq, [[flags.HOT, flags.DEAD | off, off, off]])
    assert checked.dtype == np.float32 and checked_dq.dtype == np.uint32


# ------------------------------------------------------------------------------------------- the rules, pixel by pixel
def grown(mask, pixels):
    result = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        result[max(row - pixels, 0) : row + pixels + 1, max(column - pixels, 0) : column + pixels + 1] = True
    return result


def restated(data, groupdq, threshold, reads, pixels, backup):
    """A direct implementation of the definition: three passes and the backup."""
    result, resultants = groupdq.copy(), range(len(data))
    for r in resultants:
        reached = (data[: r + 1] >= threshold).any(axis=0) | (result[r] & SAT > 0)
        result[r][grown(reached, pixels)] |= SAT
        result[r][data[r] <= 0] |= FLOOR
    for r in reversed(resultants[:-1]):
        if len(reads[r]) > 1:
            partly = np.zeros(threshold.shape, bool)
            for y, x in np.ndindex(threshold.shape):
                dilution = 1 if threshold[y, x] == NEVER_SATURATED else np.mean(reads[r]) / reads[r][-1]
                untouched = result[r, y, x] & (SAT | BAD) == 0
                partly[y, x] = data[r, y, x] >= dilution * threshold[y, x] and untouched and result[r + 1, y, x] & SAT
            result[r][grown(partly, pixels)] |= BAD
    if len(data) > 2:
        for y, x in np.ndindex(threshold.shape):
            first, second = (float(v) for v in data[:2, y, x])
            limit = float(threshold[y, x])
            quiet = first / np.mean(reads[0]) * reads[2][-1] < limit
            jumped = second - first > (limit - first) / len(reads[1])
            if quiet and jumped and result[2, y, x] & SAT and not result[1, y, x] & SAT:
                result[1, y, x] |= BAD
    for _ in range(backup):
        for r in resultants[:-1]:
            if len(reads[r]) > 1:
                result[r] |= result[r + 1] & SAT
    return result


@st.composite
def ramps(draw):
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    ends = np.cumsum(lengths)
    reads = [list(range(int(end) - n + 1, int(end) + 1)) for n, end in zip(lengths, ends, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (len(reads), *draw(st.tuples(st.integers(1, 9), st.integers(1, 9))))
    # Multiples of 256 below 65536, so that counts and thresholds often meet exactly.
    data = 256.0 * rng.integers(-1, 256, shape)
    threshold = 256.0 * rng.integers(180, 250, shape[1:])
    if draw(st.booleans()):
        data = np.sort(data, axis=0)
        data[:, rng.random(shape[1:]) < 0.6] /= 4
    threshold[rng.random(shape[1:]) < 0.1] = NEVER_SATURATED
    before = rng.choice(np.array([0, BAD, 4, SAT], np.uint8), shape, p=[0.85, 0.05, 0.05, 0.05])
    return data.astype(np.float32), before, threshold.astype(np.float32), reads


def flagged(data, before, threshold, reads, pixels=0, backup=0):
    groupdq = before.copy()
    flag_saturated(data, groupdq, threshold, reads, n_pix_grow_sat=pixels, backup=backup)
    return groupdq


@settings(deadline=None, max_examples=150)
@given(ramps(), st.integers(0, 2), st.integers(0, 3))
def test_the_flags_are_those_of_the_definition(case, pixels, backup):
    data, before, threshold, reads = case
    ours = flagged(data, before, threshold, reads, pixels, backup)
    np.testing.assert_array_equal(ours, restated(data, before, threshold, reads, pixels, backup))


@settings(deadline=None, max_examples=50)
@given(ramps(), st.integers(0, 2), st.integers(0, 3))
def test_mirror_images_have_mirrored_flags(case, pixels, backup):
    data, before, threshold, reads = case
    ours = flagged(data, before, threshold, reads, pixels, backup)
    mirrored = flagged(data[:, ::-1, ::-1], before[:, ::-1, ::-1].copy(), threshold[::-1, ::-1], reads, pixels, backup)
    np.testing.assert_array_equal(mirrored[:, ::-1, ::-1], ours)
    assert not (before & ~ours).any()


@settings(deadline=None, max_examples=50)
@given(ramps(), st.sampled_from([0.25, 0.5]))
def test_another_unit_of_counts_changes_nothing(case, scale):
    data, before, threshold, reads = case
    threshold[threshold == NEVER_SATURATED] = 50000
    ours = flagged(data, before, threshold, reads, 1)
    np.testing.assert_array_equal(flagged(data * np.float32(scale), before, threshold * np.float32(scale), reads, 1), ours)


# ---------------------------------------------------------------------------------------------------------- the program
def write_thresholds(path, limit=LIMIT, rows=ROWS, columns=COLUMNS, dq=None):
    threshold = np.broadcast_to(np.float32(limit), (rows, columns)).copy()
    return write_reference(path, data=threshold, dq=np.zeros((rows, columns), np.uint32) if dq is None else dq)


@pytest.fixture
def busy(tmp_path):
    """A ramp with many saturated regions over all rows, and thresholds with NaN and unchecked pixels; its arrays."""
    rng = np.random.default_rng(4)
    data = ramp()
    data[:, rng.random((ROWS, COLUMNS)) < 0.01] *= 40
    data[3:, 60:70, 30:40] = data[4:, 63, 100] = data[2:, 64, 200] = 62000
    data[1, 5, 5] = 0
    threshold = np.full((ROWS, COLUMNS), LIMIT, np.float32)
    threshold[66, 30:35] = np.nan
    dq = np.zeros((ROWS, COLUMNS), np.uint32)
    dq[62, 30:35], dq[10, 10] = flags.NO_SAT_CHECK, flags.HOT
    pixeldq = np.zeros((ROWS, COLUMNS), np.uint32)
    pixeldq[10, 10:12] = flags.DEAD
    write_ramp(tmp_path / "in.asdf", data, pixeldq=pixeldq)
    write_reference(tmp_path / "sat.asdf", data=threshold, dq=dq)
    return tmp_path, data, threshold, dq


@pytest.mark.parametrize("options", [{}, {"n_pix_grow_sat": 1}, {"n_pix_grow_sat": 3, "backup": 2}])
@pytest.mark.slow
def test_the_program_writes_the_flags_of_the_whole_ramp(busy, options):
    folder, data, threshold, dq = busy
    arguments = [f"--{k}={v}" for k, v in options.items()]
    groupdq = np.zeros(data.shape, np.uint8)
    limits, limits_dq = checked_thresholds(threshold, dq)
    flag_saturated(data, groupdq, limits, PATTERN, **options)
    assert np.count_nonzero(groupdq & SAT) > 300
    for threads in (1, 3):
        succeed("saturation", folder / "in.asdf", folder / "out.asdf", "--saturation", folder / "sat.asdf", *arguments,
                f"--threads={threads}")  # fmt: skip
        with opened(folder / "out.asdf") as model:
            np.testing.assert_array_equal(model.groupdq, groupdq)
            np.testing.assert_array_equal(model.data, data)
            expected = limits_dq.copy()
            expected[10, 10:12] |= flags.DEAD
            np.testing.assert_array_equal(model.pixeldq, expected)
            assert model.pixeldq[66, 32] == model.pixeldq[62, 32] == flags.NO_SAT_CHECK
            assert model.meta.cal_step.saturation == "COMPLETE"
            assert model.meta.cal_step.refpix == "INCOMPLETE"


def saturated(border=0.0):
    """A ramp whose science pixels are all saturated in all resultants."""
    data = np.full((3, ROWS, COLUMNS), border, np.float32)
    data[:, 4:-4, 4:-4] = 65000
    return data


def statuses_after(folder, data, *, dq=None, **arrays):
    write_ramp(folder / "in.asdf", data, **arrays)
    write_thresholds(folder / "sat.asdf", dq=dq)
    done = succeed("saturation", folder / "in.asdf", folder / "out.asdf", "--saturation", folder / "sat.asdf")
    with opened(folder / "out.asdf") as model:
        return dict(model.meta.cal_step.items()), done.stderr


@pytest.mark.parametrize("case", ["dark border", "saturated border", "unchecked pixels", "said by pixeldq"])
@pytest.mark.slow
def test_a_fully_saturated_exposure_marks_what_follows_as_skipped(tmp_path, case):
    data, dq, arrays = saturated(65000 if case == "saturated border" else 0), None, {}
    if case == "unchecked pixels":
        dq = np.zeros((ROWS, COLUMNS), np.uint32)
        dq[30:40, 30:40], dq[70, 100] = flags.NO_SAT_CHECK, flags.NO_SAT_CHECK
    if case == "said by pixeldq":
        data, arrays = ramp(resultants=3), {"pixeldq": np.full((ROWS, COLUMNS), SAT, np.uint32)}
    statuses, said = statuses_after(tmp_path, data, dq=dq, **arrays)
    assert "All pixels are saturated" in said
    assert statuses["saturation"] == statuses["dq_init"] == "COMPLETE"
    assert {statuses[name] for name in AFTER_SATURATION} == {"SKIPPED"}
    assert set(AFTER_SATURATION) == set(statuses) - {"dq_init", "saturation", "flux", "outlier_detection", "skymatch"}
    # What follows passes it on.
    write_reference(tmp_path / "d.asdf", decay_table={})
    succeed("dark_decay", tmp_path / "out.asdf", tmp_path / "next.asdf", "--darkdecaysignal", tmp_path / "d.asdf")
    np.testing.assert_array_equal(arrays_of(tmp_path / "next.asdf")["data"], data)
    assert meta_of(tmp_path / "next.asdf")["cal_step"]["dark_decay"] == "SKIPPED"
    assert meta_of(tmp_path / "next.asdf")["filename"] == "next.asdf"


@pytest.mark.parametrize("place", [(4, 4), (70 - 3, 251), (66, 100)])
def test_one_good_science_pixel_keeps_the_exposure(tmp_path, place):
    data = saturated()
    data[0, *place] = 59999
    statuses, said = statuses_after(tmp_path, data)
    assert "All pixels are saturated" not in said
    assert {statuses[name] for name in AFTER_SATURATION} == {"INCOMPLETE"}


def test_pixels_without_a_check_do_not_count_as_saturated(tmp_path):
    statuses, _ = statuses_after(tmp_path, ramp(), dq=np.full((ROWS, COLUMNS), flags.NO_SAT_CHECK, np.uint32))
    assert statuses["refpix"] == "INCOMPLETE"


@pytest.mark.parametrize("fill", [65536.0, 108000.0, np.inf])
def test_an_unreachable_threshold_is_a_check_that_finds_nothing(tmp_path, fill):
    # One pixel has a threshold in DN and saturates; all others have another unit or a fill value.
    data, limits = ramp(), np.full((ROWS, COLUMNS), fill, np.float32)
    data[:, 30, 40], limits[30, 40] = 65000, LIMIT
    write_ramp(tmp_path / "in.asdf", data)
    write_reference(tmp_path / "sat.asdf", data=limits, dq=np.zeros((ROWS, COLUMNS), np.uint32))
    said = succeed("saturation", tmp_path / "in.asdf", tmp_path / "out.asdf", "--saturation", tmp_path / "sat.asdf").stderr
    assert "All pixels are saturated" not in said
    assert f"sat.asdf: the thresholds (data) of {ROWS * COLUMNS - 1} pixels" in said and "above 65535 DN" in said
    assert f"with a median of {fill:.6g} DN" in said
    with opened(tmp_path / "out.asdf") as model:
        assert {model.meta.cal_step[name] for name in AFTER_SATURATION} == {"INCOMPLETE"}
        np.testing.assert_array_equal(np.argwhere(model.groupdq & SAT)[:, 1:], [[30, 40]] * len(PATTERN))


@pytest.mark.parametrize(("checked_rows", "full"), [(1, False), (31, False), (33, True), (64, True)])
def test_most_science_pixels_must_be_checked_before_an_exposure_is_full(tmp_path, checked_rows, full):
    dq = np.full((ROWS, COLUMNS), flags.NO_SAT_CHECK, np.uint32)
    dq[4 : 4 + checked_rows] = 0  # of 64 science rows
    statuses, said = statuses_after(tmp_path, saturated(), dq=dq)
    assert statuses["refpix"] == ("SKIPPED" if full else "INCOMPLETE")
    assert ("All pixels are saturated" in said) == full
    assert (f"only {100 * checked_rows / 64:.2g} % of them" in said) == (not full)


def test_thresholds_in_the_range_of_the_converter_give_no_warning(tmp_path):
    write_ramp(tmp_path / "in.asdf", ramp())
    dq = np.zeros((ROWS, COLUMNS), np.uint32)
    limits = np.full((ROWS, COLUMNS), 65535, np.float32)
    dq[5], limits[5], limits[6] = flags.NO_SAT_CHECK, 1e6, np.nan
    write_reference(tmp_path / "sat.asdf", data=limits, dq=dq)
    done = succeed("saturation", tmp_path / "in.asdf", tmp_path / "out.asdf", "--saturation", tmp_path / "sat.asdf")
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("how", ["nan", "flagged"])
@pytest.mark.parametrize(("unchecked_rows", "warned"), [(3, None), (4, "6.25 %"), (32, "50 %")])
def test_many_science_pixels_without_a_threshold_give_a_warning(tmp_path, how, unchecked_rows, warned):
    write_ramp(tmp_path / "in.asdf", ramp())
    dq, limits = np.zeros((ROWS, COLUMNS), np.uint32), np.full((ROWS, COLUMNS), LIMIT, np.float32)
    rows = slice(0, 4 + unchecked_rows)  # the reference border counts for nothing
    if how == "nan":
        limits[rows] = np.nan
    else:
        dq[rows] = flags.NO_SAT_CHECK
    write_reference(tmp_path / "sat.asdf", data=limits, dq=dq)
    said = succeed("saturation", tmp_path / "in.asdf", tmp_path / "out.asdf", "--saturation", tmp_path / "sat.asdf").stderr
    lines = [line for line in said.splitlines() if "WARNING" in line]
    assert len(lines) == (warned is not None)
    assert all(f"sat.asdf: {warned} of the science pixels have no threshold" in line for line in lines)


def test_without_a_reference_the_step_is_skipped(tmp_path):
    data = saturated()
    write_ramp(tmp_path / "in.asdf", data)
    done = succeed("saturation", tmp_path / "in.asdf", tmp_path / "out.asdf", "--saturation", "N/A")
    assert "WARNING" in done.stderr
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step.saturation == "SKIPPED"
        assert model.meta.ref_file.saturation == "N/A"
        assert not model.groupdq.any()


@pytest.mark.parametrize(("rows", "dq_rows"), [(ROWS - 1, ROWS - 1), (ROWS, ROWS - 1)])
def test_a_reference_of_another_shape_is_refused(tmp_path, rows, dq_rows):
    write_ramp(tmp_path / "in.asdf", ramp())
    write_thresholds(tmp_path / "sat.asdf", rows=rows, dq=np.zeros((dq_rows, COLUMNS), np.uint32))
    said = refuse("saturation", tmp_path / "out.asdf", tmp_path / "in.asdf", tmp_path / "out.asdf", "--saturation",
                  tmp_path / "sat.asdf")  # fmt: skip
    assert "sat.asdf: " in said and "the shape (71, 256)" in said


def test_the_largest_numbers_flag_the_whole_frame():
    """They are those of a frame and of a ramp; a window or a loop of such a size would not end."""
    data = np.full((len(READS), 9, 12), 100, np.float32)
    data[-1, 4, 4] = LIMIT
    found = []
    for number in (100, 2**31, 10**30):
        groupdq = np.zeros(data.shape, np.uint8)
        flag_saturated(data, groupdq, np.full((9, 12), LIMIT), READS, n_pix_grow_sat=number, backup=number)
        found.append(groupdq)
    assert (found[0][-1] & SAT).all() and found[0][1, 4, 4] & SAT
    np.testing.assert_array_equal(found[1:], found[:1] * 2)
