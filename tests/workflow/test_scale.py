"""What a run of many exposures costs, in counts: jobs, files opened, letters read. docs/reliability.md has the times."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from inventories import write_exposure
from repository import PLUGIN, ROOT
from snakemake_runs import Workflow

from rampflow.workflow.plan import EXPOSURES_VARIABLE

pytestmark = pytest.mark.workflow

VISITS, DETECTORS = 10, 10
#: Python imports it when it starts: it makes the steps write files with nothing but the recipes of the steps so far. These
#: stand in the first argument (the input); finalize takes those of all its inputs.
STUB = """
import os, sys
words = sys.orig_argv
if len(words) > 1 and os.path.dirname(words[1]) == os.environ.get("RAMPFLOW_SCRIPTS"):
    step = os.path.basename(words[1]).removesuffix(".py")
    made = [word for word in words[2:] if word.startswith("results/") and not os.path.exists(word)]
    lines = [f"rampflow.{step} :: INFO :: Recipe {os.environ['RAMPFLOW_RECIPE']}"] if "RAMPFLOW_RECIPE" in os.environ else []
    for word in words[2:]:
        if word not in made and word.startswith("results/") and (word == words[2] or step == "finalize"):
            lines += [line for line in open(word).read().splitlines() if line.startswith("rampflow.")]
    for word in made:
        with open(word, "w") as file:
            print("#ASDF 1.0.0", "#ASDF_STANDARD 1.6.0", "%YAML 1.1", "---", *lines, "...", sep="\\n", file=file)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def workflow(cache, tmp_path_factory):
    """A hundred exposures in ten associations, all links to one raw file, and steps that do nothing."""
    folder = tmp_path_factory.mktemp("scale")
    raw = write_exposure(folder, "one")
    products = []
    for visit in range(VISITS):
        members = [f"r{visit:04d}_{detector:04d}_wfi01_f158_uncal.asdf" for detector in range(DETECTORS)]
        for name in members:
            (folder / name).hardlink_to(raw)
        products.append({"name": f"r{visit:04d}", "members": [{"expname": n, "exptype": "science"} for n in members]})
    (folder / "asn.json").write_text(json.dumps({"products": products}))
    workflow = Workflow(folder, cache)
    (folder / "stub").mkdir()
    (folder / "stub" / "sitecustomize.py").write_text(STUB)
    (folder / "stars.ecsv").write_text("# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, datatype: float64}\n"
                                       "# - {name: dec, datatype: float64}\nra dec\n270.0 66.0\n")  # fmt: skip
    skipped = ("saturation", "refpix", "dark_decay", "linearity", "dark_current", "photom", "flatfield")
    steps = ", ".join(f"{name}: {{skip: true}}" for name in skipped)
    workflow.arguments = ["--config", "input=asn.json", "astrometric_catalog=stars.ecsv", f"steps={{{steps}}}"]
    return workflow


@pytest.mark.parametrize(("cores", "threads"), [("4", "1"), ("200", "2")])
def test_a_job_has_one_core_where_there_are_exposures_for_all(workflow, cores, threads):
    run = workflow.snakemake(*workflow.arguments, "--dry-run", "--printshellcmds", "--cores", cores)
    given = re.findall(r"ramp_fitting\.py .* --threads (\d+)", run.stdout + run.stderr)
    assert given == [threads] * VISITS * DETECTORS


def test_with_cores_too_jobs_of_a_cluster_are_no_local_jobs(workflow):
    """`--cores` limits the cores of all jobs together. Local ones would have one core each, and no memory for Snakemake."""
    profile = ["--workflow-profile", str(ROOT / "workflow" / "profiles" / "slurm")]
    run = workflow.snakemake(*workflow.arguments, "--dry-run", "--printshellcmds", "--cores", "4", *profile)
    given = re.findall(r"process_exposure\.py .* --threads (\d+)", run.stdout + run.stderr)
    assert given == ["2"] * VISITS * DETECTORS


def test_a_hundred_exposures_run_through(workflow):
    run = workflow.snakemake(*workflow.arguments, "--dry-run")
    assert run.returncode == 0, run.stderr
    exposures = VISITS * DETECTORS
    jobs = workflow.jobs(*workflow.arguments)
    chain = ("dq_init", "ramp_fitting", "assign_wcs", "source_catalog", "finalize")
    assert jobs == dict.fromkeys(chain, exposures) | {"tweakreg": VISITS, "astrometric_catalog": VISITS}

    workflow.environment["PYTHONPATH"] = f"{workflow.folder / 'stub'}{os.pathsep}{PLUGIN}"
    run = workflow.snakemake(*workflow.arguments, "--cores", "4")
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(list((workflow.folder / "results").glob("*_cal.asdf"))) == exposures
    assert len(re.findall(r"^\S+ \[\d+/\d+ \d+%", run.stdout + run.stderr, re.MULTILINE)) == sum(jobs.values()) + 1
    summary = (workflow.folder / "logs" / "summary.txt").read_text()
    assert summary == f"rampflow: nothing failed, no warning, {exposures} of {exposures} exposures have their products\n"
    assert workflow.jobs(*workflow.arguments) == {}


#: Runs Snakemake, and says how many raw files it has opened.
REMOTE = """
import sys
opened = []
sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == "open" and str(a[0]).endswith("_uncal.asdf") else None)
from snakemake.cli import main
try:
    main(sys.argv[1:])
finally:
    print(f"opened {len(opened)} raw files")
"""


def test_a_cluster_job_opens_no_raw_file(workflow):
    """The main process opens each once, when it knows nothing yet; a job of it, none."""
    shutil.rmtree(workflow.folder / ".rampflow", ignore_errors=True)
    command = [sys.executable, "-c", REMOTE, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(workflow.folder)]
    job = "--mode remote --nolock --no-hooks --target-jobs dq_init:stem=r0000_0000_wfi01_f158 --allowed-rules dq_init".split()
    exposures = {}
    for started, opened in ([], VISITS * DETECTORS), ([], 0), (job, 0):
        if started:  # as an executor starts a job, with the variables that the main process has registered
            (file,) = (workflow.folder / ".rampflow").glob("exposures-*.json")
            exposures = {EXPOSURES_VARIABLE: str(file.relative_to(workflow.folder))}
            (workflow.folder / ".rampflow" / "inventory.json").unlink()
        run = subprocess.run(
            [*command, "--cores", "1", "--dry-run", *started, *workflow.arguments],
            capture_output=True,
            text=True,
            env=workflow.environment | exposures,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1] == f"opened {opened} raw files"
