"""run.json: everything that made the products of a run."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
from small_plans import entry

from rampflow import __version__
from rampflow.errors import RampflowError
from rampflow.folders import SCRIPTS
from rampflow.remote.files import RemoteFile
from rampflow.workflow import recipes, rerun, run_record
from rampflow.workflow.paths import benchmark_of, log_file


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
    assert exposure["products"] == {Path(plan.products("a3")[0]).name: {"bytes": 7}}, "no job has logged its checksum"


def test_inputs_are_identified_by_content(record):
    plan, found = record
    assert set(found["inputs"]) == {path for entry in plan.exposures.values() for path in entry.files}
    for path, identity in found["inputs"].items():
        assert identity["content"] == Path(plan.links[path]).parent.name


def write_log(stem, step, path, content, age=0.0):
    """The log of a job that has read or written a file of this content."""
    log = log_file(stem, step)
    log.parent.mkdir(parents=True, exist_ok=True)
    line = f"SHA-256 of {Path(path).name}: {hashlib.sha256(content).hexdigest()} ({len(content)} bytes)"
    log.write_text(f"2026-01-01T00:00:00.000Z :: rampflow.{step} :: INFO :: {line}\n")
    os.utime(log, (log.stat().st_mtime - age,) * 2)


def read_record(plan, **state):
    return json.loads(run_record.write_record(plan, 1.7e9, ["snakemake"], success=True, **state).read_text())


def test_checksums_are_those_that_the_jobs_have_logged(make_plan):
    plan = make_plan()
    product = Path(plan.products("a3")[0])
    product.parent.mkdir(parents=True)
    product.write_bytes(b"product")

    def found():
        return read_record(plan)["exposures"]["a3"]["products"][product.name]

    write_log("a3", "finalize", product, b"product")
    assert found() == {"bytes": 7, "sha256": hashlib.sha256(b"product").hexdigest()}
    write_log("a3", "finalize", product, b"product", age=60)
    assert found() == {"bytes": 7}, "it has changed since"
    benchmark = benchmark_of(log_file("a3", "finalize"))
    benchmark.parent.mkdir(parents=True)
    benchmark.touch()
    assert "sha256" in found(), "Snakemake has touched it after the job, and the benchmark"
    write_log("a3", "finalize", product, b"other")
    assert found() == {"bytes": 7}


def test_checksums_of_inputs_and_references(make_plan, tmp_path):
    plan = make_plan()
    raw, reference = tmp_path / "a1_uncal.asdf", tmp_path / "flat.asdf"
    raw.write_bytes(b"raw")
    reference.write_bytes(b"reference")
    links = plan.links | {str(raw): "links/a1_uncal.asdf", str(reference): "links/flat.asdf"}
    plan.links.update(links)
    chosen = {**plan.exposures["a1"].references, "flat": str(reference)}
    plan.exposures["a1"] = entry("a1", path=str(raw), references=chosen)
    far = RemoteFile("s3://b/a2_dqinit.asdf", 6, '"x"')
    plan.exposures["a2"] = entry("a2", path=far.address, remote=far)
    write_log("a1", "dq_init", raw, b"raw")
    write_log("a2", "dq_init", plan.paths.fetched("a2"), b"remote")
    found = read_record(plan, interrupted=True)
    assert found["inputs"][str(raw)] == {"bytes": 3, "content": "links", "sha256": hashlib.sha256(b"raw").hexdigest()}
    expected = {"bytes": 6, "content": far.content, "sha256": hashlib.sha256(b"remote").hexdigest()}
    assert found["inputs"][far.address] == expected
    assert "sha256" not in found["references"][str(reference)], "an interrupted run does not read references"
    found = read_record(plan)
    assert found["references"][str(reference)]["sha256"] == hashlib.sha256(b"reference").hexdigest()
    assert "sha256" in read_record(plan, interrupted=True)["references"][str(reference)], "it is remembered"


def test_products_of_an_earlier_run_are_not_current(make_plan, monkeypatch):
    """After a failure or an interruption, a product can be one that the recorded parameters and commands have not made."""
    plan, logged = make_plan(), {}
    for stem in plan.exposures:
        image = Path(plan.paths.product(stem, "cal.asdf"))
        image.parent.mkdir(parents=True, exist_ok=True)
        for path in (image, *map(Path, plan.products(stem))):
            path.touch()
            os.utime(path, (1000, 1000))
        logged[image] = rerun.exposure_recipes(plan, stem)[image]
    monkeypatch.setattr(recipes, "recipes_in", lambda path: logged[path])

    def found():
        return {stem: entry["current"] for stem, entry in read_record(plan)["exposures"].items()}

    assert found() == dict.fromkeys(plan.exposures, True)
    logged[Path(plan.paths.product("a2", "cal.asdf"))] |= {"ramp_fitting": "other parameters"}
    Path(plan.paths.product("b1", "wcs.asdf")).unlink()
    assert found() == {"a1": True, "a2": False, "a3": True, "b1": False}


def test_a_record_has_the_commands_of_each_exposure_and_alignment(make_plan):
    plan = make_plan()
    found = read_record(plan, in_one_job=["a1"], failures=["x refpix: y [z.log]"])
    assert found["failures"] == ["x refpix: y [z.log]"]
    assert list(found["exposures"]["a1"]["commands"]) == ["exposure", "finalize"]
    steps = [step for step in plan.exposures["a2"].chain if step != "tweakreg"]
    commands = found["exposures"]["a2"]["commands"]
    assert list(commands) == [*steps, "finalize"]
    assert f"{SCRIPTS}/ramp_fitting.py results/intermediates/a2_linearity.asdf " in commands["ramp_fitting"]
    assert "--rejection_threshold 4.5" in commands["ramp_fitting"] and "--crds_context x.pmap" in commands["ramp_fitting"]
    assert found["environment"]["RAMPFLOW_CONTEXT"] == "x.pmap" and "PATH" not in found["environment"]
    association = found["associations"]["a"]
    assert (association["exposures"], association["aligned"]) == (["a1", "a2", "a3"], ["a1", "a2"])
    assert list(association["commands"]) == ["astrometric_catalog", "tweakreg"]
    # After a second pass, without the exposures that have failed.
    again = read_record(plan, realigned=["a2"])["associations"]
    assert again["a"]["aligned"] == ["a2"] and again["b"]["aligned"] == ["b1"]
    assert again["a"]["commands"]["tweakreg"] != association["commands"]["tweakreg"]


def test_a_record_that_can_not_be_written_is_an_error(make_plan):
    plan = make_plan()
    Path("results").write_text("a file where the folder should be")
    with pytest.raises(RampflowError, match=r"results/run\.json: can't be written"):
        run_record.write_record(plan, 1.7e9, ["snakemake"], success=False)
