"""The commands in run.json: those of the rules, and by hand they make the same products."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import declarations
import pytest
import yaml
from demo_visit import ASSOCIATION, SMALL_CONFIGURATION
from products import assert_same_products

from rampflow.workflow import run_start
from rampflow.workflow.commands import Commands

pytestmark = pytest.mark.workflow
DECLARED = declarations.steps()


def commands_of_rules(workflow, *config):
    """What Snakemake would run, as the record has it: paths in place of variables, without what changes no product."""
    done = workflow.snakemake(*SMALL_CONFIGURATION, "--dry-run", "--printshellcmds", "--forceall", "--config", *config)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^Shell command: (?!None)(.*?)(?=^ *\[|^Would remove|^Job stats|\Z)",
        done.stdout + done.stderr,
        re.MULTILINE | re.DOTALL,
    )
    return {plain(text) for text in found}


def plain(command):
    scripts = Path(declarations.__file__).parent
    text = command.replace('"$RAMPFLOW_SCRIPTS"', str(scripts)).replace('"$RAMPFLOW_CONTEXT"', "roman_0001.pmap")
    text = re.sub(r"(OPENBLAS_NUM_THREADS|MALLOC_\w+|GLIBC_TUNABLES)=\S+ | --threads \d+| > \S+ 2>&1", "", text)
    return " ".join(text.split())


@pytest.mark.parametrize("job_per", ["step", "exposure"])
def test_the_commands_are_those_of_the_rules(small_visit, monkeypatch, job_per):
    rules = commands_of_rules(small_visit, f"job_per={job_per}", f"results={job_per}")
    monkeypatch.chdir(small_visit.folder)
    for name, value in small_visit.environment.items():
        monkeypatch.setenv(name, value)
    config = yaml.safe_load(Path(SMALL_CONFIGURATION[1]).read_text()) | {"job_per": job_per, "results": job_per}
    plan = run_start.plan_run(run_start.read_settings(config, DECLARED, Path.cwd()), DECLARED, Path.cwd())
    commands = Commands(plan, plan.exposures if job_per == "exposure" else [])
    recorded = [command for stem in plan.exposures for command in commands.of_exposure(stem).values()]
    recorded += commands.of_association(ASSOCIATION).values()
    assert {plain(command) for command in recorded} == rules
    assert len(recorded) == len(rules) == (8 if job_per == "exposure" else 36)


def test_the_commands_make_the_same_products_by_hand(small_visit, tmp_path):
    """In a copy of the working folder without results, logs and intermediates."""
    done = small_visit.snakemake(*SMALL_CONFIGURATION, "--config", "job_per=exposure", "results=run")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((small_visit.folder / "run" / "run.json").read_text())
    for name in ("demo", ".rampflow"):
        shutil.copytree(small_visit.folder / name, tmp_path / name, symlinks=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    exposures, associations = (list(record[name].values()) for name in ("exposures", "associations"))
    first = [command for entry in exposures for job, command in entry["commands"].items() if job != "finalize"]
    first += [command for entry in associations for command in entry["commands"].values()]
    for command in [*first, *(entry["commands"]["finalize"] for entry in exposures)]:
        by_hand = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=os.environ | record["environment"] | {"PATH": path},
            capture_output=True,
            text=True,
        )
        assert by_hand.returncode == 0, f"{command}\n{by_hand.stderr}"
    for table in ("exposures.parquet", "exposures.ecsv"):  # of the run, and of no job
        shutil.copy(small_visit.folder / "run" / table, tmp_path / "run")
    assert_same_products(tmp_path / "run", small_visit.folder / "run")
    sums = {name: known["sha256"] for entry in exposures for name, known in entry["products"].items()}
    told = subprocess.run(["sha256sum", *sums], cwd=small_visit.folder / "run", capture_output=True, text=True, check=True)
    assert told.stdout == "".join(f"{checksum}  {name}\n" for name, checksum in sums.items())
    given = record["inputs"] | record["references"]
    assert len(record["inputs"]) == 3 and len(record["references"]) > 10
    told = subprocess.run(["sha256sum", *given], capture_output=True, text=True, check=True)
    assert told.stdout == "".join(f"{known['sha256']}  {path}\n" for path, known in given.items())
