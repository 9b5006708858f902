"""Faults that are planted in the pixels of a visit: they are in the summary, the table and at the top of the survey's page."""

import re

import numpy as np
import pytest
import roman_datamodels.datamodels as rdm
from astropy.table import Table
from demo_visit import ASSOCIATION
from overview_pages import errors_of, open_overview
from repository import ROOT
from snakemake_runs import Workflow

from rampflow.quality.table import ECSV, PARQUET

pytestmark = pytest.mark.workflow

CONFIGURATION = ["--configfile", str(ROOT / "tests" / "helpers" / "faulty_visit.yaml")]
STEMS = [f"{ASSOCIATION}_{number:04d}_wfi01_f158" for number in range(1, 11)]
LOST, REFERENCE, CHANNEL, FLAT, DEFOCUS = (STEMS[number - 1] for number in (2, 4, 6, 7, 9))
#: The number by which each is to be found, and what the summary says of it.
FAULTS = {
    LOST: ("s_tweakreg", r"tweakreg: .*: FAILED, \d+ of \d+ sources matched; [\d.]+ expected by chance"),
    REFERENCE: ("reference_offset", r"offset of the reference pixels 1\d\d\d DN, \d+"),
    CHANNEL: ("channel_deviation", r"deviation of a channel [01]\.\d+, \d+"),
    FLAT: ("sky_nonuniformity", r"non-uniformity of the sky 0\.0\d+, \d+"),
    DEFOCUS: ("psf_fwhm", r"PSF width 0\.\d+ arcsec, "),
}


def write_wrong_flat(folder):
    """Write a flat field with a gradient of 20 % from the left to the right."""
    (path,) = (folder / "demo" / "crds_cache" / "references").rglob("*_flat_*.asdf")
    with rdm.open(path) as flat:
        data = np.array(flat.data)
        flat.data = data * np.linspace(0.9, 1.1, data.shape[1], dtype=data.dtype)
        flat.save(folder / "wrong_flat.asdf")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results folder, and the lines of the summary."""
    folder = tmp_path_factory.mktemp("faulty")
    workflow = Workflow(folder, folder / "demo" / "crds_cache")
    simulation = workflow.snakemake(*CONFIGURATION, snakefile="workflow/simulate.smk")
    assert simulation.returncode == 0, simulation.stderr
    write_wrong_flat(folder)
    overrides = "overrides=[{select: {exposure: '*_0007_*'}, references: {flat: wrong_flat.asdf}}]"
    run = workflow.snakemake(*CONFIGURATION, "--config", overrides)
    assert run.returncode == 0, run.stdout + run.stderr
    summary = (folder / "logs" / "summary.txt").read_text().splitlines()
    page = workflow.snakemake("survey", *CONFIGURATION, "--config", overrides)
    assert page.returncode == 0, page.stdout + page.stderr
    return folder / "results", summary


@pytest.mark.parametrize("stem", FAULTS)
def test_the_summary_names_each_fault_with_its_numbers(results, stem):
    _, text = FAULTS[stem]
    lines = [line for line in results[1] if line.startswith("warning: ") and stem in line]
    assert any(re.search(text, line) for line in lines), results[1]


def test_the_summary_says_nothing_of_good_exposures(results):
    good = set(STEMS) - set(FAULTS)
    assert not [line for line in results[1] if any(stem in line for stem in good)]
    assert "1 not aligned" in results[1][0] and "nothing failed" in results[1][0]


@pytest.mark.parametrize("name", [PARQUET, ECSV])
def test_the_table_marks_these_exposures_and_no_others(results, name):
    table = Table.read(results[0] / name)
    table = table.filled("") if table.has_masked_values else table
    outliers = {row["stem"]: str(row["outliers"]).split(",") for row in table if row["outliers"]}
    assert set(outliers) == set(FAULTS)
    for stem, (number, _) in FAULTS.items():
        assert number in outliers[stem], stem
    lost = table[table["stem"] == LOST][0]
    assert (lost["state"], lost["s_tweakreg"], lost["n_matches"]) == ("complete", "FAILED", 0) and np.isnan(lost["shift"])
    assert re.match(r"\d+ of \d+ sources matched", lost["reason"]) and "tweakreg FAILED" in lost["outlier_text"]


def test_the_page_begins_with_these_exposures(results):
    page = (results[0] / "survey.html").read_text()
    (listed,) = re.findall(r'<ul class="warnings" id="unusual">(.*?)</ul>', page, re.DOTALL)
    items = re.findall(r"<li>(.*?)</li>", listed, re.DOTALL)
    assert {stem: [item for item in items if stem in item] != [] for stem in STEMS} == {stem: stem in FAULTS for stem in STEMS}
    (lost,) = (item for item in items if LOST in item)
    assert "tweakreg FAILED" in lost and re.search(r"\d+ of \d+ sources matched", lost)


def test_the_table_of_the_page_begins_with_them_too(results, chromium):
    open_overview(chromium, results[0] / "survey.html")
    assert set(chromium.evaluate(f"cells(0).slice(0, {len(FAULTS)})")) == set(FAULTS)
    assert all(chromium.evaluate(f"cells(2).slice(0, {len(FAULTS)})"))
    assert errors_of(chromium) == []
