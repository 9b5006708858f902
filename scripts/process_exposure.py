"""Process an exposure by several steps in one process, with its arrays in memory between them.

Each line of the standard input is the name of a step, its recipe, and the arguments of its script. A step does the same as in a
process of its own, and writes the same log. INPUT is read by the first step alone, and OUTPUT is written where --write names
the step.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rampflow.chain import STEPS
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.atomic import describe_error
from rampflow.files.in_memory import InMemory, MemoryFile
from rampflow.step.declaration import Step
from rampflow.step.job import Job
from rampflow.step.logs import configure_logging, step_logger
from rampflow.step.program import input_files, process, read_arguments, reported_errors

log = step_logger("process_exposure")

MEGABYTE = 1 << 20
#: Columns of a benchmark as Snakemake writes it.
COLUMNS = ("s", "h:m:s", "max_rss", "max_vms", "max_uss", "max_pss", "io_in", "io_out", "mean_load", "cpu_time")


@dataclass(frozen=True)
class Task:
    """A step of the chain.

    Attributes
    ----------
    name : str
        Name of the step.
    recipe : str
        Its recipe, see `rampflow.workflow.recipes`.
    arguments : list of str
        Arguments of its script.
    """

    name: str
    recipe: str
    arguments: list[str]


def read_tasks(text: str) -> list[Task]:
    """Read the steps of a chain.

    Parameters
    ----------
    text : str
        For each step a line: its name, its recipe and the arguments of its script, quoted for a shell.

    Returns
    -------
    list of Task
        The steps, in order.

    Raises
    ------
    RampflowError
        There is no line, or one has no known step.
    """
    tasks = []
    for line in text.splitlines():
        name, *words = shlex.split(line) or [""]
        if name not in STEPS or not words:
            raise RampflowError(f"standard input: {line[:80]!r} is not the name of a step, its recipe and its arguments")
        tasks.append(Task(name, words[0], words[1:]))
    if not tasks:
        raise RampflowError("standard input: has no step; give a line for each")
    return tasks


def import_step(name: str) -> tuple[Step, Callable[[Job], None], Callable[[Job], None]]:
    """Import the script of a step.

    Parameters
    ----------
    name : str
        Name of the step.

    Returns
    -------
    declaration : Step
        ``STEP`` of the script.
    function : callable
        Its ``run``.
    when_skipped : callable
        Its ``run_skipped`` if it has one, which processes a fully saturated exposure.
    """
    script: Any = importlib.import_module(f"rampflow.steps.{name}")
    return script.STEP, script.run, getattr(script, "run_skipped", Job.pass_on)


@contextlib.contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """Write a log or a benchmark, whose folder is made if it is missing.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Yields
    ------
    file
        The file, open.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            yield file
    except OSError as error:
        raise RampflowError(f"{path}: can't be written ({describe_error(error)})") from error


def run_task(
    task: Task, options: list[str], file: MemoryFile | None, log_path: Path, *, keep: bool
) -> tuple[int, MemoryFile | None]:
    """Run a step.

    Parameters
    ----------
    task : Task
        The step.
    options : list of str
        Arguments that all steps have.
    file : MemoryFile or None
        The exposure as the previous step left it; `None` to read it from the step's input file.
    log_path : pathlib.Path
        File of the step's log.
    keep : bool
        Whether to write the exposure to the step's output file.

    Returns
    -------
    status : int
        0, or 1 after an error message in the log.
    file : MemoryFile or None
        The exposure as this step left it.
    """
    destination = InMemory()
    step, function, when_skipped = import_step(task.name)
    arguments = read_arguments(step, [*task.arguments, *options])
    inputs = input_files(step, arguments)
    with contextlib.ExitStack() as stack:
        stack.callback(configure_logging)  # afterward, the log is that of the whole job again
        log_file = stack.enter_context(text_file(log_path))
        stack.enter_context(warnings.catch_warnings())  # a warning is logged once in each step, as in a process of its own
        read = inputs if file is None else inputs[1:]
        outcome = stack.enter_context(reported_errors(task.name, *read, recipe=task.recipe, log_file=log_file))
        job = Job(step, file or stack.enter_context(AsdfFile(inputs[0])), arguments, destination.create)
        process(job, function, when_skipped)
        if keep and destination.file:
            with create_asdf(job.output, destination.file.tree, destination.file.standard):
                pass
    return outcome.status, destination.file or file


@dataclass(frozen=True)
class Usage:
    """Resources that this process has used.

    Attributes
    ----------
    seconds, cpu : float
        Time of the clock and processor time of all threads, seconds.
    read, written : float
        Data read from disks and written to them, MB.
    """

    seconds: float
    cpu: float
    read: float
    written: float

    @classmethod
    def now(cls) -> Usage:
        """Measure what this process has used so far.

        Returns
        -------
        Usage
            Since its begin; the clock has an arbitrary zero.
        """
        transfer = _numbers_of("/proc/self/io")
        read, written = (transfer.get(name, 0) / MEGABYTE for name in ("read_bytes", "write_bytes"))
        return cls(time.monotonic(), time.process_time(), read, written)


def _numbers_of(path: str) -> dict[str, int]:
    """Numbers of a file of /proc, by name; empty where there is no such file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(words[0]) for name, value in pairs if (words := value.split()) and words[0].isdigit()}


def forget_peak_memory() -> None:
    """Make the kernel measure the peak of this process's memory anew; without effect where it can't."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Look up the peak of this process's memory since `forget_peak_memory`.

    Returns
    -------
    float
        MB; NaN where the kernel does not tell.
    """
    return _numbers_of("/proc/self/status").get("VmHWM", float("nan")) / 1024


def write_benchmark(path: Path, begin: Usage, end: Usage, peak: float) -> None:
    """Write what a step has used, as Snakemake writes the benchmark of a job.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    begin, end : Usage
        What the process had used before and after the step.
    peak : float
        Peak of the memory, MB.
    """
    seconds, cpu = end.seconds - begin.seconds, end.cpu - begin.cpu
    clock = f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
    row = {
        **dict.fromkeys(COLUMNS, "NA"),
        "s": f"{seconds:.4f}",
        "h:m:s": clock,
        "max_rss": f"{peak:.2f}",
        "io_in": f"{end.read - begin.read:.2f}",
        "io_out": f"{end.written - begin.written:.2f}",
        "mean_load": f"{100 * cpu / max(seconds, 1e-3):.2f}",
        "cpu_time": f"{cpu:.2f}",
    }
    with text_file(path) as file:
        file.write("\t".join(COLUMNS) + "\n" + "\t".join(row[name] for name in COLUMNS) + "\n")


def process_exposure(tasks: list[Task], arguments: argparse.Namespace) -> int:
    """Run the steps of a chain.

    Parameters
    ----------
    tasks : list of Task
        The steps.
    arguments : argparse.Namespace
        Values of the command line.

    Returns
    -------
    int
        Exit status: 0, or 1 after the first step that fails.
    """
    options = ["--threads", str(arguments.threads)]
    if arguments.crds_context:
        options += ["--crds_context", arguments.crds_context]
    file = None
    for number, task in enumerate(tasks, start=1):
        log.info("Step %d of %d: %s", number, len(tasks), task.name)
        log_path = arguments.logs / f"{task.name}.log"
        forget_peak_memory()
        begin = Usage.now()
        status, file = run_task(task, options, file, log_path, keep=task.name in arguments.write)
        end = Usage.now()
        if status:
            sys.stderr.write(log_path.read_text())
            return status
        write_benchmark(arguments.benchmarks / f"{task.name}.tsv", begin, end, peak_memory())
    log.info("All %d steps done: %.1f s of processor time", len(tasks), time.process_time())
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(
        prog="process_exposure.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", metavar="STEP", nargs="*", default=[], help="steps whose exposure is written to a file")
    parser.add_argument("--logs", metavar="FOLDER", type=Path, required=True, help="folder of the logs, STEP.log")
    parser.add_argument("--benchmarks", metavar="FOLDER", type=Path, required=True, help="folder of the benchmarks, STEP.tsv")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to use (default: 1)")
    parser.add_argument("--crds_context", metavar="NAME", help="CRDS context that chose the references, to be recorded")
    arguments = parser.parse_args(argv)
    with reported_errors("process_exposure") as outcome:
        tasks = read_tasks(sys.stdin.read())
        outcome.status = process_exposure(tasks, arguments)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
