"""The workflow on a SLURM cluster: number of jobs, places of their files, and failures."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from cluster import CONFIGURATION, ClusterWorkflow, asked, running_cluster, slurm, submitted_jobs
from products import assert_same_products, leftovers
from small_files import damage_pixels
from snakemake_runs import Workflow

pytestmark = pytest.mark.slurm

VISIT = "r0000101001001001001"
IMAGE, OTHER_IMAGE, SPECTRUM = (f"{VISIT}_{name}" for name in ("0001_wfi01_f158", "0002_wfi01_f158", "0003_wfi01_grism"))


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
def spectrum_alone(workflow, undisturbed, tmp_path):
    """Arguments of a run of the exposure with the shortest chain, and the products that it should have."""
    expected = tmp_path / "expected"
    expected.mkdir()
    for path in (undisturbed.folder / "results").iterdir():
        if path.name.startswith((f"{SPECTRUM}_", "exposures.")):
            shutil.copy(path, expected)
    return ["--config", f"input=demo/{SPECTRUM}_uncal.asdf"], expected


def test_an_exposure_is_one_job_and_the_products_are_the_same(workflow, undisturbed):
    run = workflow.submit()
    assert run.returncode == 0, run.stdout
    jobs = submitted_jobs(run.stdout)
    assert len(jobs) == 3 + 1 + 2, "each exposure, tweakreg, and the products of each image"
    assert re.search(rf"^\S+ \[\d+/\d+ \d+%.*\] {IMAGE}: .* \(refpix\)$", run.stdout, re.MULTILINE), "progress"
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


def test_all_steps_of_an_exposure_run_in_one_process(workflow, undisturbed):
    """As the profile has it, without a configuration file of one's own."""
    settings = ("input=demo/visit_asn.json", "results=results", "astrometric_catalog=demo/astrometric.ecsv")
    workflow.configuration = ["--config", *settings]
    run = workflow.submit()
    assert run.returncode == 0, run.stdout
    assert len(submitted_jobs(run.stdout)) == 3 + 1 + 2, "each exposure, tweakreg, and the products of each image"
    assert_same_products(workflow.folder / "results", undisturbed.folder / "results")
    kept = {path.name for path in (workflow.folder / "results" / "intermediates").iterdir()}
    by_step = {path.name for path in (undisturbed.folder / "results" / "intermediates").iterdir()}
    assert kept == {name for name in by_step if not name.endswith("_rampfit.asdf")}, "no job of an exposure reads that image"
    assert "Step 3 of 11: refpix" in (workflow.folder / "logs" / IMAGE / "exposure.log").read_text()
    assert "rampflow.refpix" in (workflow.folder / "logs" / IMAGE / "refpix.log").read_text()
    again = workflow.submit("--dry-run")
    assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout


def test_a_job_takes_several_exposures_and_keeps_their_files_on_its_node(workflow, undisturbed, tmp_path):
    node = tmp_path / "disk of the node"
    run = workflow.submit("--group-components", "exposure=3", "finalize=3", "--config", f"scratch={node}/used")
    assert run.returncode == 0, run.stdout
    jobs = submitted_jobs(run.stdout)
    assert len(jobs) == 1 + 1 + 1
    assert [path.name for path in node.iterdir()] == ["used"], "only jobs make this folder"
    assert not [path for path in node.rglob("*") if path.is_file()], "and is empty again"
    assert asked(jobs[0])[0] == 3 * 2, "cores: the exposures run side by side"
    assert_same_products(workflow.folder / "results", undisturbed.folder / "results")


def test_a_failed_step_leads_to_its_log_and_the_other_exposures_finish(workflow):
    """The pixels of an exposure are damaged, and its header is valid."""
    raw = workflow.folder / "demo" / f"{IMAGE}_uncal.asdf"
    damage_pixels(raw)
    run = workflow.submit("--keep-going", "--retries", "1", "--config", f"input=[{raw}, demo/{SPECTRUM}_uncal.asdf]")
    assert run.returncode != 0
    assert len(submitted_jobs(run.stdout)) == 2 + 1, "the two exposures, and another try"
    named = {name: (workflow.folder / name) for name in re.findall(rf"logs/{IMAGE}/\w+\.log", run.stdout)}
    assert any(log.exists() and "doesn't match its checksum" in log.read_text() for log in named.values()), "the step's own log"
    assert "doesn't match its checksum" in run.stdout, "and what it says"
    assert any(Path(name).exists() for name in re.findall(r"/\S+/slurm_logs/[^\s)]+\.log", run.stdout)), "and SLURM's"
    assert (workflow.folder / "results" / f"{SPECTRUM}_cal.asdf").exists()


def test_the_others_of_an_association_are_aligned_without_an_exposure_that_fails(workflow):
    raw = workflow.folder / "demo" / f"{IMAGE}_uncal.asdf"
    damage_pixels(raw)
    run = workflow.submit("--keep-going", "--retries", "0")
    assert run.returncode != 0
    images = {path.name.removesuffix("_cal.asdf") for path in (workflow.folder / "results").glob("*_cal.asdf")}
    assert images == {OTHER_IMAGE, SPECTRUM}
    aligned = json.loads((workflow.folder / "results" / f"{VISIT}_tweakreg.json").read_text())["exposures"]
    assert set(aligned) == {OTHER_IMAGE}
    head, line, *_ = (workflow.folder / "logs" / "summary.txt").read_text().splitlines()
    assert head.startswith("rampflow: 1 failed, ") and line in run.stdout
    assert line.startswith(f"failed: {IMAGE} dq_init: ") and "doesn't match its checksum" in line
    assert line.endswith(f"[logs/{IMAGE}/dq_init.log]")


def test_what_is_killed_is_tried_again_with_more(workflow, spectrum_alone, tmp_path):
    """A canceled job, and a step that is killed as the kernel does when memory runs out."""
    arguments, expected = spectrum_alone
    process, job = workflow.start(*arguments, output=tmp_path / "output")
    step_running("refpix", workflow.folder)
    slurm("scancel", str(job))
    os.kill(step_running("linearity", workflow.folder), signal.SIGKILL)
    assert process.wait(240) == 0, (tmp_path / "output").read_text()
    tries = [asked(job) for job in submitted_jobs((tmp_path / "output").read_text())]
    assert len(tries) == 3
    cores, memory, minutes = zip(*tries, strict=True)
    assert set(cores) == {2}
    for attempt in (2, 3):
        # 400 MB are Snakemake's own.
        assert memory[attempt - 1] - 400 == pytest.approx(attempt * (memory[0] - 400), rel=0.02)
        assert minutes[attempt - 1] == pytest.approx(attempt * minutes[0], rel=0.1)
    assert_same_products(workflow.folder / "results", expected)
    assert not leftovers(workflow.folder)


def test_after_snakemake_was_killed_the_message_says_how_to_go_on(workflow, spectrum_alone, tmp_path):
    arguments, expected = spectrum_alone
    process, job = workflow.start(*arguments, output=tmp_path / "output")
    step_running("refpix", workflow.folder)
    process.kill()
    process.wait()
    refused = workflow.submit(*arguments)
    assert refused.returncode != 0 and "can be removed with the --unlock argument" in refused.stdout
    # Its job goes on: the README says how to end it.
    slurm("scancel", "--name", re.search(r"SLURM run ID: (\S+)", (tmp_path / "output").read_text())[1])
    assert workflow.submit(*arguments, "--unlock").returncode == 0
    run = workflow.submit(*arguments)
    assert run.returncode == 0, run.stdout
    assert_same_products(workflow.folder / "results", expected)
    assert not leftovers(workflow.folder)


def step_running(name, folder):
    """Process of a step of the run in a folder, as soon as it runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if len(words) > 1 and words[1].endswith(f"/{name}.py".encode()) and (process / "cwd").readlink() == folder:
                    return int(process.name)
            except OSError:  # it has ended
                continue
        time.sleep(0.02)
    raise AssertionError(f"{name} did not run")
