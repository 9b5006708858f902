"""The record of a run, ``run.json`` in the results folder: what made its products, for readers who have no logs.

The products of an exposure record their own provenance, too: ``meta.ref_file``, ``meta.cal_step`` and ``meta.cal_logs``.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rampflow import SOFTWARE_NAME, __version__
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.atomic import replacing
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow import references
from rampflow.workflow.job_arguments import JobArguments
from rampflow.workflow.plan import Plan

NAME = "run.json"
FORMAT = 1  #: increased whenever an entry is renamed or removed


def write_record(plan: Plan, begun: float, command: Sequence[str], *, success: bool, failures: Sequence[str] = ()) -> Path:
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
        "exposures": {stem: _exposure(plan, stem) for stem in plan.exposures},
        "references": {path: _identity(path, trusted=True) for path in plan.inventory.references()},
        "inputs": {path: _identity(path) | _linked(plan, path) for e in plan.exposures.values() for path in e.files},
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


def _exposure(plan: Plan, stem: str) -> dict[str, Any]:
    """What made the products of an exposure: its input, and the parameters and references of each step."""
    entry, arguments = plan.exposures[stem], JobArguments(plan)
    products = {path.name: path.stat().st_size for path in map(Path, plan.products(stem)) if path.exists()}
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
