"""run.json: everything that made the products of a run."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from rampflow import __version__
from rampflow.errors import RampflowError
from rampflow.workflow import run_record


@pytest.fixture
def record(make_plan):
    """The record of a run of four exposures; one of them has a product."""
    plan = make_plan()
    product = Path(plan.products("a3")[0])
    product.parent.mkdir(parents=True)
    product.write_bytes(b"1234567")
    path = run_record.write_record(plan, 1.7e9, ["snakemake", "--cores", "2"], success=True)
    assert path == Path("results/run.json")
    return plan, json.loads(path.read_text())


def test_a_record_has_the_run_and_its_software(record):
    _, found = record
    assert found["software"] == {"name": "rampflow", "version": __version__}
    assert found["begun"] == "2023-11-14T22:13:20+00:00" and found["ended"] > found["begun"]
    assert found["command"] == ["snakemake", "--cores", "2"]
    assert found["success"] is True and found["failures"] == []
    assert found["python"] == platform.python_version()
    assert {name: found["packages"][name] for name in ("numpy", "asdf")} == {name: version(name) for name in ("numpy", "asdf")}


def test_a_record_has_parameters_and_references_of_each_step(record):
    plan, found = record
    assert list(found["exposures"]) == list(plan.exposures)
    entry, exposure = plan.exposures["a3"], found["exposures"]["a3"]
    assert exposure["input"] == entry.path
    assert exposure["association"] == entry.association
    assert list(exposure["steps"]) == list(entry.chain)
    for name, step in exposure["steps"].items():
        assert step["parameters"] == {p.name: plan.options("a3", name)[p.name] for p in plan.declared[name].parameters}
    used = {path for step in exposure["steps"].values() for path in step["references"].values()}
    assert used <= set(found["references"]) == set(plan.inventory.references())
    assert exposure["products"] == {Path(plan.products("a3")[0]).name: 7}


def test_inputs_are_identified_by_content(record):
    plan, found = record
    assert set(found["inputs"]) == {path for entry in plan.exposures.values() for path in entry.files}
    for path, identity in found["inputs"].items():
        assert identity["content"] == Path(plan.links[path]).parent.name


def test_a_record_that_can_not_be_written_is_an_error(make_plan):
    plan = make_plan()
    Path("results").write_text("a file where the folder should be")
    with pytest.raises(RampflowError, match=r"results/run\.json: can't be written"):
        run_record.write_record(plan, 1.7e9, ["snakemake"], success=False)
