"""Which blocks of a reference are known to be intact: noted in the user's cache, and forgotten when the file changes."""

import os
import time

import asdf
import numpy as np
import pytest

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.verified import OLDEST_NOTE, note_of, remembering_intact_blocks

COMPRESSED = {"all_array_compression": "lz4"}


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """A reference with two compressed blocks, and a cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = tmp_path / "crds" / "flat.asdf"
    path.parent.mkdir()
    values = np.random.default_rng(1).random((400, 400))
    asdf.AsdfFile({"roman": {"data": values, "err": values + 1}}).write_to(path, **COMPRESSED)
    return path


def read(path, *names):
    """Read arrays of a reference; which blocks were known to be intact before, and which are after."""
    with AsdfFile(path) as file, remembering_intact_blocks(file):
        before = set(file.intact)
        for name in names:
            file.tree["roman"][name].read()
        return before, file.intact


def damage(path):
    """Change a byte in the middle of the last block."""
    content = bytearray(path.read_bytes())
    content[len(content) - 2000] ^= 0xFF
    with open(path, "r+b") as file:
        file.write(content)


def test_a_block_that_one_job_has_checked_is_known_to_the_next(reference):
    assert read(reference, "data") == (set(), {one := next(iter(read(reference, "data")[1]))})
    before, after = read(reference, "data", "err")
    assert before == {one}
    assert len(after) == 2
    assert read(reference)[0] == after


def test_every_name_of_a_file_has_one_note(reference, tmp_path):
    read(reference, "data", "err")
    link = tmp_path / "link.asdf"
    link.symlink_to(reference)
    assert len(read(link)[0]) == 2


def test_a_file_that_has_changed_is_checked_again(reference):
    read(reference, "data", "err")
    times = reference.stat()
    damage(reference)
    os.utime(reference, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy with its times would have it
    assert read(reference)[0] == set()
    with pytest.raises(RampflowError, match=r"flat\.asdf: block 1 doesn't match its checksum \(damaged\)"):
        read(reference, "err")


def test_a_damaged_block_is_never_noted(reference):
    damage(reference)
    with pytest.raises(RampflowError, match="checksum"):
        read(reference, "data", "err")
    assert len(read(reference, "data")[1]) == 1


def test_an_old_note_does_not_count(reference, tmp_path):
    read(reference, "data", "err")
    other = tmp_path / "home" / "rampflow" / "intact" / "0000.json"
    other.write_text("{}")
    for note in (note_of(reference), other):
        os.utime(note, (time.time() - OLDEST_NOTE - 60,) * 2)
    assert read(reference, "data")[0] == set()
    assert [path for path in other.parent.iterdir()] == [note_of(reference)]  # and the other one is removed
    assert len(read(reference)[0]) == 1


def test_a_small_file_is_checked_by_every_job(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    asdf.AsdfFile({"roman": {"data": np.ones((100, 100))}}).write_to(tmp_path / "dark.asdf", **COMPRESSED)
    assert len(read(tmp_path / "dark.asdf", "data")[1]) == 1
    assert read(tmp_path / "dark.asdf")[0] == set()


def test_a_cache_folder_that_can_not_be_written_costs_time_alone(reference, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read(reference, "data", "err")[1]) == 2
    assert read(reference)[0] == set()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"stamp": 1, "intact": 2}', "not json"])
def test_a_note_that_can_not_be_read_is_ignored(reference, content):
    read(reference, "data", "err")
    assert note_of(reference).exists()
    note_of(reference).write_text(content)
    assert read(reference, "data")[0] == set()


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "HOME"])
def test_a_user_without_a_home_folder_has_no_notes(reference, tmp_path, monkeypatch, name):
    """A relative path, as "~" without a home folder, is no folder in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv(name, "relative")
    before = sorted(tmp_path.rglob("*"))
    assert len(read(reference, "data", "err")[1]) == 2
    assert read(reference)[0] == set()
    assert sorted(tmp_path.rglob("*")) == before
