"""What all files of rules use: the plan of the run, the files and arguments of its jobs, and input functions."""

import gc
import inspect
import os
import sys
from functools import partial
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
from rampflow.files.path_lists import write_list
from rampflow.folders import WORKFLOW
from rampflow.workflow import recipes, rerun, resources, run_start, second_pass, summary
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.input_functions import list_of_inputs, mark_links, of_association, of_exposure, options_of_inputs
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
try:
    plan = run_start.begin_run(config, GIVEN, declarations.steps(), tweakreg.matchings, sys.argv[1:])
except RampflowError as error:
    raise WorkflowError(str(error)) from None

settings = plan.settings
RESULTS = plan.paths.results
INTERMEDIATES = plan.paths.intermediates
KEPT_STEPS = plan.kept_steps()
BY_EXPOSURE = rerun.exposures_in_one_job(plan)
os.environ.update(plan.job_environment())

# The inputs, arguments and recipes of each job.
job_inputs = JobInputs(plan)
job_arguments = JobArguments(plan)
job_recipes = JobRecipes(plan)
exposure_jobs = ExposureJobs(plan)
report_inputs = ReportInputs(plan)
uploads = Uploads(plan)


envvars:
    EXPOSURES_VARIABLE,


wildcard_constraints:
    stem=match_any(plan.exposures),
    association=match_any(plan.associations()),


# ------------------------------------------------------------------------------------------------------ what a rule reads
# Input functions of files that may be links. A changed file has another link, so that dates don't count.
ancient_links = partial(mark_links, ancient)
# Pointings are `ancient` while the stars are current: new pixels alone don't need other stars. They are not if parameters have
# changed: Snakemake doesn't compare the parameters of a job that has only `ancient` inputs, if these are made again.
ancient_pointings = ancient if rerun.stars_are_current(plan) else ancient_links
# Files that are touched when an exposure must be processed again from a job on, or an association aligned again.
exposure_stamp = partial(rerun.exposure_stamp, RESULTS)
association_stamp = partial(rerun.association_stamp, RESULTS)


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


def ramps_for_large_events(stem):
    """Ramps that the search for large events holds: the flags of the jumps before and after it."""
    return 0.5 if plan.options(stem, "ramp_fitting")["expand_large_events"] else 0


jobs = resources.Resources({stem: plan.shape(stem) for stem in plan.exposures}, local_cores)
cores = jobs.cores
memory = jobs.memory
memory_of_members = jobs.memory_of_members
minutes = jobs.minutes
