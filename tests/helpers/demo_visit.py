"""The demonstration's visit and a small one: how they are made and processed, and the names of their exposures."""

from repository import ROOT
from snakemake_runs import Workflow

from rampflow.chain import IMAGING, chain_of

TYPES = {
    "0001_wfi01_f158": "WFI_IMAGE",
    "0002_wfi01_f158": "WFI_IMAGE",
    "0003_wfi18_f158": "WFI_IMAGE",
    "0004_wfi18_f158": "WFI_LOLO",
    "0005_wfi01_f129": "WFI_WFSC",
    "0006_wfi01_grism": "WFI_SPECTRAL",
    "0007_wfi01_f158": "WFI_FLAT",
    "0008_wfi18_dark": "WFI_IM_DARK",
    "0009_wfi01_dark": "WFI_SP_DARK",
    "0010_wfi01_f158": "WFI_IMAGE",
}
ASSOCIATION = "r0000101001001001001"
SATURATED = "0010_wfi01_f158"
STEMS = [f"r0000101001001001001_{name}" for name in TYPES]
CHAIN = [*chain_of("WFI_IMAGE", "WFI01"), "finalize"]
CATALOGED = [stem for stem, kind in zip(STEMS, TYPES.values(), strict=True) if kind in IMAGING]
ALIGNED = [stem for stem in CATALOGED if not stem.endswith(SATURATED)]
FIRST = STEMS[0]
CONFIGURATION = ["--configfile", str(ROOT / "config" / "demo.yaml")]

#: The small visit of tests that process a visit in their own way: two images to align and a spectral exposure.
SMALL_CONFIGURATION = ["--configfile", str(ROOT / "tests" / "helpers" / "small_visit.yaml")]
SMALL_FIRST, SMALL_SECOND, SMALL_SPECTRUM = (
    f"{ASSOCIATION}_{name}" for name in ("0001_wfi01_f158", "0002_wfi01_f158", "0003_wfi01_grism")
)


def process_visit(folder):
    """Simulate the visit in a folder and process it with all intermediates kept."""
    workflow = workflow_of(folder)
    simulation = workflow.snakemake(*CONFIGURATION, snakefile="workflow/simulate.smk")
    assert simulation.returncode == 0, simulation.stderr
    run = workflow.snakemake(*workflow.arguments)
    assert run.returncode == 0, run.stdout + run.stderr


def workflow_of(folder):
    """Runs in a folder with the processed visit; `arguments` are those that made it, `inputs` and `results` its folders."""
    workflow = Workflow(folder, folder / "demo" / "crds_cache")
    workflow.arguments = [*CONFIGURATION, "--config", "keep_intermediates=true"]
    workflow.inputs, workflow.results = folder / "demo", folder / "demo" / "results"
    return workflow


def simulate_small_visit(folder):
    """Simulate the small visit in a folder."""
    simulation = small_workflow_of(folder).snakemake(*SMALL_CONFIGURATION, snakefile="workflow/simulate.smk")
    assert simulation.returncode == 0, simulation.stderr


def small_workflow_of(folder):
    """Runs in a folder with the small visit."""
    return Workflow(folder, folder / "demo" / "crds_cache")
