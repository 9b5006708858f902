"""Folders that take long to make: made once in a test run, for all workers of pytest-xdist."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def make_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of this test run: the first worker fills it with `make`, the others wait for it.

    It belongs to all workers. A test that changes files copies them first.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's folder is in that of the run
    folder, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def copy_folder(source: Path, target: Path) -> None:
    """Copy a working folder with its times, which Snakemake compares.

    ASDF files, nearly all of its volume, are hard links: programs replace such a file and never write into it.
    """

    def copy(path, there):
        (os.link if path.endswith(".asdf") else shutil.copy2)(path, there)

    shutil.copytree(source, target, symlinks=True, copy_function=copy, dirs_exist_ok=True)
