"""The plan of a run: its settings, its exposures and associations, and their products."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from rampflow.chain import STEPS, image_chain
from rampflow.step.declaration import Step
from rampflow.workflow import inventory
from rampflow.workflow.environment import script_environment
from rampflow.workflow.inventory import Inventory
from rampflow.workflow.leftovers import find_stale_files
from rampflow.workflow.paths import Paths, intermediates_folder

INVENTORY = Path(".rampflow/inventory.json")
#: Environment variable that tells the jobs of a run the file with its exposures. Its main process sets it.
EXPOSURES_VARIABLE = "RAMPFLOW_EXPOSURES"


class Plan:
    """The exposures of a run and their products.

    Methods take the name of an exposure (`stem`) or of an association.

    Parameters
    ----------
    settings : dict
        The configuration, as `rampflow.workflow.run_start.read_settings` returns it.
    declared : dict
        Declaration of each step, by its name.
    found : rampflow.workflow.inventory.Inventory
        The exposures.
    scratch : str
        Folder of the files that only the next step reads; the folder of all intermediates by default.

    Attributes
    ----------
    exposures : dict
        What is known of each exposure, by its name (`rampflow.workflow.inventory.ExposureEntry`).
    paths : rampflow.workflow.paths.Paths
        Where the run writes.
    """

    def __init__(self, settings: dict, declared: dict[str, Step], found: Inventory, scratch: str | None = None):
        self.settings, self.declared, self.inventory = settings, declared, found
        self.exposures, self.links = found.exposures, found.links
        results = settings["results"]
        shared = self.kept_steps() | self._last_steps(self.with_step("source_catalog"))
        self.paths = Paths(results, scratch or intermediates_folder(results), frozenset(shared))

    @cached_property
    def exposures_file(self) -> Path:
        """The file with the exposures of this run.

        Returns
        -------
        pathlib.Path
            Path of the file.
        """
        return inventory.name_exposures_file(self.settings, INVENTORY)

    def job_environment(self) -> dict[str, str]:
        """Return the environment variables that the jobs need and no result depends on.

        The CRDS context is recorded in the products, but only another reference is a reason to make them again. Snakemake
        compares parameters with those of the last run, and not the environment.

        Returns
        -------
        dict of str to str
            Value of each variable.
        """
        return script_environment(self.inventory.context) | {EXPOSURES_VARIABLE: str(self.exposures_file)}

    def with_step(self, step: str) -> list[str]:
        """List the exposures that go through a step.

        Parameters
        ----------
        step : str
            Name of the step.

        Returns
        -------
        list of str
            Names of the exposures.
        """
        return [stem for stem, entry in self.exposures.items() if step in entry.chain]

    def without_step(self, step: str) -> list[str]:
        """List the exposures that do not go through a step.

        Parameters
        ----------
        step : str
            Name of the step.

        Returns
        -------
        list of str
            Names of the exposures.
        """
        return [stem for stem, entry in self.exposures.items() if step not in entry.chain]

    def associations(self) -> list[str]:
        """List all associations.

        Returns
        -------
        list of str
            Sorted names.
        """
        return sorted({entry.association for entry in self.exposures.values()})

    def aligned_associations(self) -> list[str]:
        """List the associations with an exposure to align.

        Returns
        -------
        list of str
            Sorted names.
        """
        return sorted({self.exposures[stem].association for stem in self.with_step("tweakreg")})

    def members(self, association: str) -> list[str]:
        """List the exposures of an association, in its order.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Names of the exposures.
        """
        return [stem for stem, entry in self.exposures.items() if entry.association == association]

    def members_to_align(self, association: str) -> list[str]:
        """List the exposures of an association that go through tweakreg.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Names of the exposures, in the order of the association.
        """
        return [stem for stem in self.members(association) if "tweakreg" in self.exposures[stem].chain]

    def shape(self, stem: str) -> tuple[int, int, int]:
        """Return the shape of a raw exposure.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        tuple of int
            Resultants, rows, columns.
        """
        return self.exposures[stem].shape

    def options(self, stem: str, step: str) -> dict[str, Any]:
        """Return the parameters of a step for an exposure: of ``overrides``, of ``steps``, of CRDS, or the defaults.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        dict
            Value of each parameter, by its name.
        """
        from_crds = self.exposures[stem].step_parameters.get(step, {})
        return self.settings["steps"][step] | {name: value for name, (value, _) in from_crds.items()}

    def remote_exposures(self) -> list[str]:
        """List the exposures whose raw files lie on S3 or a web server.

        Returns
        -------
        list of str
            Names of the exposures.
        """
        return [stem for stem, entry in self.exposures.items() if entry.remote]

    def products(self, stem: str) -> list[str]:
        """List all products of an exposure.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Paths of the products.
        """
        return self.paths.products(stem, cataloged=self.exposures[stem].is_cataloged)

    def all_products(self) -> list[str]:
        """List the products of every exposure, and the summary of every alignment.

        Returns
        -------
        list of str
            Paths of the products.
        """
        summaries = [self.paths.product(name, "tweakreg.json") for name in self.aligned_associations()]
        return [*(path for stem in self.exposures for path in self.products(stem)), *summaries]

    def stale_files(self) -> list[Path]:
        """Find files in the results folder of exposures and steps that this run does not have.

        Returns
        -------
        list of pathlib.Path
            The files.
        """
        return find_stale_files(self.inventory, Path(self.settings["results"]), INVENTORY.parent)

    def kept_steps(self) -> set[str]:
        """List the steps whose output stays: those of the configuration, and those that the alignment and finalize read.

        Returns
        -------
        set of str
            Names of the steps.
        """
        return {*self.kept_in_configuration(), *self._last_steps(self.with_step("tweakreg"))}

    def kept_in_configuration(self) -> set[str]:
        """List the steps whose output the configuration keeps.

        Returns
        -------
        set of str
            Names of the steps.
        """
        kept = self.settings["keep_intermediates"]
        if isinstance(kept, bool):
            kept = STEPS if kept else ()
        return set(kept)

    def _last_steps(self, stems: Iterable[str]) -> set[str]:
        return {step for stem in stems for step in image_chain(self.exposures[stem].chain)[-1:]}

    def cataloged(self, *, yes: bool = True) -> list[str]:
        """List the exposures that have a source catalog.

        Parameters
        ----------
        yes : bool
            False: list those that have none.

        Returns
        -------
        list of str
            Names of the exposures.
        """
        return [stem for stem, entry in self.exposures.items() if entry.is_cataloged == yes]
