"""The workflow as a module of another workflow."""

import pytest
from products import arrays_of
from repository import ROOT
from snakemake_runs import Workflow

pytestmark = pytest.mark.workflow

FIRST = "r0000101001001001001_0001_wfi01_f158"
OUTER = """\
module rampflow:
    snakefile: "{snakefile}"
    config: {config!r}

use rule * from rampflow as rampflow_*

use rule saturation from rampflow as rampflow_saturation with:
    threads: 1

use rule exposures from rampflow as rampflow_exposures with:
    input: rules.rampflow_all.input

rule mine:
    default_target: True
    input: {wanted}
    output: "mine.txt"
    shell: "ls {{input}} > {{output}}"
"""


@pytest.fixture
def outer(visit, tmp_path):
    """Another workflow in a folder of its own; a function that writes its Snakefile."""
    workflow = Workflow(tmp_path / "run", visit.inputs / "crds_cache", clone=tmp_path)
    workflow.folder.mkdir()

    def written(wanted, snakefile="Snakefile", **config):
        config = {"input": str(visit.inputs / "visit_asn.json"), "astrometric_catalog": "stars.ecsv", **config}
        (workflow.folder / "stars.ecsv").write_bytes((visit.inputs / "astrometric.ecsv").read_bytes())
        (tmp_path / "Snakefile").write_text(OUTER.format(snakefile=ROOT / snakefile, config=config, wanted=wanted))
        return workflow

    return written


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_a_module_has_the_jobs_of_the_workflow(visit, outer, snakefile):
    """Keys that the other workflow leaves out have their defaults."""
    alone = Workflow(outer("rules.rampflow_all.input").folder, visit.inputs / "crds_cache").jobs(
        "--config", f"input={visit.inputs / 'visit_asn.json'}", "astrometric_catalog=stars.ecsv"
    )
    assert len(alone) > 15
    assert outer("rules.rampflow_all.input", snakefile).jobs() == {f"rampflow_{rule}": n for rule, n in alone.items()} | {
        "mine": 1
    }


def test_a_module_writes_the_same_files(visit, outer):
    product = f"mine/intermediates/{FIRST}_saturation.asdf"
    workflow = outer(f'"{product}"', results="mine", keep_intermediates=["saturation"])
    run = workflow.snakemake()
    assert run.returncode == 0, run.stderr
    assert (workflow.folder / "mine.txt").read_text() == f"{product}\n"
    ours = arrays_of(workflow.folder / product)
    expected = arrays_of(visit.results / "intermediates" / f"{FIRST}_saturation.asdf")
    assert {name: array.tobytes() for name, array in ours.items()} == {k: a.tobytes() for k, a in expected.items()}


def test_a_module_makes_the_table_after_the_products(outer):
    """Handlers, which make it otherwise, are not run for a module."""
    counts = outer("rules.rampflow_all.input").jobs("rampflow_exposures")
    assert counts["rampflow_exposures"] == 1 and counts["rampflow_finalize"] + counts["rampflow_finalize_image"] == 10


def test_a_wrong_key_is_named_before_any_job(outer):
    run = outer("rules.rampflow_all.input", steps={"refpix": {"remove_ofset": False}}).snakemake()
    assert run.returncode != 0
    assert "'steps.refpix.remove_ofset'; did you mean 'remove_offset'?" in run.stderr


def test_a_module_takes_settings_by_selection(outer):
    overrides = [{"select": {"exposure": FIRST}, "steps": {"refpix": {"skip": True}}}]
    counts = outer("rules.rampflow_all.input", overrides=overrides, exclude={"exposure_type": "WFI_SPECTRAL"}).jobs()
    assert counts["rampflow_dq_init"] == counts["rampflow_refpix"] + 1 == 9
