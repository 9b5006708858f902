"""Which exposures a second pass finishes, and with which command."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rampflow.workflow import second_pass
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.plan import EXPOSURES_VARIABLE


@pytest.mark.parametrize(
    ("stem", "step", "expected"),
    [
        ("a1", "dq_init", True),
        ("a1", "source_catalog", True),
        ("b1", "source_catalog", True),  # it is aligned with another catalog, which is compared with its own
        ("a1", "finalize", False),
        ("a3", "dq_init", False),  # it is not aligned
        ("a", "tweakreg", False),
        ("a1", "exposure", True),  # the job of all its steps
        ("a1", "fetch_exposure", True),  # from S3 or a web server
        ("a3", "fetch_exposure", False),
    ],
)
def test_which_failures_hold_back_an_alignment(make_plan, stem, step, expected):
    assert second_pass.holds_back_alignment(make_plan(), stem, step) == expected


def test_members_are_finished_when_all_that_have_not_failed_are_ready(make_plan):
    plan = make_plan()
    failed = [("a1", "refpix")]
    assert second_pass.exposures_to_finish(plan, failed) == [], "a2 has no image yet"
    for name in (JobInputs(plan).calibrated_image("a2"), JobInputs(plan).catalogs_to_align("a")[1]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert second_pass.exposures_to_finish(plan, failed) == ["a2"]
    assert second_pass.exposures_to_finish(plan, [("a3", "refpix"), ("a", "tweakreg")]) == []
    assert second_pass.exposures_to_finish(plan, [*failed, ("a2", "finalize")]) == [], "nobody is left"
    # An exposure that is not aligned takes part, for the report, when it is finished.
    for name in plan.products("a3"):
        assert second_pass.exposures_to_finish(plan, failed) == ["a2"]
        Path(name).touch()
    assert second_pass.exposures_to_finish(plan, failed) == ["a2", "a3"]


def test_exposures_whose_reference_could_not_be_fetched_have_failed(make_plan):
    """As those of one detector, with a refused reference of it."""
    plan = make_plan()
    plan.inventory.exposures["a1"].references["flat"] = "/crds/flat_a1.asdf"
    failed = [("flat_a1.asdf", "fetch_reference")]
    assert second_pass.with_readers(plan, failed) == [*failed, ("a1", "fetch_exposure")]
    inputs = JobInputs(plan)
    for name in (inputs.calibrated_image("a2"), inputs.own_catalog("a2")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert second_pass.exposures_to_finish(plan, second_pass.with_readers(plan, failed)) == ["a2"]
    assert second_pass.with_readers(plan, [("a1", "refpix")]) == [("a1", "refpix")]


def test_a_report_waits_for_exposures_that_are_not_aligned(make_plan):
    plan = make_plan()
    inputs = JobInputs(plan)
    for name in (f(stem) for stem in ("a1", "a2") for f in (inputs.calibrated_image, inputs.catalog_to_align)):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    failed = [("a3", "refpix")]
    assert second_pass.exposures_to_finish(plan, failed) == []
    assert second_pass.exposures_to_finish(plan, failed, with_report=True) == ["a1", "a2"]
    done = [*failed, ("a1", "finalize")]
    assert second_pass.exposures_to_finish(plan, done, with_report=True) == [], "the alignment is done, with a1"


def test_the_second_pass_repeats_the_command_without_what_failed(make_plan, monkeypatch, tmp_path):
    called = {}

    def start(command, **options):
        called.update(command=command, **options)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(second_pass.subprocess, "Popen", start)
    monkeypatch.setenv(EXPOSURES_VARIABLE, "x.json")
    second_pass.run_second_pass(make_plan(), ["a2"], ["--cores", "2", "-F", "--keep-going"])
    assert called["command"][1:] == ["-m", "snakemake", "--cores", "2", "--keep-going", "--forcerun", "--nolock"]
    assert called["cwd"] == tmp_path and EXPOSURES_VARIABLE not in called["env"]
    monkeypatch.setenv(second_pass.LEFT_OUT_VARIABLE, called["env"][second_pass.LEFT_OUT_VARIABLE])
    assert second_pass.is_second_pass() and second_pass.left_out() == ["a1", "a3", "b1"]


@pytest.mark.parametrize("option", ["--directory run", "-d run", "--directory=run"])
def test_relative_paths_are_taken_from_where_snakemake_was_started(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    assert second_pass.start_folder(option.split(), {"PWD": "/"}) == Path("/")
    assert second_pass.start_folder(option.split(), {}) == tmp_path
    assert second_pass.start_folder(["--cores", "2"], {"PWD": os.sep}) == tmp_path
