"""The files that the jobs of a report read."""

import dataclasses

from rampflow.workflow.report_inputs import ReportInputs


def test_a_calibrated_image_has_no_pictures_of_ramps(make_plan):
    plan = make_plan()
    plan.exposures["a2"] = dataclasses.replace(plan.exposures["a2"], path="/raw/a2_cal.asdf")
    assert plan.exposures["a2"].is_calibrated
    inputs = ReportInputs(plan)
    first, third = (f"results/intermediates/{stem}_ramp_pictures.json" for stem in ("a1", "a3"))
    assert inputs.ramp_pictures("a") == [first, "N/A", third]
    assert inputs.made_ramp_pictures("a") == [first, third]
