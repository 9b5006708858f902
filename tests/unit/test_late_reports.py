"""What a report that is requested later repeats."""

from pathlib import Path

import pytest

from rampflow.workflow import late_reports
from rampflow.workflow.exposure_jobs import ExposureJobs


def test_a_later_report_says_what_it_repeats_and_how_to_avoid_it(make_plan):
    def write(*paths):
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    plan = make_plan()
    assert late_reports.repeated_steps(plan) == {}, "no products: the report is made together with them"
    write(*plan.products("a1"), plan.paths.exposure("a1", "ramp_fitting"), *plan.products("a3"))
    chain = ExposureJobs(plan).steps_of_exposure("a1")
    assert late_reports.repeated_steps(plan) == {"a1": chain, "a3": ExposureJobs(plan).steps_of_exposure("a3")}
    # Files of single steps that one job of all steps has not written repeat only what makes them.
    alone = late_reports.repeated_steps(plan, ["a1"])["a1"]
    assert alone == chain[: chain.index("linearity") + 1]
    said = late_reports.describe_repeated(plan, late_reports.repeated_steps(plan))
    assert "dq_init to source_catalog run again for 2 exposures" in said
    assert said.endswith("keep_intermediates='[saturation, refpix, linearity, ramp_fitting]'")
    # What is kept is not made again.
    write(plan.paths.exposure("a1", "saturation"), plan.paths.exposure("a1", "refpix"))
    assert late_reports.repeated_steps(plan)["a1"] == chain[chain.index("dark_decay") :]
    write(plan.paths.exposure("a1", "linearity"), plan.paths.intermediate("a3", "ramp_pictures.json"))
    assert late_reports.repeated_steps(plan) == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--cores 2 report", True),
        ("results/a_report.html", True),
        ("--report all.html", False),
        ("--directory report", False),
        ("--cores 2", False),
    ],
)
def test_a_report_is_requested_by_its_target(words, expected):
    assert late_reports.is_report_requested(words.split()) is expected
