"""A simulated visit, made and processed once for all tests that look at the workflow's results."""

import os

import pytest
from repository import ROOT
from snakemake_runs import Workflow

from rampflow import __version__

# One version for all tests and what they start, also where a file of the clone is edited meanwhile.
os.environ["RAMPFLOW_VERSION"] = __version__

#: Files that `make test-quick` leaves out, because they take longest.
NOT_QUICK = ("test_costs.py", "test_faults.py", "test_kernels.py", "test_simulate.py")


def pytest_collection_modifyitems(items):
    """Mark the tests for the daily loop: those without a workflow, a cluster and romancal, in files that don't take long."""
    for item in items:
        slow = {"visit"} & set(item.fixturenames) or any(
            item.get_closest_marker(name) for name in ("workflow", "peer", "slurm")
        )
        if not slow and item.path.name not in NOT_QUICK:
            item.add_marker("quick")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A CRDS cache with references of two detectors, and a second context with a new flat for WFI01."""
    from inventories import make_two_contexts  # takes a second, and few tests use it

    return make_two_contexts(tmp_path_factory.mktemp("crds"))


@pytest.fixture(scope="session")
def visit(tmp_path_factory):
    """The demonstration's visit: simulated, and processed with all intermediates kept."""
    folder = tmp_path_factory.mktemp("visit")
    workflow = Workflow(folder, folder / "demo" / "crds_cache")
    configuration = ["--configfile", str(ROOT / "config" / "demo.yaml")]
    simulation = workflow.snakemake(*configuration, snakefile="workflow/simulate.smk")
    assert simulation.returncode == 0, simulation.stderr
    workflow.arguments = [*configuration, "--config", "keep_intermediates=true"]
    run = workflow.snakemake(*workflow.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    workflow.inputs, workflow.results = folder / "demo", folder / "demo" / "results"
    return workflow
