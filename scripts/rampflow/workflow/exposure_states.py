"""What became of the exposures of a run, for the table of exposures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from rampflow.errors import RampflowError
from rampflow.quality.outliers import Finding
from rampflow.quality.table import update_table
from rampflow.workflow.plan import Plan


def states_of_run(plan: Plan, failed: Mapping[Path, str], finished: Collection[str]) -> dict[str, dict[str, Any]]:
    """Say what became of each exposure of a run.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    failed : mapping of pathlib.Path to str
        Reason by the log of each job that failed, see `rampflow.workflow.summary.failed_jobs`.
    finished : collection of str
        Exposures whose products are all there, and as this run would make them.

    Returns
    -------
    dict
        For each exposure its identification, and ``association``, ``state``, ``failed_step`` and ``reason``.
    """
    reasons = {(log.parent.name, log.stem): reason for log, reason in failed.items()}
    by_name = {name: (step, reason) for (name, step), reason in reasons.items()}
    states = {}
    for stem, entry in plan.exposures.items():
        step, reason = by_name.get(stem) or by_name.get(entry.association, ("", ""))
        has_products = all(Path(path).exists() for path in plan.products(stem))
        if stem in finished:
            state, step, reason = "complete", "", ""
        elif has_products:
            state = "outdated"
        else:
            state = "failed" if step else "missing"
        states[stem] = {
            **entry.identification,
            "detector": entry.detector,
            "exposure_type": entry.exposure_type,
            "association": entry.association,
            "state": state,
            "failed_step": step,
            "reason": reason,
        }
    return states


def find_outliers_of_run(
    plan: Plan, failed: Mapping[Path, str], finished: Collection[str], *, forget_others: bool = False
) -> list[str]:
    """Bring the table of exposures up to date, and list the outliers among the exposures of the run.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    failed : mapping of pathlib.Path to str
        Reason by the log of each job that failed.
    finished : collection of str
        Exposures whose products are all there, and as this run would make them.
    forget_others : bool
        Whether exposures of other runs that have no products lose their row.

    Returns
    -------
    list of str
        A line for each exposure with an outlier. Statuses are left out: the logs of their steps have warnings.
    """
    dropped = None if forget_others else plan.settings["exclude"]
    try:
        findings = update_table(
            Path(plan.settings["results"]), states_of_run(plan, failed, finished), plan.settings["qa"]["limits"], dropped
        )
    except (RampflowError, OSError) as error:
        return [f"the table of exposures: {error}. It is written at the end of the next run that has a job to do"]
    return list(_lines(plan.exposures, findings))


def _lines(stems: Iterable[str], findings: Mapping[str, list[Finding]]) -> Iterable[str]:
    for stem in stems:
        if texts := [finding.text for finding in findings.get(stem, []) if not finding.name.startswith("s_")]:
            yield f"{stem}: {'; '.join(texts)}"
