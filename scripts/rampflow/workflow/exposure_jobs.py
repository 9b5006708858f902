"""Jobs that run all steps of an exposure: their chains, files and command lines."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from rampflow.chain import STEPS, image_chain
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import CATALOG_PRODUCTS, match_any
from rampflow.workflow.plan import Plan


class ExposureJobs:
    """Jobs that run all steps of an exposure: their chains, files and command lines.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self._arguments = JobArguments(plan)
        self._inputs = JobInputs(plan)
        self._recipes = JobRecipes(plan)

    def steps_of_exposure(self, stem: str) -> list[str]:
        """List the steps of an exposure alone, which one job can run: all but the alignment.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Names of the steps, in order.
        """
        return [step for step in self.plan.exposures[stem].chain if step != "tweakreg"]

    def chains(self, stems: Iterable[str]) -> dict[str, list[str]]:
        """Sort exposures by their steps: Snakemake needs a rule for each kind of chain, as its files differ.

        Parameters
        ----------
        stems : iterable of str
            Names of the exposures.

        Returns
        -------
        dict of str to list of str
            Names of the exposures that go through the same steps, by the name of their rule: ``exposure_to_`` the last step,
            and what steps they have that others with the same last step have not.
        """
        found: dict[tuple[str, ...], list[str]] = {}
        for stem in stems:
            found.setdefault(tuple(self.steps_of_exposure(stem)), []).append(stem)
        rules = {}
        for chain, members in found.items():
            common = set(chain).intersection(*(other for other in found if other[-1] == chain[-1]))
            extra = [step for step in chain if step not in common]
            rules["_with_".join([f"exposure_to_{chain[-1]}", *extra])] = members
        return rules

    def written_steps(self, stem: str) -> list[str]:
        """List the steps of an exposure whose files one job for all of them writes.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Names of those whose files the configuration keeps, and of the last one that changes the exposure.
        """
        images = image_chain(self.steps_of_exposure(stem))
        return [step for step in images if step in self.plan.paths.shared or step == images[-1]]

    def single_step_wildcard(self, step: str, in_one_job: Collection[str]) -> str:
        """Write the wildcard of the exposures whose file of a step the rule of this step makes.

        Parameters
        ----------
        step : str
            Name of the step.
        in_one_job : collection of str
            Exposures whose steps one job runs, see `rampflow.workflow.rerun.exposures_in_one_job`.

        Returns
        -------
        str
            ``{stem}``, with a regular expression if the job for all steps of an exposure makes the file of some exposures.
        """
        made = {stem for stem in in_one_job if step in self.written_steps(stem) or not STEPS[step].rewrites}
        return f"{{stem,{match_any(set(self.plan.exposures) - made)}}}" if made else "{stem}"

    def references_of_exposure(self, stem: str) -> list[str]:
        """List the reference files that the steps of an exposure read.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Paths of the links that stand for their content; without those that do not apply.
        """
        return [path for step in self.steps_of_exposure(stem) for path in self._inputs.references(stem, step)]

    def step_lines(self, stem: str) -> str:
        """Write the input of process_exposure.py: the steps of an exposure with their recipes and arguments.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            A line for each step, quoted for a shell. A file that is not written has no folder.
        """
        written, lines, before = self.written_steps(stem), [], self._inputs.raw_exposure(stem)
        for step in self.steps_of_exposure(stem):
            if STEPS[step].rewrites:
                path = self.plan.paths.exposure(stem, step)
                outputs = [path if step in written else Path(path).name]
            else:
                outputs = [self.plan.paths.intermediate(stem, ending) for ending in CATALOG_PRODUCTS]
            words = shlex.join([step, self._recipes.step_recipe(stem, step), before, *outputs])
            lines.append(f"{words} {self._arguments.step_arguments(stem, step)}")
            before = outputs[0] if STEPS[step].rewrites else before
        return "\n".join(lines)
