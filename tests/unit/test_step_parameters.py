"""Parameters of the steps from CRDS: which reference sets what, and what has precedence."""

import json
import shutil

import asdf
import declarations
import numpy as np
import pytest
from inventories import built, refused, write_exposure
from parameter_references import add_example, write_reference
from reference_server import reference_server

from rampflow.errors import RampflowError
from rampflow.step.declaration import Parameter
from rampflow.step.provenance import parameter_sources
from rampflow.workflow import configuration, step_parameters

DECLARED = declarations.steps()


def merge(config=None, chain=("saturation", "ramp_fitting", "flatfield", "source_catalog", "tweakreg"), **contents):
    """Parameters of an exposure; `contents` are by type, with an underscore for each hyphen."""
    found = {name.replace("_", "-"): sections for name, sections in contents.items()}
    paths = {reftype: f"/crds/roman_wfi_{reftype}_0001.asdf" for reftype in found}
    by_path = {paths[reftype]: sections for reftype, sections in found.items()}
    steps = {name: DECLARED[name] for name in chain}
    return step_parameters.merge_references(paths, by_path, configuration.validated(config or {}, DECLARED), steps)


def values_of(found, step):
    return {name: value for name, (value, _) in found.values.get(step, {}).items()}


def test_values_of_the_pipeline_replace_those_of_the_step():
    found = merge(
        pars_rampfitstep={"": {"rejection_threshold": 5.0, "edge_size": 3}},
        pars_exposurepipeline={"": {}, "rampfit": {"rejection_threshold": 6}, "flatfield": {"include_var_flat": True}},
    )
    assert values_of(found, "ramp_fitting") == {"rejection_threshold": 6.0, "edge_size": 3}
    assert found.values["ramp_fitting"]["rejection_threshold"][1].endswith("pars-exposurepipeline_0001.asdf")
    assert found.values["ramp_fitting"]["edge_size"][1].endswith("pars-rampfitstep_0001.asdf")
    assert values_of(found, "flatfield") == {"include_var_flat": True} and not found.ignored


def test_values_of_the_configuration_replace_those_of_crds_even_if_they_are_the_defaults():
    given = {"steps": {"ramp_fitting": {"edge_size": 0}, "flatfield": {"skip": False}}}
    found = merge(given, pars_rampfitstep={"": {"edge_size": 3, "sat_expand": 1}}, pars_flatfieldstep={"": {"skip": True}})
    assert values_of(found, "ramp_fitting") == {"sat_expand": 1} and "flatfield" not in found.values


def test_a_value_that_the_configuration_replaces_need_not_be_right():
    wrong = {"": {"edge_size": "wide"}}
    with pytest.raises(RampflowError, match=r"pars-rampfitstep_0001.asdf: steps.ramp_fitting.edge_size is 'wide'"):
        merge(pars_rampfitstep=wrong)
    assert merge({"steps": {"ramp_fitting": {"edge_size": 1}}}, pars_rampfitstep=wrong).values == {}


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (Parameter("x", float, 1.0, ""), 2, 2.0),
        (Parameter("x", float, 1.0, ""), "2.5", 2.5),
        (Parameter("x", int, 1, ""), "3", 3),
        (Parameter("x", bool, True, ""), "False", False),
        (Parameter("x", bool, True, ""), "off", False),
        (Parameter("x", bool, True, ""), "Yes", True),
        (Parameter("x", bool, True, ""), 1, True),
        (Parameter("x", bool, True, ""), "0", False),
        (Parameter("x", str, "a", "", choices=("a", "b")), "b", "b"),
    ],
)
def test_values_are_converted_as_by_stpipe(parameter, value, expected):
    converted = step_parameters.converted(parameter, value)
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("parameter", "value", "takes"),
    [
        (Parameter("x", float, 1.0, ""), True, "a finite number"),
        (Parameter("x", float, 1.0, "", minimum=0), -1, "a finite number not below 0"),
        (Parameter("x", int, 1, "", maximum=5), 6, "a whole number not above 5"),
        (Parameter("x", float, 1.0, ""), float("nan"), "a finite number"),
        (Parameter("x", int, 1, ""), 1.5, "a whole number"),
        (Parameter("x", int, 1, ""), "many", "a whole number"),
        (Parameter("x", bool, True, ""), 2, "true or false"),
        (Parameter("x", bool, True, ""), "", "true or false"),
        (Parameter("x", bool, True, ""), [], "true or false"),
        (Parameter("x", bool, True, ""), np.array([0, 1]), "true or false"),
        (Parameter("x", float, 1.0, ""), np.array([0, 1]), "a finite number"),
        (Parameter("x", str, "a", "", choices=("a", "b")), "c", "one of a, b"),
        (Parameter("x", str, "a", ""), ["a"], "a text"),
    ],
)
def test_values_that_a_parameter_does_not_take_are_errors(parameter, value, takes):
    with pytest.raises(ValueError, match=f"^{takes}$"):
        step_parameters.converted(parameter, value)


def test_what_stpipe_takes_for_no_value_is_none():
    assert merge(pars_rampfitstep={"": {"rejection_threshold": "None", "edge_size": None, "color": "None"}}) == merge()
    (line,) = merge(pars_rampfitstep={"": {"color": np.array([1, 2])}}).ignored
    assert "ramp_fitting.color is array([1, 2])" in line


def test_parameters_without_a_counterpart_are_named_and_those_without_effect_are_not():
    found = merge(
        pars_rampfitstep={"": {"threshold_constant": 5.0, "threshold_intercept": None, "maximum_cores": "half"}},
        pars_sourcecatalogstep={"": {"forced_segmentation": "", "save_results": True, "pre_hooks": [], "color": "red"}},
        pars_tweakregstep={"": {"abs_refcat": "GAIADR3_S3"}},
        pars_exposurepipeline={"": {"on_disk": True, "skip": True}, "jump": {"rejection_threshold": 3.0}},
    )
    assert found.values == {}
    assert [line.partition(".asdf: ")[2] for line in found.ignored] == [
        "ramp_fitting.threshold_constant is 5.0",
        "source_catalog.color is 'red'",
        "pipeline.skip is True",
        "jump.rejection_threshold is 3.0",
    ]
    (line,) = merge(pars_tweakregstep={"": {"abs_refcat": "GAIADR2"}}).ignored
    assert "tweakreg.abs_refcat is 'GAIADR2'" in line
    (line,) = merge(pars_sourcecatalogstep={"": {"forced_segmentation": "m.asdf"}}).ignored
    assert "forced_segmentation" in line, "a file of the one who made the reference"


def test_a_step_that_can_t_be_left_out_is_not():
    assert values_of(merge(pars_flatfieldstep={"": {"skip": True}}), "flatfield") == {"skip": True}
    with pytest.raises(RampflowError, match=r"ramp_fitting\.skip is true, but ramp_fitting can't be left out"):
        merge(pars_rampfitstep={"": {"skip": True}})


@pytest.mark.parametrize(
    ("value", "enabled"), [("true", False), ("t", False), ("yes", False), ("false", True), ("", True), ("1", True)]
)
def test_the_switch_of_stpipe_is_honored(value, enabled, monkeypatch):
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", value)
    assert step_parameters.are_enabled({"step_parameters": True}) is enabled
    assert not step_parameters.are_enabled({"step_parameters": False})


def test_a_reference_of_stpipe_s_older_format_is_read(tmp_path):
    """Its steps are a mapping among the parameters."""
    steps = {"flatfield": {"class": "romancal.step.FlatFieldStep", "include_var_flat": True}, "rampfit": {"edge_size": 3}}
    own = {"name": "roman_elp", "class": "romancal.pipeline.ExposurePipeline", "save_results": True, "steps": steps}
    asdf.AsdfFile({"parameters": own}).write_to(tmp_path / "a.asdf")
    found = merge(pars_exposurepipeline=step_parameters.read_reference(tmp_path / "a.asdf"))
    assert values_of(found, "ramp_fitting") == {"edge_size": 3} and values_of(found, "flatfield") == {"include_var_flat": True}
    assert not found.ignored


def test_a_reference_of_another_format_is_named(tmp_path):
    path = write_reference(tmp_path / "a.asdf", {"x": 1}, [("flatfield", {"y": 2})])
    assert step_parameters.read_reference(path) == {"": {"x": 1}, "flatfield": {"y": 2}}
    asdf.AsdfFile({"name": "x", "class": "y"}).write_to(tmp_path / "b.asdf")
    with pytest.raises(RampflowError, match=r"b\.asdf: parameters are missing"):
        step_parameters.read_reference(tmp_path / "b.asdf")
    asdf.AsdfFile({"parameters": {}, "steps": [{"name": "flatfield"}]}).write_to(tmp_path / "c.asdf")
    with pytest.raises(RampflowError, match=r"c\.asdf: parameters of the step 'flatfield' are missing"):
        step_parameters.read_reference(tmp_path / "c.asdf")
    with pytest.raises(RampflowError):
        (tmp_path / "d.asdf").write_text("no ASDF")
        step_parameters.read_reference(tmp_path / "d.asdf")


def test_the_references_are_written_as_options_and_into_the_metadata():
    values = {"b": (1, "/c/roman_wfi_pars-rampfitstep_0002.asdf"), "a": (2, "/c/roman_wfi_pars-exposurepipeline_0001.asdf")}
    values |= {"c": (3, "/c/roman_wfi_pars-rampfitstep_0002.asdf")}
    options = step_parameters.source_options(values)
    assert options == [
        *("--parameters_from", "roman_wfi_pars-exposurepipeline_0001.asdf:a"),
        *("--parameters_from", "roman_wfi_pars-rampfitstep_0002.asdf:b,c"),
    ]
    assert parameter_sources(options[1::2]) == {
        "pars-exposurepipeline": "crds://roman_wfi_pars-exposurepipeline_0001.asdf",
        "pars-rampfitstep": "crds://roman_wfi_pars-rampfitstep_0002.asdf",
    }


def test_members_of_an_association_that_differ_are_named():
    def sets(**values):
        return {"tweakreg": {name: (value, "x.asdf") for name, value in values.items()}}

    same = {"a": sets(sigma=2.0), "b": sets(sigma=2.0)}
    assert step_parameters.differing_alignments(same, "visit") is None
    said = step_parameters.differing_alignments(same | {"c": sets(minobj=4), "d": {}}, "visit")
    assert said.startswith("visit: CRDS has other values of tweakreg.minobj, tweakreg.sigma for c and 1 other than for a;")


# ------------------------------------------------------------------------------------------------------------ with CRDS
@pytest.fixture
def operational(cache, tmp_path):
    """A copy of the cache with a context that sets parameters."""
    return add_example(shutil.copytree(cache, tmp_path / "crds"))


def test_each_exposure_has_the_parameters_of_its_type(operational, tmp_path):
    """One inventory for all that it says: each question to CRDS takes seconds."""
    for name, kind in (("a", "WFI_IMAGE"), ("b", "WFI_WFSC"), ("c", "WFI_FLAT")):
        (tmp_path / "raw").mkdir(exist_ok=True)
        write_exposure(tmp_path / "raw", name, kind=kind)
    asked = {"input": "raw", "references": {"crds_context": "roman_0005.pmap"}}
    built(tmp_path, operational, asked)
    (store,) = (tmp_path / ".rampflow").glob("exposures-*.json")
    known = json.loads(store.read_text().partition("\n")[2])
    found = {entry["stem"]: entry for entry in known["exposures"]}
    fit = {stem: {k: v for k, (v, _) in entry["step_parameters"]["ramp_fitting"].items()} for stem, entry in found.items()}
    assert fit["a"] == fit["b"] == {"rejection_threshold": 5.0, "edge_size": 4}
    assert fit["c"] == {"rejection_threshold": 5.0, "edge_size": 3}
    assert "flatfield" in found["a"]["chain"] and "flatfield" not in found["b"]["chain"]
    assert "flat" in found["a"]["references"] and "flat" not in found["b"]["references"]
    # Switched off, by a variable or by the configuration; each has an inventory of its own.
    built(tmp_path, operational, asked, STPIPE_DISABLE_CRDS_STEPPARS="true")
    off = {"crds_context": "roman_0005.pmap", "step_parameters": False}
    built(tmp_path, operational, asked | {"references": off})
    stores = set((tmp_path / ".rampflow").glob("exposures-*.json")) - {store}
    assert len(stores) == 2
    for other in stores:
        entries = json.loads(other.read_text().partition("\n")[2])["exposures"]
        assert all(entry["step_parameters"] == {} for entry in entries)
        assert all("flatfield" in entry["chain"] for entry in entries if entry["stem"] == "b")


def test_a_wrong_value_is_refused_before_any_job(operational, tmp_path):
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "a")
    write_reference(operational / "references/roman/wfi/roman_wfi_pars-rampfitstep_0005.asdf", {"rejection_threshold": -1})
    asked = {"input": "raw", "references": {"crds_context": "roman_0005.pmap"}}
    said = refused(tmp_path, operational, asked)
    assert "roman_wfi_pars-rampfitstep_0005.asdf: steps.ramp_fitting.rejection_threshold is -1" in said
    assert "references: {step_parameters: false}" in said
    (operational / "references/roman/wfi/roman_wfi_pars-rampfitstep_0005.asdf").unlink()
    assert "is not in the CRDS cache" in refused(tmp_path, operational, asked)


def test_references_that_the_cache_lacks_are_fetched_for_the_inventory(operational, tmp_path):
    """Those of parameters are read before the first job; all others are fetched by a job."""
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "a")
    asked = {"input": "raw", "references": {"crds_context": "roman_0005.pmap"}}
    with reference_server(operational) as server:
        for _ in range(2):
            found = built(tmp_path, tmp_path / "local", asked, CRDS_SERVER_URL=server.address)
            assert "flatfield" in found["exposures"]["a"][4] and found["missing"]
            fetched = {name: number for name, number in server.served.items() if name.endswith((".asdf", ".fits"))}
            types = "rampfitstep", "exposurepipeline"
            assert fetched == {f"roman_wfi_pars-{reftype}_0005.asdf": 1 for reftype in types}
