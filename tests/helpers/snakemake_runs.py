"""Runs of Snakemake, in a working folder of their own and with a CRDS cache that needs no server."""

import os
import re
import subprocess
import sys

from repository import ROOT


def crds_environment(cache):
    """The environment of a run with a CRDS cache and no server; its first context, unless the configuration names another."""
    return {k: v for k, v in os.environ.items() if not k.startswith("CRDS_")} | {
        "CRDS_PATH": str(cache),
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
        "CRDS_OBSERVATORY": "roman",
        "CRDS_CONTEXT": "roman_0001.pmap",
    }


def planned_jobs(said):
    """Jobs of a dry run by rule, from what it shows: a table with a line for each rule and reason."""
    counts = {}
    for rule, count in re.findall(r"^(\w+) +(\d+)(?:  \S.*)?$", said.rpartition("\njob ")[2], re.MULTILINE):
        counts[rule] = counts.get(rule, 0) + int(count)
    return counts


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
        counts = planned_jobs(result.stdout + result.stderr)
        return {rule: count for rule, count in counts.items() if rule not in ("all", "default", "total")}
