"""Collect the declarations of all steps, for the workflow, the documents and the tests."""

from __future__ import annotations

import functools
import importlib

from rampflow.chain import STEPS
from rampflow.step.declaration import Step


@functools.cache
def steps() -> dict[str, Step]:
    """Import the declarations of all steps.

    Returns
    -------
    dict of str to Step
        Declaration of each step by its name, in the order of the chain.
    """
    return {name: importlib.import_module(f"rampflow.steps.{name}").STEP for name in STEPS}
