"""What a report repeats that is made later than the products: its pictures of the ramps need files that have been removed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rampflow.chain import STEPS
from rampflow.workflow.command_line import possible_targets
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.plan import Plan
from rampflow.workflow.report_inputs import ReportInputs


def is_report_requested(arguments: Sequence[str]) -> bool:
    """Test whether a command line names the reports as a target.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.

    Returns
    -------
    bool
        True for the target ``report``, and for the page of an association.
    """
    return any(word == "report" or word.endswith("_report.html") for word in possible_targets(arguments))


def steps_of_pictures(plan: Plan, stem: str) -> list[str]:
    """List the steps whose files the pictures of the ramps of an exposure need.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    stem : str
        Name of the exposure.

    Returns
    -------
    list of str
        Names of the steps, in order; empty for a calibrated image.
    """
    if plan.exposures[stem].is_calibrated:
        return []
    needed = {
        JobInputs(plan).exposure_before(stem, "ramp_fitting"),
        plan.paths.exposure(stem, "ramp_fitting"),
        *ReportInputs(plan).ramps_around_refpix(stem),
        *ReportInputs(plan).ramp_with_transient(stem),
    }
    return [step for step in _rewriting(plan, stem) if plan.paths.exposure(stem, step) in needed]


def repeated_steps(plan: Plan, in_one_job: Collection[str] = ()) -> dict[str, list[str]]:
    """List the steps that a report repeats for exposures whose products exist.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    in_one_job : collection of str
        Exposures whose steps one job has run. Its files don't follow from those of single steps.

    Returns
    -------
    dict of str to list of str
        For each exposure, the steps in order, without the alignment and the products; exposures without any are left out.
    """
    jobs, found = ExposureJobs(plan), {}
    for stem in plan.exposures:
        pictures = Path(plan.paths.intermediate(stem, "ramp_pictures.json"))
        if pictures.exists() or not all(Path(path).exists() for path in plan.products(stem)):
            continue
        steps = _rewriting(plan, stem)
        made = [Path(plan.paths.exposure(stem, step)).exists() for step in steps]
        missing = [steps.index(step) for step in steps_of_pictures(plan, stem) if not made[steps.index(step)]]
        if missing:
            begin = max((number + 1 for number in range(missing[0]) if made[number]), default=0)
            alone = stem in in_one_job and not {steps[number] for number in missing} & set(jobs.written_steps(stem))
            found[stem] = steps[begin : missing[-1] + 1] if alone else jobs.steps_of_exposure(stem)[begin:]
    return found


def _rewriting(plan: Plan, stem: str) -> list[str]:
    """Steps of an exposure that write a new exposure file."""
    return [step for step in ExposureJobs(plan).steps_of_exposure(stem) if STEPS[step].rewrites]


def describe_repeated(plan: Plan, repeated: dict[str, list[str]]) -> str:
    """Write the message that says what a report repeats, and how to avoid it.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    repeated : dict
        Steps of at least one exposure, see `repeated_steps`.

    Returns
    -------
    str
        The message.
    """
    steps = [step for step in STEPS if any(step in found for found in repeated.values())]
    needed = {step for stem in repeated for step in steps_of_pictures(plan, stem)} | plan.kept_in_configuration()
    count = f"{len(repeated)} exposure{'' if len(repeated) == 1 else 's'}"
    return (
        f"report: the pictures of the ramps need files that have been removed, so that {steps[0]} to {steps[-1]} run again for "
        f"{count}. A report that is requested together with the products repeats nothing. To make reports later, keep the "
        f"files from the first run on: keep_intermediates='[{', '.join(step for step in STEPS if step in needed)}]'"
    )
