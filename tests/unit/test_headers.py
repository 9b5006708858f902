"""Headers of raw files: what is read, and what is refused."""

import json
import re
import shlex

import numpy as np
import pytest
from inventories import SIZE, write_exposure
from small_files import set_entries

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.tags import ROMAN_PREFIX, TIME
from rampflow.files.yaml_tree import tagged
from rampflow.workflow import member_choice
from rampflow.workflow.headers import read_header


def test_the_suggested_command_keeps_the_given_configuration():
    def advise(words, names=("a", "b")):
        return member_choice.exclude_option(list(names), shlex.split(words))

    assert advise("snakemake --cores 2") == "--config 'exclude=[a,b]'"
    given = "snakemake --config input=x.json steps='{refpix: {skip: true}}' exclude=a --cores 2 report"
    assert shlex.split(advise(given)) == ["--config", "input=x.json", "steps={refpix: {skip: true}}", "exclude=[a,b]"]
    assert advise("snakemake --config input=x -k -C results=y") == "--config results=y 'exclude=[a,b]'"
    assert advise("snakemake --config=input=x", names=["a", "a"]) == "--config input=x 'exclude=[a]'"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta.exposure.read_pattern": [[1], [2]]}, "lists 2 resultants and data has 4"),
        ({"meta.exposure.type": ...}, "meta.exposure.type is missing"),
        ({"meta.instrument.optical_element": 5}, "optical_element is 5"),
        ({"data": ...}, "data is missing"),
        ({"data": np.zeros((4, SIZE, 200), np.uint16)}, "columns a multiple of 128"),
        ({"data": np.zeros((SIZE, SIZE), np.uint16)}, "data has 256"),
        ({"meta.exposure.read_pattern": [[1], [2], [3], [100_001]]}, "must list the reads of each resultant"),
        ({"data": "text"}, "data is not an array"),
    ],
)
def test_an_invalid_header_is_named(tmp_path, changes, message):
    write_exposure(tmp_path, "a")
    with AsdfFile(tmp_path / "a_uncal.asdf") as file:
        set_entries(file.tree["roman"], changes)
        with create_asdf(tmp_path / "b_uncal.asdf", file.tree):
            pass
    with pytest.raises(RampflowError, match=r"b_uncal\.asdf: ") as error:
        read_header(tmp_path / "b_uncal.asdf")
    assert message in str(error.value)


def with_tag(path, tag, changes=None):
    """A raw file with another tag, and other entries."""
    with AsdfFile(path) as file:
        roman = tagged(file.tree["roman"], ROMAN_PREFIX + tag)
        set_entries(roman, changes or {})
        with create_asdf(path.with_name("b_uncal.asdf"), {**file.tree, "roman": roman}):
            pass
    return path.with_name("b_uncal.asdf")


TIMES = ("start_time", "mid_time", "end_time")


@pytest.mark.parametrize(
    "time",
    [
        {"value": 2461466.0, "format": "jd"},
        {"value": 61465.5, "format": "mjd", "scale": "tai"},
        "2027:060:12:00:00.000",
        {"value": "B2027.164", "base_format": "byear"},
    ],
)
def test_times_of_every_format_choose_references(tmp_path, time):
    """astropy's times keep their format in a file; CRDS compares ISO 8601 alone."""
    write_exposure(tmp_path, "a")
    changes = {f"meta.exposure.{name}": tagged(time, TIME) for name in TIMES}
    header = read_header(with_tag(tmp_path / "a_uncal.asdf", "wfi_science_raw-2.1.0", changes))
    assert header["crds"]["roman.meta.exposure.start_time"].startswith("2027-03-01T1") and header["refusals"] == {}


def test_another_width_of_amplifier_33_is_refused_before_any_job(tmp_path):
    write_exposure(tmp_path, "a")
    with AsdfFile(tmp_path / "a_uncal.asdf") as file:
        shape = file.tree["roman"]["amp33"].shape
    changed = with_tag(tmp_path / "a_uncal.asdf", "wfi_science_raw-2.1.0", {"amp33": np.zeros((*shape[:2], 64), np.uint16)})
    assert read_header(changed)["refusals"].keys() == {"refpix"}


def test_a_time_that_can_not_be_read_is_refused_before_any_job(tmp_path):
    write_exposure(tmp_path, "a")
    changes = {f"meta.exposure.{name}": tagged("2027:400:12:00:00.000", TIME) for name in TIMES}
    header = read_header(with_tag(tmp_path / "a_uncal.asdf", "wfi_science_raw-2.1.0", changes))
    assert "b_uncal.asdf: meta.exposure must have a mid_time" in header["refusals"]["tweakreg"]


@pytest.mark.parametrize("tag", ["wfi_science_raw-2.2.0", "wfi_science_raw-2.9.0", "wfi_science_raw-1.8.0"])
def test_every_version_of_raw_files_is_taken(tmp_path, tag):
    path = write_exposure(tmp_path, "a")
    assert read_header(with_tag(path, tag))["refusals"] == {}


@pytest.mark.parametrize("tag", ["wfi_science_raw-3.0.0", "wfi_science_raw-2.1", "wfi_image-2.1.0"])
def test_data_models_that_cant_be_read_are_refused(tmp_path, tag):
    with pytest.raises(RampflowError, match=rf"b_uncal\.asdf: .*{re.escape(tag)}"):
        read_header(with_tag(write_exposure(tmp_path, "a"), tag))


@pytest.mark.parametrize("tag", ["wfi_science_raw-1.8.0", "wfi_science_raw-2.1.0", "wfi_science_raw-2.2.0"])
@pytest.mark.parametrize(
    ("field", "step"),
    [
        ("meta.exposure.frame_time", "dq_init"),
        ("meta.guide_star.window_xstart", "dq_init"),
        ("meta.wcsinfo.v2_ref", "assign_wcs"),
        ("meta.visit.dither", "dq_init"),
    ],
)
def test_missing_metadata_are_named_for_every_version(tmp_path, tag, field, step):
    refusals = read_header(with_tag(write_exposure(tmp_path, "a"), tag, {field: ...}))["refusals"]
    assert list(refusals) == [step] and f"{field}" in refusals[step] and "missing" in refusals[step]


def test_the_header_is_what_crds_matches(tmp_path):
    header = read_header(write_exposure(tmp_path, "a"))
    assert (header["type"], header["detector"], header["shape"]) == ("WFI_IMAGE", "WFI01", [4, SIZE, SIZE])
    assert header["crds"]["roman.meta.instrument.detector"] == "WFI01"
    assert header["crds"]["roman.meta.instrument.optical_element"] == "F158"
    assert header["crds"]["roman.meta.exposure.type"] == "WFI_IMAGE"
    assert header["crds"]["roman.meta.exposure.start_time"].startswith("2020-01-01")
    assert all(isinstance(value, str) for value in header["crds"].values())
    json.dumps(header)


def test_a_header_identifies_the_exposure_as_the_table_of_exposures_does(tmp_path):
    path = write_exposure(tmp_path, "a")
    found = read_header(path)["identification"]
    assert (found["detector"], found["optical_element"], found["exposure_type"]) == ("WFI01", "F158", "WFI_IMAGE")
    with AsdfFile(path) as file:
        meta = file.tree["roman"]["meta"]
    assert [found[name] for name in ("ra_ref", "dec_ref", "roll_ref")] == [
        meta["wcsinfo"][name] for name in ("ra_ref", "dec_ref", "roll_ref")
    ]
    assert found["exposure_start_time"].startswith("2020-01-01") and "s_region" not in found


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_what_the_data_model_that_is_written_requires_must_be_there(tmp_path, version):
    """RAD 1.2 has an entry more, which a file of it must have if its products are to have it."""
    path = with_tag(write_exposure(tmp_path, "a"), "wfi_science_raw-2.2.0", {"meta.ref_file.bam": "N/A"})
    refusals = read_header(path, version)["refusals"]
    assert list(refusals) == (["dq_init"] if version == "1.2" else [])
    assert version == "1.1" or "meta.visit.wfi_acm_z_defocus_size is missing" in refusals["dq_init"]


@pytest.mark.parametrize(
    ("field", "value", "takes"),
    [
        ("meta.instrument.optical_element", "F999", "'F999'; it takes one of F062, "),
        ("meta.exposure.start_time", "2027-01-01T00:00:00", "'2027-01-01T00:00:00'; it takes a time, with the tag !<"),
        ("meta.exposure.nresultants", "4", "'4'; it takes integer"),
        ("meta.exposure.hga_move", 1, "1; it takes boolean"),
        ("meta.visit.type", np.arange(3), "array([0, 1, 2]); it takes "),
        ("meta.visit.nexposures", True, "True; it takes integer"),
        ("meta.program", "none", "'none'; it takes object"),
    ],
)
def test_metadata_that_the_products_can_t_have_are_refused(tmp_path, field, value, takes):
    """finalize would refuse them after all other jobs."""
    path = with_tag(write_exposure(tmp_path, "a"), "wfi_science_raw-2.1.0", {field: value})
    refusals = read_header(path)["refusals"]
    assert list(refusals) == ["dq_init"] and f"b_uncal.asdf: {field} is {takes}" in refusals["dq_init"]
