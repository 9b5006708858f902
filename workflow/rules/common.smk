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

# Not workflow.basedir: where this is a module, that is the folder of the other workflow. Of a hosted repository, which Snakemake
# doesn't clone, it gets the files that are listed, side by side.
HOME = Path(f"{workflow.current_basedir}").parent.parent
if not CLONED:
    listed = Path(workflow.source_path("../files.txt"))
    HOME = listed.parent.parent
    for name in listed.read_text().splitlines():
        workflow.source_path(f"../../{name}")
sys.path.insert(0, str(HOME / "scripts"))

from snakemake.exceptions import WorkflowError

import declarations
import tweakreg
from rampflow.astrometry import check_astrometric_catalog, next_attempt, source_files
from rampflow.astrometry.parameters import SEARCH_PARAMETERS
from rampflow.chain import STEPS, image_chain
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.workflow import configuration, inventory, recipes
from rampflow.workflow.association import find_excluded
from rampflow.workflow.environment import SCRIPTS, job_environment
from rampflow.workflow.fingerprint import fingerprint
from rampflow.workflow.leftovers import stale_files

# What has been imported by now is no garbage: to look through it again and again takes a second of each run.
gc.freeze()
gc.set_threshold(100_000)

DECLARED = declarations.steps()
INVENTORY = Path(".rampflow/inventory.json")
# Exposures that failed in the run that this one finishes (see messages.smk).
LEFT_OUT = os.environ.get("RAMPFLOW_LEFT_OUT", "").splitlines()


# What the configuration and associations name, too, is its name and content, not its place and time.
def own_file(path):
    """The link that stands for a file of the user's own, or for the folder of a HATS catalog; other names as they are."""
    content = recipes.content(path)
    if content == path:
        return path
    link = links.link_of(content, Path(path).name)
    links.point(link, Path(path).absolute())
    return str(link)


try:
    settings = configuration.validated(config, DECLARED)
    settings["exclude"] = [*settings["exclude"], *LEFT_OUT]
    tweakreg.matchings(settings["steps"]["tweakreg"])
    settings["astrometric_catalog"] = check_astrometric_catalog(settings["astrometric_catalog"], Path.cwd())
    own_files = configuration.existing_files(settings["steps"]["source_catalog"], Path.cwd())
    settings["steps"]["source_catalog"] |= {name: own_file(path) for name, path in own_files.items()}
    # Jobs of a running workflow read the Snakefile again: they take the inventory that its main process has made.
    visit = None if workflow.is_main_process else inventory.load(settings, INVENTORY)
    visit = visit or inventory.build(settings, Path.cwd(), INVENTORY, DECLARED)
except RampflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = settings["results"]
INTERMEDIATES = f"{RESULTS}/intermediates"

# The context is recorded in the products, and no reason to make them again: only another reference is. So it reaches the
# jobs by their environment, which Snakemake doesn't compare, as what depends on the machine does.
os.environ.update(job_environment(visit.context))


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
        *(name for stem in visit.exposures for name in products_of(stem)),
        *expand(
            f"{RESULTS}/{{association}}_tweakreg.json",
            association=aligned_associations(),
        ),
    ]


def products_of(stem):
    """Products of one exposure."""
    endings = ["cal.asdf", "wcs.asdf", "cal.png", "cal_thumb.png"]
    if "source_catalog" in visit.exposures[stem].chain:
        endings += ["cat.parquet", "segm.asdf"]
    return [f"{RESULTS}/{stem}_{ending}" for ending in endings]


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
    stems = members_to_align(wildcards.association)
    own = {stem: visit.exposures[stem].tweakreg_catalog for stem in stems}
    return [ancient(own_file(own[stem])) if own[stem] else f"{INTERMEDIATES}/{stem}_cat.parquet" for stem in stems]


def get_own_catalogs(wildcards):
    """The catalog made of each image, which those that the association names are compared with; nothing where it names none."""
    stems = members_to_align(wildcards.association)
    if not any(visit.exposures[stem].tweakreg_catalog for stem in stems):
        return []
    return [f"{INTERMEDIATES}/{stem}_cat.parquet" for stem in stems]


def stars_source(wildcards=None):
    """The astrometric catalog: the link to the user's own, or its name."""
    return own_file(settings["astrometric_catalog"])


def get_astrometric_source(wildcards):
    """The astrometric catalog where it is the user's own: another content is a reason to run again."""
    return [stars_source()] if source_files(settings["astrometric_catalog"]) else []


def get_forced_segmentation(wildcards):
    """The segmentation map whose sources are measured instead, where there is one."""
    path = settings["steps"]["source_catalog"]["forced_segmentation"]
    return [path] if path else []


# Parameters of rules that are functions of the wildcards alone: Snakemake doesn't compare others with those of the last run.
def attempt_at_stars(wildcards):
    """Number of the attempt to get the stars: another one than the last where that failed, which makes the rule run again."""
    return next_attempt(Path(f"{INTERMEDIATES}/{wildcards.association}_astrometric.parquet"))


def require_alignment(wildcards):
    """Option of finalize.py: an exposure that should be aligned and isn't is a failure."""
    return "--require_alignment" if settings["require_alignment"] and get_solutions(wildcards) else ""


# ------------------------------------------------------------------------------------------------------------------ steps
def last_steps(stems):
    """The steps that change these exposures last."""
    return {image_chain(visit.exposures[stem].chain)[-1] for stem in stems}


def kept_steps():
    """Steps whose output stays: as configured, and what the alignment and its application to the products read."""
    kept = settings["keep_intermediates"]
    if isinstance(kept, bool):
        kept = STEPS if kept else []
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
    return f"{INTERMEDIATES if step in SHARED else SCRATCH}/{stem}_{STEPS[step].suffix}.asdf"


def calibrated_image(stem):
    """The exposure after the last step that changes it."""
    return intermediate_of(image_chain(visit.exposures[stem].chain)[-1], stem)


def intermediate(step):
    """The output of a step: temporary unless it is kept."""
    return intermediate_of(step) if step in KEPT else temp(intermediate_of(step))


def exposure_before(step):
    """Input function: the exposure as the step before in its chain left it."""

    def get_exposure(wildcards):
        entry = visit.exposures[wildcards.stem]
        before = image_chain(entry.chain[: entry.chain.index(step)])
        return intermediate_of(before[-1], entry.stem)

    return get_exposure


# Raw exposures and references are `ancient`: their links tell when they hold something else, and their times tell nothing.
def get_raw_exposure(wildcards):
    """The raw exposure."""
    return visit.links[visit.exposures[wildcards.stem].path]


def references_of(step):
    """Input function: the reference files that a step reads."""

    def get_references(wildcards):
        chosen = visit.exposures[wildcards.stem].references
        return [visit.links[chosen[r.type]] for r in DECLARED[step].references if chosen[r.type] != "N/A"]

    return ancient(get_references)


def arguments_of(step, stem):
    """A step's references and parameters as arguments of its script."""
    chosen = visit.exposures[stem].references
    declared = [r.type for r in DECLARED[step].references]
    references = [f"--{reftype} {shlex.quote(visit.links.get(chosen[reftype], 'N/A'))}" for reftype in declared]
    if by_crds := [reftype for reftype in declared if reftype not in settings["references"]["override"]]:
        references.append(f"--chosen_by_crds {','.join(by_crds)}")
    # Of the others nothing is refused: an option more would only repeat their jobs.
    if len(by_crds) < len(declared) and settings["references"]["allow_mismatch"]:
        references.append("--allow_mismatch")
    return " ".join([*references, configuration.command_line(DECLARED[step].parameters, settings["steps"][step])])


def options_of(step):
    """Parameter function: a step's references and parameters as arguments of its script."""
    return lambda wildcards: arguments_of(step, wildcards.stem)


# ---------------------------------------------------------------------------------------------------------------- recipes
def step_recipe(step, stem):
    """Hash of what a step of an exposure is made from, besides the file that the step before has written."""
    if step == "tweakreg":
        return association_recipe(visit.exposures[stem].association)
    files = {
        "dq_init": [visit.links[visit.exposures[stem].path]],
        "source_catalog": [recipes.content(settings["steps"]["source_catalog"]["forced_segmentation"])],
    }
    return recipes.recipe(arguments_of(step, stem), fingerprint(step), *files.get(step, []))


def association_recipe(association):
    """Hash of what the alignment of an association is made from, besides its images and their catalogs."""
    members = members_to_align(association)
    return recipes.recipe(
        *members,
        *(recipes.content(visit.exposures[stem].tweakreg_catalog or "") for stem in members),
        configuration.command_line(DECLARED["tweakreg"].parameters, settings["steps"]["tweakreg"]),
        fingerprint("tweakreg"),
        stars_recipe(),
    )


def stars_recipe():
    """Hash of what an astrometric catalog is made from, besides where the images point."""
    search = configuration.command_line(SEARCH_PARAMETERS, settings["steps"]["tweakreg"])
    return recipes.recipe(recipes.content(settings["astrometric_catalog"]), search, fingerprint("astrometric_catalog"))


def expected_stars():
    """The astrometric catalogs, with their recipe."""
    names = aligned_associations()
    return {Path(f"{INTERMEDIATES}/{name}_astrometric.parquet"): {"astrometric_catalog": stars_recipe()} for name in names}


def expected_solutions():
    """The files of the alignments, with the recipe of each."""
    names = aligned_associations()
    return {Path(f"{INTERMEDIATES}/{name}_tweakreg.asdf"): {"tweakreg": association_recipe(name)} for name in names}


def recipe_of(step):
    """Parameter function: the recipe of a step."""
    return lambda wildcards: step_recipe(step, wildcards.stem)


def get_association_recipe(wildcards):
    """Parameter function: the recipe of tweakreg."""
    return association_recipe(wildcards.association)


def expected_recipes(stem):
    """Files of an exposure that may be there, each with the recipes of the steps that it should have gone through."""
    chain = visit.exposures[stem].chain
    steps = {step: step_recipe(step, stem) for step in chain}
    files = {}
    for number, step in enumerate(chain):
        if STEPS[step].rewrites:
            files[Path(intermediate_of(step, stem))] = {s: steps[s] for s in chain[: number + 1]}
    if "source_catalog" in chain:
        files[Path(f"{INTERMEDIATES}/{stem}_cat.parquet")] = {"source_catalog": steps["source_catalog"]}
    return files | {Path(f"{RESULTS}/{stem}_cal.asdf"): steps | {"finalize": fingerprint("finalize")}}


def redo_stamp(kind, name):
    """A file that the first job of an exposure or an association has for an input: newer than what is to be made again."""
    return f".rampflow/redo/{recipes.recipe(RESULTS)}/{kind}/{name}"


def redo_what_differs():
    """Have made again what other parameters, references or code have made without Snakemake's knowing; what it is, and why."""
    files = {stem: expected_recipes(stem) for stem in visit.exposures}
    solutions = expected_solutions()
    differing = recipes.differing(solutions | {path: steps for paths in files.values() for path, steps in paths.items()})
    for name in aligned_associations():
        paths = [Path(f"{INTERMEDIATES}/{name}_tweakreg.asdf"), *(p for stem in members_of(name) for p in files[stem])]
        outdated = any("tweakreg" in differing.get(path, ()) for path in paths)
        recipes.set_stamp(Path(redo_stamp("association", name)), outdated=outdated)
    for stem, paths in files.items():
        outdated = any(set(differing.get(path, ())) - {"tweakreg"} for path in paths)
        recipes.set_stamp(Path(redo_stamp("exposure", stem)), outdated=outdated)
    return differing


# ----------------------------------------------------------------------------------------------------------------- report
def associations():
    """Names of all associations."""
    return sorted({entry.association for entry in visit.exposures.values()})


def members_of(association):
    """Stems of the exposures of an association, in its order."""
    return [stem for stem, entry in visit.exposures.items() if entry.association == association]


def get_missing_options(wildcards):
    """Parameter function: the option of the report that names the exposures of an association that are left out."""
    excluded = find_excluded(settings["input"], Path.cwd(), settings["exclude"]).get(wildcards.association, [])
    return f"--missing {' '.join(excluded)}" if excluded else ""


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
