"""The start of a run: contradictions, and the folder on the disk of a node."""

from pathlib import Path

import pytest
from small_plans import DECLARED, entry

from rampflow.errors import RampflowError
from rampflow.workflow import run_start, second_pass
from rampflow.workflow.plan import EXPOSURES_VARIABLE
from rampflow.workflow.run_start import scratch_folder


def test_a_run_begins_with_a_checked_configuration(tmp_path, monkeypatch):
    """A job has the command line of Snakemake's main process, which has checked it."""
    monkeypatch.chdir(tmp_path)
    checked = []
    twice = ["--config", "results=here", "--config", "input=a.json"]

    def begin(words=(), **config):
        return run_start.begin_run(config, config, DECLARED, checked.append, words)

    plan = begin(results="here", steps={"tweakreg": {"sigma": 2.0}})
    assert (plan.settings["results"], plan.exposures) == ("here", {})
    assert [parameters["sigma"] for parameters in checked] == [2.0]
    with pytest.raises(RampflowError, match="--config is given 2 times"):
        begin(twice)
    with pytest.raises(RampflowError, match="'stepz'"):
        begin(stepz={})
    monkeypatch.setenv(EXPOSURES_VARIABLE, str(tmp_path / "none.json"))
    begin(twice)


def test_a_second_pass_leaves_out_the_failed_exposures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "left_out").write_text("a1\na2\n")
    monkeypatch.setenv(second_pass.LEFT_OUT_VARIABLE, str(tmp_path / "left_out"))
    planned = []
    monkeypatch.setattr(run_start, "plan_run", lambda settings, *_: planned.append(settings))
    monkeypatch.setattr(run_start, "check_alignments", lambda *_: None)
    run_start.begin_run({"exclude": "b1"}, {}, DECLARED, lambda _: None, [])
    assert planned[0]["exclude"] == ["b1", "a1", "a2"]


def test_contradicting_parameters_of_crds_are_refused_with_the_file(make_plan):
    plan = make_plan()
    plan.exposures["a1"] = entry("a1", step_parameters={"tweakreg": {"sigma": (2.0, "/c/p.asdf")}})

    def refuse(options):
        raise RampflowError(f"sigma {options['sigma']}")

    with pytest.raises(RampflowError, match=r"/c/p\.asdf: with the parameters of tweakreg for a: sigma 2\.0"):
        run_start.check_alignments(plan, refuse)


def test_a_folder_that_is_only_read_must_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RampflowError, match=rf"results: the folder nowhere does not exist in {tmp_path}; name .*--results"):
        run_start.refuse_absent_results(Path("nowhere"))
    Path("file").touch()
    with pytest.raises(RampflowError, match=rf"the folder {tmp_path}/file does not exist; name the folder"):
        run_start.refuse_absent_results(tmp_path / "file")
    run_start.refuse_absent_results(tmp_path)


def test_a_run_without_exposures_is_refused(make_plan):
    plan = make_plan()
    run_start.refuse_empty(plan)
    plan.exposures.clear()
    with pytest.raises(RampflowError, match="input: no exposure is given"):
        run_start.refuse_empty(plan)
    plan.inventory.excluded["a"] = {"a1": {}}
    with pytest.raises(RampflowError, match="exclude: it leaves out every exposure"):
        run_start.refuse_empty(plan)


def test_a_cluster_job_has_a_folder_of_its_own_on_the_disk_of_its_node(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE", str(tmp_path / "a disk"))
    settings = {"scratch": "$NODE", "results": "out"}
    assert scratch_folder({"scratch": None}) is None
    assert scratch_folder(settings) == "out/intermediates/scratch", "the main process never sees these files"
    monkeypatch.setenv(EXPOSURES_VARIABLE, "x.json")
    folders = {Path(scratch_folder(settings)) for _ in range(2)}
    assert len(folders) == 2 and {folder.parent for folder in folders} == {tmp_path / "a disk"}
    assert all(folder.is_dir() for folder in folders)
