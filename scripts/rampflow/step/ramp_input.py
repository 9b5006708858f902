"""Ramps as input of the pipeline, in place of raw exposures: dq_init or another program has made them."""

from __future__ import annotations

from rampflow.chain import STEPS
from rampflow.errors import RampflowError
from rampflow.files.data_models import data_model
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.step.exposure import Exposure

RAMP_TAG = data_model().ramp.removeprefix(ROMAN_PREFIX)
#: Steps that change the counts of a ramp, and must not run twice. saturation changes only flags; ramp_fitting writes an image.
CORRECTIONS = tuple(name for name, step in STEPS.items() if step.takes == "ramp" and name not in ("saturation", "ramp_fitting"))


def is_ramp(exposure: Exposure) -> bool:
    """Tell whether an input is a ramp.

    Parameters
    ----------
    exposure : Exposure
        The input.

    Returns
    -------
    bool
        Whether it has the data model of a ramp, in any version.
    """
    return exposure.tag.rpartition("-")[0] == "ramp"


def is_decoded(exposure: Exposure) -> bool:
    """Tell whether dq_init has processed a ramp, which undoes the encoding for the downlink.

    Parameters
    ----------
    exposure : Exposure
        The ramp.

    Returns
    -------
    bool
        Whether the status of dq_init is COMPLETE, or SKIPPED, as without a mask.
    """
    return exposure.meta.get("cal_step", {}).get(STEPS["dq_init"].status) in ("COMPLETE", "SKIPPED")


def check_ramp(exposure: Exposure) -> None:
    """Refuse a ramp that can't be the input of dq_init.

    Parameters
    ----------
    exposure : Exposure
        The ramp.

    Raises
    ------
    RampflowError
        It has an older data model, a step has changed its counts, or its arrays don't fit each other.
    """
    major = exposure.tag.rpartition("-")[2].partition(".")[0]
    if major != RAMP_TAG.rpartition("-")[2].partition(".")[0]:
        raise RampflowError(
            f"{exposure.path}: has the data model {exposure.tag}; a ramp as input must be of {RAMP_TAG}: give the raw exposure "
            "(_uncal.asdf), which may be of an older model"
        )
    statuses = exposure.meta.get("cal_step", {})
    done = [name for name in CORRECTIONS if statuses.get(STEPS[name].status) == "COMPLETE"]
    if done:
        raise RampflowError(
            f"{exposure.path}: {', '.join(done)} changed the counts of this ramp already (COMPLETE in meta.cal_step), and "
            "would do so again: give the ramp as dq_init left it (_dqinit.asdf), or the raw exposure (_uncal.asdf)"
        )
    exposure.check_arrays()
