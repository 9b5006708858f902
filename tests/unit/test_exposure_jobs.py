"""Jobs that run all steps of an exposure."""

import process_exposure
from small_plans import DECLARED, entry

from rampflow.step.program import read_arguments
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import match_any


def test_each_kind_of_chain_has_a_rule(make_plan):
    plan = make_plan()
    assert ExposureJobs(plan).chains(plan.exposures) == {
        "exposure_to_source_catalog": ["a1", "a2", "b1"],
        "exposure_to_photom": ["a3"],
    }
    longer = ("dq_init", "saturation", "wfi18_transient", "ramp_fitting", "photom", "source_catalog", "tweakreg")
    plan.exposures["b1"] = entry("b1", chain=longer)
    plan.exposures["a2"] = entry("a2", chain=tuple(step for step in longer if step != "wfi18_transient"))
    assert ExposureJobs(plan).chains(["b1", "a2"]) == {
        "exposure_to_source_catalog_with_wfi18_transient": ["b1"],
        "exposure_to_source_catalog": ["a2"],
    }
    assert ExposureJobs(plan).chains([]) == {}


def test_a_job_for_all_steps_writes_what_is_kept_and_the_last_image(make_plan):
    plan = make_plan()
    assert ExposureJobs(plan).written_steps("a1") == ["ramp_fitting", "flatfield"]
    assert ExposureJobs(plan).written_steps("a3") == ["ramp_fitting", "photom"]
    assert ExposureJobs(make_plan(keep_intermediates=False)).written_steps("a1") == ["flatfield"]
    kept = make_plan(keep_intermediates=["refpix", "wfi18_transient", "flatfield"])
    assert ExposureJobs(kept).written_steps("a3") == ["refpix", "photom"]


def test_a_job_for_all_steps_has_their_command_lines(make_plan):
    plan = make_plan(steps={"saturation": {"n_pix_grow_sat": 2}})
    tasks = process_exposure.read_tasks(ExposureJobs(plan).step_lines("a1"))
    assert [task.name for task in tasks] == ExposureJobs(plan).steps_of_exposure("a1")
    files = ["links/a1_uncal.asdf"]
    for task in tasks:
        assert task.recipe == JobRecipes(plan).step_recipe("a1", task.name)
        given = read_arguments(DECLARED[task.name], task.arguments)
        assert str(given["input"]) == files[-1]
        outputs = [str(given[name]) for name, _ in DECLARED[task.name].outputs]
        files += outputs if len(outputs) == 1 else []
        assert given.get("n_pix_grow_sat", 2) == 2
    assert files[1:3] == ["a1_dqinit.asdf", "a1_saturation.asdf"], "not written, so they are nowhere"
    assert files[-1] == "results/intermediates/a1_flat.asdf"
    assert outputs == ["results/intermediates/a1_cat.parquet", "results/intermediates/a1_segm.asdf"]


def test_rules_of_single_steps_leave_the_files_of_jobs_for_all_steps_alone(make_plan):
    jobs = ExposureJobs(make_plan())
    assert jobs.single_step_wildcard("flatfield", []) == "{stem}"
    assert jobs.single_step_wildcard("refpix", ["a1"]) == "{stem}", "no job for all steps writes it"
    assert jobs.single_step_wildcard("flatfield", ["a1", "a3"]) == f"{{stem,{match_any({'a2', 'a3', 'b1'})}}}"
    assert jobs.single_step_wildcard("source_catalog", ["a2"]) == f"{{stem,{match_any({'a1', 'a3', 'b1'})}}}"
