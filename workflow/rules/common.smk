"""What all files of rules use: the plan of the run, the files and arguments of its jobs, and input functions."""

import gc
import inspect
import os
import sys
from pathlib import Path

# The folder of this clone. From a hosted repository, Snakemake fetches only named files; files.txt names those of a run.
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
from rampflow.files.path_lists import write_list
from rampflow.folders import WORKFLOW
from rampflow.workflow import recipes, rerun, resources, run_start, second_pass, summary
from rampflow.workflow.command_line import refuse_lost_keys, refuse_repeated_keys
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.input_functions import list_of_inputs, of_association, of_exposure, options_of_inputs
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import EXPOSURE_JOB, match_any
from rampflow.workflow.plan import EXPOSURES_VARIABLE, INVENTORY
from rampflow.workflow.report_inputs import ReportInputs
from rampflow.workflow.uploads import Uploads

# Imported modules are never garbage. These two lines keep Python from searching them again and again: a second in each run.
gc.freeze()
gc.set_threshold(100_000)

IS_MAIN_PROCESS = not run_start.is_job()
DECLARED = declarations.steps()
try:
    if IS_MAIN_PROCESS:
        refuse_lost_keys(sys.argv[1:])
        refuse_repeated_keys(sys.argv[1:])
    settings = run_start.read_settings(config, DECLARED, Path.cwd(), GIVEN)
    settings["exclude"] = [*settings["exclude"], *second_pass.left_out()]
    tweakreg.matchings(settings["steps"]["tweakreg"])
    plan = run_start.plan_run(settings, DECLARED, Path.cwd())
    run_start.check_alignments(plan, tweakreg.matchings)
except RampflowError as error:
    raise WorkflowError(str(error)) from None

# The inputs, arguments and recipes of each job.
job_inputs, job_arguments, job_recipes = JobInputs(plan), JobArguments(plan), JobRecipes(plan)
exposure_jobs, report_inputs, uploads = ExposureJobs(plan), ReportInputs(plan), Uploads(plan)

RESULTS, INTERMEDIATES = plan.paths.results, plan.paths.intermediates
KEPT_STEPS = plan.kept_steps()
BY_EXPOSURE = rerun.exposures_in_one_job(plan)
STARS_ARE_CURRENT = rerun.stars_are_current(plan)
os.environ.update(plan.job_environment())


envvars:
    EXPOSURES_VARIABLE,


wildcard_constraints:
    stem=match_any(plan.exposures),
    association=match_any(plan.associations()),


# ------------------------------------------------------------------------------------------------------ what a rule reads
def ancient_inputs(paths):
    """Files that a job reads. Those of the input are `ancient`: a changed file has another link, so that dates don't count."""
    return [ancient(path) if links.is_link(path) else path for path in paths]


def file_of_exposure(method, *arguments):
    """Input function: the file that a method names for the exposure of a job."""
    return lambda wildcards: ancient_inputs([method(wildcards.stem, *arguments)])


def files_of_association(method):
    """Input function: the files that a method names for the association of a job."""
    return lambda wildcards: ancient_inputs(method(wildcards.association))


def redo_exposure(job):
    """Input function: the stamp that is touched when an exposure must be processed again from a job on."""
    return lambda wildcards: rerun.exposure_stamp(RESULTS, wildcards.stem, job)


def redo_association(wildcards):
    """Input function: the stamp that is touched when an association must be aligned again."""
    return rerun.association_stamp(RESULTS, wildcards.association)


def get_final_products(wildcards):
    """Products of every exposure, the summary of every alignment, and the receipts of what is uploaded."""
    try:
        run_start.refuse_empty(plan)
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    return [*plan.all_products(), *map(uploads.receipt, uploads.names())]


def need_results(wildcards):
    """Return no files; refuse a job that only reads the results folder if there is none, as after a typing error."""
    try:
        run_start.refuse_absent_results(Path(RESULTS))
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    return []


def need_results_and_exposures(wildcards):
    """Return no files; refuse a run without exposures as well, which would take all products for those of other runs."""
    need_results(wildcards)
    try:
        run_start.refuse_empty(plan)
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    return []


def get_pointings(wildcards):
    """Images of an association. They are `ancient` while the stars are current: new pixels alone don't need other stars.

    If parameters have changed, the images are not `ancient`. Snakemake doesn't compare the parameters of a job that has only
    `ancient` inputs, if these are made again.
    """
    images = job_inputs.images_to_align(wildcards.association)
    return [ancient(image) for image in images] if STARS_ARE_CURRENT else ancient_inputs(images)


# ----------------------------------------------------------------------------------------------------- what a rule writes
def exposure_after(step, *, whole_chain=False):
    """Output of a step, made by the step alone or by the job for the whole chain. It is temporary, unless the run keeps it."""
    path = plan.paths.exposure("{stem}", step)
    if not whole_chain:
        path = path.replace("{stem}", of_single_steps(step))
    return path if step in KEPT_STEPS else temp(path)


def of_single_steps(step):
    """Wildcard `stem` in an output of a single step, without the exposures for which a job of all steps makes it."""
    return exposure_jobs.single_step_wildcard(step, BY_EXPOSURE)


# -------------------------------------------------------------------------------------------------------------- resources
def local_cores():
    """Cores of this machine that the run may use; None if the jobs are submitted to a cluster, or if this is such a job."""
    if not IS_MAIN_PROCESS or resources.CLUSTER_VARIABLE in os.environ:
        return None
    try:
        return workflow.cores
    except WorkflowError:  # without --cores
        return None


jobs = resources.Resources({stem: plan.shape(stem) for stem in plan.exposures}, local_cores)
cores, memory, memory_of_members, minutes = jobs.cores, jobs.memory, jobs.memory_of_members, jobs.minutes
