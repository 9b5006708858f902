"""The interface for Python: the whole chain of one exposure in this process.

It has the inventory, the command lines and the functions of the workflow, without Snakemake.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import gc
import importlib
import json
import logging
import os
import shlex
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rampflow.errors import RampflowError
from rampflow.files.atomic import describe_error
from rampflow.files.path_lists import write_list
from rampflow.remote.addresses import is_remote
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.step.logs import log as library_log
from rampflow.workflow import configuration, run_start
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.inventory_building import build_inventory
from rampflow.workflow.job_arguments import JobArguments, given_options
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import BENCHMARKS, EXPOSURE_JOB, LOGS, log_file
from rampflow.workflow.plan import INVENTORY, Plan

if TYPE_CHECKING:
    from astropy.table import Table
    from gwcs import WCS
    from roman_datamodels.datamodels import ImageModel, SegmentationMapModel, WfiWcsModel

RECIPE_VARIABLE = "RAMPFLOW_RECIPE"
ERROR = " :: ERROR :: "  #: before the message of an error in a log
#: Keys of the configuration that the interface sets.
RUN_KEYS = {"input", "results", "job_per", "keep_intermediates", "scratch"}
#: Variables of the environment that name a folder. A relative one is taken from the folder in which `calibrate` is called.
FOLDER_VARIABLES = ("CRDS_PATH", "ASTROMETRIC_CATALOG_CACHE")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The products of an exposure. A product is read when it is asked for.

    Attributes
    ----------
    stem : str
        Name of the exposure.
    paths : dict of pathlib.Path
        File of each product, by its kind: ``cal``, ``wcs``, ``qa``; ``cat`` and ``segm`` with a source catalog; ``tweakreg``
        with an alignment. Without a folder of results they exist as long as this object.
    log : str
        Log of all steps.
    """

    stem: str
    paths: dict[str, Path]
    log: str = dataclasses.field(repr=False)
    _folder: tempfile.TemporaryDirectory | None = dataclasses.field(default=None, repr=False)

    @functools.cached_property
    def image(self) -> ImageModel:
        """The calibrated image.

        Returns
        -------
        roman_datamodels.datamodels.ImageModel
            Count rates (DN/s), errors, flags and metadata.
        """
        return self._open("cal")

    @functools.cached_property
    def wcs_product(self) -> WfiWcsModel:
        """The WCS product.

        Returns
        -------
        roman_datamodels.datamodels.WfiWcsModel
            WCSs of Level 1 and Level 2 images.
        """
        return self._open("wcs")

    @functools.cached_property
    def segmentation(self) -> SegmentationMapModel | None:
        """The segmentation map.

        Returns
        -------
        roman_datamodels.datamodels.SegmentationMapModel or None
            Label of the source in each pixel; None without a source catalog.
        """
        return self._open("segm") if "segm" in self.paths else None

    @functools.cached_property
    def catalog(self) -> Table | None:
        """The source catalog.

        Returns
        -------
        astropy.table.Table or None
            A row for each source, with units and descriptions; None for an exposure type that has no catalog.
        """
        return read_catalog(self.paths["cat"]) if "cat" in self.paths else None

    @property
    def wcs(self) -> WCS | None:
        """The WCS of the calibrated image.

        Returns
        -------
        gwcs.WCS or None
            From pixels (x, y; 0 is the center of the first one) to right ascension and declination; None for a fully saturated
            exposure.
        """
        return self.image.meta.get("wcs")

    @functools.cached_property
    def qa(self) -> dict[str, Any]:
        """The numbers of the exposure.

        Returns
        -------
        dict
            Values by the names in the reference page of the numbers.
        """
        return json.loads(self.paths["qa"].read_text())

    def _open(self, kind: str) -> Any:
        import roman_datamodels.datamodels

        return roman_datamodels.datamodels.open(self.paths[kind])


def read_catalog(path: Path) -> Table:
    """Read a source catalog.

    Parameters
    ----------
    path : pathlib.Path
        The catalog (_cat.parquet).

    Returns
    -------
    astropy.table.Table
        The table, with units, descriptions and metadata.
    """
    from astropy.table import Table
    from astropy.table.meta import get_header_from_yaml

    from rampflow.files.parquet import read_table

    stored = read_table(path)
    table = Table({name: stored[name].to_numpy() for name in stored.column_names})
    header = get_header_from_yaml(stored.schema.metadata[b"table_meta_yaml"].decode().splitlines())
    for column in header["datatype"]:
        table[column["name"]].unit = column.get("unit")
        table[column["name"]].description = column.get("description")
    table.meta.update(header.get("meta", {}))
    return table


def calibrate(
    exposure: str | os.PathLike,
    results: str | os.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    threads: int = 1,
) -> Calibration:
    """Calibrate one exposure in this process: all steps, the alignment to the stars, and the products.

    The products are those of a run of the workflow whose only input is this exposure. References and parameters are CRDS's,
    unless `overrides` sets them. The working folder of the process is another one during the call, so that calls belong in
    processes of their own, not in threads.

    Parameters
    ----------
    exposure : path-like
        Raw exposure (_uncal.asdf), or a ramp as dq_init leaves it.
    results : path-like, optional
        Folder for the products. By default, a temporary folder which is removed with the returned object.
    overrides : mapping, optional
        Keys of the configuration in place of the defaults, such as ``{"steps": {"refpix": {"skip": True}}}``,
        ``{"references": {"override": {"flat": "my_flat.asdf"}}}`` or ``{"astrometric_catalog": "stars.ecsv"}``. Relative
        paths are taken from the present folder.
    threads : int
        Cores to use.

    Returns
    -------
    Calibration
        The products.

    Raises
    ------
    RampflowError
        The exposure or the configuration is refused, CRDS lacks a reference, or a step fails.
    """
    start = Path.cwd()
    given = with_absolute_paths(overrides or {}, start)
    if own := RUN_KEYS & given.keys():
        raise RampflowError(f"overrides: {', '.join(sorted(own))} can't be set here; the other keys of the configuration can")
    if not isinstance(threads, int) or threads < 1:
        raise RampflowError(f"threads is {threads!r}; it takes a positive number")
    for name, value in {"exposure": exposure, "results": results}.items():
        if is_remote(os.fspath(value or "")):
            raise RampflowError(f"{name} is {value}; it takes a path on the disk. `rampflow run` takes addresses")
    temporary = tempfile.TemporaryDirectory(prefix="rampflow-") if results is None else None
    target = start / (temporary.name if temporary else os.path.expanduser(results or ""))
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Beside the products, so that they appear there whole.
        folder = tempfile.TemporaryDirectory(prefix=".rampflow-", dir=target)
    except OSError as error:
        raise RampflowError(f"results: {target}: can't be written ({describe_error(error)})") from None
    raw = start / os.path.expanduser(exposure)
    with folder as working, _working_in(Path(working)):
        plan = _plan(raw, given, start)
        (stem,) = plan.exposures
        _run_chain(plan, stem, threads)
        log = "".join(path.read_text() for path in sorted(LOGS.rglob("*.log"), key=lambda path: path.stat().st_mtime_ns))
        paths = {}
        for path in sorted(Path(plan.settings["results"]).iterdir()):
            if path.is_file():
                kind = path.stem.rpartition("_")[2]
                paths[kind] = path.replace(target / path.name)
    return Calibration(stem, paths, log, temporary)


def with_absolute_paths(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Copy a configuration, with absolute paths in place of relative ones.

    Parameters
    ----------
    given : mapping
        Keys of the configuration, which need not be valid.
    folder : pathlib.Path
        Where relative paths are taken from.

    Returns
    -------
    dict
        The copy.

    Raises
    ------
    RampflowError
        It has no keys.
    """
    if not isinstance(given, Mapping):
        raise RampflowError(f"overrides is {given!r}; it takes keys of the configuration, such as {{'steps': {{…}}}}")
    config = copy.deepcopy(dict(given))

    def _replace(section: Any, names: Iterable[str] | None = None) -> None:
        for name in list(section) if names is None and isinstance(section, dict) else names or ():
            if isinstance(section, dict) and isinstance(value := section.get(name), str) and value != NOT_APPLICABLE:
                section[name] = str(folder / os.path.expanduser(value))

    if (folder / os.path.expanduser(str(config.get("astrometric_catalog", "")))).exists():
        _replace(config, ["astrometric_catalog"])
    # A section of another form has no paths; the check of the configuration names it.
    with contextlib.suppress(AttributeError, TypeError):
        _replace((config.get("references") or {}).get("override"))
        for entry in config.get("overrides") or ():
            _replace(entry.get("references"))
        for step, names in configuration.FILE_PARAMETERS.items():
            for _, options in configuration.sections(config, step):
                _replace(options, names)
    return config


def _plan(raw: Path, given: dict[str, Any], start: Path) -> Plan:
    """The plan of a run with one exposure, in the working folder. Messages name the folder of the call, `start`."""
    declared = importlib.import_module("rampflow.steps.declarations").steps()
    matchings = importlib.import_module("rampflow.steps.tweakreg").matchings
    config = given | {"input": str(raw), "results": "results", "job_per": "exposure", "keep_intermediates": []}
    settings = run_start.read_settings(config, declared, start, given)
    matchings(settings["steps"]["tweakreg"])
    plan = Plan(settings, declared, build_inventory(settings, start, INVENTORY, declared))
    if len(plan.exposures) != 1 or any(entry.is_calibrated for entry in plan.exposures.values()):
        raise RampflowError(f"{raw}: is not one raw exposure; give the file of one (_uncal.asdf)")
    run_start.check_alignments(plan, matchings)
    return plan


def _run_chain(plan: Plan, stem: str, threads: int) -> None:
    """Run all steps of an exposure, its alignment and finalize, with the arguments that the rules of the workflow give them."""
    inputs, arguments, recipes = JobInputs(plan), JobArguments(plan), JobRecipes(plan)
    entry, paths, name = plan.exposures[stem], plan.paths, plan.exposures[stem].association
    Path(paths.intermediates).mkdir(parents=True)
    for path in plan.inventory.missing_references():
        context = str(plan.inventory.context)
        _run("fetch_reference", [plan.links[path], "--crds_context", context], log_file(Path(path).name, "fetch_reference"))
    _run_steps(plan, stem, threads)
    if "tweakreg" in entry.chain:
        stars, solution = paths.intermediate(name, "astrometric.parquet"), paths.intermediate(name, "tweakreg.asdf")
        images, catalogs = write_list(inputs.images_to_align(name)), write_list(inputs.catalogs_to_align(name))
        words = [stars, "--images", images, "--astrometric_catalog", inputs.star_source(), "--attempt", "0"]
        words += shlex.split(arguments.search_parameters(name))
        _run("astrometric_catalog", words, log_file(name, "astrometric_catalog"))
        words = [solution, paths.product(name, "tweakreg.json"), "--images", images, "--catalogs", catalogs, "--own_catalogs"]
        words += ["--astrometric_catalog", stars, "--catalog_name", Path(plan.settings["astrometric_catalog"]).name]
        words += shlex.split(arguments.alignment_parameters(name))
        _run("tweakreg", words, log_file(name, "tweakreg"), recipes.association_recipe(name))
    cal, wcs, qa = (paths.product(stem, ending) for ending in ("cal.asdf", "wcs.asdf", "qa.json"))
    words = [inputs.calibrated_image(stem), cal, wcs, "--qa", qa, "--benchmarks", str(BENCHMARKS / stem)]
    if entry.is_cataloged:
        words += ["--catalog", inputs.own_catalog(stem), paths.product(stem, "cat.parquet")]
        words += ["--segmentation", inputs.own_segmentation(stem), paths.product(stem, "segm.asdf")]
    words += shlex.split(given_options({"solutions": inputs.solution(stem)}, ["solutions"]))
    words += shlex.split(arguments.product_options(stem))
    _run("finalize", words, log_file(stem, "finalize"), recipes.product_recipe(stem))


def _run_steps(plan: Plan, stem: str, threads: int) -> None:
    """Run the steps of an exposure with its arrays in memory."""
    jobs, script = ExposureJobs(plan), importlib.import_module("rampflow.steps.process_exposure")
    log = log_file(stem, EXPOSURE_JOB)
    arguments = argparse.Namespace(
        write=jobs.written_steps(stem),
        logs=log.parent,
        benchmarks=BENCHMARKS / stem,
        threads=threads,
        crds_context=plan.inventory.context,
    )
    tasks = script.read_tasks(jobs.step_lines(stem))
    _with_log(lambda: script.process_exposure(tasks, arguments), log)


def _run(program: str, words: list[str], log: Path, recipe: str | None = None) -> None:
    """Run a program in this process, with its log in a file; raise its error."""
    script = importlib.import_module(f"rampflow.steps.{program}")
    with _variables({RECIPE_VARIABLE: recipe}):
        _with_log(lambda: script.main(words), log)


def _with_log(function: Callable[[], int], log: Path) -> None:
    """Call a function that returns an exit status, with its messages in a file; raise the error that they name."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, contextlib.redirect_stderr(file):
        status = function()
    if status:
        errors = [line.partition(ERROR)[2] for line in log.read_text().splitlines() if ERROR in line]
        raise RampflowError(errors[0] if errors else f"{log.stem} ended with status {status}")


@contextlib.contextmanager
def _variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of the environment, or remove those that are None, in a block."""
    before = {name: os.environ.get(name) for name in values}

    def _set(values: Mapping[str, str | None]) -> None:
        for name, value in values.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    try:
        _set(values)
        yield
    finally:
        _set(before)


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Work in a folder, and leave no trace in the process: programs set up its log, its warnings and its garbage collection."""
    absolute = {name: os.path.abspath(value) for name in FOLDER_VARIABLES if (value := os.environ.get(name))}
    handlers, propagate, level = [*library_log.handlers], library_log.propagate, library_log.level
    show_warning, threshold = warnings.showwarning, gc.get_threshold()
    try:
        with _variables(absolute), contextlib.chdir(folder):
            yield
    finally:
        gc.set_threshold(*threshold)
        library_log.handlers[:] = handlers
        library_log.propagate = propagate
        library_log.setLevel(level)
        if warnings.showwarning is not show_warning:
            logging.captureWarnings(False)
