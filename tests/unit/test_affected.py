"""What a run would make again: words and costs, on a plan without files."""

import dataclasses
from pathlib import Path

import pytest
from small_files import image as image_array
from small_files import write_image
from small_plans import entry

from rampflow import __version__
from rampflow.errors import RampflowError
from rampflow.workflow import affected
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.rerun import exposure_recipes


def write_benchmark(name, step, cpu):
    path = Path("benchmarks") / name / f"{step}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\tcpu_time\n1\t{cpu}\n")


def test_without_products_all_steps_are_missing(make_plan):
    plan = make_plan()
    found = affected.Affected(plan)
    chain = ExposureJobs(plan).steps_of_exposure("a3")
    assert found.steps["a3"] == dict.fromkeys(chain, affected.MISSING) | {"finalize": affected.FOLLOWS}
    assert found.steps["a"] == found.steps["b"] == {"tweakreg": affected.MISSING}
    assert set(found.steps) == {"a1", "a2", "a3", "b1", "a", "b"}
    assert "\nThe results folder results does not exist: a run would make it\n" in found.table()
    assert not Path("results").exists()
    Path("results").mkdir()
    assert "does not exist" not in found.table()


def test_an_exposure_without_an_association_has_its_own_steps_and_its_alignment(make_plan):
    """It is an association by its own name."""
    plan = make_plan()
    plan.inventory.exposures["b1"] = entry("b1", association="b1")
    found = affected.Affected(plan)
    chain = ExposureJobs(plan).steps_of_exposure("b1")
    assert list(found.steps["b1"]) == [*chain, "tweakreg", "finalize"] and "b" not in found.steps
    assert found.table().startswith("affected: 4 of 4 exposures")
    assert ["dq_init", "4"] in [row.split()[:2] for row in found.table().splitlines()]


def write_products(plan, stem, changed=None, others=()):
    """Products of an exposure whose log has the recipes of the plan, but for one step."""
    image = Path(plan.paths.product(stem, "cal.asdf"))
    recipes = exposure_recipes(plan, stem)[image]
    lines = [f"x :: rampflow.{step} :: INFO :: Recipe {recipe}" for step, recipe in recipes.items() if step != changed]
    lines += [f"x :: rampflow.{changed} :: INFO :: Recipe {'0' * 16}"] * bool(changed)
    image.parent.mkdir(exist_ok=True)
    write_image(image, image_array(), {"cal_logs": [*lines, *others]})
    for path in map(Path, plan.products(stem)):
        path.touch()


def test_what_differs_is_told_by_the_log(make_plan):
    plan = make_plan()

    def steps(*others, changed="photom"):
        write_products(plan, "a3", changed, others)
        return affected.Affected(plan).steps.get("a3", {})

    assert steps(changed=None) == {}
    said, used = "x :: rampflow.photom :: INFO :: ", "Using PHOTOM reference file: /crds/"
    found = steps(f"{said}rampflow 0.0.1, step photom: a -> b", f"{said}{used}photom.asdf")
    assert found["photom"] == f"code 0.0.1 -> {__version__}, or the content of a file"
    assert found["dq_init"] == found["assign_wcs"] == affected.REMOVED and found["finalize"] == affected.FOLLOWS
    assert steps(f"{said}{used}old.asdf")["photom"] == "photom old.asdf -> photom.asdf"
    # A reference that the step has not used may be new, and need not be.
    begin = f"{said}rampflow {__version__}, step photom: a -> b"
    assert steps(begin)["photom"] == "code or the content of a file, photom N/A -> photom.asdf"
    assert steps(begin, f"{said}{used}photom.asdf")["photom"] == "code or the content of a file"
    # From the last file before it that is there.
    kept = Path(plan.paths.exposure("a3", "ramp_fitting"))
    kept.parent.mkdir()
    kept.touch()
    assert list(steps(f"{said}{used}old.asdf")) == ["dark_current", "assign_wcs", "photom", "finalize"]
    assert list(steps(changed="finalize")) == ["dark_current", "assign_wcs", "photom", "finalize"]
    last = Path(plan.paths.exposure("a3", "photom"))
    last.touch()
    assert list(steps(changed="finalize")) == ["finalize"]
    # An older run had a step that the chain doesn't have.
    assert steps(f"x :: rampflow.flatfield :: INFO :: Recipe {'1' * 16}", changed=None) == {
        "finalize": "follows flatfield, which is left out now",
    }


@pytest.mark.parametrize("is_now_selected", [True, False])
def test_a_parameter_that_overrides_set_to_the_same_value_is_the_reason(make_plan, is_now_selected):
    """The product records which parameters a selection has set."""
    plan, name = make_plan(), "rejection_threshold"
    value = plan.options("a3", "ramp_fitting")[name]
    if is_now_selected:
        selected = {"ramp_fitting": {name: (value, "overrides[0]")}}
        plan.exposures["a3"] = dataclasses.replace(plan.exposures["a3"], step_parameters=selected)
    said = "x :: rampflow.ramp_fitting :: INFO :: "
    lines = [f"{said}Parameters: {name}={value}"]
    lines += [f"{said}Parameters of the configuration's overrides: {name}"] * (not is_now_selected)
    write_products(plan, "a3", "ramp_fitting", lines)
    reason = affected.Affected(plan).steps["a3"]["ramp_fitting"]
    assert reason == f"{name} {value} is {'now' if is_now_selected else 'no longer'} set by overrides"


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
    lines = [
        "2026-01-01T00:00:00.000Z :: rampflow.flatfield :: INFO :: rampflow 0.1, step flatfield: a.asdf -> b.asdf",
        "2026-01-01T00:00:00.000Z :: rampflow.flatfield :: INFO :: Using FLAT reference file: /crds/flat.asdf",
        "2026-01-01T00:00:00.000Z :: rampflow.refpix :: INFO :: Parameters: one=1, two=a, b, three=None",
    ]
    found = affected.read_logged(write_image(tmp_path / "x_cal.asdf", image_array(), {"cal_logs": lines}))
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("affected --cores all", True),
        ("--cores all affected", True),
        ("--dry-run affected --config input=x", True),
        ("all --directory affected", False),
        ("--config results=affected affected", False),
    ],
)
def test_the_target_is_told_from_the_values_of_options(words, expected):
    """The command rampflow adds ``--cores all``, which names no other target."""
    assert affected.is_requested(words.split()) is expected
