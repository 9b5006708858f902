"""The workflow on a SLURM cluster as a user runs it: how many jobs, where their files lie, and what happens when one fails."""

import re
import shutil
import time
from pathlib import Path

import asdf
import pytest
from cluster import CONFIGURATION, ClusterWorkflow, asked, running_cluster, slurm, submitted_jobs
from conftest import Workflow
from products import assert_same_products

pytestmark = pytest.mark.slurm

VISIT = "r0000101001001001001"
IMAGE, FLAT = f"{VISIT}_0001_wfi01_f158", f"{VISIT}_0003_wfi01_f158"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="session")
def undisturbed(cluster, tmp_path_factory):
    """The visit, simulated and processed on this machine without a cluster."""
    folder = tmp_path_factory.mktemp("visit")
    workflow = Workflow(folder, folder / "demo" / "crds_cache")
    for snakefile in ("workflow/simulate.smk", "Snakefile"):
        run = workflow.snakemake(*CONFIGURATION, snakefile=snakefile)
        assert run.returncode == 0, run.stdout + run.stderr
    return workflow


@pytest.fixture
def workflow(undisturbed, tmp_path):
    """The visit's raw files and references in a new working folder."""
    shutil.copytree(undisturbed.folder / "demo", tmp_path / "demo")
    return ClusterWorkflow(tmp_path, tmp_path / "demo" / "crds_cache")


@pytest.fixture
def flat_alone(workflow, undisturbed, tmp_path):
    """Arguments of a run of the exposure with the shortest chain, and the products that it should have."""
    expected = tmp_path / "expected"
    expected.mkdir()
    for path in (undisturbed.folder / "results").glob(f"{FLAT}_*"):
        shutil.copy(path, expected)
    return ["--config", f"input=demo/{FLAT}_uncal.asdf"], expected


def test_an_exposure_is_one_job_and_the_products_are_the_same(workflow, undisturbed):
    run = workflow.submit()
    assert run.returncode == 0, run.stdout
    jobs = submitted_jobs(run.stdout)
    assert len(jobs) == 3 + 1 + 1, "each exposure, tweakreg, and the products"
    assert_same_products(workflow.folder / "results", undisturbed.folder / "results")
    kept = {path.name for path in (workflow.folder / "results" / "intermediates").iterdir()}
    assert kept == {path.name for path in (undisturbed.folder / "results" / "intermediates").iterdir()}
    # The log of each step is where it is without a cluster; those of SLURM go when all is well.
    assert "rampflow.refpix" in (workflow.folder / "logs" / IMAGE / "refpix.log").read_text()
    assert not list((workflow.folder / ".snakemake" / "slurm_logs").rglob("*.log"))
    # No job has read the headers again: the inventory is older than the first of them.
    started = re.search(r"StartTime=(\S+)", slurm("scontrol", "show", "job", str(jobs[0])))[1]
    for path in (workflow.folder / ".rampflow").iterdir():
        assert path.stat().st_mtime <= time.mktime(time.strptime(started, "%Y-%m-%dT%H:%M:%S")) + 1
    again = workflow.submit("--dry-run")
    assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout


def test_a_job_takes_several_exposures_and_keeps_their_files_on_its_node(workflow, undisturbed, tmp_path):
    node = tmp_path / "disk of the node"
    run = workflow.submit(
        "--group-components", "exposure=3", "finalize=1", "--remote-job-local-storage-prefix", f"{node}/$SLURM_JOB_ID"
    )
    assert run.returncode == 0, run.stdout
    jobs = submitted_jobs(run.stdout)
    assert len(jobs) == 1 + 1 + 3
    assert {path.name for path in node.iterdir()} >= {str(jobs[0])}, "it has been used"
    assert not [path for path in node.rglob("*") if path.is_file()], "and is empty again"
    assert asked(jobs[0])[0] == 3 * 2, "cores: the exposures run side by side"
    assert_same_products(workflow.folder / "results", undisturbed.folder / "results")


def test_a_failed_step_leads_to_its_log_and_is_tried_again_with_more(workflow, undisturbed):
    """An exposure that lacks what a step in the middle of its chain needs; the other one finishes."""
    raw = workflow.folder / "demo" / f"{IMAGE}_uncal.asdf"
    with asdf.open(raw, memmap=False, lazy_load=False) as file:
        del file.tree["roman"]["meta"]["exposure"]["frame_time"]
        file.write_to(raw)
    run = workflow.submit(
        *("--config", f"input=[demo/{IMAGE}_uncal.asdf, demo/{FLAT}_uncal.asdf]", "--keep-going", "--retries", "1"),
        *("astrometric_catalog=demo/astrometric.ecsv",),
    )
    assert run.returncode != 0
    log = re.search(rf"logs/{IMAGE}/(\w+)\.log \(check log file\(s\) for error details\)", run.stdout)
    failed = f"logs/{IMAGE}/ramp_fitting.log"
    assert failed in run.stdout, run.stdout
    assert "meta.exposure.frame_time is missing" in run.stdout, "the log's last lines are shown"
    assert "meta.exposure.frame_time is missing" in (workflow.folder / failed).read_text()
    assert log or True
    slurm_logs = [Path(name) for name in re.findall(r"\S+/slurm_logs/\S+\.log", run.stdout)]
    assert any(path.exists() for path in slurm_logs)
    tries = [job for job in submitted_jobs(run.stdout)]
    assert len(tries) == 3, "the flat's job, and two tries"
    asked_for = sorted(asked(job) for job in tries)
    print(asked_for)
    assert (workflow.folder / "results" / f"{FLAT}_cal.asdf").exists()
