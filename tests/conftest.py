"""A simulated visit, made and processed once for all tests that look at the workflow's results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rampflow import __version__

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "plugins" / "progress"  #: in PYTHONPATH, Snakemake finds it without an installation
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


def crds_environment(cache):
    """The environment of a run with a CRDS cache and no server; its first context, unless the configuration names another."""
    return {k: v for k, v in os.environ.items() if not k.startswith("CRDS_")} | {
        "CRDS_PATH": str(cache),
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
        "CRDS_OBSERVATORY": "roman",
        "CRDS_CONTEXT": "roman_0001.pmap",
    }


class Workflow:
    """Runs of Snakemake in a working folder of their own.

    Attributes
    ----------
    folder : pathlib.Path
        The working folder.
    clone : pathlib.Path
        The folder of the Snakefile.
    """

    def __init__(self, folder, cache, clone=ROOT):
        self.folder, self.clone, self.environment = folder, clone, crds_environment(cache)

    def snakemake(self, *arguments, snakefile="Snakefile"):
        """Run Snakemake, with its output as text; the Snakefile is one of the clone, or of a hosted repository."""
        snakefile = snakefile if ":" in snakefile else self.clone / snakefile
        command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", self.folder]
        return subprocess.run(
            [*map(str, command), "--cores", "2", *arguments], capture_output=True, text=True, env=self.environment
        )

    def jobs(self, *arguments, snakefile="Snakefile"):
        """How many jobs of each rule a run would start (the target left out)."""
        result = self.snakemake(*arguments, "--dry-run", snakefile=snakefile)
        assert result.returncode == 0, result.stderr
        counts = dict(re.findall(r"^(\w+) +(\d+)$", result.stdout + result.stderr, re.MULTILINE))
        return {rule: int(count) for rule, count in counts.items() if rule not in ("all", "default", "total")}


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
