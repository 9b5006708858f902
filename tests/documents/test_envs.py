"""The pinned environments: pip's lock and conda's file have the same packages."""

import re

import pytest
import yaml
from repository import ROOT

ENVS = ROOT / "envs"


def pins(name):
    """Package to version of a lock file."""
    lines = (ENVS / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_conda_has_the_pins_of_pip():
    environment = yaml.safe_load((ENVS / "rampflow.yaml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert dict(line.split("==") for line in packages["pip"]) == pins("rampflow.txt")
    assert int(re.fullmatch(r"python =3\.(\d+)", python)[1]) >= 11


@pytest.mark.parametrize("name", ["rampflow", "dev", "docs"])
def test_what_is_asked_for_is_pinned(name):
    """Each line of the .in file has its pin; names compare as pip compares them."""

    def canonical(package):
        return re.sub(r"[-_.]+", "-", package).lower()

    lines = (ENVS / f"{name}.in").read_text().splitlines()
    asked = [re.split(r"[=<>~!\[]", line)[0].strip() for line in lines if line and line[0] not in "#-"]
    assert len(asked) > 3
    pinned = {canonical(package) for package in pins("rampflow.txt") | pins("dev.txt") | pins(f"{name}.txt")}
    assert {canonical(package) for package in asked} <= pinned


def test_every_rule_with_a_script_can_run_in_the_conda_environment():
    """`snakemake --sdm conda`: a rule that runs a program names the file."""
    for path in [*sorted((ROOT / "workflow" / "rules").glob("*.smk")), ROOT / "workflow" / "simulate.smk"]:
        for rule in re.split(r"^ *rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            if "shell:" in rule:
                assert "envs/rampflow.yaml" in rule, rule.partition(":")[0]
