"""The start of a run: it reads the configuration, finds the exposures, and refuses what contradicts itself."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rampflow.astrometry import check_astrometric_catalog
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.step.declaration import Step
from rampflow.workflow import configuration, inventory, second_pass, selections
from rampflow.workflow.command_line import refuse_lost_keys, refuse_repeated_keys
from rampflow.workflow.inventory_building import build_inventory
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.job_inputs import JobInputs, link_to
from rampflow.workflow.leftovers import expected_files
from rampflow.workflow.paths import intermediates_folder
from rampflow.workflow.plan import EXPOSURES_VARIABLE, INVENTORY, Plan


def begin_run(
    config: dict,
    given: dict,
    declared: dict[str, Step],
    check_alignment: Callable[[dict], Any],
    words: Sequence[str],
) -> Plan:
    """Read the configuration of a run, and plan the run.

    Parameters
    ----------
    config : dict
        The configuration that Snakemake has read, with the defaults.
    given : dict
        The same without the file of defaults.
    declared : dict
        Declaration of each step, by its name.
    check_alignment : callable
        Takes parameters of tweakreg, and raises a `RampflowError` if they contradict each other.
    words : sequence of str
        Command line of Snakemake.

    Returns
    -------
    rampflow.workflow.plan.Plan
        The plan of the run, with its settings.

    Raises
    ------
    RampflowError
        Something is wrong with the command line, the configuration, an input or a reference.
    """
    if not is_job():
        refuse_lost_keys(words)
        refuse_repeated_keys(words)
    settings = read_settings(config, declared, Path.cwd(), given)
    settings["exclude"] = [*settings["exclude"], *second_pass.left_out()]
    check_alignment(settings["steps"]["tweakreg"])
    plan = plan_run(settings, declared, Path.cwd())
    check_alignments(plan, check_alignment)
    return plan


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


def plan_run(settings: dict, declared: dict[str, Step], folder: Path) -> Plan:
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
    rampflow.workflow.plan.Plan
        The plan of the run.

    Raises
    ------
    RampflowError
        Something is wrong with an input or a reference; the message names it.
    """
    found = inventory.read(Path(os.environ[EXPOSURES_VARIABLE])) if is_job() else None  # written before the first job
    found = found or build_inventory(settings, folder, INVENTORY, declared)
    plan = Plan(settings, declared, found, scratch_folder(settings))
    if not is_job():
        refuse_own_files(plan)
    return plan


def refuse_own_files(plan: Plan) -> None:
    """Refuse a configuration that names a file that the run itself writes.

    Snakemake removes it before the job that makes it anew, and its content would be another one after each run.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Raises
    ------
    RampflowError
        A segmentation map, catalog or reference is such a file.
    """
    given = {
        **{
            f"{place}.forced_segmentation": links.original(options["forced_segmentation"])
            for place, options in configuration.sections(plan.settings, "source_catalog")
            if options.get("forced_segmentation")
        },
        "astrometric_catalog": links.original(JobInputs(plan).star_source()),
        **{f"tweakreg_catalog of {e.stem}": e.tweakreg_catalog for e in plan.exposures.values()},
        **{f"references.override.{name}": path for name, path in plan.settings["references"]["override"].items()},
        **{
            f"{selections.label(number)}.references.{name}": path
            for number, entry in enumerate(plan.settings["overrides"])
            for name, path in entry["references"].items()
        },
    }
    named = {setting: Path(path).resolve() for setting, path in given.items() if path}
    if not named:
        return
    own = {path.resolve() for path in expected_files(plan.inventory, Path(plan.settings["results"]))}
    for setting, path in named.items():
        if path in own:
            raise RampflowError(
                f"{setting}: {path}: this run makes this file anew and would remove it; copy it to another folder, and "
                "name the copy"
            )


def refuse_empty(plan: Plan) -> None:
    """Refuse a run without exposures.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Raises
    ------
    RampflowError
        No exposure is given, or all are left out.
    """
    if not plan.exposures and plan.inventory.excluded:
        raise RampflowError("exclude: it leaves out every exposure of the input")
    if not plan.exposures:
        raise RampflowError(
            "input: no exposure is given; name raw files, folders or association files: --config input=L1_asn.json"
        )


def refuse_absent_results(results: Path) -> None:
    """Refuse a results folder that does not exist, for what only reads it.

    Parameters
    ----------
    results : pathlib.Path
        The folder.

    Raises
    ------
    RampflowError
        There is no such folder.
    """
    if not results.is_dir():
        place = "" if results.is_absolute() else f" in {Path.cwd()}"
        raise RampflowError(
            f"results: the folder {results} does not exist{place}; name the folder of the products: --config results=FOLDER "
            "(with the command rampflow, --results FOLDER)"
        )


def check_alignments(plan: Plan, check: Callable[[dict], Any]) -> None:
    """Check the parameters of tweakreg that CRDS sets together with the others.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    check : callable
        Takes the parameters, and raises a `RampflowError` if they contradict each other.

    Raises
    ------
    RampflowError
        They do; the message names the references.
    """
    for association in plan.aligned_associations():
        from_crds = plan.exposures[plan.members_to_align(association)[0]].step_parameters.get("tweakreg", {})
        try:
            if from_crds:
                check(JobArguments(plan).alignment_options(association))
        except RampflowError as error:
            files = ", ".join(sorted({path for _, path in from_crds.values()}))
            raise RampflowError(f"{files}: with the parameters of tweakreg for {association}: {error}") from None


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
