"""Which existing files are outdated, and which rules have made them."""

import os
from pathlib import Path

import pytest

from rampflow.workflow import recipes, rerun
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import EXPOSURE_JOB


def test_finished_exposures_stay_with_the_rules_that_have_made_them(make_plan):
    plan = make_plan(job_per="exposure")
    assert rerun.exposures_in_one_job(plan) == ["a1", "a2", "a3", "b1"]
    assert rerun.exposures_in_one_job(make_plan()) == []
    for stem in ("a1", "a2"):
        path = Path(JobInputs(plan).calibrated_image(stem))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stem)
    rerun.remember_made(plan, 0, ["a2"])
    assert rerun.exposures_in_one_job(plan) == ["a2", "a3", "b1"]
    assert rerun.exposures_in_one_job(make_plan()) == ["a2"]
    other = {"steps": {"saturation": {"n_pix_grow_sat": 1}}}
    assert rerun.exposures_in_one_job(make_plan(job_per="exposure", **other)) == ["a1", "a2", "a3", "b1"], "made again"
    assert rerun.exposures_in_one_job(make_plan(**other)) == []
    Path(JobInputs(plan).calibrated_image("a2")).write_text("other")
    assert rerun.exposures_in_one_job(make_plan()) == []


def test_what_has_changed_is_seen_where_another_step_is_to_be_kept(make_plan):
    """Snakemake has no record of the new output, and compares nothing then."""
    plan = make_plan(job_per="exposure")
    stems = ["a1", "a3"]  # an image, and a spectrum, whose last file between the steps is removed
    for path in (JobInputs(plan).calibrated_image("a1"), *(plan.paths.product(stem, "cal.asdf") for stem in stems)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("made")
    rerun.remember_made(plan, 0, stems)
    more = {"job_per": "exposure", "keep_intermediates": ["linearity"]}
    other = {"steps": {"saturation": {"n_pix_grow_sat": 1}}}

    def redone(**configuration):
        changed = make_plan(**configuration)
        rerun.mark_outdated(changed)
        stamps = {stem: Path(rerun.exposure_stamp("results", stem, EXPOSURE_JOB)) for stem in stems}
        return [stem for stem, stamp in stamps.items() if stamp.stat().st_mtime > 1e6]

    assert redone(**more) == []
    assert redone(**more, **other) == stems
    assert rerun.changed_in_one_job(make_plan(**more, **other), "a3") == {"saturation"}
    assert redone(**more) == []
    assert redone(job_per="exposure", **other) == [], "Snakemake sees it"
    alignment = {"steps": {"tweakreg": {"sigma": 4.0}}}
    assert redone(**more, **alignment) == [], "no step of the exposure's job"


@pytest.fixture
def finished(make_plan, monkeypatch):
    """A plan whose exposures all have current products, and the recipes that the log of each image has."""
    plan = make_plan(results="out")
    logged = {}
    for stem in plan.exposures:
        image = Path(plan.paths.product(stem, "cal.asdf"))
        logged[image] = rerun.exposure_recipes(plan, stem)[image]
        between = [JobInputs(plan).calibrated_image(stem), plan.paths.intermediate(stem, "cat.parquet")]
        for age, path in enumerate([*plan.products(stem), *between]):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
            os.utime(path, (1000 + 10 * path.endswith("png") - age, 1000 + 10 * path.endswith("png") - age))
        os.utime(image, (1000, 1000))
    monkeypatch.setattr(recipes, "recipes_in", lambda path: logged[path])
    return plan, logged


def test_products_are_outdated_by_recipes_and_by_newer_files_that_they_are_made_of(finished):
    plan, logged = finished
    assert all(rerun.is_current(plan, stem) for stem in plan.exposures)
    image = Path(plan.paths.product("a1", "cal.asdf"))
    logged[image] = logged[image] | {"flatfield": "other"}
    assert not rerun.is_current(plan, "a1") and rerun.is_current(plan, "a2")
    # The exposures of an association are aligned together; those that are not aligned stand alone.
    os.utime(plan.paths.intermediate("a1", "cat.parquet"), (1001, 1001))
    assert [stem for stem in plan.exposures if rerun.is_current(plan, stem)] == ["a3", "b1"]
    os.utime(plan.paths.product("b1", "cal.png"), (999, 999))
    Path(plan.paths.product("a3", "wcs.asdf")).unlink()
    assert [stem for stem in plan.exposures if rerun.is_current(plan, stem)] == []


def test_products_of_a_second_pass_are_current_though_the_next_run_aligns_all(finished):
    plan, logged = finished
    image = Path(plan.paths.product("a2", "cal.asdf"))
    logged[image] = logged[image] | {"tweakreg": JobRecipes(plan).association_recipe("a", ["a2"])}
    os.utime(plan.paths.intermediate("a1", "cat.parquet"), (1001, 1001))
    assert rerun.is_current(plan, "a2", ["a2"]) and not rerun.is_current(plan, "a2")
    assert rerun.is_current(plan, "b1", ["a2"])


@pytest.mark.parametrize(
    ("differing", "expected"),
    [
        ([], ""),
        (["flatfield", "photom"], "photom"),
        (["refpix"], "dark_decay"),  # it was done, and is left out now
        (["source_catalog"], "finalize"),  # likewise, the last one
        (["finalize"], "finalize"),
        ([rerun.DAMAGE, "flatfield"], "dq_init"),
        (["a step of another release"], "dq_init"),
    ],
)
def test_an_exposure_begins_again_with_the_first_job_that_differs(differing, expected):
    assert rerun.first_outdated(["dq_init", "dark_decay", "photom", "flatfield", "finalize"], differing) == expected
