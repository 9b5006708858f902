"""Entries of an exposure's metadata that contradict each other: one warning each, and no number changes."""

import numpy as np
import pytest
from small_files import META, arrays_of, ramp, succeed, write_raw

from rampflow.step.consistency import contradictions

NAME = "r0000101001001001001_0001_wfi07_f158_uncal.asdf"
PATTERN = [[1], [2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [20]]
SOUND = {
    "type": "WFI_IMAGE",
    "frame_time": 3.0,
    "read_pattern": PATTERN,
    "nresultants": 6,
    "exposure_time": 60.0,
    "effective_exposure_time": 57.0,
    "start_time": "2027-01-01T00:00:00.000",
    "mid_time": "2027-01-01T00:00:30.000",
    "end_time": "2027-01-01T00:01:00.000",
    "truncated": False,
    "data_problem": None,
    "engineering_quality": "OK",
}

OBSERVATION = {
    "program": 1,
    "execution_plan": 1,
    "pass": 1,
    "segment": 1,
    "observation": 1,
    "visit": 1,
    "exposure": 1,
    "visit_id": "0000101001001001001",
}


def lines_of(
    name=NAME,
    resultants=6,
    detector="WFI07",
    optical_element="F158",
    aperture_name="?",
    pointing=(270.0, 66.0, 269.5, 66.4),
    observation=None,
    **entries,
):
    wcsinfo = {"aperture_name": aperture_name, "ra_ref": pointing[0], "dec_ref": pointing[1]}
    exposure = {key: value for key, value in (SOUND | entries).items() if value is not ...}
    meta = {
        "exposure": exposure,
        "instrument": {"detector": detector, "optical_element": optical_element},
        "observation": OBSERVATION | (observation or {}),
        "wcsinfo": wcsinfo,
        "pointing": {"ra_v1": pointing[2], "dec_v1": pointing[3]},
    }
    return contradictions(meta, resultants, name)


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"exposure_time": 63.0},  # the reset frame counts
        {"effective_exposure_time": 60.0},  # from the first read on
        {"end_time": "2027-01-01T00:01:08.000"},
        # Placeholders say nothing.
        {"exposure_time": -999999, "effective_exposure_time": -999999.0, "nresultants": -999999},
        {"data_problem": "?", "engineering_quality": "?"},
        {"data_problem": False},
        {"exposure_time": ..., "start_time": ..., "end_time": ..., "data_problem": ..., "nresultants": ...},
        {"start_time": "?", "end_time": None},
        {"start_time": "2020-01-01T00:00:00.000", "end_time": "2020-01-01T00:00:00.000"},
        {"exposure_time": "long", "effective_exposure_time": True},
        {"detector": "wfi07", "optical_element": "?"},
        {"name": "my_file_uncal.asdf"},
        {"name": "r1_uncal.asdf"},
        {"type": "WFI_SPECTRAL", "optical_element": "GRISM_0", "name": "r1_uncal.asdf"},
        {"type": "WFI_IM_DARK", "optical_element": "DARK", "name": "r1_uncal.asdf"},
        {"mid_time": ...},
        {"mid_time": "?"},
        {"mid_time": "2020-01-01T00:00:00.000"},
        {"mid_time": "2027-01-01T00:01:00.000"},
        {"truncated": "?"},
        {"observation": {"program": -999999, "visit": "?", "exposure": None, "visit_id": "?"}},
        {"observation": {"visit": 3, "visit_id": "0000101001001001003"}, "name": "my_file_wfi07_f158_uncal.asdf"},
        {"aperture_name": "WFI_07_FULL"},
        {"aperture_name": "WFI_CEN"},
        {"aperture_name": "WFI01_FULL"},
        {"pointing": (0.1, 66.0, 359.5, 66.4)},
        {"pointing": (270.0, 66.0, 0.0, 0.0)},
        {"pointing": (-999999, -999999, 270.0, 66.0)},
        {"pointing": (270.0, 66.0, None, "?")},
    ],
)
def test_consistent_metadata_and_placeholders_give_no_warning(entries):
    assert lines_of(**entries) == []


@pytest.mark.parametrize(
    ("entries", "values"),
    [
        ({"frame_time": 6.0}, ["meta.exposure.exposure_time is 60 s", "20 reads", "6 s (frame_time) last 120 s"]),
        ({"exposure_time": 50.0}, ["meta.exposure.exposure_time is 50 s", "last 60 s"]),
        ({"nresultants": 5}, ["meta.exposure.nresultants is 5", "data has 6"]),
        ({"effective_exposure_time": 150.0}, ["meta.exposure.effective_exposure_time is 150 s", "last 60 s"]),
        (
            {"end_time": "2027-01-01T00:03:00.000"},
            ["meta.exposure.exposure_time is 60 s", "180 s", "end_time (2027-01-01 00:03:00)"],
        ),
        ({"end_time": "2026-12-31T23:59:00.000"}, ["-60 s"]),
        ({"mid_time": "2027-01-01T00:02:00.000"}, ["mid_time is 2027-01-01 00:02:00", "start_time (2027-01-01 00:00:00)"]),
        ({"mid_time": "2026-01-01T00:00:00.000"}, ["mid_time is 2026-01-01 00:00:00", "end_time (2027-01-01 00:01:00)"]),
        ({"truncated": True}, ["meta.exposure.truncated is true"]),
        (
            {"observation": {"visit": 3, "program": 42}},
            ["program is 42 (in the name: 1)", "visit is 3 (in the name: 1)"],
        ),
        ({"observation": {"exposure": 7}}, ["exposure is 7 (in the name: 1)"]),
        ({"observation": {"visit_id": "0000101001001001002"}}, ["visit_id is 0000101001001001002"]),
        ({"name": NAME.replace("wfi07", "wfi18")}, ["meta.instrument.detector is WFI07", "says WFI18"]),
        ({"name": NAME.replace("f158", "f129")}, ["meta.instrument.optical_element is F158", "says F129"]),
        ({"data_problem": "L1 telemetry gap"}, ["meta.exposure.data_problem is 'L1 telemetry gap'"]),
        ({"data_problem": True}, ["meta.exposure.data_problem is True"]),
        ({"exposure_time": -999999, "frame_time": 6.0, "effective_exposure_time": -999999}, ["20 reads", "120 s", "60 s from"]),
        ({"type": "WFI_SPECTRAL"}, ["meta.exposure.type is WFI_SPECTRAL", "optical_element F158"]),
        ({"optical_element": "PRISM", "name": "r1_uncal.asdf"}, ["meta.exposure.type is WFI_IMAGE", "optical_element PRISM"]),
        ({"aperture_name": "WFI18_FULL"}, ["meta.wcsinfo.aperture_name is WFI18_FULL", "detector WFI07"]),
        ({"pointing": (270.0, -66.0, 269.5, 66.4)}, ["(270, -66) are 132 degrees", "ra_v1 and dec_v1: 269.5, 66.4"]),
        ({"engineering_quality": "SUSPECT"}, ["meta.exposure.engineering_quality is 'SUSPECT'"]),
    ],
)
def test_a_contradiction_is_one_line_with_both_values(entries, values):
    (line,) = lines_of(**entries)
    assert all(value in line for value in values), line


def test_times_with_a_tag_are_read():
    """As the reader of files gives them."""
    assert lines_of(end_time={"value": "2027-01-01T00:01:00.000", "base_format": "datetime"}) == []
    assert len(lines_of(end_time={"value": "2027-01-01T00:09:00.000", "base_format": "datetime"})) == 1


def test_dq_init_warns_and_writes_the_same_arrays(tmp_path):
    wrong = {
        "exposure.exposure_time": 6 * META["exposure.frame_time"],
        "exposure.data_problem": "shutter",
        "exposure.engineering_quality": "SUSPECT",
        "exposure.nresultants": 6,
    }
    sound = {
        "exposure.exposure_time": 12 * META["exposure.frame_time"],
        "exposure.nresultants": 6,
        "exposure.data_problem": None,
    }
    write_raw(tmp_path / NAME.replace("wfi07", "wfi18"), ramp(), wrong)
    write_raw(tmp_path / NAME, ramp(), sound | {"exposure.engineering_quality": "OK"})
    done = succeed("dq_init", tmp_path / NAME.replace("wfi07", "wfi18"), tmp_path / "wrong.asdf", "--mask=N/A")
    fine = succeed("dq_init", tmp_path / NAME, tmp_path / "sound.asdf", "--mask=N/A")
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line and "mask" not in line]
    assert len(warnings) == 4 and not [line for line in fine.stderr.splitlines() if "WARNING" in line and "mask" not in line]
    for name, expected in arrays_of(tmp_path / "sound.asdf").items():
        np.testing.assert_array_equal(arrays_of(tmp_path / "wrong.asdf")[name], expected)
