"""What the rules ask: the configuration, the inventory of exposures, and each step's files and options."""

import atexit
import gc
import os
import re
import shlex
import shutil
import sys
import tempfile
from itertools import groupby
from pathlib import Path

# Not workflow.basedir: where this is a module, that is the folder of the other workflow.
sys.path.insert(0, str(Path(workflow.current_basedir).parent.parent / "scripts"))

from snakemake.exceptions import WorkflowError

import tweakreg
from astrometric_catalog import SEARCH_PARAMETERS
from rampflow import pipeline
from rampflow.workflow import configuration, inventory
from rampflow.astrometry import check_astrometric_catalog
from rampflow.errors import RampflowError

# What has been imported by now is no garbage: to look through it again and again takes a second of each run.
gc.freeze()
gc.set_threshold(100_000)

INVENTORY = Path(".rampflow/inventory.json")
# Exposures that failed in the run that this one finishes (see messages.smk).
LEFT_OUT = os.environ.get("RAMPFLOW_LEFT_OUT", "").splitlines()

try:
    settings = configuration.validated(config)
    settings["exclude"] = [*settings["exclude"], *LEFT_OUT]
    tweakreg.matchings(settings["steps"]["tweakreg"])
    settings["astrometric_catalog"] = check_astrometric_catalog(settings["astrometric_catalog"], Path.cwd())
    # Jobs of a running workflow read the Snakefile again: they take the inventory that its main process has made.
    visit = None if workflow.is_main_process else inventory.load(settings, INVENTORY)
    visit = visit or inventory.build(settings, Path.cwd(), INVENTORY)
except RampflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = settings["results"]
INTERMEDIATES = f"{RESULTS}/intermediates"

# The context is recorded in the products, and no reason to make them again: only another reference is. So it reaches the
# jobs by their environment, which Snakemake doesn't compare, as what depends on the machine does.
os.environ.update(pipeline.job_environment(visit.context))


def any_of(names):
    """Regular expression that matches these names and no others, as a tree: Snakemake reads it for each file of each job."""
    names = sorted(names)
    prefix = os.path.commonprefix(names)
    rests = [name[len(prefix) :] for name in names]
    suffix = os.path.commonprefix([rest[::-1] for rest in rests])[::-1]
    rests = [rest.removesuffix(suffix) for rest in rests]
    branches = [any_of(branch) if first else "" for first, branch in groupby(rests, key=lambda rest: rest[:1])]
    choice = "" if branches == [""] else f"(?:{'|'.join(branches)})" if names else "(?!)"
    return re.escape(prefix) + choice + re.escape(suffix)


wildcard_constraints:
    stem=any_of(visit.exposures),
    association=any_of({entry.association for entry in visit.exposures.values()}),


# ------------------------------------------------------------------------------------------------------------- products
def get_final_products(wildcards):
    """Products of every exposure, and the summary of every alignment."""
    if not visit.exposures:
        raise WorkflowError(
            "input: no exposure is given; name raw files, folders or association files: --config input=L1_asn.json"
        )
    return [
        *expand(
            f"{RESULTS}/{{stem}}_{{product}}.asdf",
            stem=visit.exposures,
            product=["cal", "wcs"],
        ),
        *expand(
            f"{RESULTS}/{{stem}}_cal{{size}}.png",
            stem=visit.exposures,
            size=["", "_thumb"],
        ),
        *expand(
            f"{RESULTS}/{{stem}}_{{product}}",
            stem=with_step("source_catalog"),
            product=["cat.parquet", "segm.asdf"],
        ),
        *expand(
            f"{RESULTS}/{{association}}_tweakreg.json",
            association=aligned_associations(),
        ),
    ]


def get_calibrated_image(wildcards):
    """The exposure after the last step that changes it."""
    return calibrated_image(wildcards.stem)


def get_solutions(wildcards):
    """The alignment of the exposure's association; nothing where it has none."""
    entry = visit.exposures[wildcards.stem]
    return f"{INTERMEDIATES}/{entry.association}_tweakreg.asdf" if "tweakreg" in entry.chain else []


# ----------------------------------------------------------------------------------------------------------- associations
def with_step(step):
    """Stems of the exposures that go through a step."""
    return [stem for stem, entry in visit.exposures.items() if step in entry.chain]


def aligned_associations():
    """Names of the associations with an exposure to align."""
    return sorted({visit.exposures[stem].association for stem in with_step("tweakreg")})


def members_to_align(association):
    """Stems of the exposures of an association that go through tweakreg."""
    return [stem for stem in with_step("tweakreg") if visit.exposures[stem].association == association]


def get_images_to_align(wildcards):
    """Images of an association; their headers are read."""
    return [calibrated_image(stem) for stem in members_to_align(wildcards.association)]


def get_catalogs_to_align(wildcards):
    """Catalog of each image: its own, or the one that the association names for it."""
    return [
        visit.exposures[stem].tweakreg_catalog or f"{INTERMEDIATES}/{stem}_cat.parquet"
        for stem in members_to_align(wildcards.association)
    ]


def get_astrometric_source(wildcards):
    """The astrometric catalog where it is a file of the user's: another content is a reason to run again."""
    return [settings["astrometric_catalog"]] if Path(settings["astrometric_catalog"]).is_file() else []


# ------------------------------------------------------------------------------------------------------------------ steps
def last_steps(stems):
    """The steps that change these exposures last."""
    return {pipeline.image_chain(visit.exposures[stem].chain)[-1] for stem in stems}


def kept_steps():
    """Steps whose output stays: as configured, and what the alignment and its application to the products read."""
    kept = settings["keep_intermediates"]
    if isinstance(kept, bool):
        kept = pipeline.APPLIES_TO if kept else []
    return {*kept, *last_steps(with_step("tweakreg"))}


def scratch_folder():
    """Folder for the files that only the next step reads: on a disk of the node, where the cluster's profile names one.

    A cluster job has one of its own, that ends with it. The submitting process, which never sees these files, has another
    name for them, so that it doesn't take those of a run without scratch for them.
    """
    disks = workflow.storage_settings
    prefix = disks.local_storage_prefix if workflow.remote_exec else disks.remote_job_local_storage_prefix
    if prefix == Path(".snakemake/storage"):  # Snakemake's default
        return INTERMEDIATES
    if not workflow.remote_exec:
        return f"{INTERMEDIATES}/scratch"
    prefix.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="rampflow-", dir=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


KEPT = kept_steps()
SCRATCH = scratch_folder()
# What other cluster jobs read doesn't lie on one node: the alignment, and the products of exposures with a catalog.
SHARED = KEPT | last_steps(with_step("source_catalog"))


def intermediate_of(step, stem="{stem}"):
    """File that a step writes."""
    return f"{INTERMEDIATES if step in SHARED else SCRATCH}/{stem}_{pipeline.step(step).suffix}.asdf"


def calibrated_image(stem):
    """The exposure after the last step that changes it."""
    return intermediate_of(pipeline.image_chain(visit.exposures[stem].chain)[-1], stem)


def intermediate(step):
    """The output of a step: temporary unless it is kept."""
    return intermediate_of(step) if step in KEPT else temp(intermediate_of(step))


def exposure_before(step):
    """Input function: the exposure as the step before in its chain left it."""

    def get_exposure(wildcards):
        entry = visit.exposures[wildcards.stem]
        before = pipeline.image_chain(entry.chain[: entry.chain.index(step)])
        return intermediate_of(before[-1], entry.stem) if before else entry.path

    return get_exposure


def references_of(step):
    """Input function: the reference files that a step reads."""

    def get_references(wildcards):
        chosen = visit.exposures[wildcards.stem].references
        return [chosen[r.type] for r in pipeline.step(step).references if chosen[r.type] != "N/A"]

    return get_references


def options_of(step):
    """Parameter function: a step's references and parameters as arguments of its script."""

    def get_options(wildcards):
        chosen = visit.exposures[wildcards.stem].references
        declared = [r.type for r in pipeline.step(step).references]
        references = [f"--{reftype} {shlex.quote(chosen[reftype])}" for reftype in declared]
        if by_crds := [reftype for reftype in declared if reftype not in settings["references"]["override"]]:
            references.append(f"--chosen_by_crds {','.join(by_crds)}")
        # Only on what the user names: an option more for the other steps would repeat their jobs.
        if len(by_crds) < len(declared) and settings["references"]["allow_mismatch"]:
            references.append("--allow_mismatch")
        return " ".join(
            [
                *references,
                configuration.command_line(pipeline.step(step).parameters, settings["steps"][step]),
            ]
        )

    return get_options


# ----------------------------------------------------------------------------------------------------------------- report
def associations():
    """Names of all associations."""
    return sorted({entry.association for entry in visit.exposures.values()})


def members_of(association):
    """Stems of the exposures of an association, in its order."""
    return [stem for stem, entry in visit.exposures.items() if entry.association == association]


def get_ramps_around_refpix(wildcards):
    """The ramp before and after refpix; nothing where it is skipped."""
    entry = visit.exposures[wildcards.stem]
    return [exposure_before("refpix")(wildcards), intermediate_of("refpix", entry.stem)] if "refpix" in entry.chain else []


def get_ramp_with_transient(wildcards):
    """The ramp before wfi18_transient, where the exposure goes through it."""
    chain = visit.exposures[wildcards.stem].chain
    return [exposure_before("wfi18_transient")(wildcards)] if "wfi18_transient" in chain else []


def get_catalog_files(wildcards):
    """The exposure's catalog and segmentation map, and what its alignment began with, as far as there are such."""
    stem, entry = wildcards.stem, visit.exposures[wildcards.stem]
    files = {}
    if "source_catalog" in entry.chain:
        files |= {"catalog": f"{RESULTS}/{stem}_cat.parquet", "segmentation": f"{RESULTS}/{stem}_segm.asdf"}
        if "tweakreg" in entry.chain:
            files["unaligned"] = f"{INTERMEDIATES}/{stem}_cat.parquet"
            files["stars"] = f"{INTERMEDIATES}/{entry.association}_astrometric.parquet"
    return files


def get_alignment_files(wildcards):
    """Summary of the association's alignment, and its astrometric catalog; nothing where there is no alignment."""
    name = wildcards.association
    if name not in aligned_associations():
        return {}
    return {"summary": f"{RESULTS}/{name}_tweakreg.json", "stars": f"{INTERMEDIATES}/{name}_astrometric.parquet"}


def options_of_inputs(*names):
    """Parameter function: those of some named inputs that there are, as arguments of a script."""

    def get_options(wildcards, input):
        files = {name: input.get(name) for name in names if input.get(name)}
        return " ".join(f"--{name} {shlex.join([f] if isinstance(f, str) else f)}" for name, f in files.items())

    return get_options


# -------------------------------------------------------------------------------------------------------------- resources
def cores(wildcards):
    """Cores of a job that can use two: exposures side by side make more of them, where there are enough for all cores."""
    local = workflow.local_exec and not workflow.remote_exec  # a cluster job has the cores that were asked for
    return 1 if local and 1 < len(visit.exposures) >= (workflow.resource_settings.cores or 1) else 2


def float32_sizes(stem):
    """MB of one frame and of the whole ramp of an exposure in single precision."""
    resultants, rows, columns = visit.exposures[stem].shape
    frame = 4 * rows * columns / 1e6
    return frame, resultants * frame


def memory(base, *, frames=0, ramps=0):
    """Resource function: MB for a job, more of it on each attempt.

    `base` MB for the program, and so many float32 frames and float32 ramps of the exposure's size. The numbers come from
    tests/benchmark/fit_resources.py.
    """

    def get_memory(wildcards, attempt):
        frame, ramp = float32_sizes(wildcards.stem) if frames or ramps else (0, 0)
        # A cluster job runs two processes of Snakemake beside the step.
        snakemake_itself = 400 if workflow.non_local_exec else 0
        return int(attempt * (base + frames * frame + ramps * ramp)) + snakemake_itself

    return get_memory


def minutes(base, *, per_gigabyte=0):
    """Resource function: minutes for a job, more of them on each attempt.

    `base` minutes for the program, and so many for each GB of the exposure's float32 ramp: what slow disks and busy nodes take.
    """

    def get_runtime(wildcards, attempt):
        ramp = float32_sizes(wildcards.stem)[1] / 1e3 if per_gigabyte else 0
        return int(attempt * (base + per_gigabyte * ramp) + 0.5)

    return get_runtime
