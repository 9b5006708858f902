"""The references and parameters of CRDS for one step and one file, outside of a run of the workflow."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from rampflow.astrometry.parameters import SOURCE
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.declaration import NOT_APPLICABLE, Step, format_value
from rampflow.step.exposure import Exposure
from rampflow.workflow import references
from rampflow.workflow.association import Member
from rampflow.workflow.headers import metadata_for_crds
from rampflow.workflow.reference_choice import ReferenceChoice
from rampflow.workflow.selections import SelectedSettings
from rampflow.workflow.step_parameters import source_options


def choose(step: Step, path: Path, given: Container[str], context: str | None = None) -> list[str]:
    """Choose the references and parameters of a step for an exposure, as a run of the workflow does.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    path : pathlib.Path
        File of the exposure, as the previous step left it.
    given : container of str
        Names of the references and parameters that the user gives.
    context : str, optional
        CRDS context; by default that of CRDS_CONTEXT, or the default of the server or cache.

    Returns
    -------
    list of str
        Arguments of the step's script: references, parameters, and what records where they are from. References that the cache
        lacks have been fetched.

    Raises
    ------
    RampflowError
        The file is damaged, CRDS has no reference that the step needs, or it can't be fetched.
    """
    with AsdfFile(path) as file:
        header = metadata_for_crds(Exposure(file))
    context = references.resolve_context(context)
    choice = ReferenceChoice(context, {}, {step.name: step})
    override = {reference.type: NOT_APPLICABLE for reference in step.references if reference.type in given}
    chosen = choice.paths(header, [step.name], path, override)
    words, by_crds = [], []
    for name, file_name in chosen.items():
        if name in override:
            continue
        if file_name != NOT_APPLICABLE:
            file_name = str(references.fetch(Path(file_name).name, context))
        words += [f"--{name}", file_name]
        by_crds.append(name)
    if by_crds:
        words += ["--chosen_by_crds", ",".join(by_crds)]
    if "crds_context" not in given:
        words += ["--crds_context", context]
    member = Member(path, path.stem)
    settings = {
        "given": {step.name: [p.name for p in step.parameters if p.name in given]},
        "references": {"step_parameters": True},
        "astrometric_catalog": SOURCE.default,
    }
    parameters = choice.parameters(
        settings, {member: SelectedSettings({}, {})}, {member: [step.name]}, {str(path): {"crds": header}}, {member: override}
    )
    declared = {p.name for p in step.parameters}
    found = parameters[member].values.get(step.name, {}) if parameters else {}
    found = {name: value for name, value in found.items() if name in declared}
    for name, (value, _) in found.items():
        words += [f"--{name}", format_value(value)]
    return [*words, *source_options(found)]
