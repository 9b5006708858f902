"""Which existing files of a run are outdated, because they were made from other parameters, references or code.

Snakemake knows this of the files that it has made in this working folder under their present names. Of others it sees only the
time of modification (see `rampflow.workflow.recipes`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rampflow.chain import STEPS
from rampflow.workflow import recipes
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.intact import find_fault
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import EXPOSURE_JOB
from rampflow.workflow.plan import Plan

FINALIZE = "finalize"
DAMAGE = "damage"  #: in place of a step, where a product can't be read or is not that of its exposure


def exposure_recipes(plan: Plan, stem: str) -> dict[Path, dict[str, str]]:
    """List the files of an exposure that may exist, each with the recipes of its steps.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    stem : str
        Name of the exposure.

    Returns
    -------
    dict
        For each file, the recipe of each step that it should have gone through.
    """
    chain = plan.exposures[stem].chain
    job_recipes = JobRecipes(plan)
    steps = {step: job_recipes.step_recipe(stem, step) for step in chain}
    # The log of a calibrated image names the steps of its own run.
    earlier = recipes.recipes_in(Path(plan.exposures[stem].path)) if plan.exposures[stem].is_calibrated else {}
    files = {}
    for number, step in enumerate(chain, start=1):
        if STEPS[step].rewrites:
            files[Path(plan.paths.exposure(stem, step))] = {name: steps[name] for name in chain[:number]}
    if "source_catalog" in chain:
        files[Path(plan.paths.intermediate(stem, "cat.parquet"))] = {"source_catalog": steps["source_catalog"]}
    return files | {Path(plan.paths.product(stem, "cal.asdf")): earlier | steps | {FINALIZE: job_recipes.product_recipe(stem)}}


def solution_recipes(plan: Plan) -> dict[Path, dict[str, str]]:
    """List the files of the alignments, with the recipe of each.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    dict
        For each file, the recipe of tweakreg.
    """
    names = plan.aligned_associations()
    return {_solution_file(plan, name): {"tweakreg": JobRecipes(plan).association_recipe(name)} for name in names}


def star_recipes(plan: Plan) -> dict[Path, dict[str, str]]:
    """List the astrometric catalogs, with their recipe.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    dict
        For each file, the recipe of the astrometric catalog.
    """
    files = {name: Path(plan.paths.intermediate(name, "astrometric.parquet")) for name in plan.aligned_associations()}
    return {path: {"astrometric_catalog": JobRecipes(plan).star_recipe(name)} for name, path in files.items()}


def product_faults(plan: Plan) -> dict[Path, dict[str, str]]:
    """List the products that `exposure_recipes` and `solution_recipes` don't have, each without a fault.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    dict
        For each product, in the form of a recipe, that nothing is wrong with it.
    """
    paths = (Path(path) for path in plan.all_products())
    return {path: {"fault": ""} for path in paths if not path.name.endswith("_cal.asdf")}


def _solution_file(plan: Plan, association: str) -> Path:
    return Path(plan.paths.intermediate(association, "tweakreg.asdf"))


def is_current(plan: Plan, stem: str, realigned: Collection[str] = ()) -> bool:
    """Test whether all products of an exposure exist, and are those that the run would make.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    stem : str
        Name of the exposure.
    realigned : collection of str
        Exposures that a second pass has aligned without those that have failed.

    Returns
    -------
    bool
        False if a product is missing or outdated.
    """
    products = [Path(path) for path in plan.products(stem)]
    if not all(path.exists() for path in products):
        return False
    members = [stem]
    image = Path(plan.paths.product(stem, "cal.asdf"))
    recipe = exposure_recipes(plan, stem)[image]
    if "tweakreg" in plan.exposures[stem].chain:
        association = plan.exposures[stem].association
        members = plan.members_to_align(association)
        if stem in realigned:
            members = [name for name in members if name in realigned]
            recipe = recipe | {"tweakreg": JobRecipes(plan).association_recipe(association, members)}
    job_inputs = JobInputs(plan)
    # Of a calibrated image as input, the recipe has the content.
    inputs = [
        name
        for member in members
        if not plan.exposures[member].is_calibrated
        for name in (job_inputs.calibrated_image(member), job_inputs.own_catalog(member))
    ]
    made = image.stat().st_mtime_ns
    return (
        # Previews are made of the image; the other products are made together with it.
        all(path.stat().st_mtime_ns >= made for path in products if path.suffix == ".png")
        and all(path.stat().st_mtime_ns <= made for path in map(Path, inputs) if path.exists())
        and recipes.recipes_in(image) == recipe
    )


def exposures_in_one_job(plan: Plan) -> list[str]:
    """List the raw exposures whose steps one job runs, as `job_per` of the configuration says.

    Finished exposures stay with the rules that have made them: Snakemake would take other rules for a reason to run again.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    list of str
        Names of the exposures.
    """
    # Calibrated images have at most one step of their own.
    raw = [stem for stem, entry in plan.exposures.items() if not entry.is_calibrated]
    files, stem_of = {}, {}
    for stem in raw:
        steps = {step: JobRecipes(plan).step_recipe(stem, step) for step in ExposureJobs(plan).steps_of_exposure(stem)}
        image = Path(JobInputs(plan).calibrated_image(stem))
        images = {step: recipe for step, recipe in steps.items() if STEPS[step].rewrites}
        for path, recipes_of_file in ((image, images), (Path(plan.paths.product(stem, "cal.asdf")), steps)):
            files[path], stem_of[path] = recipes_of_file, stem
    known = {stem_of[path]: whole for path, whole in recipes.made_in_one_job(files).items()}
    configured = plan.settings["job_per"] == "exposure"
    return [stem for stem in raw if known.get(stem, configured)]


def stars_are_current(plan: Plan) -> bool:
    """Test whether all astrometric catalogs were made in this working folder, from the present parameters and code.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    bool
        True if none has to be made again.
    """
    return recipes.are_as_remembered(star_recipes(plan))


def exposure_stamp(results: str, stem: str, job: str) -> str:
    """Name a file that a job of an exposure has for an input.

    It is newer than what is to be made again, and older than everything else.

    Parameters
    ----------
    results : str
        Folder of the products.
    stem : str
        Name of the exposure.
    job : str
        Name of the step, ``finalize``, or `rampflow.workflow.paths.EXPOSURE_JOB`.

    Returns
    -------
    str
        Path of the stamp.
    """
    return f".rampflow/redo/{recipes.recipe(results)}/exposure/{stem}/{job}"


def association_stamp(results: str, name: str) -> str:
    """Name a file that the first job of an association has for an input, like `exposure_stamp`.

    Parameters
    ----------
    results : str
        Folder of the products.
    name : str
        Name of the association.

    Returns
    -------
    str
        Path of the stamp.
    """
    return f".rampflow/redo/{recipes.recipe(results)}/association/{name}"


def first_outdated(jobs: Sequence[str], differing: Collection[str]) -> str:
    """Find the job with which an exposure begins again.

    Parameters
    ----------
    jobs : sequence of str
        Steps of the exposure in order, and ``finalize``.
    differing : collection of str
        What differs in its files: steps of these jobs, or steps that the configuration leaves out now. Anything else stands for
        the whole chain.

    Returns
    -------
    str
        Name of the job; empty if nothing differs.
    """
    if not differing:
        return ""
    order = [*STEPS, FINALIZE]
    first = min(order.index(name) if name in order else 0 for name in differing)
    return next(job for job in jobs if order.index(job) >= first)


def changed_in_one_job(plan: Plan, stem: str) -> set[str]:
    """List the steps that have changed since one job has run them in this working folder, if Snakemake does not see it.

    Of a job that has an output more than the last time, as `keep_intermediates` names another step, Snakemake has no complete
    record. It then compares neither parameters nor code.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    stem : str
        Name of the exposure, one of `exposures_in_one_job`.

    Returns
    -------
    set of str
        Names of the steps; empty if all files that the job writes exist.
    """
    if all(Path(plan.paths.exposure(stem, step)).exists() for step in ExposureJobs(plan).written_steps(stem)[:-1]):
        return set()
    files = exposure_recipes(plan, stem)
    product, image = Path(plan.paths.product(stem, "cal.asdf")), Path(JobInputs(plan).calibrated_image(stem))
    # The image of an exposure without an alignment is removed once the product is made.
    made = [image, Path(plan.paths.intermediate(stem, "cat.parquet"))] if image.exists() else [product]
    changed = recipes.changed_since_made({path: files[path] for path in made if path in files})
    return changed & set(ExposureJobs(plan).steps_of_exposure(stem))


def mark_outdated(plan: Plan) -> tuple[dict[Path, list[str]], list[Path]]:
    """Set the stamps of a run, so that Snakemake makes outdated and damaged files again.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Returns
    -------
    outdated : dict
        Outdated files, each with the steps whose parameters, references or code have changed.
    damaged : list of pathlib.Path
        Products that are damaged, or are not those of their exposure.

    Raises
    ------
    RampflowError
        A stamp or the record of files can't be written.
    """
    files = {stem: exposure_recipes(plan, stem) for stem in plan.exposures}
    expected = {path: steps for of_exposure in files.values() for path, steps in of_exposure.items()}
    differing = recipes.differing(solution_recipes(plan) | expected)
    damaged = sorted(recipes.differing(product_faults(plan), read=lambda path: {"fault": find_fault(path)}))
    results = plan.settings["results"]
    for name in plan.aligned_associations():
        paths = [_solution_file(plan, name), *(path for stem in plan.members(name) for path in files[stem])]
        outdated = any("tweakreg" in differing.get(path, ()) for path in paths)
        outdated = outdated or Path(plan.paths.product(name, "tweakreg.json")) in damaged
        recipes.set_stamp(Path(association_stamp(results, name)), outdated=outdated)
    exposure_jobs, in_one_job = ExposureJobs(plan), set(exposures_in_one_job(plan))
    for stem, paths_of_exposure in files.items():
        steps = exposure_jobs.steps_of_exposure(stem)
        of_exposure = {step for path in paths_of_exposure for step in differing.get(path, ())} - {"tweakreg"}
        if not set(map(Path, plan.products(stem))).isdisjoint(damaged):
            of_exposure.add(DAMAGE)
        if stem in in_one_job:
            of_exposure |= changed_in_one_job(plan, stem)
        first = first_outdated([*steps, FINALIZE], of_exposure)
        for job in [*steps, FINALIZE]:
            recipes.set_stamp(Path(exposure_stamp(results, stem, job)), outdated=job == first)
        recipes.set_stamp(Path(exposure_stamp(results, stem, EXPOSURE_JOB)), outdated=first in steps)
    return differing, damaged


def remember_made(plan: Plan, since: float, in_one_job: Collection[str] = ()) -> None:
    """Record which files a run has made: those that are newer than its begin.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    since : float
        When the run began, as a file's time of modification.
    in_one_job : collection of str
        Exposures whose steps one job has run, see `exposures_in_one_job`.
    """
    files = {stem: exposure_recipes(plan, stem) for stem in plan.exposures}
    paths = {path: steps for of_exposure in files.values() for path, steps in of_exposure.items()}
    whole = {path for stem in in_one_job for path in files[stem]}
    recipes.remember(paths | solution_recipes(plan) | star_recipes(plan) | product_faults(plan), since, whole)
