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


def test_settings_of_a_selection_are_recorded_and_change_the_recipes_of_its_exposures_alone(make_plan):
    def with_overrides(place):
        plan = make_plan(steps={"ramp_fitting": {"edge_size": 1}})
        values = {"ramp_fitting": {"edge_size": (2, place)}, "photom": {"skip": (True, place)}}
        chain = tuple(step for step in plan.exposures["a1"].chain if step != "photom")
        plan.exposures["a1"] = entry("a1", chain=chain, step_parameters=values, own_references={"flat": place})
        return plan

    plan, before = with_overrides("overrides[0]"), make_plan(steps={"ramp_fitting": {"edge_size": 1}})
    fit, flat = (JobArguments(plan).step_arguments("a1", step) for step in ("ramp_fitting", "flatfield"))
    assert "--edge_size 2" in fit and fit.endswith("--parameters_from overrides:edge_size")
    assert flat.endswith("--parameters_from overrides:photom.skip")
    assert "--chosen_by_crds flat" in JobArguments(before).step_arguments("a1", "flatfield") and "--chosen_by_crds" not in flat
    assert differing_steps(plan, before) == {"ramp_fitting", "flatfield"}
    recipes, others = JobRecipes(plan), JobRecipes(before)
    unaligned = [step for step in before.exposures["a2"].chain if step != "tweakreg"]
    assert all(recipes.step_recipe("a2", step) == others.step_recipe("a2", step) for step in unaligned)
    # Another place in the list is no reason to run again.
    assert differing_steps(plan, with_overrides("overrides[1]")) == set()
