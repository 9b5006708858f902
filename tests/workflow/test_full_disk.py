"""Jobs whose disk is full: each names the file and the remedy, and leaves no part of a file."""

import contextlib
import csv
import io
import os
import re
import subprocess
from pathlib import Path

import pytest
from small_files import SCRIPTS

from rampflow.chain import STEPS
from rampflow.workflow.environment import script_environment

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]


@contextlib.contextmanager
def small_disk(folder, size):
    """A disk of so many bytes in a folder."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"can't mount a small disk: {mounted.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def jobs(visit):
    """The command of a job of each rule, and its outputs; the report is made first."""
    made = visit.snakemake("report", *visit.arguments)
    assert made.returncode == 0, made.stderr
    listed = visit.snakemake("report", *visit.arguments, "--detailed-summary")
    assert listed.returncode == 0, listed.stderr
    commands, outputs = {}, {}
    for row in csv.DictReader(io.StringIO(listed.stdout), delimiter="\t"):
        command = row["shellcmd"]
        if commands.setdefault(row["rule"], command) == command:
            outputs.setdefault(row["rule"], []).append(row["output_file"])
    return {rule: (command, outputs[rule]) for rule, command in commands.items() if command and command != "-"}


def test_every_job_ends_with_one_message_and_without_output(visit, jobs, tmp_path):
    assert set(jobs) > {*STEPS, "finalize", "astrometric_catalog", "association_report"}
    environment = (
        visit.environment | script_environment(None) | {"RAMPFLOW_SCRIPTS": str(SCRIPTS), "RAMPFLOW_CONTEXT": "a.pmap"}
    )
    for rule, (command, outputs) in jobs.items():
        size = sum((visit.folder / name).stat().st_size for name in outputs)
        changed = re.sub(r" > \S+ 2>&1.*", "", command)
        for name in outputs:
            changed = re.sub(rf"(?<=\s){re.escape(name)}(?=\s|$)", str(tmp_path / "disk" / Path(name).name), changed)
        with small_disk(tmp_path / "disk", max(size // 2 // 4096, 1) * 4096) as disk:
            if size < 16384:
                (disk / "fill").write_bytes(bytes(4096))
            done = subprocess.run(
                ["bash", "-c", changed], cwd=visit.folder, env=environment, capture_output=True, text=True, timeout=300
            )
            errors = [line for line in done.stderr.splitlines() if ":: ERROR ::" in line]
            assert done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr, f"{rule}: {done.stderr}"
            named = re.search(r"(\S+): can't be written \(No space left on device: make room there", errors[0])
            outputs_here = {disk / Path(name).name for name in outputs}
            assert named and not outputs_here.isdisjoint([Path(named[1]), *Path(named[1]).parents]), errors[0]
            left = [path for path in disk.rglob("*") if path.is_file() and path.name != "fill"]
            if rule == "association_report":  # the pages of exposures before the one that has no room are whole
                left = [path for path in left if not path.read_text().rstrip().endswith("</html>")]
            assert left == [], rule
