"""The arguments of the scripts that jobs start."""

import dataclasses
from pathlib import Path

import pytest
import report
from small_plans import DECLARED, entry

from rampflow.errors import RampflowError
from rampflow.workflow.job_arguments import JobArguments, given_options
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.run_start import read_settings


def test_the_alignment_is_required_of_exposures_that_have_one(make_plan):
    required, optional = JobArguments(make_plan(require_alignment=True)), JobArguments(make_plan())
    assert (required.product_options("a1"), required.product_options("a3"), optional.product_options("a1")) == (
        "--require_alignment",
        "",
        "",
    )


def test_products_of_calibrated_images_have_the_data_model_that_is_asked_for(make_plan):
    """dq_init gives a raw exposure its version, a calibrated image has one already."""
    plan = make_plan(data_model="1.2")
    plan.exposures["a1"] = dataclasses.replace(plan.exposures["a1"], path="a1_cal.asdf")
    options = JobArguments(plan).product_options
    assert (options("a1"), options("a2")) == ("--data_model 1.2", "")


def test_the_next_step_records_that_crds_leaves_out_steps(make_plan):
    plan = make_plan()
    skip = {"skip": (True, "/c/p.asdf")}
    chain = tuple(name for name in plan.exposures["a1"].chain if name not in ("photom", "flatfield"))
    plan.exposures["a1"] = entry(
        "a1", chain=chain, step_parameters={"photom": skip, "flatfield": skip, "refpix": {"skip": (False, "/c/r.asdf")}}
    )
    written = {name: JobArguments(plan).parameters("a1", name) for name in chain}
    assert written.pop("source_catalog").endswith("--parameters_from p.asdf:flatfield.skip,photom.skip")
    assert all("--parameters_from" not in text for text in written.values())


def test_options_are_those_of_the_inputs_that_a_job_has():
    files = {"refpix": ["a b", "c"], "transient": [], "stars": "s"}
    assert given_options(files, ("refpix", "transient", "stars")) == "--refpix 'a b' c --stars s"
    assert given_options(files, ("none",)) == ""


def test_a_report_tells_failed_exposures_from_excluded_ones(make_plan):
    plan = make_plan()
    plan.inventory.excluded["a"] = {"a1": {}, "a2": {"ra_ref": 10.0}, "a3": {}}
    arguments = JobArguments(plan)

    def named(*unfinished):
        """Exposures of each option, as report.py reads them."""
        words = arguments.missing_options("a", unfinished).split()
        return {option: report.read_absent([file]) for option, file in zip(words[::2], words[1::2], strict=True)}

    assert named("a2", "b1") == {
        "--excluded": {"a1": {"stem": "a1"}, "a3": {"stem": "a3"}},
        "--missing": {"a2": {"stem": "a2", "ra_ref": 10.0}},
    }
    assert list(named()["--excluded"]) == ["a1", "a2", "a3"] and arguments.missing_options("b", ["a2"]) == ""


def test_a_segmentation_map_of_selected_exposures_is_read_by_its_content(make_plan, tmp_path):
    def settings(name):
        override = {"select": {"exposure": "a1"}, "steps": {"source_catalog": {"forced_segmentation": name}}}
        return read_settings({"overrides": [override]}, DECLARED, tmp_path)

    plan = make_plan()
    link = settings("own.parquet")["overrides"][0]["steps"]["source_catalog"]["forced_segmentation"]
    assert link != "own.parquet" and Path(link).read_text() == "a catalog"
    with pytest.raises(RampflowError, match=r"overrides\[0\]\.steps\.source_catalog\.forced_segmentation: none does not exist"):
        settings("none")
    plan.exposures["a1"] = entry("a1", step_parameters={"source_catalog": {"forced_segmentation": (link, "overrides[0]")}})
    inputs = JobInputs(plan)
    assert inputs.forced_segmentation("a1") == [link] and inputs.forced_segmentation("a2") == []
    assert f"--forced_segmentation {link}" in JobArguments(plan).step_arguments("a1", "source_catalog")
