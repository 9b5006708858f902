"""Folders that workers of pytest-xdist share."""

import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from shared_folders import copy_folder, make_once


@pytest.fixture
def share(tmp_path, monkeypatch):
    """Ask for a shared folder as one of the workers."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    return lambda worker, make: make_once(SimpleNamespace(getbasetemp=lambda: tmp_path / worker), "shared", make)


def test_a_shared_folder_is_made_once(share, tmp_path):
    made = []

    def make(folder):
        (folder / "file").write_text("content")
        made.append(folder)

    with ThreadPoolExecutor(4) as workers:
        folders = set(workers.map(lambda number: share(f"gw{number}", make), range(4)))
    assert folders == {tmp_path / "shared"} and made == [tmp_path / "shared"]
    assert (tmp_path / "shared" / "file").read_text() == "content"


def test_after_a_failure_the_next_worker_makes_the_folder(share):
    def fail(folder):
        (folder / "part").write_text("")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        share("gw0", fail)
    folder = share("gw1", lambda folder: (folder / "file").write_text("content"))
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_copy_keeps_times_and_links(tmp_path):
    """Snakemake compares the times of files and links."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("a.asdf", "a.json"):
        (source / name).write_text(name)
        os.utime(source / name, ns=(10**18, 10**18))
    (source / "link").symlink_to("a.json")
    os.utime(source / "link", ns=(10**18 + 1, 10**18 + 1), follow_symlinks=False)
    copy_folder(source, target)
    assert {p.name: p.lstat().st_mtime_ns - 10**18 for p in target.iterdir()} == {"a.asdf": 0, "a.json": 0, "link": 1}
    assert os.readlink(target / "link") == "a.json"
    (target / "a.json").write_text("changed")
    assert (source / "a.json").read_text() == "a.json"
