"""Compare the parameters of the steps with those of romancal: names, defaults, and parameters of one pipeline alone."""

import re
import subprocess
import sys
from pathlib import Path

import declarations
import pytest

from rampflow.chain import STEPS
from rampflow.folders import SCRIPTS
from rampflow.step.declaration import Parameter
from rampflow.workflow import configuration, step_parameters

pytest.importorskip("romancal")

pytestmark = pytest.mark.peer

#: What romancal's steps have besides: docs/from-romancal.md says what takes their place.
ROMANCALS_ALONE = {
    "ramp_fitting": {"maximum_cores", "threshold_intercept", "threshold_constant"},
    "tweakreg": {"catalog_format", "catalog_path", "abs_refcat", "update_source_catalog_coordinates"},
}
OF_EVERY_STEP = {"suffix", "output_use_model"}


#: Name of each step in romancal, where it has the step.
ROMANCAL_NAMES = {step.name: step.romancal_name for step in STEPS.values() if step.romancal_name}


@pytest.mark.parametrize("step", [declarations.steps()[name] for name in ROMANCAL_NAMES], ids=lambda step: step.name)
def test_names_and_defaults_are_romancals(step):
    from romancal.pipeline import ExposurePipeline
    from romancal.stpipe import RomanStep

    theirs = ExposurePipeline.step_defs[ROMANCAL_NAMES[step.name]]
    spec, common = theirs.load_spec_file(), RomanStep.load_spec_file()
    names = {name for name in set(spec) - set(common) - OF_EVERY_STEP if not name.startswith("override_")}
    ours = {p.name: p.default for p in configuration.parameters_of(step)}
    alone = {p.name for p in configuration.parameters_of(step) if not p.in_romancal}
    assert names - set(ours) == ROMANCALS_ALONE.get(step.name, set())
    assert set(ours) - names == alone
    defaults = theirs().get_pars()
    assert {name: defaults[name] for name in set(ours) - alone} == {name: ours[name] for name in set(ours) - alone}


def test_types_of_references_with_parameters_are_those_of_romancal():
    from romancal.pipeline import ExposurePipeline

    theirs = [ExposurePipeline.step_defs[name].get_config_reftype() for name in ROMANCAL_NAMES.values()]
    assert step_parameters.parameter_reference_types(STEPS) == [*theirs, ExposurePipeline.get_config_reftype()]


@pytest.mark.parametrize("value", ["true", "True", "t", "yes", "y", "false", "1", "", "TRUE"])
def test_parameters_are_switched_off_by_the_values_of_stpipe(value, monkeypatch):
    from stpipe.step import get_disable_crds_steppars

    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", value)
    assert step_parameters.are_enabled({"step_parameters": True}) is not get_disable_crds_steppars()


@pytest.mark.parametrize("kind", [bool, int, float])
@pytest.mark.parametrize("value", ["true", "Yes", "off", "1", "0", 1, 0, 2, "2", " 2 ", 2.5, "2.5", "", "x", [1]])
def test_values_are_converted_as_by_stpipe(kind, value):
    from configobj.validate import ValidateError, Validator

    name = {bool: "boolean", int: "integer", float: "float"}[kind]
    try:
        expected = Validator().check(name, value)
    except ValidateError:
        expected = None
    try:
        found = step_parameters.converted(Parameter("x", kind, kind(), ""), value)
    except ValueError:
        found = None
    assert found == expected and type(found) is type(expected)


def test_references_are_merged_as_by_stpipe(tmp_path, monkeypatch):
    """stpipe reads the same files, written in its own format by itself, and merges them to the same values."""
    from romancal.pipeline import ExposurePipeline
    from stpipe import crds_client
    from stpipe._config import StepConfig

    def section(name, values):
        return StepConfig(f"romancal.{name}", name, values, [])

    fit = section("rampfit", {"rejection_threshold": 5.0, "edge_size": 3})
    steps = [section("rampfit", {"edge_size": 4}), section("source_catalog", {"npixels": 16})]
    files = {}
    for reftype, config in (
        ("pars-rampfitstep", fit),
        ("pars-exposurepipeline", StepConfig("romancal.ExposurePipeline", "ExposurePipeline", {}, steps)),
    ):
        files[reftype] = str(tmp_path / f"roman_wfi_{reftype}_0001.asdf")
        config.to_asdf().write_to(files[reftype])
    monkeypatch.setattr(crds_client, "get_reference_file", lambda parameters, reftype, observatory: files.get(reftype, "N/A"))
    theirs = ExposurePipeline.get_config_from_reference({}, disable=False, crds_observatory="roman")["steps"]
    contents = {path: step_parameters.read_reference(Path(path)) for path in files.values()}
    config = configuration.validated({}, declarations.steps())
    found = step_parameters.merge_references(files, contents, config, declarations.steps())
    for name, romancal_name in ROMANCAL_NAMES.items():
        merged = {key: value for key, value in theirs[romancal_name].items() if key not in ("name", "class")}
        assert merged == {key: value for key, (value, _) in found.values.get(name, {}).items()}
    assert found.values["ramp_fitting"].keys() == {"rejection_threshold", "edge_size"} and not found.ignored


def test_the_migration_page_names_the_options_of_romancal():
    """Each option in the table exists in strun, and the table has every parameter of romancal alone."""
    page = (SCRIPTS.parent / "docs" / "from-romancal.md").read_text()
    table = page.split("## Options")[1].split("\n## ")[0]
    theirs = " ".join(line.split(" | ")[0] for line in table.splitlines())
    variables = {"CRDS_PATH", "CRDS_SERVER_URL", "CRDS_CONTEXT", "STPIPE_DISABLE_CRDS_STEPPARS"}
    named = set(re.findall(r"`(?:--)?((?:steps\.)?[\w.-]+)[=`]", theirs)) - variables
    named = {name.replace("STEP", "flatfield") for name in named} - {"steps.flatfield.PARAMETER"}
    strun = Path(sys.executable).with_name("strun")
    known = subprocess.run([strun, "roman_elp", "--help"], capture_output=True, text=True).stdout
    assert len(named) > 12
    for name in named:
        assert re.search(rf"--(steps\.\w+\.)?{re.escape(name)}\b", known), name
    for alone in ROMANCALS_ALONE.values():
        assert {name for name in alone if name not in theirs} == set()
