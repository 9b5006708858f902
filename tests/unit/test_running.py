"""Marks in a results folder, against runs of other working folders that make the same products."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from rampflow.errors import RampflowError
from rampflow.workflow import running
from rampflow.workflow.running import Running, is_run_alive

NAMES = ("r1_wfi01", "r1")
#: A run that begins, and goes on until its standard input is closed.
OTHER = """
import sys
from pathlib import Path
from rampflow.workflow.running import Running
run = Running(Path(sys.argv[1]), sys.argv[2:])
run.begin()
print(run.path, flush=True)
sys.stdin.read()
run.end()
"""


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A run of another working folder: its process, and its mark. This process works in the folder `mine`."""
    folders = [tmp_path / name for name in ("mine", "theirs", "results")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, folders[2], *NAMES],
        cwd=folders[1],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process, Path(process.stdout.readline().strip())
    process.communicate()


def begin(mark, *names):
    """A run in the same results folder; its mark is gone at the end."""
    run = Running(mark.parent, names)
    try:
        run.begin()
        assert run.path.exists()
    finally:
        run.end()
        assert not run.path.exists()


def test_a_second_run_that_makes_the_same_products_is_refused(other):
    process, mark = other
    with pytest.raises(RampflowError) as refused:
        begin(mark, "r0_wfi01", "r1_wfi01", "r1")
    said = str(refused.value)
    assert said.startswith(f"{mark.parent}: products of r1 and 1 more are being made by another run, in ")
    assert f"{mark.parent.parent / 'theirs'} (process {process.pid} on " in said and f"delete {mark}, or start again" in said
    assert list(mark.parent.iterdir()) == [mark]
    begin(mark, "r2_wfi01", "r2")  # other products
    process.communicate()
    begin(mark, *NAMES)  # it has ended
    assert list(mark.parent.iterdir()) == []


def test_a_run_that_was_killed_is_passed_over(other):
    process, mark = other
    process.kill()
    process.wait()
    assert mark.exists()
    begin(mark, *NAMES)
    assert not mark.exists()


def test_whether_a_run_goes_on_is_known(other):
    process, mark = other
    assert is_run_alive(mark.parent)
    process.kill()
    process.wait()
    assert mark.exists() and not is_run_alive(mark.parent)
    mark.write_text("no mark")
    assert not is_run_alive(mark.parent) and not is_run_alive(mark.parent / "nowhere")


def test_a_run_of_another_host_counts_until_it_has_given_no_sign_for_a_while(other):
    _, mark = other
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"host": "node7", "process": 2**22 + 1}))
    with pytest.raises(RampflowError, match=re.escape("on node7, since 20")):
        begin(mark, *NAMES)
    late = mark.stat().st_mtime - running.EXPIRES - 60
    os.utime(mark, (late, late))
    begin(mark, *NAMES)
    assert not mark.exists()


def test_a_run_keeps_its_mark_fresh_until_somebody_deletes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "INTERVAL", 0.01)
    run = Running(tmp_path, NAMES)
    run.begin()
    os.utime(run.path, (0, 0))
    while run.path.stat().st_mtime == 0:
        pass
    run.path.unlink()
    assert not run._ended.wait(0.1) and not run.path.exists()
    run.end()


def test_in_one_working_folder_the_lock_of_snakemake_decides(other, monkeypatch):
    _, mark = other
    monkeypatch.chdir(mark.parent.parent / "theirs")
    begin(mark, *NAMES)
    assert mark.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"host": 1}'])
def test_other_files_are_passed_over(tmp_path, content):
    path = tmp_path / ".running-notes.json"
    path.write_text(content)
    begin(path, *NAMES)
    assert path.exists()
