"""Exposures that arrive one after the other: what is left out of a run, and what the watch starts."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from demo_visit import ASSOCIATION as VISIT
from demo_visit import SMALL_CONFIGURATION as CONFIGURATION
from demo_visit import SMALL_FIRST as FIRST
from demo_visit import SMALL_SECOND as SECOND
from demo_visit import SMALL_SPECTRUM as SPECTRUM
from repository import ROOT

pytestmark = pytest.mark.workflow

#: Steps that the alignment does without.
SKIPPED = ("saturation", "refpix", "dark_decay", "linearity", "dark_current", "photom", "flatfield")
STEPS = f"steps={{{', '.join(f'{name}: {{skip: true}}' for name in SKIPPED)}}}"


@pytest.fixture
def workflow(small_visit):
    """The small visit; none of its exposures has arrived in the folder L1."""
    return small_visit


def arrive(workflow, folder, stem, part=1.0):
    """Copy a raw file to where files arrive: the whole, or a part of it."""
    content = (workflow.folder / "demo" / f"{stem}_uncal.asdf").read_bytes()
    (folder / f"{stem}_uncal.asdf").write_bytes(content[: int(part * len(content))])


def summary_of(workflow):
    return (workflow.folder / "logs" / "summary.txt").read_text().splitlines()


def aligned(workflow, results):
    return set(json.loads((workflow.folder / results / f"{VISIT}_tweakreg.json").read_text())["exposures"])


def test_a_half_copied_file_is_left_out_and_taken_by_the_next_run(workflow):
    folder = workflow.folder / "L1"
    folder.mkdir()
    names = [FIRST, SECOND, SPECTRUM]
    members = [{"expname": f"L1/{stem}_uncal.asdf", "exptype": "science"} for stem in names]
    (workflow.folder / "asn.json").write_text(json.dumps({"products": [{"name": VISIT, "members": members}]}))
    arrive(workflow, folder, FIRST)
    arrive(workflow, folder, SECOND, part=0.6)
    options = [*CONFIGURATION, "--config", "input=asn.json", "results=part", STEPS]
    refused = workflow.snakemake("report", *options)
    assert refused.returncode != 0 and not (workflow.folder / "part").exists()
    done = workflow.snakemake("report", *options, "incoming=true")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    head, *lines = summary_of(workflow)
    assert head.startswith("rampflow: nothing failed, ") and "1 of 1 exposures have their products" in head
    assert head.endswith("2 exposures left out, they can't be read yet")
    for stem, reason in ((SECOND, "(truncated)"), (SPECTRUM, "does not exist beside the file")):
        (line,) = (line for line in lines if line.startswith(f"warning: {stem}: left out, it can't be read yet: "))
        assert reason in line and said.count(f"W{line[1:]}") == 1
    assert aligned(workflow, "part") == {FIRST}
    page = (workflow.folder / "part" / f"{VISIT}_report.html").read_text()
    assert SECOND in page and SPECTRUM in page, "the page says which are missing"

    # With all files, the association is aligned anew, and the first image is not made again.
    (image,) = (workflow.folder / "part" / "intermediates").glob(f"{FIRST}_*fit*.asdf")
    made = image.stat().st_mtime_ns
    arrive(workflow, folder, SECOND)
    arrive(workflow, folder, SPECTRUM)
    done = workflow.snakemake(*options, "incoming=true")
    assert done.returncode == 0, done.stdout + done.stderr
    head, *lines = summary_of(workflow)
    assert head.endswith("3 of 3 exposures have their products") and not [line for line in lines if "left out" in line]
    assert aligned(workflow, "part") == {FIRST, SECOND} and image.stat().st_mtime_ns == made
    assert workflow.jobs(*options) == {}, "the same without the option"
    # Products of an exposure that can't be read for a while are not left from before.
    arrive(workflow, folder, SPECTRUM, part=0.5)
    listed = workflow.snakemake("remove_stale", *options, "incoming=true", "--dry-run")
    assert listed.returncode == 0 and f"{SPECTRUM}_cal.asdf" not in listed.stdout + listed.stderr
    arrive(workflow, folder, SPECTRUM)


class Watched:
    """The watch of a folder in a process, with its lines."""

    def __init__(self, workflow, folder, *options, snakemake=()):
        self.log = workflow.folder / "watch.log"
        own = [str(folder), "--interval", "0.3", *options]
        own += ["--config", "results=watched", "astrometric_catalog=demo/astrometric.ecsv", STEPS]
        command = [sys.executable, str(ROOT / "scripts" / "watch.py"), *own, "--", "--cores", "2", *snakemake]
        self.process = subprocess.Popen(
            command, stdout=self.log.open("w"), stderr=subprocess.STDOUT, cwd=workflow.folder, env=workflow.environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def lines(self):
        return [line.partition("rampflow.watch :: ")[2] for line in self.log.read_text().splitlines()]

    def wait_for(self, pattern, count=1, seconds=300):
        """Wait until so many lines match; return the last of them."""
        deadline = time.monotonic() + seconds
        while len(found := [line for line in self.lines() if re.search(pattern, line)]) < count:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return found[count - 1]


def test_the_watch_runs_the_workflow_for_a_complete_visit_and_for_late_files(workflow):
    folder = workflow.folder / "arriving"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with Watched(workflow, folder, "--complete", "2", "--timeout", "3") as watched:
        arrive(workflow, folder, FIRST)
        arrive(workflow, folder, SPECTRUM, part=0.5)
        watched.wait_for(f"INFO :: {FIRST}: arrived, 1 of 2 of its visit")
        watched.wait_for(f"WARNING :: {SPECTRUM}: can't be read yet: .*truncated")
        assert watched.wait_for(": starts|, starts") == (
            f"INFO :: {VISIT}: no new file for 3 s, starts with 1 exposure, 1 can't be read yet"
        )
        line = watched.wait_for(": done: ")
        assert line.startswith(f"INFO :: {VISIT}: done: rampflow: nothing failed") and "1 exposure left out" in line
        assert aligned(workflow, "watched") == {FIRST}
        arrive(workflow, folder, SECOND)
        arrive(workflow, folder, SPECTRUM)
        watched.wait_for(f"{VISIT}: complete, starts with ")
        watched.wait_for(": done: .*3 of 3 exposures have their products")
        assert aligned(workflow, "watched") == {FIRST, SECOND}
        watched.process.send_signal(signal.SIGINT)
        assert watched.process.wait(60) == 0
        assert watched.lines()[-1] == "INFO :: SIGINT: ending"
    # After a restart, all files are new, and nothing is to be done.
    with Watched(workflow, folder, "--complete", "3") as watched:
        watched.wait_for(f"{VISIT}: nothing was to be done")
        watched.process.send_signal(signal.SIGTERM)
        assert watched.process.wait(60) == 0


def test_a_signal_ends_a_running_workflow(workflow):
    folder = workflow.folder / "interrupted"
    folder.mkdir()
    arrive(workflow, folder, FIRST)
    shutil.rmtree(workflow.folder / "watched", ignore_errors=True)
    shutil.rmtree(workflow.folder / "logs" / FIRST, ignore_errors=True)
    with Watched(workflow, folder, "--complete", "1") as watched:
        deadline = time.monotonic() + 120
        while not (workflow.folder / "logs" / FIRST / "dq_init.log").exists():
            assert watched.process.poll() is None and time.monotonic() < deadline, watched.log.read_text()
            time.sleep(0.05)
        watched.process.send_signal(signal.SIGINT)
        assert watched.process.wait(120) == 0
        assert watched.lines()[-2] == "INFO :: SIGINT: ending"
        assert re.search(f"WARNING :: {VISIT}: ended with status 1: rampflow: interrupted: ", watched.lines()[-1])
    assert not list((workflow.folder / "watched").glob("*_cal.asdf"))


def test_a_wrong_configuration_is_reported(workflow):
    folder = workflow.folder / "interrupted"
    folder.mkdir(exist_ok=True)
    arrive(workflow, folder, FIRST)
    with Watched(workflow, folder, "--complete", "1", snakemake=["--config-typo"]) as watched:
        watched.wait_for("WARNING :: .*ended with status [12]: Snakemake has ended before the first job:")
        assert "--config-typo" in (workflow.folder / "logs" / "watch_snakemake.log").read_text()
