"""A step, or any script, as a program: its errors become one line and an exit status."""

from __future__ import annotations

import contextlib
import gc
import os
import traceback
from pathlib import Path
from types import SimpleNamespace

from rampflow.errors import RampflowError
from rampflow.files.asdf_io import AsdfFile
from rampflow.step.declaration import Step
from rampflow.step.job import Job
from rampflow.step.logs import configure_logging, log

SCRIPTS = Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def reported_errors(program: str, about: Path | None = None):
    """Turn an error into one line on standard error and an exit status of 1; `about` is the file that the program works on."""
    configure_logging()
    if recipe := os.environ.get("RAMPFLOW_RECIPE"):  # what the workflow makes it from, for `rampflow.workflow.recipes`
        log.getChild(program).info("Recipe %s", recipe)
    # What imports and YAML trees make stays: to look through it for garbage again and again takes a twentieth of the time.
    gc.set_threshold(100_000)
    outcome = SimpleNamespace(status=0)
    try:
        yield outcome
    except RampflowError as error:
        log.error("%s: %s", program, error)
        outcome.status = 1
    except MemoryError:
        log.error("%s: not enough memory; give the job more, or use fewer --threads", program)
        outcome.status = 1
    except Exception as error:  # a fault that no check foresaw: one line too, with the places in our code that it came through
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(SCRIPTS)
        ]
        log.error(
            "%s: %s can't be processed: %s: %s (at %s). It or one of its references is damaged: get it again; if it is sound, "
            "report this line",
            program,
            about or "an input",
            type(error).__name__,
            " ".join(str(error).split())[:300],
            ", ".join(places),
        )
        outcome.status = 1
    # The interpreter's last search for garbage, through all that was imported, would take half a second.
    gc.freeze()


def run_step(step: Step, function, argv: list[str] | None = None, *, when_skipped=None) -> int:
    """Run a step as a program: `function(job)` does the work.

    An exposure whose status for this step is SKIPPED already (a fully saturated one: saturation marks all that would
    follow) goes to `when_skipped`, by default `Job.pass_on`.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error message.
    """
    arguments = vars(step.parser().parse_args(argv))
    if arguments["threads"] < 1:
        step.parser().error("argument --threads: takes a positive number")
    with reported_errors(step.name, arguments["input"]) as outcome, AsdfFile(arguments["input"]) as file:
        job = Job(step, file, arguments)
        if job.exposure.meta["cal_step"].get(step.status) == "SKIPPED":
            job.log.info("The exposure is marked as one that this step has nothing to do for")
            (when_skipped or Job.pass_on)(job)
        else:
            function(job)
    return outcome.status
