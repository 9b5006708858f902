"""Checksums of files: computed, logged, and remembered."""

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from rampflow.errors import RampflowError
from rampflow.files import checksums
from rampflow.files.links import stamp_of
from rampflow.step.logs import configure_logging, step_logger


def test_the_sum_is_that_of_the_whole_file(tmp_path):
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert checksums.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(RampflowError, match="nowhere: can't be read"):
        checksums.sha256_of(tmp_path / "nowhere")


def test_logged_sums_are_read_back(tmp_path):
    names = ["a_uncal.asdf", "with a space: and (3 bytes)"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * number)
    with (tmp_path / "step.log").open("w") as log:
        configure_logging(log)
        for name in names:
            checksums.log_checksum(step_logger("finalize"), tmp_path / name)
        step_logger("finalize").info("SHA-256 of nothing")
    logging.captureWarnings(False)
    expected = {name: (number, hashlib.sha256(b"x" * number).hexdigest()) for number, name in enumerate(names)}
    assert checksums.logged_checksums(tmp_path / "step.log") == expected
    assert checksums.logged_checksums(tmp_path / "absent.log") == {}


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    memory, paths = tmp_path / "memory.json", [str(tmp_path / name) for name in "abc"]
    for path in paths[:2]:
        with open(path, "w") as file:
            file.write("x")
    first = checksums.remembered_checksums(paths, memory)
    assert first == dict.fromkeys(paths[:2], hashlib.sha256(b"x").hexdigest()), "the third does not exist"
    read = []

    def note(path, compute=checksums.sha256_of):
        read.append(str(path))
        return compute(path)

    monkeypatch.setattr(checksums, "sha256_of", note)
    assert checksums.remembered_checksums(paths, memory) == first and read == []
    with open(paths[0], "w") as file:
        file.write("yy")
    assert checksums.remembered_checksums(paths, memory, compute=False) == {paths[1]: first[paths[1]]} and read == []
    changed = checksums.remembered_checksums(paths, memory)
    assert changed == first | {paths[0]: hashlib.sha256(b"yy").hexdigest()} and read == [paths[0]]
    memory.write_text("{")
    assert checksums.remembered_checksums(paths, memory) == changed, "a damaged memory is no hindrance"


@pytest.mark.parametrize(
    "content", ["[]", "null", '{"PATH": null}', '{"PATH": [1]}', '{"PATH": "ab"}', '{"PATH": [STAMP, null]}', '{"PATH": {}}']
)
def test_a_damaged_memory_is_no_hindrance(tmp_path, content):
    memory, path = tmp_path / "memory.json", tmp_path / "a"
    path.write_text("x")
    memory.write_text(content.replace("PATH", str(path)).replace("STAMP", str(stamp_of(path.stat()))))
    expected = {str(path): hashlib.sha256(b"x").hexdigest()}
    assert checksums.remembered_checksums([str(path)], memory) == expected
    assert json.loads(memory.read_text()) == {str(path): [stamp_of(path.stat()), expected[str(path)]]}


def test_runs_that_end_together_remember_the_files_of_both(tmp_path, monkeypatch):
    """The second begins and ends while the first computes; a third one is writing."""
    memory, paths = tmp_path / "memory.json", [str(tmp_path / name) for name in "ab"]
    for path in paths:
        Path(path).write_text(path)
    compute = checksums.sha256_of

    def compute_slowly(path):
        if str(path) == paths[0]:
            checksums.remembered_checksums(paths[1:], memory)
        return compute(path)

    monkeypatch.setattr(checksums, "sha256_of", compute_slowly)
    (tmp_path / ".rampflow-other").mkdir()
    partial = tmp_path / ".rampflow-other" / "memory.json"  # of a run that is writing
    partial.write_text("{}")
    checksums.remembered_checksums(paths[:1], memory)
    assert set(json.loads(memory.read_text())) == set(paths)
    assert partial.exists()
