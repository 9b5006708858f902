"""Marks of the tests, and what tests of several files share: a processed visit and a CRDS cache."""

import os

import browser
import pytest
from demo_visit import process_visit, workflow_of
from shared_folders import copy_folder, make_once

from rampflow import __version__

# One version for all tests and what they start, also where a file of the clone is edited meanwhile.
os.environ["RAMPFLOW_VERSION"] = __version__

#: Files that `make test-quick` leaves out, because they take longest.
NOT_QUICK = (
    "test_astrometric_catalog.py",
    "test_costs.py",
    "test_faults.py",
    "test_inventory_building.py",
    "test_kernels.py",
    "test_simulate.py",
    "test_report_page.py",
    "test_survey_page.py",
)


def pytest_collection_modifyitems(items):
    """Mark the quick tests: no workflow, no cluster, no romancal, and not in a slow file."""
    for item in items:
        slow = {"visit"} & set(item.fixturenames) or any(
            item.get_closest_marker(name) for name in ("workflow", "peer", "slurm")
        )
        if not slow and item.path.name not in NOT_QUICK:
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
