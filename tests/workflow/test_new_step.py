"""A new step takes a row in the table of steps, a script, a rule, its test, and a section on what it computes.

CONTRIBUTING.md's recipe says so. Here it is followed in a copy of the repository: an exposure goes through the step, the tests
that compare the repository with the table pass, and no other file is edited by hand.
"""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from repository import ROOT, with_commented_keys
from simulator import simulate_references
from small_files import arrays_of, meta_of, ramp, write_raw
from snakemake_runs import Workflow

pytestmark = pytest.mark.workflow

FOLDERS = ("workflow", "scripts", "config", "docs", "envs", "tests")
FILES = (
    *("Snakefile", "README.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff", "pyproject.toml"),
    *(".snakemake-workflow-catalog.yml", ".importlinter"),
)
SIZE = 256
LEVEL = 0.25  # DN/s
ROW_BEFORE = '        ChainStep("assign_wcs"'
ROW = '        ChainStep("pedestal", "pedestal", "pedestal", "wfi_image", detectors=(1,), romancal=None),\n'
SCRIPT = '''\
"""pedestal: subtract a constant from the count rates of an image."""

import sys

from rampflow.step.declaration import Parameter, Step
from rampflow.step.program import run_step

STEP = Step(
    name="pedestal",
    summary="Subtract a constant from the count rates of an image.",
    parameters=(Parameter("level", float, 0.0, "what is subtracted", unit="DN/s"),),
)


def subtract_pedestal(data, level):
    """Subtract a constant from the count rates of an image.

    Parameters
    ----------
    data : numpy.ndarray
        Count rates in DN/s, of shape (row, column).
    level : float
        The constant in DN/s.

    Returns
    -------
    numpy.ndarray
        The difference in DN/s, of the same shape and type.
    """
    return data - data.dtype.type(level)


def run(job):
    data = job.exposure.array("data", 2)
    with job.create(rewrite=("data",)) as product:
        product.write("data", subtract_pedestal(data.read(), job.parameters.level))


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
'''
TEST = """\
import numpy as np
from pedestal import subtract_pedestal


def test_the_level_is_subtracted():
    np.testing.assert_array_equal(subtract_pedestal(np.array([[1.5, np.nan]], "f4"), 0.5), np.array([[1, np.nan]], "f4"))
"""
SECTION_BEFORE = "## assign_wcs\n"
SECTION = """\
## pedestal

[References and parameters](../config/README.md#pedestal). Function: `pedestal.subtract_pedestal`.

The level is subtracted from every pixel.

"""


def insert(path, text, before):
    """Insert text into a file, before the only place that has another text."""
    head, tail = path.read_text().split(before)
    path.write_text(head + text + before + tail)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the repository with a step more, beside a folder with two raw exposures and their references."""
    folder = tmp_path_factory.mktemp("extended")
    clone, raw = folder / "clone", folder / "run" / "raw"
    raw.mkdir(parents=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "generated"))
    for name in FILES:
        shutil.copy(ROOT / name, clone)
    insert(clone / "scripts" / "rampflow" / "chain.py", ROW, ROW_BEFORE)
    (clone / "scripts" / "pedestal.py").write_text(SCRIPT)
    rules = clone / "workflow" / "rules" / "images.smk"
    similar = re.search(r"rule dark_current:\n(?:    .*\n|\n)+", rules.read_text())[0]
    rules.write_text(f"{rules.read_text()}\n\n{similar.replace('dark_current', 'pedestal').rstrip()}\n")
    (clone / "tests" / "steps" / "test_pedestal.py").write_text(TEST)
    insert(clone / "docs" / "algorithms.md", SECTION, SECTION_BEFORE)
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


@pytest.fixture(scope="module")
def documented(extended):
    """The clone after the documents were written."""
    subprocess.run([sys.executable, extended.clone / "scripts" / "document_parameters.py"], check=True)
    return extended


def test_a_new_step_is_documented_and_checked(documented):
    """Every test that compares the repository with the table of steps."""
    tests = ["unit/test_chain.py", "documents/test_documents.py", "steps/test_step.py", "steps/test_pedestal.py"]
    chosen = ["-k", "test_chain or test_documents or pedestal", *(f"tests/{name}" for name in tests)]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *chosen], cwd=documented.clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    readme = (documented.clone / "README.md").read_text()
    assert "dark_current --> pedestal --> assign_wcs" in readme and "dark_current, pedestal (WFI01 alone), assign_wcs" in readme


def test_parameters_of_a_new_step_are_documented_and_checked(documented):
    written = yaml.safe_load(with_commented_keys((documented.clone / "config" / "config.yaml").read_text()))
    assert written["steps"]["pedestal"] == {"skip": False, "level": 0.0}
    assert "| `level` | float | `0.0` | DN/s | what is subtracted |" in (documented.clone / "config" / "README.md").read_text()
    refused = documented.snakemake("--dry-run", "--config", "input=raw", "steps={pedestal: {levle: 1}}")
    assert refused.returncode != 0 and "did you mean 'level'?" in refused.stdout + refused.stderr
