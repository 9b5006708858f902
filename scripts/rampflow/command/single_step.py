"""One step on one file, with the references and parameters that CRDS has for the exposure."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from rampflow.command.parser import step_scripts
from rampflow.command.runs import become_script
from rampflow.errors import RampflowError

if TYPE_CHECKING:
    from rampflow.command.parser import Subcommand
    from rampflow.step.declaration import Step

HELP = ("-h", "--help")


def run(command: Subcommand, words: list[str]) -> int:
    """Run a step.

    Parameters
    ----------
    command : Subcommand
        The subcommand.
    words : list of str
        Name of the step, and the arguments of its script.

    Returns
    -------
    int
        Exit status.
    """
    if not words or words[0] not in step_scripts():
        command.parser().parse_args(words)  # the help, or an error
    name, *arguments = words
    script = importlib.import_module(f"rampflow.steps.{name}")
    if not {*arguments} & {*HELP} and name not in ("tweakreg", "finalize"):
        arguments += from_crds(script.STEP, arguments)
    become_script(name, arguments)


def from_crds(step: Step, arguments: list[str]) -> list[str]:
    """Find what CRDS has for a step and an exposure, besides what is given.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    arguments : list of str
        Arguments of its script.

    Returns
    -------
    list of str
        More arguments: references, parameters, and what records where they are from.

    Raises
    ------
    RampflowError
        The exposure can't be read, or CRDS has no reference that the step needs.
    """
    from rampflow.workflow.references_of_step import choose

    given = {word.partition("=")[0].removeprefix("--") for word in arguments if word.startswith("--")}
    missing = [reference.type for reference in step.references if reference.type not in given]
    if not missing and "crds_context" not in given:
        return []
    placeholders = [word for name in missing for word in (f"--{name}", "N/A")]
    values = step.parser().parse_args([*arguments, *placeholders])
    if not Path(values.input).is_file():
        raise RampflowError(f"{values.input}: does not exist")
    return choose(step, Path(values.input), given, context=values.crds_context)
