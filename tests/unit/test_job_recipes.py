"""The recipes of a run's files."""

from small_plans import entry

from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.job_recipes import JobRecipes


def differing_steps(plan, other):
    """The steps of a1 whose recipes differ between two plans."""
    recipes, others = JobRecipes(plan), JobRecipes(other)
    return {step for step in plan.exposures["a1"].chain if recipes.step_recipe("a1", step) != others.step_recipe("a1", step)}


def test_a_recipe_changes_with_what_a_step_is_made_from_alone(make_plan):
    plan, other = make_plan(), make_plan(steps={"refpix": {"remove_offset": False}, "tweakreg": {"abs_sigma": 2.5}})
    assert differing_steps(plan, other) == {"refpix", "tweakreg"}
    recipes = JobRecipes(plan)
    assert recipes.step_recipe("a1", "dq_init") != recipes.step_recipe("a2", "dq_init"), "another raw file"
    alignments = {recipes.step_recipe("a1", "tweakreg"), recipes.step_recipe("a2", "tweakreg"), recipes.association_recipe("a")}
    assert len(alignments) == 1


def test_parameters_of_crds_are_those_of_the_exposure_and_change_its_recipes(make_plan):
    def with_parameters(file="1", **values):
        plan = make_plan(steps={"tweakreg": {"minobj": 12}})
        sets = {name: (value, f"/c/roman_wfi_pars-{file}.asdf") for name, value in values.items()}
        plan.exposures["a1"] = entry("a1", step_parameters={"tweakreg": sets, "saturation": {"backup": (2, "/c/s.asdf")}})
        return plan

    plan, before = with_parameters(abs_sigma=2.5, margin=20.0), make_plan(steps={"tweakreg": {"minobj": 12}})
    arguments = JobArguments(plan)
    of_a1, of_a2 = (arguments.step_arguments(stem, "saturation") for stem in ("a1", "a2"))
    assert "--backup 2" in of_a1 and "--parameters_from s.asdf:backup" in of_a1
    assert "--backup 0" in of_a2 and "--parameters_from" not in of_a2
    assert differing_steps(plan, before) == {"saturation", "tweakreg"}
    # An association is aligned with the parameters of its first exposure.
    alignment = arguments.alignment_parameters("a")
    assert "--abs_sigma 2.5" in alignment and "--minobj 12" in alignment
    assert "--parameters_from roman_wfi_pars-1.asdf:abs_sigma" in alignment
    assert arguments.alignment_parameters("a", ["a2"]) == JobArguments(before).alignment_parameters("a")
    assert "--margin 20.0" in arguments.search_parameters("a") and "--margin 15.0" in arguments.search_parameters("b")
    # Another file with the same values is another recipe, because the product names the file.
    first, second = (JobRecipes(with_parameters(file, abs_sigma=2.5)).association_recipe("a") for file in ("1", "2"))
    assert first != second
