"""Checksums of files: computed, logged, and remembered."""

import hashlib
import logging
import os

import pytest

from rampflow.errors import RampflowError
from rampflow.files import checksums
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
