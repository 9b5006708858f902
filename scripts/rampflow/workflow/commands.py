"""The shell commands of a run's jobs, as they are recorded: with all inputs, outputs and parameters, to be run by hand.

They are those of the rules without what changes no product: the log, the number of threads, and settings of the memory.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from rampflow.chain import STEPS
from rampflow.files.path_lists import write_list
from rampflow.folders import SCRIPTS
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.job_arguments import JobArguments, given_options
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import BENCHMARKS, CATALOG_PRODUCTS, EXPOSURE_JOB, LOGS
from rampflow.workflow.plan import EXPOSURES_VARIABLE, Plan


class Commands:
    """The shell commands of a run's jobs.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    in_one_job : collection of str
        Exposures whose steps one job runs, see `rampflow.workflow.rerun.exposures_in_one_job`.
    """

    def __init__(self, plan: Plan, in_one_job: Collection[str] = ()):
        self._plan, self._in_one_job = plan, in_one_job
        self._inputs, self._arguments, self._recipes = JobInputs(plan), JobArguments(plan), JobRecipes(plan)
        self._jobs = ExposureJobs(plan)
        self._context = f"--crds_context {shlex.quote(plan.inventory.context or '')}"

    def of_exposure(self, stem: str) -> dict[str, str]:
        """Write the commands of an exposure, without its alignment.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        dict of str
            Command by the name of the job, in order.
        """
        commands, entry = {}, self._plan.exposures[stem]
        if entry.remote:
            target = shlex.join([stem, self._plan.paths.fetched(stem)])
            commands["fetch_exposure"] = f'{_program("fetch_exposure")} {target} --exposures "${EXPOSURES_VARIABLE}"'
        if stem in self._in_one_job:
            commands[EXPOSURE_JOB] = self._chain(stem)
        else:
            commands |= {step: self._step(stem, step) for step in self._jobs.steps_of_exposure(stem)}
        return commands | {"finalize": self._finalize(stem)}

    def _step(self, stem: str, step: str) -> str:
        """The command of a single step."""
        paths = self._plan.paths
        outputs = [paths.exposure(stem, step)]
        if not STEPS[step].rewrites:
            outputs = [paths.intermediate(stem, ending) for ending in CATALOG_PRODUCTS]
        files = shlex.join([self._inputs.exposure_before(stem, step), *outputs])
        options = self._arguments.step_arguments(stem, step)
        return f"{_program(step, self._recipes.step_recipe(stem, step))} {files} {options} {self._context}"

    def _chain(self, stem: str) -> str:
        """The command of all steps of an exposure."""
        name = shlex.quote(stem)
        options = f"--write {' '.join(self._jobs.written_steps(stem))} --logs {LOGS}/{name} --benchmarks {BENCHMARKS}/{name}"
        lines = self._jobs.step_lines(stem)
        return f"{_program('process_exposure')} {options} {self._context} <<'STEPS'\n{lines}\nSTEPS\n"

    def _finalize(self, stem: str) -> str:
        """The command that writes the products of an exposure."""

        def product(ending: str) -> str:
            return self._plan.paths.product(stem, ending)

        words = [self._inputs.calibrated_image(stem), product("cal.asdf"), product("wcs.asdf")]
        words += ["--preview", product("cal.png"), product("cal_thumb.png"), "--qa", product("qa.json")]
        words += ["--benchmarks", f"{BENCHMARKS}/{stem}"]
        options = [
            given_options({"solutions": self._inputs.solution(stem)}, ["solutions"]),
            self._arguments.product_options(stem),
        ]
        if self._plan.exposures[stem].is_cataloged:
            catalog = ["--catalog", self._inputs.own_catalog(stem), product("cat.parquet")]
            options.append(shlex.join([*catalog, "--segmentation", self._inputs.own_segmentation(stem), product("segm.asdf")]))
        program = _program("finalize", self._recipes.product_recipe(stem))
        return " ".join([program, shlex.join(words), *filter(None, options)])

    def of_association(self, association: str, members: Sequence[str] | None = None) -> dict[str, str]:
        """Write the commands of the alignment of an association.

        Parameters
        ----------
        association : str
            Name of the association, which has an exposure to align.
        members : sequence of str, optional
            The exposures that are aligned with each other, in the order of the association; by default, all.

        Returns
        -------
        dict of str
            Command by the name of the job, in order.
        """
        members = self._plan.members_to_align(association) if members is None else members
        paths = self._plan.paths
        stars, solution = (paths.intermediate(association, end) for end in ("astrometric.parquet", "tweakreg.asdf"))
        images = write_list(self._inputs.calibrated_image(stem) for stem in members)
        catalogs = write_list(self._inputs.catalog_to_align(stem) for stem in members)
        given = any(self._plan.exposures[stem].tweakreg_catalog for stem in members)
        own = write_list(self._inputs.own_catalog(stem) for stem in members if given)
        source = shlex.quote(self._inputs.star_source())
        attempt = self._arguments.star_attempt(association)
        name = shlex.quote(Path(self._plan.settings["astrometric_catalog"]).name)
        search = f"--astrometric_catalog {source} --attempt {attempt} {self._arguments.search_parameters(association)}"
        files = shlex.join([solution, paths.product(association, "tweakreg.json")])
        align = f"--images {images} --catalogs {catalogs} --own_catalogs {own} --astrometric_catalog {shlex.quote(stars)}"
        options = f"--catalog_name {name} {self._arguments.alignment_parameters(association, members)}"
        program = _program("tweakreg", self._recipes.association_recipe(association, members))
        return {
            "astrometric_catalog": f"{_program('astrometric_catalog')} {shlex.quote(stars)} --images {images} {search}",
            "tweakreg": f"{program} {files} {align} {options}",
        }


def _program(name: str, recipe: str = "") -> str:
    """The beginning of a command, which starts a script."""
    given = f"RAMPFLOW_RECIPE={recipe} " if recipe else ""
    return f"{given}python {shlex.quote(str(SCRIPTS / f'{name}.py'))}"
