"""A new step takes one row in the table of steps, one script and one rule (and its test).

CONTRIBUTING.md's recipe says so. Here it is done in a copy of the workflow, and an exposure goes through the step.
"""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from repository import ROOT
from simulator import simulate_references
from small_files import arrays_of, meta_of, ramp, write_raw
from snakemake_runs import Workflow

pytestmark = pytest.mark.workflow

SIZE = 256
LEVEL = 0.25  # DN/s
ROW_BEFORE = '        ChainStep("assign_wcs"'
ROW = '        ChainStep("pedestal", "pedestal", "pedestal", "wfi_image", detectors=(1,)),\n'
SCRIPT = '''\
"""pedestal: subtract a constant from the count rates of an image."""

import sys

import numpy as np

from rampflow.step.declaration import Parameter, Step
from rampflow.step.program import run_step

STEP = Step(
    name="pedestal",
    summary="Subtract a constant from the count rates of an image.",
    parameters=(Parameter("level", float, 0.0, "what is subtracted", unit="DN/s"),),
)


def run(job):
    data = job.exposure.array("data", 2)
    with job.create(rewrite=("data",)) as product:
        product.write("data", data.read() - np.float32(job.parameters.level))


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
'''


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the workflow with a step more, in a folder with two raw exposures and their references."""
    folder = tmp_path_factory.mktemp("extended")
    clone, raw = folder / "clone", folder / "run" / "raw"
    clone.mkdir()
    raw.mkdir(parents=True)
    shutil.copy(ROOT / "Snakefile", clone)
    for name in ("workflow", "scripts", "config", "envs"):
        shutil.copytree(ROOT / name, clone / name)
    (clone / "docs" / "reference").mkdir(parents=True)  # a generated page lies there
    table = clone / "scripts" / "rampflow" / "chain.py"
    table.write_text(table.read_text().replace(ROW_BEFORE, ROW + ROW_BEFORE))
    (clone / "scripts" / "pedestal.py").write_text(SCRIPT)
    rules = clone / "workflow" / "rules" / "images.smk"
    neighbour = re.search(r"rule dark_current:\n(?:    .*\n|\n)+", rules.read_text())[0]
    rules.write_text(f"{rules.read_text()}\n\n{neighbour.replace('dark_current', 'pedestal').rstrip()}\n")
    simulate_references.make_cache(folder / "crds", ("WFI01", "WFI07"), SIZE, 1)
    for name, detector in (("a", "WFI01"), ("b", "WFI07")):
        write_raw(raw / f"{name}_uncal.asdf", ramp(resultants=6, rows=SIZE, columns=SIZE), {"instrument.detector": detector})
    return Workflow(folder / "run", folder / "crds", clone=clone)


def test_an_exposure_goes_through_a_new_step(extended):
    """Only exposures of its detector; the step changes only what it should."""
    steps = dict.fromkeys(("saturation", "refpix", "dark_decay", "linearity", "dark_current"), {"skip": True})
    steps["pedestal"] = {"level": LEVEL}
    given = ["--config", "input=raw", f"steps={steps}", "keep_intermediates=[ramp_fitting,pedestal]"]
    jobs = extended.jobs(*given)
    assert (jobs["pedestal"], jobs["ramp_fitting"], jobs["assign_wcs"]) == (1, 2, 2)
    made = extended.folder / "results" / "intermediates"
    done = extended.snakemake("results/intermediates/a_pedestal.asdf", *given)
    assert done.returncode == 0, done.stderr
    before, after = arrays_of(made / "a_rampfit.asdf"), arrays_of(made / "a_pedestal.asdf")
    np.testing.assert_array_equal(after["data"], before["data"] - np.float32(LEVEL))
    assert all(np.array_equal(after[name], before[name], equal_nan=True) for name in before if name != "data")
    assert meta_of(made / "a_pedestal.asdf")["cal_step"]["pedestal"] == "COMPLETE"
    # Another value repeats it and what follows, and nothing before.
    steps["pedestal"] = {"level": 2 * LEVEL}
    jobs = extended.jobs("results/intermediates/a_assignwcs.asdf", *given[:2], f"steps={steps}", given[-1])
    assert jobs == {"pedestal": 1, "assign_wcs": 1}


def test_parameters_of_a_new_step_are_documented_and_checked(extended):
    program = [sys.executable, extended.clone / "scripts" / "document_parameters.py"]
    subprocess.run(list(map(str, program)), check=True)
    written = yaml.safe_load((extended.clone / "config" / "config.yaml").read_text())
    assert written["steps"]["pedestal"] == {"skip": False, "level": 0.0}
    assert "| `level` | float | `0.0` | DN/s | what is subtracted |" in (extended.clone / "config" / "README.md").read_text()
    refused = extended.snakemake("--dry-run", "--config", "input=raw", "steps={pedestal: {levle: 1}}")
    assert refused.returncode != 0 and "did you mean 'level'?" in refused.stdout + refused.stderr
