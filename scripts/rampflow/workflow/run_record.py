"""The record of a run, ``run.json`` in the results folder: what made its products, for readers who have no logs.

The products of an exposure record their own provenance, too: ``meta.ref_file``, ``meta.cal_step`` and ``meta.cal_logs``.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rampflow import SOFTWARE_NAME, __version__
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.atomic import replacing
from rampflow.files.checksums import logged_checksums, remembered_checksums, sha256_of
from rampflow.files.user_cache import user_cache
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow import references, rerun
from rampflow.workflow.commands import Commands
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.paths import benchmark_of, log_file
from rampflow.workflow.plan import Plan

NAME = "run.json"
FORMAT = 2  #: increased whenever an entry is renamed or removed
CHECKSUMS = "checksums.json"  #: of references, in the user's cache
#: Logs of an exposure with the checksums of its inputs and products.
_LOGS_WITH_CHECKSUMS = ("dq_init", "finalize")
_SLACK = 1_000_000_000  #: nanoseconds, for disks that tell times to a second


def write_record(
    plan: Plan,
    begun: float,
    command: Sequence[str],
    *,
    success: bool,
    failures: Sequence[str] = (),
    in_one_job: Collection[str] = (),
    realigned: Collection[str] = (),
    interrupted: bool = False,
) -> Path:
    """Write the record of a run. It replaces that of an earlier run.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    begun : float
        When it began, seconds since 1970.
    command : sequence of str
        The command line.
    success : bool
        Whether Snakemake ended with success.
    failures : sequence of str
        What failed, a line each.
    in_one_job : collection of str
        Exposures whose steps one job runs, see `rampflow.workflow.rerun.exposures_in_one_job`.
    realigned : collection of str
        Exposures that a second pass has aligned without those that have failed.
    interrupted : bool
        Whether the run was interrupted. References that have not been read before then have no checksum, which takes a second
        for a detector.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    path = Path(plan.settings["results"]) / NAME
    commands, logged = Commands(plan, in_one_job), {stem: _logged_checksums(stem) for stem in plan.exposures}
    checksums = remembered_checksums(plan.inventory.references(), user_cache() / CHECKSUMS, compute=not interrupted)
    record = {
        "format": FORMAT,
        "software": {"name": SOFTWARE_NAME, "version": __version__},
        "begun": _utc(begun),
        "ended": _utc(datetime.datetime.now().timestamp()),
        "success": success,
        "failures": list(failures),
        "command": list(command),
        "folder": str(Path.cwd()),
        "configuration": {name: value for name, value in plan.settings.items() if name != "given"},
        "crds": {"context": plan.inventory.context, "environment": references.source()},
        "environment": {name: value for name, value in plan.job_environment().items() if name != "PATH"},
        "exposures": {
            stem: {
                **_exposure(plan, stem, logged[stem]),
                "current": rerun.is_current(plan, stem, realigned),  # False: the products are of other parameters and commands
                "commands": commands.of_exposure(stem),
            }
            for stem in plan.exposures
        },
        "associations": {name: _association(plan, name, commands, realigned) for name in plan.associations()},
        "references": {
            path: _identity(path, trusted=True) | ({"sha256": checksums[path]} if path in checksums else {})
            for path in plan.inventory.references()
        },
        "inputs": {
            path: _identity(path) | _linked(plan, path) | _checked_input(plan, stem, path, logged[stem])
            for stem, entry in plan.exposures.items()
            for path in entry.files
        },
        "packages": installed_packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=1, default=str) + "\n")
    return path


def installed_packages() -> dict[str, str]:
    """List the installed packages.

    Returns
    -------
    dict of str to str
        Version of each package, sorted by name.
    """
    found = {distribution.name: distribution.version for distribution in metadata.distributions() if distribution.name}
    return {name: found[name] for name in sorted(found, key=str.lower)}


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _logged_checksums(stem: str) -> dict[str, tuple[int, str, int]]:
    """Size and checksum of the files of an exposure by name, and the latest time of a file that was not changed, nanoseconds.

    Snakemake touches the outputs of a job after its end, and then its benchmark.
    """
    found: dict[str, tuple[int, str, int]] = {}
    for log in (log_file(stem, step) for step in _LOGS_WITH_CHECKSUMS):
        if sums := logged_checksums(log):
            ends = [path.stat().st_mtime_ns for path in (log, benchmark_of(log)) if path.exists()]
            found |= {name: (size, checksum, max(ends) + _SLACK) for name, (size, checksum) in sums.items()}
    return found


def _checked(path: str, logged: Mapping[str, tuple[int, str, int]]) -> dict[str, Any]:
    """Size of a file, and the checksum that a job has logged, unless the file has changed since."""
    size, checksum, latest = logged.get(Path(path).name, (-1, "", 0))
    try:
        status = os.stat(path)
    except OSError:
        return {}
    is_same = status.st_size == size and status.st_mtime_ns <= latest
    return {"bytes": status.st_size} | ({"sha256": checksum} if is_same else {})


def _checked_input(plan: Plan, stem: str, path: str, logged: Mapping[str, tuple[int, str, int]]) -> dict[str, Any]:
    """The same of an input. One of the network has the name with which it was fetched, and is not there any more."""
    if remote := plan.exposures[stem].remote:
        size, checksum, _ = logged.get(Path(plan.paths.fetched(stem)).name, (-1, "", 0))
        return {"bytes": remote.size, "content": remote.content} | ({"sha256": checksum} if size == remote.size else {})
    return _checked(path, logged)


def _association(plan: Plan, name: str, commands: Commands, realigned: Collection[str]) -> dict[str, Any]:
    """The exposures of an association, and what made its alignment."""
    found: dict[str, Any] = {"exposures": plan.members(name)}
    if name not in plan.aligned_associations():
        return found
    aligned = plan.members_to_align(name)
    aligned = [stem for stem in aligned if stem in realigned] or aligned
    summary = Path(plan.paths.product(name, "tweakreg.json"))
    products = {}
    if summary.exists():
        products[summary.name] = {"bytes": summary.stat().st_size, "sha256": sha256_of(summary)}
    return found | {"aligned": aligned, "commands": commands.of_association(name, aligned), "products": products}


def _exposure(plan: Plan, stem: str, logged: Mapping[str, tuple[int, str, int]]) -> dict[str, Any]:
    """What made the products of an exposure: its input, and the parameters and references of each step."""
    entry, arguments = plan.exposures[stem], JobArguments(plan)
    products = {Path(path).name: _checked(path, logged) for path in plan.products(stem) if Path(path).exists()}
    steps = {}
    for step in entry.chain:
        declared = plan.declared[step]
        options = arguments.alignment_options(entry.association) if step == "tweakreg" else plan.options(stem, step)
        steps[step] = {
            "parameters": {parameter.name: options.get(parameter.name) for parameter in declared.parameters},
            "references": {
                reference.type: entry.references[reference.type]
                for reference in declared.references
                if entry.references.get(reference.type, NOT_APPLICABLE) != NOT_APPLICABLE
            },
        }
    return {
        "association": entry.association,
        "input": entry.path,
        "detector": entry.detector,
        "exposure_type": entry.exposure_type,
        "steps": steps,
        "products": products,
    }


def _identity(path: str, *, trusted: bool = False) -> dict[str, Any]:
    """Size of a file, and of a reference a digest of its content."""
    try:
        found: dict[str, Any] = {"bytes": Path(path).stat().st_size}
        return found | ({"content": links.content_of(Path(path), trusted=True)} if trusted else {})
    except (OSError, RampflowError):
        return {}  # it was removed while the run went on


def _linked(plan: Plan, path: str) -> dict[str, str]:
    """The digest of an input's content, by which the run knows it."""
    return {"content": Path(plan.links[path]).parent.name} if path in plan.links else {}
