"""What all files of rules use: the plan of the run, objects that know the files and arguments of its jobs, and input functions."""

import gc
import inspect
import os
import sys
from pathlib import Path

# The folder of this clone. Snakemake fetches only those files of a hosted repository that are named: files.txt lists what a run needs.
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
from rampflow.chain import STEPS
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.path_lists import write_list
from rampflow.folders import WORKFLOW
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow import recipes, rerun, resources, run_start, second_pass, summary
from rampflow.workflow.command_line import refuse_lost_keys, refuse_repeated_keys
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.job_arguments import JobArguments, given_options
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import EXPOSURE_JOB, match_any
from rampflow.workflow.plan import EXPOSURES_VARIABLE, INVENTORY
from rampflow.workflow.report_inputs import ReportInputs
from rampflow.workflow.uploads import Uploads

# Imported modules are never garbage. Without these two lines, Python searches them again and again: a second in each run.
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

# They know the inputs, arguments and recipes of each job.
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
def of_exposure(method, *arguments):
    """Input or parameter function: what a method returns for the exposure of a job."""
    return lambda wildcards: method(wildcards.stem, *arguments)


def of_association(method, *arguments):
    """Input or parameter function: what a method returns for the association of a job."""
    return lambda wildcards: method(wildcards.association, *arguments)


def file_of_exposure(method, *arguments):
    """Input function: the file that a method names for the exposure of a job. A file of the input is `ancient`."""
    return lambda wildcards: ancient_inputs([method(wildcards.stem, *arguments)])


def ancient_inputs(paths):
    """Files that a job reads. Those of the input are `ancient`: the name of their link depends on their content."""
    return [ancient(path) if links.is_link(path) else path for path in paths]


def redo_exposure(job):
    """Input function: the file that is touched when an exposure must be processed again from a job on."""
    return lambda wildcards: rerun.exposure_stamp(RESULTS, wildcards.stem, job)


def redo_association(wildcards):
    """Input function: the file that is touched when an association must be aligned again."""
    return rerun.association_stamp(RESULTS, wildcards.association)


def get_final_products(wildcards):
    """Products of every exposure, and the summary of every alignment."""
    try:
        run_start.refuse_empty(plan)
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    return [*plan.all_products(), *map(uploads.receipt, uploads.names())]


def need_results(wildcards):
    """No files. A job that only reads the results folder is refused if there is none, as after a typing error."""
    try:
        run_start.refuse_absent_results(Path(RESULTS))
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    return []


def need_results_and_exposures(wildcards):
    """No files. Without exposures, all products in the results folder would be those of other runs, and be removed."""
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


def files_of_association(method):
    """Input function: the files that a method names for the association of a job. Files of the input are `ancient`."""
    return lambda wildcards: ancient_inputs(method(wildcards.association))


def get_ramp_pictures(wildcards):
    """Pictures of the ramps of an association; a calibrated image has none."""
    return [path for path in report_inputs.ramp_pictures(wildcards.association) if path != NOT_APPLICABLE]


def options_of_inputs(*names):
    """Parameter function: arguments of the script for those of the named inputs that the job has."""
    return lambda wildcards, input: given_options(input, names)


def list_of_inputs(name):
    """Parameter function: argument of the script that stands for a list of inputs, which may be too long for a command line."""

    def write(wildcards, input):
        files = input.get(name, [])
        return write_list([files] if isinstance(files, str) else files)

    return write


# ----------------------------------------------------------------------------------------------------- what a rule writes
def exposure_after(step, *, whole_chain=False):
    """Output of a step. It is temporary, unless the configuration keeps it or the alignment needs it.

    A job of a single step makes none that a job of all steps makes.
    """
    path = plan.paths.exposure("{stem}", step)
    if not whole_chain:
        path = path.replace("{stem}", of_single_steps(step))
    return path if step in KEPT_STEPS else temp(path)


def of_single_steps(step):
    """Wildcard `stem` in an output of a single step, without the exposures whose job of all steps makes it."""
    made = {stem for stem in BY_EXPOSURE if step in exposure_jobs.written_steps(stem) or not STEPS[step].rewrites}
    return f"{{stem,{match_any(set(plan.exposures) - made)}}}" if made else "{stem}"


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
cores, memory, minutes = jobs.cores, jobs.memory, jobs.minutes


def memory_of_association(base, per_member):
    """Resource function: memory of a job of an association, MB: `base`, and `per_member` for each exposure."""
    return lambda wildcards, attempt: memory(base + per_member * len(plan.members_to_align(wildcards.association)))(
        wildcards, attempt
    )
