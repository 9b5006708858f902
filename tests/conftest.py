"""Marks of the tests, and what tests of several files share: a processed visit and a CRDS cache."""

import os

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
    "test_survey_page.py",
)


def pytest_collection_modifyitems(items):
    """Mark the quick tests: no workflow, no cluster, no romancal, and not in a slow file."""
    for item in items:
        slow = {"visit"} & set(item.fixturenames) or any(
            item.get_closest_marker(name) for name in ("workflow", "peer", "slurm", "container")
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


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """An environment with the installed package."""
    from package import Package, install_package

    return Package(make_once(tmp_path_factory, "package", install_package))


@pytest.fixture
def make_plan(tmp_path, monkeypatch):
    """Makes the plan of a run of four exposures in two associations, in an empty working folder."""
    from small_plans import plan_of  # imports all steps

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.parquet").write_text("a catalog")
    return plan_of
