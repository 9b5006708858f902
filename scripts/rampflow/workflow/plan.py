"""The plan of a run: its settings, its exposures and their files, and what the rules of the workflow ask about them."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rampflow.astrometry import check_astrometric_catalog, next_attempt, source_files
from rampflow.astrometry.parameters import SEARCH_PARAMETERS
from rampflow.chain import STEPS, image_chain
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.workflow import configuration, inventory, recipes, selections
from rampflow.workflow.environment import job_environment
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.inventory import Inventory
from rampflow.workflow.leftovers import expected_files, stale_files
from rampflow.workflow.paths import CATALOG_PRODUCTS, Paths, intermediates_folder
from rampflow.workflow.step_parameters import source_options

INVENTORY = Path(".rampflow/inventory.json")
#: Environment variable that tells the jobs of a run the file with its exposures. Its main process sets it.
EXPOSURES_VARIABLE = "RAMPFLOW_EXPOSURES"


def read_settings(config: dict, declared: dict[str, Step], folder: Path, given: dict | None = None) -> dict:
    """Check the configuration, with defaults for what it lacks and links for the files that it names.

    Parameters
    ----------
    config : dict
        What the files and the command line gave.
    declared : dict
        Declaration of each step, by its name.
    folder : pathlib.Path
        Where relative paths are taken from.
    given : dict, optional
        The same without the file of defaults, see `rampflow.workflow.configuration.validated`.

    Returns
    -------
    dict
        The settings, as `rampflow.workflow.configuration.validated` returns them.

    Raises
    ------
    RampflowError
        A key is unknown, a value is not one that its key takes, or a file does not exist.
    """
    settings = configuration.validated(config, declared, given)
    settings["astrometric_catalog"] = check_astrometric_catalog(settings["astrometric_catalog"], folder)
    for place, options in configuration.sections(settings, "source_catalog"):
        options |= {name: link_to(path) for name, path in configuration.existing_files(options, folder, place).items()}
    return settings


def link_to(path: str) -> str:
    """Return the link that stands for the content of a user's own file, or of the folder of a HATS catalog.

    The rules read the link, so that a file that was moved or touched is no reason to run anything again.

    Parameters
    ----------
    path : str
        File or folder, or the name of a service.

    Returns
    -------
    str
        Path of the link; `path` itself if it is not a file or catalog that exists.
    """
    content = recipes.content(path)
    if content == path:
        return path
    link = links.link_of(content, Path(path).name)
    links.point(link, Path(path).absolute())
    return str(link)


class Plan:
    """The exposures of a run and their files.

    Methods take the name of an exposure (`stem`) or of an association.

    Parameters
    ----------
    settings : dict
        The configuration, as `read_settings` returns it.
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

    @classmethod
    def of_run(cls, settings: dict, declared: dict[str, Step], folder: Path) -> Plan:
        """Find the exposures of a run; a job of a running workflow takes those that the main process has found.

        Parameters
        ----------
        settings : dict
            The configuration, as `read_settings` returns it.
        declared : dict
            Declaration of each step, by its name.
        folder : pathlib.Path
            Where relative names are taken from.

        Returns
        -------
        Plan
            The plan of the run.

        Raises
        ------
        RampflowError
            Something is wrong with an input or a reference; the message names it.
        """
        found = inventory.read(Path(os.environ[EXPOSURES_VARIABLE])) if is_job() else None  # written before the first job
        found = found or inventory.build(settings, folder, INVENTORY, declared)
        plan = cls(settings, declared, found, scratch_folder(settings))
        if not is_job():
            plan.refuse_own_files()
        return plan

    def refuse_own_files(self) -> None:
        """Refuse a configuration that names a file that the run itself writes.

        Snakemake removes it before the job that makes it anew, and its content would be another one after each run.

        Raises
        ------
        RampflowError
            A segmentation map, catalog or reference is such a file.
        """
        given = {
            **{
                f"{place}.forced_segmentation": links.original(options["forced_segmentation"])
                for place, options in configuration.sections(self.settings, "source_catalog")
                if options.get("forced_segmentation")
            },
            "astrometric_catalog": links.original(self.star_source()),
            **{f"tweakreg_catalog of {e.stem}": e.tweakreg_catalog for e in self.exposures.values()},
            **{f"references.override.{name}": path for name, path in self.settings["references"]["override"].items()},
            **{
                f"{selections.label(number)}.references.{name}": path
                for number, entry in enumerate(self.settings["overrides"])
                for name, path in entry["references"].items()
            },
        }
        named = {setting: Path(path).resolve() for setting, path in given.items() if path}
        if not named:
            return
        own = {path.resolve() for path in expected_files(self.inventory, Path(self.settings["results"]))}
        for setting, path in named.items():
            if path in own:
                raise RampflowError(
                    f"{setting}: {path}: this run makes this file anew and would remove it; copy it to another folder, and "
                    "name the copy"
                )

    @cached_property
    def exposures_file(self) -> Path:
        """The file with the exposures of this run.

        Returns
        -------
        pathlib.Path
            Path of the file.
        """
        return inventory.exposures_file(self.settings, INVENTORY)

    def job_environment(self) -> dict[str, str]:
        """Return the environment variables that the jobs need and no result depends on.

        The CRDS context is recorded in the products, but only another reference is a reason to make them again. Snakemake
        compares parameters with those of the last run, and not the environment.

        Returns
        -------
        dict of str to str
            Value of each variable.
        """
        return job_environment(self.inventory.context) | {EXPOSURES_VARIABLE: str(self.exposures_file)}

    # ---------------------------------------------------------------------------------------------------- which exposures
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

    # ----------------------------------------------------------------------------------------------------- which products
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
        return stale_files(self.inventory, Path(self.settings["results"]), INVENTORY.parent)

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

    # -------------------------------------------------------------------------------------------------- what a job reads
    def raw_exposure(self, stem: str) -> str:
        """Name the raw exposure, or the calibrated image of the input, by the link that stands for its content.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the link.
        """
        return self.links[self.exposures[stem].path]

    def exposure_before(self, stem: str, step: str) -> str:
        """Name the exposure as the previous step of its chain leaves it.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            Path of the file.
        """
        chain = self.exposures[stem].chain
        return self._exposure_after(stem, chain[: chain.index(step)])

    def _exposure_after(self, stem: str, chain: Sequence[str]) -> str:
        """The exposure after some steps, of which a calibrated image has none."""
        steps = image_chain(chain)
        return self.paths.exposure(stem, steps[-1]) if steps else self.raw_exposure(stem)

    def calibrated_image(self, stem: str) -> str:
        """Name the exposure after the last step that changes it.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the file.
        """
        return self._exposure_after(stem, self.exposures[stem].chain)

    def own_catalog(self, stem: str) -> str:
        """Name the source catalog that was made of the image.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the catalog.
        """
        given = self.exposures[stem].catalog
        return self.links[given] if given else self.paths.between(stem, "cat.parquet")

    def own_segmentation(self, stem: str) -> str:
        """Name the segmentation map that was made of the image.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the map.
        """
        given = self.exposures[stem].segmentation
        return self.links[given] if given else self.paths.between(stem, "segm.asdf")

    def references(self, stem: str, step: str) -> list[str]:
        """List the reference files that a step reads.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        list of str
            Paths of the links that stand for their content; without those that do not apply.
        """
        chosen = [self.exposures[stem].references[reference.type] for reference in self.declared[step].references]
        return [self.links[path] for path in chosen if path != NOT_APPLICABLE]

    def forced_segmentation(self, stem: str) -> list[str]:
        """Name the segmentation map of the configuration, whose sources are measured in an exposure.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Path of the map; empty if the configuration names none, or the exposure has no catalog.
        """
        path = self.options(stem, "source_catalog")["forced_segmentation"]
        return [path] if path and "source_catalog" in self.exposures[stem].chain else []

    def solution(self, stem: str) -> str | list[str]:
        """Name the alignment of the exposure's association.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str or list of str
            Path of the file; an empty list if the exposure is not aligned.
        """
        entry = self.exposures[stem]
        return self.paths.between(entry.association, "tweakreg.asdf") if "tweakreg" in entry.chain else []

    def images_to_align(self, association: str) -> list[str]:
        """List the images of an association; tweakreg reads their headers.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Paths of the images.
        """
        return [self.calibrated_image(stem) for stem in self.members_to_align(association)]

    def catalog_to_align(self, stem: str) -> str:
        """Name the catalog that an exposure is aligned with: its own, or the one that the association names for it.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the catalog.
        """
        given = self.exposures[stem].tweakreg_catalog
        return link_to(given) if given else self.own_catalog(stem)

    def redone_images(self, stem: str, step: str) -> list[str]:
        """List the exposure if its calibrated image is the input and its first job is that of a step.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            ``source_catalog`` or ``finalize``.

        Returns
        -------
        list of str
            Name of the exposure, or nothing.
        """
        entry = self.exposures[stem]
        first = "source_catalog" if "source_catalog" in entry.chain else "finalize"
        return [stem] if entry.is_calibrated and step == first else []

    def given_catalogs(self, association: str) -> list[str]:
        """List the catalogs that the association names for its members.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Paths of the catalogs.
        """
        members = self.members_to_align(association)
        return [self.catalog_to_align(stem) for stem in members if self.exposures[stem].tweakreg_catalog]

    def catalogs_to_align(self, association: str) -> list[str]:
        """List the catalog of each image of an association.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Paths of the catalogs, in the order of the images.
        """
        return [self.catalog_to_align(stem) for stem in self.members_to_align(association)]

    def made_catalogs(self, association: str) -> list[str]:
        """List the catalogs made of the images, with which those that the association names are compared.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Path of the catalog of each image; empty if the association names no catalog.
        """
        if not self.given_catalogs(association):
            return []
        return [self.own_catalog(stem) for stem in self.members_to_align(association)]

    def star_source(self) -> str:
        """Name the astrometric catalog.

        Returns
        -------
        str
            The link to the user's own file, or the name of a service.
        """
        return link_to(self.settings["astrometric_catalog"])

    def star_file(self) -> list[str]:
        """Name the file of the astrometric catalog.

        Returns
        -------
        list of str
            The link to the user's own file; empty if the catalog is a service.
        """
        return [self.star_source()] if source_files(self.settings["astrometric_catalog"]) else []

    # ------------------------------------------------------------------------------------------------ what the report reads
    def ramp_pictures(self, association: str) -> list[str]:
        """List the files with the pictures of the ramps of an association.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Path of the file of each exposure, in order; N/A for a calibrated image, which has no ramp.
        """
        return [
            NOT_APPLICABLE if self.exposures[stem].is_calibrated else self.paths.between(stem, "ramp_pictures.json")
            for stem in self.members(association)
        ]

    def ramps_around_refpix(self, stem: str) -> list[str]:
        """List the ramp before and after refpix.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Paths of the two files; empty if refpix is skipped.
        """
        if "refpix" not in self.exposures[stem].chain:
            return []
        return [self.exposure_before(stem, "refpix"), self.paths.exposure(stem, "refpix")]

    def ramp_with_transient(self, stem: str) -> list[str]:
        """Name the ramp before wfi18_transient.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Path of the file; empty if the exposure does not go through this step.
        """
        return [self.exposure_before(stem, "wfi18_transient")] if "wfi18_transient" in self.exposures[stem].chain else []

    def catalog_files(self, stem: str) -> dict[str, str]:
        """List the catalog and segmentation map of an exposure, and the catalogs that its alignment began with.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        dict of str to str
            Path of each file, by the option of image_pictures.py; without those that the exposure does not have.
        """
        entry = self.exposures[stem]
        files = {}
        if entry.is_cataloged:
            files["catalog"] = self.paths.product(stem, "cat.parquet")
            files["segmentation"] = self.paths.product(stem, "segm.asdf")
            if "tweakreg" in entry.chain:
                files["unaligned"] = self.own_catalog(stem)
                files["stars"] = self.paths.between(entry.association, "astrometric.parquet")
        return files

    def alignment_files(self, association: str) -> dict[str, str]:
        """List the summary of an association's alignment, and its astrometric catalog.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        dict of str to str
            Path of each file, by the option of report.py; empty if the association is not aligned.
        """
        if association not in self.aligned_associations():
            return {}
        return {
            "summary": self.paths.product(association, "tweakreg.json"),
            "stars": self.paths.between(association, "astrometric.parquet"),
        }

    # ------------------------------------------------------------------------------------------- an exposure as one job
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
        return [step for step in self.exposures[stem].chain if step != "tweakreg"]

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
        return [step for step in images if step in self.paths.shared or step == images[-1]]

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
        return [path for step in self.steps_of_exposure(stem) for path in self.references(stem, step)]

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
        written, lines, before = self.written_steps(stem), [], self.raw_exposure(stem)
        for step in self.steps_of_exposure(stem):
            if STEPS[step].rewrites:
                path = self.paths.exposure(stem, step)
                outputs = [path if step in written else Path(path).name]
            else:
                outputs = [self.paths.between(stem, ending) for ending in CATALOG_PRODUCTS]
            words = shlex.join([step, self.recipe(stem, step), before, *outputs])
            lines.append(f"{words} {self.arguments(stem, step)}")
            before = outputs[0] if STEPS[step].rewrites else before
        return "\n".join(lines)

    # ---------------------------------------------------------------------------------------------------- arguments of a job
    def arguments(self, stem: str, step: str) -> str:
        """Write the references and parameters of a step as arguments of its script.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        chosen = self.exposures[stem].references
        override = {*self.settings["references"]["override"], *self.exposures[stem].own_references}
        types = [reference.type for reference in self.declared[step].references]
        words = [f"--{name} {shlex.quote(self.links.get(chosen[name], NOT_APPLICABLE))}" for name in types]
        by_crds = [name for name in types if name not in override]
        if by_crds:
            words.append(f"--chosen_by_crds {','.join(by_crds)}")
        # Only steps with a reference of the user's own take the option, so that it repeats the jobs of no others.
        if len(by_crds) < len(types) and self.settings["references"]["allow_mismatch"]:
            words.append("--allow_mismatch")
        if self.declared[step].takes == "wfi_science_raw":
            words.append(f"--data_model {self.settings['data_model']}")
        return " ".join([*words, self.parameters(stem, step)])

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

    def parameters(self, stem: str, step: str) -> str:
        """Write the parameters of a step as arguments of its script, with the references of CRDS that some of them are from.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        declared, entry = self.declared[step].parameters, self.exposures[stem]
        names = {p.name for p in declared}
        from_crds = {k: v for k, v in entry.step_parameters.get(step, {}).items() if k in names}
        from_crds |= {f"{name}.skip": entry.step_parameters[name]["skip"] for name in self._left_out_before(stem, step)}
        words = [configuration.command_line(declared, self.options(stem, step)), shlex.join(source_options(from_crds))]
        return " ".join(word for word in words if word)

    def _left_out_before(self, stem: str, step: str) -> list[str]:
        """Steps between the previous one of the chain and this one that CRDS leaves out: this one records it."""
        entry, order = self.exposures[stem], list(STEPS)
        before = order.index(entry.chain[entry.chain.index(step) - 1]) if step != entry.chain[0] else -1
        between = order[before + 1 : order.index(step)]
        return [name for name in between if entry.step_parameters.get(name, {}).get("skip", (False,))[0]]

    def alignment_options(self, association: str) -> dict[str, Any]:
        """Return the parameters of tweakreg for an association: those of its first exposure that is aligned, as in romancal.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        dict
            Value of each parameter, by its name.
        """
        return self.options(self.members_to_align(association)[0], "tweakreg")

    def check_alignments(self, check: Callable[[dict], Any]) -> None:
        """Check the parameters of tweakreg that CRDS sets together with the others.

        Parameters
        ----------
        check : callable
            Takes the parameters, and raises a `RampflowError` if they contradict each other.

        Raises
        ------
        RampflowError
            They do; the message names the references.
        """
        for association in self.aligned_associations():
            from_crds = self.exposures[self.members_to_align(association)[0]].step_parameters.get("tweakreg", {})
            try:
                if from_crds:
                    check(self.alignment_options(association))
            except RampflowError as error:
                files = ", ".join(sorted({path for _, path in from_crds.values()}))
                raise RampflowError(f"{files}: with the parameters of tweakreg for {association}: {error}") from None

    def alignment_parameters(self, association: str, members: Sequence[str] | None = None) -> str:
        """Write the parameters of tweakreg for an association as arguments of its script.

        Parameters
        ----------
        association : str
            Name of the association.
        members : sequence of str, optional
            The exposures that are aligned, in the order of the association; by default, all.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        members = self.members_to_align(association) if members is None else members
        return self.parameters(members[0], "tweakreg") if members else ""

    def search_parameters(self, association: str) -> str:
        """Write the parameters of the search for the astrometric catalog as arguments of its script.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        return configuration.command_line(SEARCH_PARAMETERS, self.alignment_options(association))

    def missing_options(self, association: str, unfinished: Collection[str] = ()) -> str:
        """Write the options of report.py that name the exposures of an association that the page lacks.

        Parameters
        ----------
        association : str
            Name of the association.
        unfinished : collection of str
            Exposures that a second pass leaves out, most of them because they have failed.

        Returns
        -------
        str
            The options; empty if no exposure is left out.
        """
        absent = self.inventory.excluded.get(association, [])
        kinds = {
            "--excluded": [stem for stem in absent if stem not in unfinished],
            "--missing": [stem for stem in absent if stem in unfinished],
        }
        return " ".join(f"{option} {' '.join(stems)}" for option, stems in kinds.items() if stems)

    def requirement(self, stem: str) -> str:
        """Write the option of finalize.py that makes an exposure fail that should be aligned and is not.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            The option; empty if the configuration does not require it, or the exposure has no alignment.
        """
        return "--require_alignment" if self.settings["require_alignment"] and self.solution(stem) else ""

    def star_attempt(self, association: str) -> int:
        """Count the attempts to get the stars.

        The number changes where the last attempt has failed, so that the rule runs again.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        int
            Number of the attempt.
        """
        return next_attempt(Path(self.paths.between(association, "astrometric.parquet")))

    # ------------------------------------------------------------------------------------------------------- what it is made of
    def recipe(self, stem: str, step: str) -> str:
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
            return self.association_recipe(self.exposures[stem].association)
        files = {
            "dq_init": [self.raw_exposure(stem)],
            "source_catalog": [recipes.content(self.options(stem, "source_catalog")["forced_segmentation"])],
        }
        return recipes.recipe(self.arguments(stem, step), fingerprint(step), *files.get(step, []))

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
        members = self.members_to_align(association) if members is None else members
        return recipes.recipe(
            *members,
            *(link for stem in members for link in self._links_of_image(stem)),
            *(recipes.content(self.exposures[stem].tweakreg_catalog or "") for stem in members),
            self.alignment_parameters(association, members),
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
        return recipes.recipe(fingerprint("finalize"), *given) if given else fingerprint("finalize")

    def _links_of_image(self, stem: str) -> list[str]:
        """The links that stand for the content of a calibrated image and the files beside it; empty for a raw exposure."""
        entry = self.exposures[stem]
        return [self.links[path] for path in entry.files] if entry.is_calibrated else []

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
        source = recipes.content(self.settings["astrometric_catalog"])
        return recipes.recipe(source, self.search_parameters(association), fingerprint("astrometric_catalog"))


def is_job() -> bool:
    """Test whether this process runs a job of a workflow whose main process is another one.

    Returns
    -------
    bool
        True in a job.
    """
    return EXPOSURES_VARIABLE in os.environ


def scratch_folder(settings: dict) -> str | None:
    """Name the folder of the files that only the next step reads, where the configuration names a disk of the nodes.

    Each cluster job has a folder of its own, which is removed when the job ends. The main process never sees these files. It
    uses another name for them, so that it does not take the files of a run without scratch for them.

    Parameters
    ----------
    settings : dict
        The configuration, as `read_settings` returns it.

    Returns
    -------
    str or None
        Path of the folder. None: together with the other intermediates.
    """
    if not settings["scratch"]:
        return None
    if not is_job():
        return f"{intermediates_folder(settings['results'])}/scratch"
    disk = Path(os.path.expandvars(settings["scratch"]))
    disk.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="rampflow-", dir=disk)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def given_options(files: Mapping[str, str | Sequence[str]], names: Iterable[str]) -> str:
    """Write those of some named inputs that a job has as arguments of its script.

    Parameters
    ----------
    files : mapping
        Inputs of the job: a name or a list of names for each.
    names : iterable of str
        The inputs that become arguments.

    Returns
    -------
    str
        The arguments, quoted for a shell.
    """
    words = []
    for name in names:
        if given := files.get(name):
            words.append(f"--{name} {shlex.join([given] if isinstance(given, str) else given)}")
    return " ".join(words)
