"""Raw exposures of older versions and of ground tests become valid ramps."""

import tempfile

import asdf
import dq_init
import numpy as np
import pytest
from astropy import units
from astropy.time import Time
from roman_datamodels import datamodels
from small_files import meta_of, opened, refuse, run_here, set_entries, write_ramp, write_reference

from rampflow import dq as flags
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.level1 import RAW_TAG
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged

VERSIONS = [f"1.{minor}.0" for minor in range(9)] + ["2.0.0", "2.1.0"]
SHAPE = (3, 24, 128)
STATISTICS = ("mean_counts_per_sec", "median_counts_per_sec", "max_counts", "min_counts")  # of ground tests
PATTERN = [[1], [2, 3], [4, 5, 6]]
META = {
    "exposure": {"read_pattern": PATTERN, "frame_time": 3.1, "type": "WFI_IMAGE"},
    "instrument": {"detector": "WFI05"},
}


def counts(seed=1, columns=128):
    return np.random.default_rng(seed).integers(100, 60000, (*SHAPE[:2], columns)).astype(np.uint16)


def update(meta, changes):
    for section, entries in changes.items():
        for name, value in entries.items():
            meta[section][name] = value


def initialize(folder):
    """Run dq_init here: the data models, which it needs for these files, are imported already."""
    mask = write_reference(folder / "mask.asdf", dq=np.full(SHAPE[1:], flags.HOT, np.uint32))
    run_here(dq_init, folder / "in_uncal.asdf", folder / "out.asdf", f"--mask={mask}")


def check_ramp(model, data, amp33):
    assert type(model).__name__ == model.meta.model_type == "RampModel"
    np.testing.assert_array_equal(model.data, data)
    np.testing.assert_array_equal(model.amp33, amp33)
    assert (model.data.dtype, model.amp33.dtype) == (np.float32, np.uint16)
    assert (np.asarray(model.pixeldq) == flags.HOT).all() and not np.asarray(model.groupdq).any()
    assert [list(reads) for reads in model.meta.exposure.read_pattern] == PATTERN
    assert model.meta.exposure.frame_time == 3.1
    assert model.meta.instrument.detector == "WFI05"
    assert model.meta.filename == "out.asdf"
    assert model.meta.cal_step.dq_init == "COMPLETE"


def test_the_newest_version_is_that_of_the_data_models():
    newest = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE)
    assert newest.tag == ROMAN_PREFIX + RAW_TAG
    assert RAW_TAG.endswith(VERSIONS[-1])


@pytest.mark.parametrize(("version", "problem"), zip(VERSIONS, [True, False] * 6, strict=False))
def test_raw_exposures_of_every_version_become_ramps(tmp_path, version, problem):
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-{version}")
    boolean = isinstance(model.meta.exposure.data_problem, bool) if "data_problem" in model.meta.exposure else False
    update(model.meta, META)
    if boolean:
        model.meta.exposure.data_problem = problem
    model.data, model.amp33 = counts(1), counts(2)
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as ramp:
        check_ramp(ramp, counts(1), counts(2))
        if boolean:
            assert ramp.meta.exposure.data_problem == ("True" if problem else None)


@pytest.mark.parametrize(("sequence", "parallel"), [(1, False), (2, True), (-999999, False)])
def test_later_sequences_of_a_visit_are_parallel_observations(tmp_path, sequence, parallel):
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-1.4.0")
    update(model.meta, META)
    model.meta.observation.visit_file_sequence = sequence
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    assert meta_of(tmp_path / "out.asdf")["observation"]["wfi_parallel"] is parallel


def test_an_explicit_parallel_entry_is_kept(tmp_path):
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-1.6.0")
    update(model.meta, META)
    model.meta.observation.visit_file_sequence, model.meta.observation.wfi_parallel = 2, False
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    assert meta_of(tmp_path / "out.asdf")["observation"]["wfi_parallel"] is False


def test_entries_of_the_oldest_version_are_found_under_their_new_names(tmp_path):
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-1.0.0")
    update(model.meta, META)
    model.meta.visit.engineering_quality, model.meta.visit.pointing_engineering_source = "SUSPECT", "PLANNED"
    model.meta.wcsinfo.pa_aperture = 12.5
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as ramp:
        assert ramp.meta.exposure.engineering_quality == "SUSPECT"
        assert ramp.meta.pointing.pointing_engineering_source == "PLANNED"
        assert ramp.meta.pointing.pa_aperture == 12.5


@pytest.mark.parametrize("name", ["FpsModel", "TvacModel"])
def test_the_guide_window_and_the_times_of_a_ground_test_are_kept(tmp_path, name):
    model = getattr(datamodels, name).create_fake_data(shape=SHAPE)
    update(model.meta, META)
    window = {"xstart": 30, "xstop": 46, "ystart": 5, "ystop": 13}
    for side, value in window.items():
        model.meta.guidestar[f"gw_window_{side}"] = value
    model.meta.guidestar.gw_id, model.meta.guidestar.gw_fgs_mode = "W7", "WSM-TRACK"
    model.meta.exposure.ngroups, model.meta.exposure.exposure_time = SHAPE[0], 18.6
    model.meta.exposure.start_time = Time("2024-04-20T00:00:00", format="isot")
    model.meta.prd_software_version = type(model.meta.prd_software_version)("prd-5")
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as ramp:
        meta = ramp.meta
        assert {side: meta.guide_star[f"window_{side}"] for side in window} == window
        assert (meta.guide_star.guide_window_id, meta.guide_star.guide_mode) == ("W7", "WSM-TRACK")
        assert (meta.exposure.nresultants, meta.prd_version) == (SHAPE[0], "prd-5")
        assert (meta.exposure.end_time - meta.exposure.start_time).sec == pytest.approx(18.6)
        expected = np.full(SHAPE[1:], flags.HOT, np.uint32)
        expected[:, 30:46] |= flags.GW_AFFECTED_DATA
        expected[5:13, 30:46] |= flags.DO_NOT_USE
        np.testing.assert_array_equal(ramp.pixeldq, expected)


@pytest.mark.parametrize("version", ["1.4.0", "2.0.0"])
def test_older_exposures_are_decoded_too(tmp_path, version):
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-{version}")
    update(model.meta, META)
    model.data, model.amp33 = counts(1), np.full(SHAPE, 5000, np.uint16)
    model["reference_read"] = np.full(SHAPE[1:], 70, np.uint16)
    model["reference_amp33"] = np.full(SHAPE[1:], 30, np.uint16)
    model["resultantdq"] = np.full(SHAPE, flags.DROPOUT, np.uint8)
    model.meta.instrument["data_encoding_offset"] = 20
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as ramp:
        np.testing.assert_array_equal(ramp.data, counts(1).astype(np.float32) + 50)
        assert (np.asarray(ramp.amp33) == 5010).all()
        assert (np.asarray(ramp.groupdq) == flags.DROPOUT).all()


@pytest.mark.parametrize("name", ["FpsModel", "TvacModel"])
@pytest.mark.parametrize(("with_statistics", "with_read"), [(False, False), (True, False), (False, True)])
def test_ground_tests_become_ramps(tmp_path, name, with_statistics, with_read):
    model = getattr(datamodels, name).create_fake_data(shape=SHAPE)
    update(model.meta, META)
    dn = model.data.unit
    assert dn == units.DN
    model.data, model.amp33 = (units.Quantity(counts(seed), dn, dtype=np.uint16) for seed in (1, 2))
    model.save(tmp_path / "saved.asdf")
    with AsdfFile(tmp_path / "saved.asdf") as file:
        data = file.tree["roman"]["data"]
        if with_read:  # it has been added back to the data already
            file.tree["roman"]["reference_read"] = tagged({**data, "value": np.full(SHAPE, 70, np.uint16)}, data.tag)
        if with_statistics:
            statistics = tagged(dict.fromkeys(STATISTICS), f"{ROMAN_PREFIX}{name[:-5].lower()}/statistics-1.0.0")
            file.tree["roman"]["meta"]["statistics"] = statistics
        with create_asdf(tmp_path / "in_uncal.asdf", file.tree, file.standard):
            pass
    initialize(tmp_path)
    with opened(tmp_path / "out.asdf") as ramp:
        check_ramp(ramp, counts(1), counts(2))
        assert "statistics" not in ramp.meta
        if with_statistics:
            assert set(ramp["extras"]["ground_test"]["statistics"]) == set(STATISTICS)


def test_a_ramp_as_raw_exposure_is_refused(tmp_path):
    write_ramp(tmp_path / "in_uncal.asdf", np.zeros(SHAPE))
    said = refuse("dq_init", tmp_path / "o.asdf", tmp_path / "in_uncal.asdf", tmp_path / "o.asdf", "--mask=N/A")
    assert "in_uncal.asdf: expected the data model 'wfi_science_raw', 'fps' or 'tvac', found 'ramp-2.1.0'" in said


@pytest.mark.parametrize("damage", ["no amp33", "no read pattern", "data of two axes", "not a model"])
def test_an_older_exposure_that_is_incomplete_is_named(tmp_path, damage):
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-1.3.0")
    update(model.meta, META)
    model.save(tmp_path / "whole.asdf")
    # asdf would not write what is not valid: change the text.
    with AsdfFile(tmp_path / "whole.asdf") as file:
        tree = file.tree
        if damage == "no amp33":
            del tree["roman"]["amp33"]
        elif damage == "no read pattern":
            set_entries(tree["roman"], {"meta.exposure.read_pattern": ...})
        elif damage == "data of two axes":
            tree["roman"]["data"] = np.zeros((24, 128), np.uint16)
        else:
            tree["roman"] = dict(tree["roman"])
        with create_asdf(tmp_path / "in_uncal.asdf", tree):
            pass
    said = refuse("dq_init", tmp_path / "o.asdf", tmp_path / "in_uncal.asdf", tmp_path / "o.asdf", "--mask=N/A")
    assert "in_uncal.asdf: " in said


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-1.3.0")
    update(model.meta, META)
    model.save(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    assert not any((tmp_path / "scratch").iterdir())
    with asdf.open(tmp_path / "out.asdf") as file:
        assert file["roman"]["meta"]["exposure"]["frame_time"] == 3.1
