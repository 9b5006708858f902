"""Marks of the tests, and what tests of several files share: a processed visit, a simulated one, and a CRDS cache."""

import os
import shutil

import browser
import pytest
from demo_visit import process_visit, simulate_small_visit, small_workflow_of, workflow_of
from shared_folders import copy_folder, make_once

from rampflow import __version__

# One version for all tests and what they start, also where a file of the clone is edited meanwhile.
os.environ["RAMPFLOW_VERSION"] = __version__

#: `make test-quick` leaves out the tests with one of these marks or fixtures.
NOT_QUICK_MARKS = ("slow", "workflow", "peer", "slurm", "container")
NOT_QUICK_FIXTURES = {"visit", "small_visit", "cache", "package", "chromium"}


def pytest_collection_modifyitems(items):
    """Mark the quick tests."""
    for item in items:
        marked = any(item.get_closest_marker(name) for name in NOT_QUICK_MARKS)
        if not marked and NOT_QUICK_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker("quick")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A CRDS cache with references of two detectors, and a second context with a new flat for WFI01; for reading."""
    from inventories import make_two_contexts  # takes a second, and few tests use it

    return make_once(tmp_path_factory, "crds", make_two_contexts)


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """The demonstration's visit, simulated and processed with all intermediates kept; a copy of each module's own."""
    made = make_once(tmp_path_factory, "processed_visit", process_visit)
    folder = tmp_path_factory.mktemp("visit")
    copy_folder(made, folder)
    return workflow_of(folder)


@pytest.fixture(scope="module")
def small_visit(tmp_path_factory):
    """Two images to align and a spectral exposure, simulated and not processed; a copy of each module's own."""
    made = make_once(tmp_path_factory, "simulated_small_visit", simulate_small_visit)
    folder = tmp_path_factory.mktemp("small_visit")
    shutil.copytree(made / "demo", folder / "demo")  # tests damage the raw files
    return small_workflow_of(folder)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """An environment with the installed package."""
    from package import Package, install_package

    return Package(make_once(tmp_path_factory, "package", install_package))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A page of a browser. Without one, tests are skipped, or fail where RAMPFLOW_BROWSER is "required"."""
    if not browser.find():
        absent = pytest.fail if os.environ.get("RAMPFLOW_BROWSER") == "required" else pytest.skip
        absent(f"no browser is installed: none of {', '.join(browser.PROGRAMS)}; on Debian: apt-get install chromium")
    with browser.page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def make_plan(tmp_path, monkeypatch):
    """Makes the plan of a run of four exposures in two associations, in an empty working folder."""
    from small_plans import plan_of  # imports all steps

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.parquet").write_text("a catalog")
    return plan_of
