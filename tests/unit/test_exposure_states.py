"""What the table of exposures says of a run: states, and what identifies an exposure without products."""

import dataclasses
from pathlib import Path

from rampflow.workflow.exposure_states import states_of_run


def test_a_failed_exposure_is_identified_by_its_header(make_plan):
    plan = make_plan()
    known = {"optical_element": "F158", "ra_ref": 270.0, "dec_ref": 66.0, "roll_ref": 1.0}
    plan.inventory.exposures["a1"] = dataclasses.replace(plan.inventory.exposures["a1"], identification=known)
    states = states_of_run(plan, {Path("logs/a1/refpix.log"): "no memory"}, finished=["b1"])
    expected = {"state": "failed", "failed_step": "refpix", "reason": "no memory", "association": "a"}
    assert states["a1"] == known | expected | {"detector": "WFI01", "exposure_type": "WFI_IMAGE"}
    assert (states["a2"]["state"], states["b1"]["state"]) == ("missing", "complete")
