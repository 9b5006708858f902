"""Runs that are killed: the same command again does what is missing, with the arrays of an undisturbed run.

They run the first steps of one small exposure; tests/slurm does the same on a cluster, with whole chains.
"""

import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from products import arrays_of, leftovers
from reference_server import reference_server
from repository import ROOT
from simulator import simulate_references
from small_files import ramp, write_raw
from snakemake_runs import Workflow

from rampflow.workflow.plan import EXPOSURES_VARIABLE

pytestmark = pytest.mark.workflow

SIZE = 256
STEM = "r0000101001001001001_0001_wfi01_dark"
STEPS = ("dq_init", "saturation", "dark_decay")
SUFFIXES = ("dqinit", "saturation", "dark_decay")
MASK, SATURATION = (f"roman_wfi_{reftype}_wfi01_0001.asdf" for reftype in ("mask", "saturation"))

#: Python imports it when it starts: it stops the step of the name STALL in the middle of writing its output, until the file
#: GO exists.
STALL = """
import os, sys, time
from pathlib import Path
pwrite, stalled = os.pwrite, False
def stalling(descriptor, data, position):
    global stalled
    if os.environ.get("STALL") == Path(sys.argv[0]).stem and position > 100_000 and not stalled:
        stalled = True
        Path("stalled").write_text(str(os.getpid()))
        while not Path("go").exists():
            time.sleep(0.01)
    return pwrite(descriptor, data, position)
os.pwrite = stalling
"""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A raw exposure, the references of its first steps in a cache, and what these steps make of it undisturbed."""
    folder = tmp_path_factory.mktemp("inputs")
    meta = {"exposure.type": "WFI_IM_DARK", "instrument.detector": "WFI01", "instrument.optical_element": "DARK"}
    write_raw(folder / f"{STEM}_uncal.asdf", ramp(resultants=4, rows=SIZE, columns=SIZE), meta)
    simulate_references.make_cache(folder / "cache", ("WFI01",), SIZE, 1)
    (folder / "run").mkdir()
    run = Interrupted(folder / "run", folder)
    assert run.snakemake(*run.arguments).returncode == 0
    return folder


class Interrupted(Workflow):
    """Runs of the first steps in a folder, of which one can be stopped in the middle of writing."""

    def __init__(self, folder, inputs):
        super().__init__(folder, inputs / "cache")
        settings = [f"input={inputs / STEM}_uncal.asdf", "steps={refpix: {skip: true}}"]
        self.arguments = ["--config", *settings, "--until", STEPS[-1], "--notemp"]
        (folder / "sitecustomize.py").write_text(STALL)
        self.environment["PYTHONPATH"] = str(folder)

    def start(self, stalling):
        """Start a run, and wait until a step is in the middle of writing; the run, and the process of the step."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)]
        run = subprocess.Popen(
            [*command, "--cores", "1", *self.arguments],
            stdout=(self.folder / "output").open("w"),
            stderr=subprocess.STDOUT,
            env=self.environment | {"STALL": stalling},
            start_new_session=True,
            # A shell makes background processes ignore Ctrl-C, and the tests may be one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        marker, deadline = self.folder / "stalled", time.monotonic() + 120
        while not (marker.exists() and marker.read_text()):
            assert run.poll() is None and time.monotonic() < deadline, (self.folder / "output").read_text()
            time.sleep(0.01)
        return run, int(marker.read_text())

    def assert_completes(self, inputs, *steps):
        """The same command again does these steps alone, and what is there then equals an undisturbed run's."""
        run = self.snakemake(*self.arguments)
        assert run.returncode == 0, run.stdout + run.stderr
        assert rules_of(run) == set(steps)
        self.assert_equal(inputs)
        assert not leftovers(self.folder)

    def assert_equal(self, inputs):
        for suffix in SUFFIXES:
            name = Path("results") / "intermediates" / f"{STEM}_{suffix}.asdf"
            ours, theirs = arrays_of(self.folder / name), arrays_of(inputs / "run" / name)
            assert {k: v.tobytes() for k, v in ours.items()} == {k: v.tobytes() for k, v in theirs.items()}, suffix


def rules_of(run):
    """Names of the rules of which a run has started jobs."""
    return set(re.findall(r"^(\w+) +\d+$", run.stdout + run.stderr, re.MULTILINE)) - {"total"}


@pytest.fixture
def workflow(inputs, tmp_path):
    return Interrupted(tmp_path, inputs)


def output_of(workflow, suffix):
    return workflow.folder / "results" / "intermediates" / f"{STEM}_{suffix}.asdf"


def test_a_step_killed_in_the_middle_of_writing(workflow, inputs):
    """As the kernel kills it when memory runs out."""
    run, step = workflow.start(stalling="saturation")
    assert leftovers(workflow.folder) and not output_of(workflow, "saturation").exists()
    os.kill(step, signal.SIGKILL)
    assert run.wait(60) != 0
    said = (workflow.folder / "output").read_text()
    assert f"logs/{STEM}/saturation.log" in said
    head, line, *_ = summary_of(workflow)
    assert head.startswith("rampflow: 1 failed, ") and "interrupted" not in head
    assert line.startswith(f"failed: {STEM} saturation: ended without an error message, probably killed")
    assert output_of(workflow, "dqinit").exists() and not output_of(workflow, "saturation").exists()
    workflow.assert_completes(inputs, "saturation", "dark_decay")


def test_snakemake_killed_and_its_step_still_writing(workflow, inputs):
    """The message has the command that removes the lock, and the step that is still running does no harm."""
    run, _ = workflow.start(stalling="saturation")
    second = workflow.snakemake(*workflow.arguments)
    assert second.returncode != 0 and "Directory cannot be locked" in second.stderr, "two runs at once in one folder"
    run.kill()
    run.wait()
    head, *_ = summary_of(workflow)
    assert head.startswith("rampflow: not ended: ") and "failed" not in head, "nor that of an earlier run"
    refused = workflow.snakemake(*workflow.arguments)
    assert refused.returncode != 0 and "can be removed with the --unlock argument" in refused.stderr
    assert workflow.snakemake(*workflow.arguments, "--unlock").returncode == 0
    workflow.assert_completes(inputs, "saturation", "dark_decay")
    (workflow.folder / "go").touch()
    log = workflow.folder / "logs" / STEM / "saturation.log"
    time.sleep(1)
    workflow.assert_equal(inputs)
    assert not leftovers(workflow.folder), log.read_text()


def test_two_working_folders_with_one_results_folder(workflow, inputs, tmp_path):
    """The second run is refused before any job, while the first goes on; looking is allowed."""
    results = f"results={tmp_path / 'results'}"
    workflow.arguments.insert(1, results)
    (tmp_path / "second").mkdir()
    second = Interrupted(tmp_path / "second", inputs)
    second.arguments.insert(1, results)
    run, _ = workflow.start(stalling="saturation")
    (mark,) = (tmp_path / "results").glob(".running-*.json")
    refused = second.snakemake(*second.arguments)
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "Traceback" not in said
    assert f"products of {STEM}" in said and f"in {tmp_path} (process {run.pid} on" in said and f"delete {mark}" in said
    assert not (second.folder / "logs" / STEM).exists() and not list(second.folder.glob(".snakemake/locks/*"))
    assert second.jobs(*second.arguments)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    completed = second.snakemake(*second.arguments)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    workflow.assert_equal(inputs)
    assert not mark.exists() and not list((tmp_path / "results").glob(".running-*"))


def test_a_run_ended_with_ctrl_c(workflow, inputs):
    """The terminal sends it to Snakemake and to the step."""
    run, _ = workflow.start(stalling="dark_decay")
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) != 0
    assert not output_of(workflow, "dark_decay").exists() and not leftovers(workflow.folder)
    assert_interrupted(workflow, done=2)
    workflow.assert_completes(inputs, "dark_decay")


def test_a_batch_system_ends_snakemake_and_its_steps(workflow, inputs):
    """SIGTERM to the whole process group, as at the end of a time limit."""
    run, _ = workflow.start(stalling="saturation")
    os.killpg(run.pid, signal.SIGTERM)
    assert run.wait(60) != 0
    assert_interrupted(workflow, done=1)
    workflow.assert_completes(inputs, "saturation", "dark_decay")


def test_snakemake_alone_is_asked_to_end(workflow, inputs):
    """It lets the running step end, and starts no other."""
    run, _ = workflow.start(stalling="saturation")
    run.terminate()
    time.sleep(1)
    (workflow.folder / "go").touch()
    assert run.wait(60) != 0
    assert_interrupted(workflow, done=2)
    workflow.assert_completes(inputs, "dark_decay")


def summary_of(workflow):
    return (workflow.folder / "logs" / "summary.txt").read_text().splitlines()


def assert_interrupted(workflow, done):
    """The summary reports the interruption, and no failure."""
    head, *lines = summary_of(workflow)
    assert head.startswith(f"rampflow: interrupted: {done} of {len(STEPS)} jobs done; the same command continues, ")
    assert " failed" not in head and not [line for line in lines if line.startswith("failed")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(workflow, inputs):
    results = workflow.folder / "results"
    results.mkdir()
    size = output_of(Interrupted(inputs / "run", inputs), "dqinit").stat().st_size
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(1.5 * size)}", "tmpfs", results], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"can't mount a small disk: {mounted.stderr.decode()}")
    try:
        run = workflow.snakemake(*workflow.arguments)
        said = run.stdout + run.stderr
        assert run.returncode != 0 and "Traceback" not in said
        assert f"{STEM}_saturation.asdf: can't be written (No space left on device: make room there" in said
        assert output_of(workflow, "dqinit").exists() and not leftovers(workflow.folder)
        subprocess.run(["mount", "-o", f"remount,size={10 * size}", results], check=True)
        workflow.assert_completes(inputs, "saturation", "dark_decay")
    finally:
        subprocess.run(["umount", results], check=True)


def test_a_reference_deleted_meanwhile(workflow, inputs, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(inputs / "cache", cache)
    workflow.environment["CRDS_PATH"] = str(cache)
    run, _ = workflow.start(stalling="dq_init")
    deleted = next(cache.rglob(SATURATION))
    kept = deleted.read_bytes()
    deleted.unlink()
    (workflow.folder / "go").touch()
    assert run.wait(60) != 0
    assert f"/{deleted.name} (missing" in (workflow.folder / "output").read_text()
    refused = workflow.snakemake(*workflow.arguments)
    assert refused.returncode != 0 and f"{deleted}: this reference" in refused.stdout + refused.stderr
    deleted.write_bytes(kept)
    run = workflow.snakemake(*workflow.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert rules_of(run) >= {"saturation", "dark_decay"}


# ----------------------------------------------------------------------------------------------------- one cache for many
@pytest.fixture
def server(inputs):
    with reference_server(inputs / "cache") as running:
        yield running


users = itertools.count()


def fetch(server, cache, name):
    """Start to retrieve a reference into a cache, in a separate working folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CRDS_")}
    environment |= {"CRDS_PATH": str(cache), "CRDS_SERVER_URL": server.address, "CRDS_OBSERVATORY": "roman"}
    path = cache / "references" / "roman" / "wfi" / name
    folder = cache.parent / f"user{next(users)}"
    folder.mkdir()
    command = [ROOT / "scripts" / "fetch_reference.py", f".rampflow/files/0/{name}", "--crds_context", "roman_0001.pmap"]
    return path, subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=folder,
    )


def test_users_of_one_cache_fetch_the_same_reference_at_once(server, tmp_path):
    """There is never an incomplete file."""
    server.seconds = 6  # that a file takes: longer than crds itself waits for another process
    runs = [fetch(server, tmp_path / "cache", MASK) for _ in range(2)]
    path, expected = runs[0][0], hashlib.sha256(server.files[MASK].read_bytes()).hexdigest()
    seen, ended = set(), threading.Event()

    def look():
        while not ended.is_set():
            if path.exists():
                seen.add(hashlib.sha256(path.read_bytes()).hexdigest())
            time.sleep(0.005)

    watching = threading.Thread(target=look)
    watching.start()
    said = [process.communicate(timeout=120)[0] for _, process in runs]
    ended.set()
    watching.join()
    assert [process.returncode for _, process in runs] == [0, 0], said
    assert seen == {expected}
    assert not leftovers(tmp_path)


def test_a_fetched_reference_that_is_damaged_never_gets_into_the_cache(server, tmp_path):
    server.damaged.add(MASK)
    path, process = fetch(server, tmp_path / "cache", MASK)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1 and MASK in said and "sha1sum" in said
    assert "Traceback" not in said
    assert not path.exists() and not leftovers(tmp_path)


def test_a_run_keeps_references_fetched_by_another_run(server, inputs, tmp_path):
    """Snakemake removes the outputs of a job before it starts; it must not remove those in a shared cache."""
    workflow = Interrupted(tmp_path, inputs)
    cache = tmp_path / "cache"
    workflow.environment |= {"CRDS_PATH": str(cache), "CRDS_SERVER_URL": server.address}
    server.seconds = 3
    runs = [threading.Thread(target=lambda: done.append(workflow.snakemake(*workflow.arguments, "--until", "dq_init")))]
    done, path = [], cache / "references" / "roman" / "wfi" / MASK
    runs[0].start()
    while not server.served[MASK]:
        time.sleep(0.01)
    path.write_bytes(server.files[MASK].read_bytes())  # the other run was faster
    inode = path.stat().st_ino
    reader = path.open("rb")
    runs[0].join()
    assert done[0].returncode == 0, done[0].stdout + done[0].stderr
    assert path.read_bytes() == server.files[MASK].read_bytes() == reader.read(), inode


# ---------------------------------------------------------------------------------------------------------------- clusters
def test_a_cluster_job_does_not_look_at_the_raw_files(workflow, inputs):
    """On its node, Snakemake reads the Snakefile again, and takes the inventory of the submitting process."""
    raw = workflow.folder / f"{STEM}_uncal.asdf"
    shutil.copy(inputs / raw.name, raw)
    settings = ["--config", f"input={raw.name}"]
    assert workflow.jobs(*settings, "--until", "saturation") == {"dq_init": 1, "saturation": 1}
    raw.unlink()
    output_of(workflow, "dqinit").parent.mkdir(parents=True)
    output_of(workflow, "dqinit").touch()
    # An executor gives a job the variables that the submitting process has registered.
    (exposures,) = (workflow.folder / ".rampflow").glob("exposures-*.json")
    workflow.environment[EXPOSURES_VARIABLE] = str(exposures.relative_to(workflow.folder))
    node = ["--mode", "remote", "--target-jobs", f"saturation:stem={STEM}", "--allowed-rules", "saturation", "--force"]
    assert workflow.jobs(*settings, *node) == {"saturation": 1}
    del workflow.environment[EXPOSURES_VARIABLE]
    assert f"{raw.name}': does not exist" in workflow.snakemake(*settings).stderr
