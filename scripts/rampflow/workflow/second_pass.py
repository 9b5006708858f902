"""Align and finish the exposures whose association waits for others that have failed.

Snakemake starts no job that lacks an input, so an exposure that fails holds back the alignment of its association. When
everything else has been done, the same command is run again for these associations, without the failed exposures. The next run
has them in again: Snakemake sees that the alignment has other inputs, and repeats it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rampflow.chain import image_chain
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.paths import EXPOSURE_JOB, FETCH_JOB, FETCH_REFERENCE
from rampflow.workflow.plan import EXPOSURES_VARIABLE, Plan

#: Environment variable that tells a second pass the file with the exposures to leave out, one a line.
LEFT_OUT_VARIABLE = "RAMPFLOW_LEFT_OUT"
LEFT_OUT_FILE = Path(".rampflow/left_out.txt")
#: Options of Snakemake that make it run jobs again that the first pass has just run.
_FORCING = ("--force", "--forceall", "-f", "-F")


def is_second_pass() -> bool:
    """Test whether this run finishes another one.

    Returns
    -------
    bool
        True in a second pass.
    """
    return LEFT_OUT_VARIABLE in os.environ


def left_out() -> list[str]:
    """List the exposures that this run leaves out because it is a second pass.

    Returns
    -------
    list of str
        Names of the exposures; empty for another run.
    """
    path = os.environ.get(LEFT_OUT_VARIABLE)
    return Path(path).read_text().splitlines() if path else []


def holds_back_alignment(plan: Plan, stem: str, step: str) -> bool:
    """Test whether the alignment of an association can't start without the output of a step of an exposure.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    stem : str
        Name of the exposure.
    step : str
        Name of the step, or `EXPOSURE_JOB` or `FETCH_JOB`.

    Returns
    -------
    bool
        True if the alignment waits for the step.
    """
    entry = plan.exposures.get(stem)
    if entry is None or "tweakreg" not in entry.chain:
        return False
    return step in image_chain(entry.chain) or step in ("source_catalog", EXPOSURE_JOB, FETCH_JOB)


def with_readers(plan: Plan, failed: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Add the exposures that were not processed because a reference of theirs could not be fetched.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    failed : collection of tuple of str
        Name and step of each failed job. That of the job of a reference is the name of its file.

    Returns
    -------
    list of tuple of str
        The same, and the exposures with `FETCH_JOB`.
    """
    lost = {name for name, step in failed if step == FETCH_REFERENCE}
    readers = [
        (stem, FETCH_JOB)
        for stem, entry in plan.exposures.items()
        if lost & {Path(path).name for path in entry.references.values()}
    ]
    return [*failed, *readers]


def exposures_to_finish(plan: Plan, failed: Collection[tuple[str, str]], *, with_report: bool = False) -> list[str]:
    """List the exposures of a second pass: those that it can align and finish, and the finished ones of their associations.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    failed : collection of tuple of str
        Name and step of each failed job.
    with_report : bool
        Whether the run makes reports. A report is also held back by a failed exposure that is not aligned.

    Returns
    -------
    list of str
        Members of associations that a failed exposure holds back, where all members that have not failed are ready to be
        aligned. A run that stops at the first failure leaves members that are not: nothing more is started for these. Members
        that are not aligned are among them if they have all products, so that the report has them.
    """
    failed_stems = {name for name, _ in failed}
    waiting = {plan.exposures[stem].association for stem, step in failed if holds_back_alignment(plan, stem, step)}
    if with_report:
        # An association whose alignment is done must keep its members.
        aligned = {plan.exposures[stem].association for stem in failed_stems & set(plan.with_step("tweakreg"))}
        unaligned = failed_stems & set(plan.without_step("tweakreg"))
        waiting |= {plan.exposures[stem].association for stem in unaligned} - aligned
    job_inputs, found = JobInputs(plan), []
    for association in sorted(waiting):
        others = [stem for stem in plan.members_to_align(association) if stem not in failed_stems]
        needed = [name for stem in others for name in (job_inputs.calibrated_image(stem), job_inputs.own_catalog(stem))]
        if all(Path(name).exists() for name in needed):
            found += others
            rest = set(plan.members(association)) - failed_stems - set(plan.members_to_align(association))
            found += sorted(stem for stem in rest if all(Path(name).exists() for name in plan.products(stem)))
    return found


def start_folder(arguments: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Find the folder in which the user has started Snakemake.

    Relative paths of its command line are taken from this folder.

    Parameters
    ----------
    arguments : sequence of str
        The command line. With ``--directory``, Snakemake has changed the working folder.
    environment : mapping
        The shell names its folder in PWD.

    Returns
    -------
    pathlib.Path
        Path of the folder.
    """
    elsewhere = any(word in ("--directory", "-d") or word.startswith("--directory=") for word in arguments)
    given = Path(environment.get("PWD", ""))
    return given if elsewhere and given.is_absolute() and given.is_dir() else Path.cwd()


def run_second_pass(plan: Plan, stems: Collection[str], arguments: Sequence[str]) -> None:
    """Run the same command for some exposures alone.

    A Ctrl-C in a terminal reaches the second pass, too. It is waited for, so that it ends its jobs in order.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    stems : collection of str
        The exposures, see `exposures_to_finish`.
    arguments : sequence of str
        The command line of the first pass, without the program.
    """
    LEFT_OUT_FILE.parent.mkdir(parents=True, exist_ok=True)
    incoming = {stem for left_out in plan.inventory.left_out.values() for stem in left_out}  # they may have arrived meanwhile
    LEFT_OUT_FILE.write_text("\n".join(sorted({*plan.exposures, *incoming} - set(stems))))
    environment = {name: value for name, value in os.environ.items() if name != EXPOSURES_VARIABLE}
    # The first pass holds the lock of the working folder. An empty --forcerun takes the place of the user's.
    kept = [word for word in arguments if word not in _FORCING]
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *kept, "--forcerun", "--nolock"],
        cwd=start_folder(arguments, os.environ),
        env=environment | {LEFT_OUT_VARIABLE: str(LEFT_OUT_FILE.absolute())},
    )
    try:
        process.wait()
    except KeyboardInterrupt:
        process.wait()
