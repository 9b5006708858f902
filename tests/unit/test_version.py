"""The version that products record."""

import os
import subprocess
import sys

import pytest
from repository import ROOT

from rampflow import __version__, version
from rampflow.workflow.environment import script_environment


@pytest.fixture
def clone(tmp_path):
    """A git repository with one commit, and the function that runs git in it."""
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments):
        done = subprocess.run(
            ["git", "-C", tmp_path, *arguments], check=True, capture_output=True, text=True, env=os.environ | settings | names
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    return tmp_path, git


def test_a_clone_says_which_commit_and_whether_it_is_clean(clone):
    folder, git = clone
    commit = git("rev-parse", "--short", "HEAD")
    assert version.from_git(folder) == f"{version.RELEASE}.dev1+g{commit}"
    (folder / "untracked").write_text("results")
    assert version.from_git(folder) == f"{version.RELEASE}.dev1+g{commit}"
    git("tag", f"v{version.RELEASE}")
    assert version.from_git(folder) == version.RELEASE
    (folder / "file").write_text("two")
    assert version.from_git(folder) == f"{version.RELEASE}.dev1+g{commit}.dirty"


def test_a_folder_inside_another_repository_is_not_that_commit(clone):
    folder, _ = clone
    (folder / "unpacked").mkdir()
    assert version.from_git(folder / "unpacked") is None


def test_without_git_there_is_no_version(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert version.from_git(clone[0]) is None


def test_an_archive_says_which_commit(tmp_path):
    path = tmp_path / "archive.txt"
    assert version.from_archive(path) is None
    path.write_text(version.ARCHIVE.read_text())
    assert version.from_archive(path) is None, "a clone's has not been filled in"
    path.write_text("020e13c\n")
    assert version.from_archive(path) == f"{version.RELEASE}.dev0+g020e13c"
    attributes = (ROOT / ".gitattributes").read_text()
    assert f"{version.ARCHIVE.relative_to(ROOT)} export-subst" in attributes


def test_jobs_take_the_version_of_the_workflow():
    assert script_environment(None)["RAMPFLOW_VERSION"] == __version__
    environment = os.environ | {"RAMPFLOW_VERSION": "1.2.3", "PYTHONPATH": str(ROOT / "scripts"), "PATH": ""}
    command = [sys.executable, "-c", "import rampflow; print(rampflow.__version__)"]
    assert subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip() == "1.2.3"
