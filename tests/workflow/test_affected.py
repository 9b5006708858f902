"""What a run would make again, compared with the jobs that Snakemake plans."""

import shutil

import pytest
from astropy.table import Table
from demo_visit import SMALL_CONFIGURATION as CONFIGURATION
from demo_visit import SMALL_FIRST as FIRST
from demo_visit import SMALL_SPECTRUM as SPECTRUM

pytestmark = pytest.mark.workflow

SELECTED = f"overrides=[{{select: {{exposure: {FIRST}}}, steps: {{ramp_fitting: {{rejection_threshold: 6}}}}}}]"
#: Changes of the configuration, with a part of the table.
CHANGES = {
    "parameter": (SELECTED, "rejection_threshold 4.5 -> 6.0"),
    "reference": ("references={override: {flat: my_flat.asdf}}", "-> my_flat.asdf"),
    "alignment": ("steps={tweakreg: {abs_sigma: 2.5}}", "abs_sigma 3.0 -> 2.5"),
    "left out": ("steps={refpix: {skip: true}}", "follows refpix, which is left out now"),
    "not aligned": ("steps={tweakreg: {skip: true}}", "follows tweakreg, which is left out now"),
}


@pytest.fixture(scope="module")
def processed(small_visit):
    """The small visit, processed with a job per step."""
    flat = next((small_visit.folder / "demo/crds_cache/references/roman/wfi").glob("*_flat_wfi01_*.asdf"))
    shutil.copy(flat, small_visit.folder / "my_flat.asdf")
    done = small_visit.snakemake(*options())
    assert done.returncode == 0, done.stdout + done.stderr
    return small_visit


def options(*changes, results="results", job_per="step"):
    return [*CONFIGURATION, "--config", f"results={results}", f"job_per={job_per}", *changes]


def state(folder):
    """Times of all files of the results, logs and benchmarks."""
    folders = ("results", "logs", "benchmarks", ".rampflow/redo")
    return {
        path: path.stat().st_mtime_ns
        for name in folders
        for path in (folder / name).rglob("*")
        if path.is_file() and path.name != "affected.ecsv"
    }


def affected(workflow, *changes, **kinds):
    """What the target says, and how often each step is in its table."""
    done = workflow.snakemake("affected", *options(*changes, **kinds))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    table = Table.read(workflow.folder / kinds.get("results", "results") / "affected.ecsv")
    counts = {}
    for steps in table["steps"]:
        for step in steps.split(","):
            counts[step] = counts.get(step, 0) + 1
    return said, table, counts


def planned(workflow, *changes, **kinds):
    """Jobs that Snakemake plans, with the names of the steps."""
    jobs = workflow.jobs(*options(*changes, **kinds))
    jobs.pop("astrometric_catalog", None)
    jobs["finalize"] = jobs.pop("finalize", 0) + jobs.pop("finalize_image", 0)
    return {step: count for step, count in jobs.items() if count}


@pytest.mark.parametrize("name", CHANGES)
def test_the_table_has_the_steps_that_would_run_and_their_reason(processed, name):
    change, reason = CHANGES[name]
    before = state(processed.folder)
    said, table, counts = affected(processed, change)
    assert counts == planned(processed, change)
    assert reason in said and any(reason in text for text in table["reasons"])
    assert state(processed.folder) == before, "nothing is touched"


def test_the_cost_is_that_of_the_benchmarks(processed):
    said, table, _ = affected(processed, CHANGES["parameter"][0])
    (row,) = (row for row in table if row["name"] == FIRST)
    cost = 0.0
    for step in row["steps"].split(","):
        lines = (processed.folder / "benchmarks" / FIRST / f"{step}.tsv").read_text().splitlines()
        cost += float(dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=True))["cpu_time"])
    assert row["cpu_time"] == pytest.approx(cost) and row["unknown"] == 0
    assert said.rindex("Building DAG of jobs") < said.index("affected: 2 of 3 exposures, "), "after Snakemake's own messages"
    assert "affected: 2 of 3 exposures, " in said and table["cpu_time"].unit == "s"
    # Without running, and with nothing written.
    (processed.folder / "results" / "affected.ecsv").unlink()
    shown = processed.snakemake("affected", *options(CHANGES["parameter"][0]), "--dry-run")
    assert "affected: 2 of 3 exposures, " in shown.stdout + shown.stderr
    assert not (processed.folder / "results" / "affected.ecsv").exists()


def test_without_a_change_nothing_is_affected(processed):
    said, table, counts = affected(processed)
    assert "affected: nothing; all 3 exposures are as this run would make them" in said
    assert counts == {} and len(table) == 0
    assert planned(processed) == {}
    both = processed.snakemake("affected", "report", *options())
    assert both.returncode != 0 and "can't be given together with report" in both.stdout + both.stderr


def test_a_missing_product_is_named(processed):
    hidden = processed.folder / "results" / f"{SPECTRUM}_cal.asdf"
    hidden.rename(processed.folder / "hidden.asdf")
    try:
        said, _, counts = affected(processed)
        assert counts == planned(processed) and "a product is missing" in said
    finally:
        (processed.folder / "hidden.asdf").rename(hidden)


def test_of_one_job_per_exposure_all_steps_run(processed):
    kinds = {"results": "whole", "job_per": "exposure"}
    _, table, _ = affected(processed, **kinds)
    assert len(table) == 4 and all(table["reasons"]), "nothing is made yet: three exposures and their association"
    done = processed.snakemake(*options(**kinds))
    assert done.returncode == 0, done.stdout + done.stderr
    assert affected(processed, **kinds)[2] == {}
    _, _, counts = affected(processed, CHANGES["parameter"][0], **kinds)
    jobs = planned(processed, CHANGES["parameter"][0], **kinds)
    assert counts["dq_init"] == counts["ramp_fitting"] == counts["source_catalog"] == 1
    assert [count for rule, count in jobs.items() if rule.startswith("exposure_to_")] == [1]
    assert (counts["finalize"], counts["tweakreg"]) == (jobs["finalize"], jobs["tweakreg"]) == (2, 1)
