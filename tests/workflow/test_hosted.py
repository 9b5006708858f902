"""The workflow from a hosted repository, for which git is given a local one."""

import os
import shutil
import subprocess
import sys

import pytest
from parameter_references import add_example
from repository import ROOT
from simulator import simulate_references
from small_files import meta_of, ramp, write_raw
from snakemake_runs import Workflow

pytestmark = pytest.mark.workflow

SIZE = 256
OUTER = """\
module rampflow:
    snakefile: github("owner/rampflow", path="workflow/Snakefile", tag="v9")
    config: {"input": "a_uncal.asdf"}

use rule * from rampflow as rampflow_*
"""


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    """A working folder with an exposure; git takes a local repository with the tag v9 for github.com/owner/rampflow."""
    folder = tmp_path_factory.mktemp("hosted")
    repository, working = folder / "repository", folder / "run"
    working.mkdir()
    for name in ("workflow", "scripts", "config", "envs"):
        shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    settings = folder / "gitconfig"
    settings.write_text(
        f'[url "file://{repository}"]\n insteadOf = https://github.com/owner/rampflow\n[user]\n name = x\n email = x\n'
    )
    workflow = Workflow(working, folder / "crds", clone=folder)
    workflow.environment |= {"GIT_CONFIG_GLOBAL": str(settings), "XDG_CACHE_HOME": str(folder / "cache")}
    for arguments in ("init --quiet", "add .", "commit --quiet --message=x", "tag v9"):
        subprocess.run(["git", "-C", repository, *arguments.split()], check=True, env=workflow.environment)
    simulate_references.make_cache(folder / "crds", ("WFI01",), SIZE, 1)
    write_raw(working / "a_uncal.asdf", ramp(rows=SIZE, columns=SIZE), {"instrument.detector": "WFI01"})
    return workflow


def test_a_module_from_a_tag_runs_with_its_scripts(hosted):
    (hosted.clone / "Snakefile").write_text(OUTER)
    done = hosted.snakemake("results/intermediates/a_dqinit.asdf")
    assert done.returncode == 0, done.stderr
    meta = meta_of(hosted.folder / "results" / "intermediates" / "a_dqinit.asdf")
    assert meta["cal_step"]["dq_init"] == "COMPLETE"
    (script,) = (hosted.clone / "cache").rglob("v9/scripts/dq_init.py")
    assert not os.path.samefile(script, ROOT / "scripts" / "dq_init.py")


def test_snakedeploy_makes_a_workflow_of_a_tag(hosted, tmp_path):
    """What it writes has the jobs of a clone, with the configuration of the repository."""
    deployed = tmp_path / "deployed"
    program = [sys.executable, "-c", "from snakedeploy.client import main; main()"]
    done = subprocess.run(
        [*program, "deploy-workflow", "https://github.com/owner/rampflow", str(deployed), "--tag", "v9"],
        env=hosted.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in ("config.yaml", "README.md"):
        assert (deployed / "config" / name).read_bytes() == (ROOT / "config" / name).read_bytes()
    given = ["--config", f"input={hosted.folder / 'a_uncal.asdf'}", "results=new"]
    expected = Workflow(hosted.folder, hosted.clone / "crds").jobs(*given)
    workflow = Workflow(deployed, hosted.clone / "crds", clone=deployed)
    workflow.environment = hosted.environment
    assert workflow.jobs(*given, snakefile="workflow/Snakefile") == expected
    # Its configuration sets no parameter of a step: those of CRDS apply.
    add_example(shutil.copytree(hosted.clone / "crds", tmp_path / "crds"))
    workflow.environment = hosted.environment | {"CRDS_PATH": str(tmp_path / "crds"), "CRDS_CONTEXT": "roman_0005.pmap"}
    done = workflow.snakemake("--dry-run", "--printshellcmds", *given, snakefile="workflow/Snakefile")
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "--rejection_threshold 5.0" in said and "--edge_size 4" in said, said
    configuration = deployed / "config" / "config.yaml"
    lines = configuration.read_text().splitlines()
    chosen = ("#steps:", "#  ramp_fitting:", "#    edge_size: 0")
    assert set(chosen) <= set(lines)
    configuration.write_text("\n".join(line.removeprefix("#") if line in chosen else line for line in lines))
    done = workflow.snakemake("--dry-run", "--printshellcmds", *given, snakefile="workflow/Snakefile")
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "--rejection_threshold 5.0" in said and "--edge_size 0" in said, said


def test_a_hosted_module_has_the_jobs_of_a_clone(hosted):
    given = ["--config", "input=a_uncal.asdf"]
    expected = Workflow(hosted.folder, hosted.clone / "crds").jobs(*given)
    assert len(expected) > 10
    assert hosted.jobs(*given, snakefile="gh:owner/rampflow@v9") == expected
