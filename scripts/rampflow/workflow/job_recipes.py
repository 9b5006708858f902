"""The recipes of a run's files: hashes of what each is made from."""

from __future__ import annotations

from collections.abc import Sequence

from rampflow.workflow import recipes
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.plan import Plan


class JobRecipes:
    """The recipes of a run's files: hashes of what each is made from.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self._arguments = JobArguments(plan)
        self._inputs = JobInputs(plan)

    def step_recipe(self, stem: str, step: str) -> str:
        """Hash what a step of an exposure is made from, besides the output of the previous step.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            The hash, see `rampflow.workflow.recipes.recipe`.
        """
        if step == "tweakreg":
            return self.association_recipe(self.plan.exposures[stem].association)
        files = {
            "dq_init": [self._inputs.raw_content(stem)],
            "source_catalog": [recipes.content(self.plan.options(stem, "source_catalog")["forced_segmentation"])],
        }
        return recipes.recipe(self._arguments.step_arguments(stem, step), fingerprint(step), *files.get(step, []))

    def association_recipe(self, association: str, members: Sequence[str] | None = None) -> str:
        """Hash what the alignment of an association is made from, besides its images and their catalogs.

        Parameters
        ----------
        association : str
            Name of the association.
        members : sequence of str, optional
            The exposures that are aligned with each other, in the order of the association; by default, all.

        Returns
        -------
        str
            The hash, see `rampflow.workflow.recipes.recipe`.
        """
        members = self.plan.members_to_align(association) if members is None else members
        return recipes.recipe(
            *members,
            *(link for stem in members for link in self._links_of_image(stem)),
            *(recipes.content(self.plan.exposures[stem].tweakreg_catalog or "") for stem in members),
            self._arguments.alignment_parameters(association, members),
            fingerprint("tweakreg"),
            self.star_recipe(association),
        )

    def product_recipe(self, stem: str) -> str:
        """Hash what the products of an exposure are made from, besides the output of its steps and its alignment.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            The hash, see `rampflow.workflow.recipes.recipe`.
        """
        given = self._links_of_image(stem)
        return (
            recipes.recipe(fingerprint("finalize"), *given, self.plan.settings["data_model"])
            if given
            else fingerprint("finalize")
        )

    def _links_of_image(self, stem: str) -> list[str]:
        """The links that stand for the content of a calibrated image and the files beside it; empty for a raw exposure."""
        entry = self.plan.exposures[stem]
        return [self.plan.links[path] for path in entry.files] if entry.is_calibrated else []

    def star_recipe(self, association: str) -> str:
        """Hash what an astrometric catalog is made from, besides where the images point.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        str
            The hash, see `rampflow.workflow.recipes.recipe`.
        """
        source = recipes.content(self.plan.settings["astrometric_catalog"])
        return recipes.recipe(source, self._arguments.search_parameters(association), fingerprint("astrometric_catalog"))
