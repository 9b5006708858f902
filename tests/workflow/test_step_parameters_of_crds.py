"""Runs with a CRDS context that sets parameters of the steps."""

import os
import shutil
import subprocess
import sys

import pytest
from inventories import SERVERLESS, write_exposure
from parameter_references import add_example
from small_files import SCRIPTS

pytestmark = pytest.mark.workflow


def test_a_run_uses_and_names_the_parameters_of_crds(cache, tmp_path):
    """A dry run: its commands, its warnings, and what a new reference repeats."""
    operational = add_example(shutil.copytree(cache, tmp_path / "crds"))
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "a")
    said = dry_run(tmp_path, operational, "references={crds_context: roman_0005.pmap}")
    assert "--edge_size 4" in said and "--rejection_threshold 5.0" in said
    assert "--parameters_from roman_wfi_pars-exposurepipeline_0005.asdf:edge_size" in said
    assert "--parameters_from roman_wfi_pars-rampfitstep_0005.asdf:rejection_threshold" in said
    assert "ramp_fitting.color is 'red': rampflow has no such parameter and ignores it" in said
    own = dry_run(tmp_path, operational, "references={crds_context: roman_0005.pmap}", "steps={ramp_fitting: {edge_size: 0}}")
    assert "--edge_size 0" in own and "exposurepipeline" not in own and "--rejection_threshold 5.0" in own
    off = dry_run(tmp_path, operational, "references={crds_context: roman_0005.pmap, step_parameters: false}")
    assert "--edge_size 0" in off and "--parameters_from" not in off


def dry_run(folder, cache, *config):
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("CRDS_", "STPIPE_"))}
    variables |= {"CRDS_PATH": str(cache), "CRDS_SERVER_URL": SERVERLESS}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(SCRIPTS.parent / "Snakefile"),
        "--directory",
        str(folder),
        "--cores",
        "1",
    ]
    command += ["--dry-run", "--printshellcmds", "--config", "input=raw", *config]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
