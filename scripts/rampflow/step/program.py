"""A step, or any script, as a program: its errors become one line and an exit status.

The line of an error that no check foresaw is followed by its traceback.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.step.job import Job
from rampflow.step.logs import configure_logging, log
from rampflow.step.provenance import is_fully_saturated

SCRIPTS = Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def reported_errors(program: str, *files: Path):
    """Turn an error into one line on standard error and an exit status of 1.

    Parameters
    ----------
    program : str
        Its name.
    *files : pathlib.Path
        The files that it reads. After an error that no check foresaw they are checked for damage.
    """
    configure_logging()
    if recipe := os.environ.get("RAMPFLOW_RECIPE"):  # what the workflow makes it from, for `rampflow.workflow.recipes`
        log.getChild(program).info("Recipe %s", recipe)
    # What imports and YAML trees make stays: to look through it for garbage again and again takes a twentieth of the time.
    gc.set_threshold(100_000)
    outcome = SimpleNamespace(status=0)
    try:
        yield outcome
        sys.stdout.flush()
    except RampflowError as error:
        log.error("%s: %s", program, error)
        outcome.status = 1
    except MemoryError:
        log.error("%s: not enough memory; give the job more, or use fewer --threads", program)
        outcome.status = 1
    except BrokenPipeError:  # whoever read the output has seen enough, as `head`
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome.status = 128 + signal.SIGPIPE
    except Exception as error:  # no check foresaw it; the traceback follows the line
        log.error("%s: %s", program, explain(error, files), exc_info=True)
        outcome.status = 1
    # The interpreter's last search for garbage, through all that was imported, would take half a second.
    gc.freeze()


def explain(error: Exception, files: Sequence[Path]) -> str:
    """Whether damage to a file explains an error that no check foresaw, or the program is at fault."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(SCRIPTS)
    ]
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]} (at {', '.join(places)})"
    for path in files:
        if damage := find_damage(path):
            return f"{damage}. The error it caused: {what}"
    names = ", ".join(path.name for path in files)
    return (
        f"fault of the program: {what}. Report it with the traceback below"
        + f", and with the files it worked on, in which no damage was found: {names}" * bool(names)
    )


def find_damage(path: Path) -> str:
    """What the checksums of a file's blocks, or the schema of its data model, say against it; empty where nothing does."""
    import asdf

    try:
        with AsdfFile(path) as file:
            file.verify()
    except RampflowError as error:
        return str(error)
    except Exception:
        return ""  # that is for the schema to find
    try:
        with warnings.catch_warnings(action="ignore"), asdf.open(path):
            return ""
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return f"{path}: does not fit the schema of its data model ({reason}); get the file again"


def run_step(step: Step, function, argv: list[str] | None = None, *, when_skipped=None) -> int:
    """Run a step as a program: `function(job)` does the work.

    A fully saturated exposure goes to `when_skipped`, by default `Job.pass_on`. A step that was skipped for want of a
    reference runs when it has one.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error message.
    """
    arguments = vars(step.parser().parse_args(argv))
    if arguments["threads"] < 1:
        step.parser().error("argument --threads: takes a positive number")
    given = [Path(arguments[r.type]) for r in step.references if arguments[r.type] != NOT_APPLICABLE]
    with reported_errors(step.name, arguments["input"], *given) as outcome, AsdfFile(arguments["input"]) as file:
        job = Job(step, file, arguments)
        cal_step = job.exposure.meta["cal_step"]
        if cal_step.get(step.status) == "SKIPPED" and is_fully_saturated(cal_step):
            job.log.info("Skipped: the exposure is fully saturated (saturation has marked it so)")
            (when_skipped or Job.pass_on)(job)
        else:
            function(job)
    return outcome.status
