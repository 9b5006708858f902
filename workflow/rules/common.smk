"""What the rules of all files use: the plan of the run, and functions of wildcards that ask it."""

import gc
import inspect
import os
import sys
from pathlib import Path

# The folder of this clone. From a hosted repository, Snakemake fetches only the files that it is asked for: all that are listed.
HOME = Path(inspect.getfile(lambda: None)).parent.parent.parent
if not HOME.is_dir():
    listed = Path(workflow.source_path("../files.txt"))
    HOME = listed.parent.parent
    for name in listed.read_text().splitlines():
        workflow.source_path(f"../../{name}")
sys.path.insert(0, str(HOME / "scripts"))

from snakemake.exceptions import WorkflowError

import declarations
import tweakreg
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.workflow import recipes, rerun, resources, second_pass, summary
from rampflow.workflow.environment import SCRIPTS
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.paths import match_any
from rampflow.workflow.plan import EXPOSURES_VARIABLE, INVENTORY, Plan, given_options, is_job, read_settings

# Nothing that has been imported is garbage: to search it again and again takes a second of each run.
gc.freeze()
gc.set_threshold(100_000)

IS_MAIN_PROCESS = not is_job()
DECLARED = declarations.steps()
try:
    settings = read_settings(config, DECLARED, Path.cwd())
    settings["exclude"] = [*settings["exclude"], *second_pass.left_out()]
    tweakreg.matchings(settings["steps"]["tweakreg"])
    plan = Plan.of_run(settings, DECLARED, Path.cwd())
except RampflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS, INTERMEDIATES = plan.paths.results, plan.paths.intermediates
KEPT_STEPS = plan.kept_steps()
STARS_ARE_CURRENT = rerun.stars_are_current(plan)
os.environ.update(plan.job_environment())


envvars:
    EXPOSURES_VARIABLE,


wildcard_constraints:
    stem=match_any(plan.exposures),
    association=match_any(plan.associations()),


# ------------------------------------------------------------------------------------------------------ what a rule reads
def of_exposure(question, *arguments):
    """Input or parameter function: the answer of the plan for the exposure of a job."""
    return lambda wildcards: question(wildcards.stem, *arguments)


def of_association(question, *arguments):
    """Input or parameter function: the answer of the plan for the association of a job."""
    return lambda wildcards: question(wildcards.association, *arguments)


def redo_stamp(kind, wildcard):
    """Input function: the file whose time says that an exposure or an association is to be made again."""
    return lambda wildcards: rerun.stamp_file(RESULTS, kind, wildcards[wildcard])


def get_final_products(wildcards):
    """Products of every exposure, and the summary of every alignment."""
    if not plan.exposures:
        raise WorkflowError(
            "input: no exposure is given; name raw files, folders or association files: --config input=L1_asn.json"
        )
    return plan.all_products()


def get_pointings(wildcards):
    """Images of an association: the stars are not asked for again where only the pixels of the images have changed.

    Where the parameters have changed too, the images are not `ancient`: of a job whose inputs all are, and are made again,
    Snakemake does not compare the parameters.
    """
    images = plan.images_to_align(wildcards.association)
    return [ancient(image) for image in images] if STARS_ARE_CURRENT else images


def get_catalogs_to_align(wildcards):
    """Catalog of each image. Those that the association names are `ancient`, because their links stand for their content."""
    given = plan.given_catalogs(wildcards.association)
    catalogs = plan.catalogs_to_align(wildcards.association)
    return [ancient(catalog) if catalog in given else catalog for catalog in catalogs]


def options_of_inputs(*names):
    """Parameter function: those of some named inputs that a job has, as arguments of its script."""
    return lambda wildcards, input: given_options(input, names)


# ----------------------------------------------------------------------------------------------------- what a rule writes
def exposure_after(step):
    """Output of a step; it is temporary unless the configuration or the alignment keeps it."""
    path = plan.paths.exposure("{stem}", step)
    return path if step in KEPT_STEPS else temp(path)


# -------------------------------------------------------------------------------------------------------------- resources
def local_cores():
    """Cores of this machine that the run may use; None where its jobs are submitted to a cluster, or are jobs of one."""
    try:
        return workflow.cores if IS_MAIN_PROCESS else None
    except WorkflowError:  # without --cores
        return None


def cores(wildcards):
    """Cores of a job that can use two."""
    return resources.threads(len(plan.exposures), local_cores())


def shape_of(wildcards):
    """Shape of the raw exposure of a job; None for a job of an association."""
    return plan.shape(wildcards.stem) if "stem" in wildcards.keys() else None


def memory(base, *, frames=0, ramps=0):
    """Resource function: MB of the program, with float32 frames and ramps of the exposure's size."""
    return lambda wildcards, attempt: resources.memory(
        base,
        frames=frames,
        ramps=ramps,
        shape=shape_of(wildcards),
        attempt=attempt,
        on_cluster=local_cores() is None,
    )


def minutes(base, *, per_gigabyte=0):
    """Resource function: minutes of the program, and more for each GB of the exposure's float32 ramp."""
    return lambda wildcards, attempt: resources.minutes(
        base,
        per_gigabyte=per_gigabyte,
        shape=shape_of(wildcards),
        attempt=attempt,
    )
