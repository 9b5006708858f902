"""The files that jobs read."""

from pathlib import Path

from rampflow.chain import STEPS
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.job_inputs import JobInputs


def test_a_step_reads_what_the_previous_one_of_its_chain_writes(make_plan):
    inputs = JobInputs(make_plan())
    assert inputs.raw_exposure("a1") == "links/a1_uncal.asdf"
    assert inputs.exposure_before("a1", "saturation") == "results/intermediates/a1_dqinit.asdf"
    before = f"results/intermediates/a1_{STEPS['dark_decay'].suffix}.asdf"
    assert inputs.exposure_before("a1", "linearity") == before, "WFI01 does not go through wfi18_transient"
    assert inputs.calibrated_image("a1").endswith("/a1_flat.asdf")
    assert inputs.calibrated_image("a3").endswith("/a3_photom.asdf")


def test_what_other_jobs_read_lies_in_the_results_folder(make_plan):
    plan = make_plan(scratch="/node")
    inputs = JobInputs(plan)
    assert inputs.calibrated_image("a1") == "results/intermediates/a1_flat.asdf"
    assert inputs.exposure_before("a1", "saturation") == "/node/a1_dqinit.asdf"
    assert plan.kept_steps() == {"ramp_fitting", "flatfield"}
    assert make_plan(keep_intermediates=True).kept_steps() == set(STEPS)


def test_a_reference_that_does_not_apply_is_no_input_and_is_said(make_plan):
    plan = make_plan(references={"override": {"dark": "N/A"}})
    inputs = JobInputs(plan)
    assert inputs.references("a1", "dark_current") == []
    assert inputs.references("a1", "flatfield") == ["links/flat.asdf"]
    assert JobArguments(plan).step_arguments("a1", "dark_current").startswith("--dark N/A")
    assert "--flat links/flat.asdf --chosen_by_crds flat" in JobArguments(plan).step_arguments("a1", "flatfield")


def test_a_member_is_aligned_with_the_catalog_that_is_given_for_it(make_plan):
    inputs = JobInputs(make_plan())
    assert inputs.catalogs_to_align("a") == [f"results/intermediates/{stem}_cat.parquet" for stem in ("a1", "a2")]
    (given,) = inputs.catalogs_to_align("b")
    assert Path(given).read_text() == "a catalog" and given != "own.parquet"
    assert inputs.given_catalogs("b") == [given] and inputs.given_catalogs("a") == []
    assert inputs.made_catalogs("b") == ["results/intermediates/b1_cat.parquet"] and inputs.made_catalogs("a") == []
    assert inputs.solution("a1") == "results/intermediates/a_tweakreg.asdf" and inputs.solution("a3") == []
