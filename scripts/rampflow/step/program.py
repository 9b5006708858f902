"""Run a step or another script as a program, which reports an error in one line and by its exit status.

After an unforeseen error, the traceback follows that line.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
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
def reported_errors(program: str, *files: Path) -> Iterator[SimpleNamespace]:
    """Turn an error in the block into one line on standard error and an exit status of 1.

    Parameters
    ----------
    program : str
        Name of the program.
    *files : pathlib.Path
        Files that it reads. After an unforeseen error they are checked for damage.

    Yields
    ------
    types.SimpleNamespace
        Its attribute ``status`` is the exit status once the block has ended.
    """
    # Imports make many objects and no garbage. With Python's threshold of 700, searches for garbage among them take 0.3 s of
    # processor time in source_catalog, 0.1 s where gwcs is imported.
    gc.set_threshold(100_000)
    configure_logging()
    if recipe := os.environ.get("RAMPFLOW_RECIPE"):  # `rampflow.workflow.recipes` reads it from the log
        log.getChild(program).info("Recipe %s", recipe)
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
    except BrokenPipeError:  # the program that reads the output has closed it, as `head` does
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome.status = 128 + signal.SIGPIPE
    except Exception as error:  # unforeseen
        log.error("%s: %s", program, explain(error, files), exc_info=True)
        outcome.status = 1
    # Skip the garbage collection at exit. It saves 0.46 s of processor time where gwcs was imported.
    gc.freeze()


def explain(error: Exception, files: Sequence[Path]) -> str:
    """Describe an unforeseen error: as damage to one of the files if any is found, else as a fault of the program.

    Parameters
    ----------
    error : Exception
        The error, with its traceback.
    files : sequence of pathlib.Path
        Files that the program reads.

    Returns
    -------
    str
        A message for the log.
    """
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
        + f", and with its input, in which no damage was found: {names}" * bool(names)
    )


def find_damage(path: Path) -> str:
    """Check a file against the checksums of its blocks and the schema of its data model.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    str
        The damage that was found; empty where there is none.
    """
    import asdf

    try:
        with AsdfFile(path) as file:
            file.verify()
    except RampflowError as error:
        return str(error)
    except Exception:
        return ""  # an error of the reader is no damage to the file
    try:
        with warnings.catch_warnings(action="ignore"), asdf.config_context() as config:
            config.validate_on_read, config.warn_on_failed_conversion = True, False  # asdf 6 does neither by itself
            with asdf.open(path):
                return ""
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return f"{path}: does not fit the schema of its data model ({reason}); get the file again"


def run_step(
    step: Step,
    function: Callable[[Job], None],
    argv: list[str] | None = None,
    *,
    when_skipped: Callable[[Job], None] = Job.pass_on,
) -> int:
    """Run a step as a program.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    function : callable
        Processes the exposure.
    argv : list of str, optional
        Arguments of the command line; by default those of this process.
    when_skipped : callable
        Processes a fully saturated exposure instead. A step that was SKIPPED because it had no reference is run as usual.

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
            job.log.info("Skipped: saturation marked this exposure fully saturated")
            when_skipped(job)
        else:
            function(job)
    return outcome.status
