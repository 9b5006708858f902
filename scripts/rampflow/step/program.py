"""Run a step or another script as a program, which reports an error in one line and by its exit status.

After an unforeseen error, the traceback follows that line.
"""

from __future__ import annotations

import atexit
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
from typing import TextIO

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.folders import LIBRARY, SCRIPTS
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.step.job import Job
from rampflow.step.logs import configure_logging, log
from rampflow.step.provenance import is_fully_saturated


@contextlib.contextmanager
def reported_errors(
    program: str, *files: Path, recipe: str | None = None, log_file: TextIO | None = None
) -> Iterator[SimpleNamespace]:
    """Begin the log of a program, and turn an error in the block into one line of it and an exit status of 1.

    Parameters
    ----------
    program : str
        Name of the program.
    *files : pathlib.Path
        Files that it reads. After an unforeseen error they are checked for damage.
    recipe : str, optional
        Recipe of its product, see `rampflow.workflow.recipes`; by default RAMPFLOW_RECIPE of the environment.
    log_file : file, optional
        File for the log; standard error by default.

    Yields
    ------
    types.SimpleNamespace
        Its attribute ``status`` is the exit status once the block has ended.
    """
    # Imports make many objects and no garbage. With Python's threshold of 700, garbage collections during imports take 0.3 s of
    # processor time in source_catalog, and 0.1 s in steps that import gwcs.
    gc.set_threshold(100_000)
    configure_logging(log_file)
    if recipe := recipe or os.environ.get("RAMPFLOW_RECIPE"):  # `rampflow.workflow.recipes` reads it from the log
        log.getChild(program).info("Recipe %s", recipe)
    # Skip the garbage collection at exit. This saves 0.46 s of processor time in steps that import gwcs.
    atexit.register(gc.freeze)
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
        if any(Path(frame.filename).is_relative_to(folder) for folder in (SCRIPTS, LIBRARY))
    ]
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]} (at {', '.join(places)})"
    files = [path for path in files if path.suffix == ".asdf"]  # a dust map is a FITS file, without checksums
    for path in files:
        if damage := find_damage(path):
            return f"{damage}. The error it caused: {what}"
    report = f"fault of the program: {what}. Report it with the traceback below"
    if not files:
        return report
    return f"{report}, and with its input, in which no damage was found: {', '.join(path.name for path in files)}"


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
    arguments = read_arguments(step, argv)
    with reported_errors(step.name, *input_files(step, arguments)) as outcome, AsdfFile(arguments["input"]) as file:
        process(Job(step, file, arguments), function, when_skipped)
    return outcome.status


def read_arguments(step: Step, argv: list[str] | None = None) -> dict:
    """Read the command line of a step.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    argv : list of str, optional
        Arguments of the command line; by default those of this process.

    Returns
    -------
    dict
        Values, by name.
    """
    arguments = vars(step.parser().parse_args(argv))
    if arguments["threads"] < 1:
        step.parser().error("argument --threads: takes a positive number")
    return arguments


def input_files(step: Step, arguments: dict) -> list[Path]:
    """List the files that a step reads.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    arguments : dict
        Values of the command line, by name.

    Returns
    -------
    list of pathlib.Path
        The exposure, and the references without N/A.
    """
    given = [arguments[reference.type] for reference in step.references]
    return [arguments["input"], *(Path(name) for name in given if name != NOT_APPLICABLE)]


def process(job: Job, function: Callable[[Job], None], when_skipped: Callable[[Job], None] = Job.pass_on) -> None:
    """Process one exposure, or skip the step if the exposure is fully saturated or a reference that the step needs is missing.

    Parameters
    ----------
    job : Job
        The run of the step.
    function : callable
        Processes the exposure.
    when_skipped : callable
        Processes a fully saturated exposure instead.
    """
    cal_step = job.exposure.meta["cal_step"]
    if cal_step.get(job.step.status) == "SKIPPED" and is_fully_saturated(cal_step):
        job.log.info("Skipped: saturation marked this exposure fully saturated")
        when_skipped(job)
    elif missing := [r.type for r in job.step.references if r.skip_without and job.references[r.type] is None]:
        job.skip(f"There is no {' and no '.join(missing)} reference")
    else:
        function(job)
