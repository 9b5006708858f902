"""What is shown at the start and the end of a run."""

import dataclasses
from pathlib import Path

from rampflow.workflow import recipes, summary


def test_damaged_products_are_counted():
    one, two = Path("results/a_cal.asdf"), Path("results/b_cal.asdf")
    assert recipes.describe_damaged([one]).startswith("results/a_cal.asdf: is damaged")
    assert recipes.describe_damaged([one, two, two]).startswith("results/a_cal.asdf and 2 others: is damaged")


def test_the_summary_has_the_notices_and_the_files_of_other_runs(make_plan, tmp_path):
    plan, path = make_plan(), tmp_path / "summary.txt"
    noted = {"selected": ("overrides entry 1: 2 exposures",), "notices": ("a2: can't be read yet",)}
    plan.inventory = dataclasses.replace(plan.inventory, **noted)
    path.write_text("rampflow: nothing failed\n")
    summary.append_notices(path, plan, [Path("results/old_cal.asdf")])
    assert path.read_text().splitlines() == [
        "rampflow: nothing failed",
        "overrides entry 1: 2 exposures",
        "warning: a2: can't be read yet",
        "left from before: results/old_cal.asdf",
    ]
