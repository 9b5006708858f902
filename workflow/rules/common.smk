"""What the rules ask: the configuration, the inventory of exposures, and each step's files and options."""

import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from snakemake.exceptions import WorkflowError

from wfi import configuration, inventory, pipeline
from wfi.errors import RampflowError

INVENTORY = Path(".rampflow/inventory.json")

try:
    settings = configuration.validated(config)
    # Jobs of a running workflow read the Snakefile again: they take the inventory that its main process has made.
    visit = None if workflow.is_main_process else inventory.load(INVENTORY)
    visit = visit or inventory.build(settings, Path.cwd(), INVENTORY)
except RampflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = settings["results"]
INTERMEDIATES = f"{RESULTS}/intermediates"

# The context is recorded in the products, and no reason to make them again: only another reference is. So it reaches the
# jobs by their environment, which Snakemake doesn't compare, as what depends on the machine does.
os.environ.update(pipeline.job_environment(visit.context))


wildcard_constraints:
    stem="|".join(re.escape(stem) for stem in visit.exposures) or "[^/]+",


# ------------------------------------------------------------------------------------------------------------- products
def get_final_products(wildcards):
    """Products of every exposure."""
    if not visit.exposures:
        raise WorkflowError(
            "input: no exposure is given; name raw files, folders or association files: --config input=L1_asn.json"
        )
    return expand(
        f"{RESULTS}/{{stem}}_{{suffix}}.asdf",
        stem=visit.exposures,
        suffix=["cal", "wcs"],
    )


def get_calibrated_image(wildcards):
    """The exposure after the last step of its chain."""
    return intermediate_of(visit.exposures[wildcards.stem].chain[-1], wildcards.stem)


# ------------------------------------------------------------------------------------------------------------------ steps
def intermediate_of(step, stem="{stem}"):
    """File that a step writes."""
    return f"{INTERMEDIATES}/{stem}_{pipeline.step(step).suffix}.asdf"


def intermediate(step):
    """The output of a step: temporary unless the configuration keeps it."""
    kept = settings["keep_intermediates"]
    return (
        intermediate_of(step)
        if kept is True or (kept and step in kept)
        else temp(intermediate_of(step))
    )


def exposure_before(step):
    """Input function: the exposure as the step before in its chain left it."""

    def get_exposure(wildcards):
        entry = visit.exposures[wildcards.stem]
        place = entry.chain.index(step)
        return (
            intermediate_of(entry.chain[place - 1], entry.stem) if place else entry.path
        )

    return get_exposure


def references_of(step):
    """Input function: the reference files that a step reads."""

    def get_references(wildcards):
        chosen = visit.exposures[wildcards.stem].references
        return [
            chosen[r.type]
            for r in pipeline.step(step).references
            if chosen[r.type] != "N/A"
        ]

    return get_references


def options_of(step):
    """Parameter function: a step's references and parameters as arguments of its script."""

    def get_options(wildcards):
        chosen = visit.exposures[wildcards.stem].references
        references = [
            f"--{r.type} {shlex.quote(chosen[r.type])}"
            for r in pipeline.step(step).references
        ]
        return " ".join(
            [
                *references,
                configuration.command_line(
                    pipeline.step(step), settings["steps"][step]
                ),
            ]
        )

    return get_options


# -------------------------------------------------------------------------------------------------------------- resources
def memory(base, *, frames=0, ramps=0):
    """Resource function: MB for a job, more of it on each attempt.

    `base` MB for the program, and so many float32 frames and float32 ramps of the exposure's size.
    """

    def get_memory(wildcards, attempt):
        resultants, rows, columns = visit.exposures[wildcards.stem].shape
        frame = 4 * rows * columns / 1e6
        return int(attempt * (base + frame * (frames + ramps * resultants)))

    return get_memory
