"""What a run would make again: words and costs, on a plan without files."""

from pathlib import Path

import pytest

from rampflow.errors import RampflowError
from rampflow.workflow import affected
from rampflow.workflow.exposure_jobs import ExposureJobs


def write_benchmark(name, step, cpu):
    path = Path("benchmarks") / name / f"{step}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\tcpu_time\n1\t{cpu}\n")


def test_without_products_all_steps_are_missing(make_plan):
    plan = make_plan()
    found = affected.Affected(plan)
    chain = ExposureJobs(plan).steps_of_exposure("a3")
    assert found.steps["a3"] == dict.fromkeys(chain, affected.MISSING) | dict.fromkeys(
        ("finalize", "preview"), affected.FOLLOWS
    )
    assert found.steps["a"] == found.steps["b"] == {"tweakreg": affected.MISSING}
    assert set(found.steps) == {"a1", "a2", "a3", "b1", "a", "b"}
    assert not Path("results").exists()


def test_costs_are_own_ones_or_the_median_of_exposures_of_the_same_shape(make_plan):
    plan = make_plan()
    for name, cpu in (("a1", 1.0), ("a2", 5.0), ("a3", 9.0)):
        write_benchmark(name, "dq_init", cpu)
    write_benchmark("a", "tweakreg", 3.0)
    found = affected.Affected(plan)
    assert [found.cost(name, "dq_init") for name in ("a1", "a3", "b1")] == [1.0, 9.0, 5.0]
    assert (found.cost("b", "tweakreg"), found.cost("b1", "refpix")) == (3.0, None)
    head, _, *rows, last = found.table().splitlines()
    assert head == "affected: 4 of 4 exposures, 26.0? s of processor time"  # 1 + 5 + 9 + 5, and twice 3
    assert last == "?: some steps have no benchmark"
    assert rows[0].split(maxsplit=3) == ["dq_init", "4", "20.0", affected.MISSING]
    assert ["refpix", "4", "?", affected.MISSING] in [row.split(maxsplit=3) for row in rows]


def test_a_log_says_what_a_step_used(tmp_path):
    from small_files import image, write_image

    lines = [
        "2026-01-01T00:00:00.000Z :: rampflow.flatfield :: INFO :: rampflow 0.1, step flatfield: a.asdf -> b.asdf",
        "2026-01-01T00:00:00.000Z :: rampflow.flatfield :: INFO :: Using FLAT reference file: /crds/flat.asdf",
        "2026-01-01T00:00:00.000Z :: rampflow.refpix :: INFO :: Parameters: one=1, two=a, b, three=None",
    ]
    found = affected.read_logged(write_image(tmp_path / "x_cal.asdf", image(), {"cal_logs": lines}))
    assert found["flatfield"] == affected.Logged({"flat": "/crds/flat.asdf"}, {}, "0.1")
    assert found["refpix"].parameters == {"one": "1", "two": "a, b", "three": "None"}
    (tmp_path / "y_cal.asdf").write_text("damaged")
    assert affected.read_logged(tmp_path / "y_cal.asdf") == {}


@pytest.mark.parametrize(("words", "expected"), [("affected --cores 1", True), ("--cores 1", False), ("report", False)])
def test_the_target_is_recognized(words, expected):
    assert affected.is_requested(words.split()) is expected


def test_another_target_is_refused():
    with pytest.raises(RampflowError, match="can't be given together with report"):
        affected.is_requested(["affected", "report"])
