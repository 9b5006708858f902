"""Names of the files of a run, and the expression that matches the names of exposures."""

import re
from pathlib import Path

import pytest

from rampflow.workflow import paths


@pytest.fixture
def run_paths():
    return paths.Paths("out", "/node/tmp", frozenset({"flatfield"}))


def test_products_depend_on_the_catalog(run_paths):
    image = ["out/r1_cal.asdf", "out/r1_wcs.asdf", "out/r1_qa.json", "out/r1_cal.png", "out/r1_cal_thumb.png"]
    assert run_paths.products("r1", cataloged=False) == image
    assert run_paths.products("r1", cataloged=True) == [*image, "out/r1_cat.parquet", "out/r1_segm.asdf"]


def test_what_other_jobs_read_is_not_on_the_disk_of_a_node(run_paths):
    assert run_paths.exposure("r1", "flatfield") == "out/intermediates/r1_flat.asdf"
    assert run_paths.exposure("{stem}", "refpix") == "/node/tmp/{stem}_refpix.asdf"
    assert run_paths.intermediate("r1", "cat.parquet") == "out/intermediates/r1_cat.parquet"


def test_a_benchmark_has_the_name_of_its_log():
    log = paths.log_file("r1", "refpix")
    assert (log, paths.benchmark_of(log)) == (Path("logs/r1/refpix.log"), Path("benchmarks/r1/refpix.tsv"))


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a"],
        ["a", "aa", "aaa", "ba"],
        ["r1_wfi01_f158", "r1_wfi18_f158", "r1_wfi18", "r2", "r"],
        ["x.y", "x+y", "x y", "(x", "x|y", "é"],
        ["", "a"],
    ],
)
def test_an_expression_matches_its_names_alone(names):
    expression = re.compile(paths.match_any(names))
    others = {n[:-1] for n in names} | {n + n for n in names} | {n[1:] for n in names} | {f"{n}_" for n in names} | {"xxy", "b"}
    for name in {*names, *others}:
        assert bool(expression.fullmatch(name)) == (name in names), name


def test_an_expression_of_many_names_is_short():
    """Snakemake goes through it several times for each file of each job."""
    names = [f"r{v:019d}_{n:04d}_wfi{d:02d}_f158" for v in range(20) for n in range(1, 4) for d in range(1, 19)]
    assert len(paths.match_any(names)) < len("|".join(names)) / 8
