"""Raw exposures of older versions and of ground tests become valid ramps."""

import dq_init
import numpy as np
import pytest
from astropy import units
from astropy.time import Time
from roman_datamodels import datamodels
from small_files import meta_of, opened, refuse, run_here, set_entries, write_reference

from rampflow import dq as flags
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.data_models import data_model, data_model_of
from rampflow.files.level1 import missing_metadata, update_raw
from rampflow.files.models import check_product
from rampflow.files.stored_array import StoredArray
from rampflow.files.tags import RAW_TAGS, ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure

NEWEST = datamodels.ScienceRawModel.create_minimal().tag.removeprefix(ROMAN_PREFIX)  #: of the installed packages
KNOWN = [tag for tag in RAW_TAGS if tag.startswith("wfi_science_raw")]
VERSIONS = [tag.rpartition("-")[2] for tag in KNOWN[: KNOWN.index(NEWEST) + 1]]
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


def initialize(folder, *options):
    """Run dq_init here, which saves the time of its imports; return its log."""
    mask = write_reference(folder / "mask.asdf", dq=np.full(SHAPE[1:], flags.HOT, np.uint32))
    return run_here(dq_init, folder / "in_uncal.asdf", folder / "out.asdf", f"--mask={mask}", *options)


def write_version(folder, tag, entries=None, version="2.1.0"):
    """A raw exposure with a tag and entries that the installed data models may not have."""
    model = datamodels.ScienceRawModel.create_fake_data(shape=SHAPE, tag=f"{ROMAN_PREFIX}wfi_science_raw-{version}")
    update(model.meta, META)
    model.data, model.amp33 = counts(1), counts(2)
    model.save(folder / "whole.asdf")
    with AsdfFile(folder / "whole.asdf") as file:
        roman = tagged(file.tree["roman"], ROMAN_PREFIX + tag)
        set_entries(roman["meta"], entries or {})
        with create_asdf(folder / "in_uncal.asdf", {**file.tree, "roman": roman}, file.standard):
            pass


#: What version 2.2.0 has more than 2.1.0.
ENTRIES_OF_2_2 = {"visit.wfi_acm_z_defocus_size": 0.5, "ref_file.bam": "N/A"}


def check_ramp(model, data, amp33):
    assert model.meta.model_type == "RampModel"
    np.testing.assert_array_equal(model.data, data)
    np.testing.assert_array_equal(model.amp33, amp33)
    assert (model.data.dtype, model.amp33.dtype) == (np.float32, np.uint16)
    assert (np.asarray(model.pixeldq) == flags.HOT).all() and not np.asarray(model.groupdq).any()
    assert [list(reads) for reads in model.meta.exposure.read_pattern] == PATTERN
    assert model.meta.exposure.frame_time == 3.1
    assert model.meta.instrument.detector == "WFI05"
    assert model.meta.filename == "out.asdf"
    assert model.meta.cal_step.dq_init == "COMPLETE"


@pytest.mark.parametrize(("version", "problem"), list(zip(VERSIONS, [True, False] * 7, strict=False)))
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


@pytest.mark.parametrize(("tag", "entries"), [("wfi_science_raw-2.2.0", ENTRIES_OF_2_2), ("wfi_science_raw-2.9.0", {"new": 1})])
def test_newer_raw_exposures_become_ramps_too(tmp_path, tag, entries):
    write_version(tmp_path, tag, {**ENTRIES_OF_2_2, **entries})
    said = initialize(tmp_path)
    assert said.count("WARNING") == said.count(f"{tag} is newer than {KNOWN[-1]}") == (tag == "wfi_science_raw-2.9.0")
    with opened(tmp_path / "out.asdf") as ramp:
        check_ramp(ramp, counts(1), counts(2))
        assert ramp.tag == data_model("1.1").ramp
        assert ramp.meta.visit["wfi_acm_z_defocus_size"] == 0.5
        assert ("new" in ramp.meta) == ("new" in entries)


@pytest.mark.parametrize("version", ["1.0.0", "1.8.0", "2.1.0", "2.2.0", "2.9.0"])
def test_the_ramp_has_the_data_model_that_is_asked_for(tmp_path, version):
    entries = ENTRIES_OF_2_2 if version > "2.2" else {}
    write_version(tmp_path, f"wfi_science_raw-{version}", entries, version if version < "2.2" else "2.1.0")
    initialize(tmp_path, "--data_model=1.2")
    check_product(tmp_path / "out.asdf", "RampModel")
    with AsdfFile(tmp_path / "out.asdf") as file:
        ramp = Exposure(file)
        assert ROMAN_PREFIX + ramp.tag == data_model("1.2").ramp
        flags2 = ramp.array("pixeldq2", 2)
        assert flags2.dtype == np.uint32 and flags2.shape == SHAPE[1:] and not flags2.read().any()
        assert ramp.meta["visit"]["wfi_acm_z_defocus_size"] == (0.5 if entries else -999999.0)
        assert ramp.meta["ref_file"]["bam"] == ("N/A" if entries else "?")
        np.testing.assert_array_equal(ramp.array("data").read(), counts(1))


def test_entries_and_arrays_of_a_newer_version_are_copied(tmp_path):
    """Anywhere in the tree: arrays in the metadata can't be copied in memory, for they lie in the file."""
    added = {"meta": {"novel": {"values": np.arange(5000), "name": "x"}}, "hot": {"map": np.ones((100, 50), np.int16)}}
    write_version(tmp_path, "wfi_science_raw-2.9.0", {"novel": added["meta"]["novel"]})
    with AsdfFile(tmp_path / "in_uncal.asdf") as file:
        file.tree["roman"]["hot"] = added["hot"]
        with create_asdf(tmp_path / "more_uncal.asdf", file.tree, file.standard):
            pass
    (tmp_path / "more_uncal.asdf").replace(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    with AsdfFile(tmp_path / "out.asdf") as file:
        roman = file.tree["roman"]
        np.testing.assert_array_equal(roman["meta"]["novel"]["values"].read(), np.arange(5000))
        np.testing.assert_array_equal(roman["hot"]["map"].read(), np.ones((100, 50)))
        assert roman["meta"]["novel"]["name"] == "x"


def test_a_ramp_without_what_its_version_asks_for_is_not_valid(tmp_path):
    write_version(tmp_path, "wfi_science_raw-2.2.0", {"ref_file.bam": "N/A"})  # without the defocus
    initialize(tmp_path, "--data_model=1.2")
    with pytest.raises(RampflowError, match="wfi_acm_z_defocus_size"):
        check_product(tmp_path / "out.asdf", "RampModel")


@pytest.mark.parametrize("tag", ["wfi_science_raw-3.0.0", "wfi_science_raw-0.9.0", "fps-2.0.0"])
def test_an_unknown_major_version_is_refused(tmp_path, tag):
    write_version(tmp_path, tag)
    said = refuse("dq_init", tmp_path / "o.asdf", tmp_path / "in_uncal.asdf", tmp_path / "o.asdf", "--mask=N/A")
    assert f"in_uncal.asdf: has the data model {tag}, whose major version is unknown" in said
    known = [name.rpartition("-")[2] for name in RAW_TAGS if name.rpartition("-")[0] == tag.rpartition("-")[0]]
    assert f"that can be read: {', '.join(known)}, and newer minor versions" in said


@pytest.mark.parametrize(
    ("tag", "version"), [("ramp-1.3.0", "1.1"), ("ramp-2.1.0", "1.1"), ("wfi_image-2.2.0", "1.2"), ("ramp-2.7.0", "1.2")]
)
def test_steps_write_the_data_model_of_their_input(tag, version):
    assert data_model_of(tag) == data_model_of(ROMAN_PREFIX + tag) == data_model(version)


def test_a_newer_reference_is_read_with_one_warning(tmp_path):
    write_version(tmp_path, "wfi_science_raw-2.1.0")
    meta = {"reftype": "MASK", "instrument": {"detector": "WFI05"}}
    for version, warnings in (("2.0.0", 0), ("2.7.0", 1), ("3.0.0", 1)):
        roman = tagged({"meta": meta, "dq": np.zeros(SHAPE[1:], np.uint32)}, f"{ROMAN_PREFIX}reference_files/mask-{version}")
        with create_asdf(tmp_path / "mask.asdf", {"roman": roman}):
            pass
        said = run_here(dq_init, tmp_path / "in_uncal.asdf", tmp_path / "out.asdf", f"--mask={tmp_path / 'mask.asdf'}")
        assert said.count("is newer than 2.0.0") == warnings


def test_the_ramp_does_not_name_the_packages_of_the_raw_file(tmp_path):
    """asdf would warn of each product if they are newer than the installed ones."""
    write_version(tmp_path, "wfi_science_raw-2.1.0")
    with AsdfFile(tmp_path / "in_uncal.asdf") as file:
        history = file.tree["history"]
        assert history["extensions"]
        history["extensions"][0]["software"]["version"] = "99.0.0"
        history["entries"] = [{"description": "a note"}]
        with create_asdf(tmp_path / "note_uncal.asdf", file.tree, file.standard):
            pass
    (tmp_path / "note_uncal.asdf").replace(tmp_path / "in_uncal.asdf")
    initialize(tmp_path)
    with AsdfFile(tmp_path / "out.asdf") as file:
        assert file.tree["history"] == {"entries": [{"description": "a note"}]}


def test_the_arrays_of_an_older_exposure_stay_in_its_file(tmp_path):
    write_version(tmp_path, "wfi_science_raw-1.3.0", version="1.3.0")
    with AsdfFile(tmp_path / "in_uncal.asdf") as file:
        raw = Exposure(file)
        update_raw(raw, data_model())
        assert isinstance(raw.roman["data"], StoredArray) and isinstance(raw.roman["amp33"], StoredArray)


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("1.0.0", "wcsinfo.v2_ref"),
        ("1.3.0", "guide_star.window_xstart"),
        ("1.8.0", "exposure.hga_move"),
        ("2.1.0", "visit.dither"),
    ],
)
def test_metadata_that_a_version_requires_gets_no_placeholder(tmp_path, version, field):
    write_version(tmp_path, f"wfi_science_raw-{version}", {field: ...}, version)
    with AsdfFile(tmp_path / "in_uncal.asdf") as file:
        raw = Exposure(file)
        update_raw(raw, data_model("1.2"))
        missing = missing_metadata(raw, data_model("1.2"))
    assert missing and all(name.startswith(f"meta.{field}") for name in missing)


def test_metadata_that_was_renamed_and_is_missing_gets_no_placeholder(tmp_path):
    write_version(tmp_path, "wfi_science_raw-1.0.0", {"visit.engineering_quality": ...}, "1.0.0")
    with AsdfFile(tmp_path / "in_uncal.asdf") as file:
        raw = Exposure(file)
        update_raw(raw, data_model())
        assert missing_metadata(raw, data_model()) == ["meta.exposure.engineering_quality"]


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
