"""The choice of references and parameters for the exposures of a run: those of the configuration, and those of CRDS."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Container
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.workflow import references, step_parameters
from rampflow.workflow.association import Member
from rampflow.workflow.selections import SelectedSettings
from rampflow.workflow.step_parameters import StepParameters


def overriding_files(config: dict, settings: SelectedSettings, folder: Path) -> dict[str, str]:
    """Find the references that the configuration names for an exposure.

    Parameters
    ----------
    config : dict
        The validated configuration.
    settings : rampflow.workflow.selections.SelectedSettings
        What ``overrides`` sets for the exposure.
    folder : pathlib.Path
        Where relative names are taken from.

    Returns
    -------
    dict of str
        Path or N/A of each type.

    Raises
    ------
    RampflowError
        A file does not exist.
    """
    result = {}
    for place, reftype, given in _own_references(config, settings):
        path = str(folder / os.path.expanduser(given)) if given != NOT_APPLICABLE else given
        if path != NOT_APPLICABLE and not Path(path).is_file():
            raise RampflowError(f"{place}.{reftype}: {path} does not exist; name a file, or N/A for none")
        result[reftype] = path
    return result


def _own_references(config: dict, settings: SelectedSettings) -> list[tuple[str, str, str]]:
    """Place in the configuration, type and file of the references that it names for an exposure."""
    general = config["references"]["override"]
    found = {reftype: ("references.override", reftype, path) for reftype, path in general.items()}
    found |= {reftype: (f"{entry}.references", reftype, path) for reftype, (path, entry) in settings.references.items()}
    return list(found.values())


def is_crds_needed(
    chains: dict[Member, list[str]], override: dict[Member, dict[str, str]], config: dict, steps: dict[str, Step]
) -> bool:
    """Tell whether CRDS is to be asked: for a reference that the steps need, or because a context is named.

    A run whose references are all the user's own, or whose steps have none, needs no cache. Parameters and optional references
    are then CRDS's only if a context is named.

    Parameters
    ----------
    chains : dict
        Steps that each member of an association goes through.
    override : dict
        Path or N/A of each type of reference that the configuration names, for each member of an association.
    config : dict
        The section ``references`` of the configuration.
    steps : dict
        Declaration of each step, by its name.

    Returns
    -------
    bool
        Whether to ask.
    """
    declared = {(m, r.type): r for m, chain in chains.items() for name in chain for r in steps[name].references}
    if any(not reference.optional for (member, reftype), reference in declared.items() if reftype not in override[member]):
        return True
    wanted = bool(declared) or step_parameters.are_enabled(config)
    return wanted and references.is_context_named(config["crds_context"])


@dataclasses.dataclass
class ReferenceChoice:
    """CRDS's choice of references. Exposures with the same values that CRDS chooses by share it.

    Attributes
    ----------
    context : str or None
        The CRDS context. None: CRDS is not asked.
    recommended : dict
        Answers so far, by the values that CRDS chooses by, and by type. New ones are added.
    steps : dict
        Declaration of each step.
    """

    context: str | None
    recommended: dict[str, dict[str, str]]
    steps: dict[str, Step]

    def _ask(self, header: dict, types: list[str], path: Path) -> dict[str, str]:
        """CRDS's answer for each type: the name of the file, N/A, or why there is none. Known answers are not asked again."""
        if self.context is None:
            return dict.fromkeys(types, references.NOT_FOUND)
        key = "|".join(header.get(name, "") for name in references.MATCHED)
        known = self.recommended.setdefault(key, {})
        if wanted := [t for t in types if t not in known]:
            try:
                known |= references.recommendations(header, wanted, self.context)
            except RampflowError as error:
                raise RampflowError(f"{path}: {error}") from None
        return {t: known[t] for t in types}

    def _types(self, chain: list[str], override: Container[str]) -> list[str]:
        """The types of the references that CRDS chooses by the exposure for the steps of a chain."""
        declared = {r.type: r for name in chain for r in self.steps[name].references}
        return [t for t, reference in declared.items() if t not in override and not reference.selected_by]

    def paths(self, header: dict, chain: list[str], path: Path, override: dict[str, str]) -> dict[str, str]:
        """Choose the path (or N/A) of each reference of an exposure.

        Parameters
        ----------
        header : dict of str to str
            Metadata by which CRDS chooses.
        chain : list of str
            Steps of the exposure.
        path : pathlib.Path
            File of the exposure, for messages.
        override : dict
            Path or N/A of each type that the configuration names.

        Returns
        -------
        dict of str to str
            Path or N/A of each type.

        Raises
        ------
        RampflowError
            CRDS has no reference of a type that a step needs.
        """
        answers = self._ask(header, self._types(chain, override), path)
        chosen = {}
        for reference in {r.type: r for name in chain for r in self.steps[name].references}.values():
            reftype = reference.type
            if reftype in override:
                chosen[reftype] = override[reftype]
                continue
            if reference.selected_by:
                crds_type = reference.crds_type or reftype
                answer = self._ask(references.INSTRUMENT | reference.selected_by, [crds_type], path)[crds_type]
            else:
                answer = answers[reftype]
            if references.is_found(answer):
                chosen[reftype] = answer if answer == NOT_APPLICABLE else str(references.cache_path(answer))
            elif reference.optional:
                chosen[reftype] = NOT_APPLICABLE
            else:
                error = references.not_found_error(header, reftype, answer, self.context or "no context")
                raise RampflowError(f"{path}: {error}")
        return chosen

    def parameters(
        self,
        config: dict,
        settings: dict[Member, SelectedSettings],
        chains: dict[Member, list[str]],
        headers: dict,
        override: dict[Member, dict[str, str]],
    ) -> dict[Member, StepParameters]:
        """Read the parameters that CRDS sets for each exposure; empty if they are switched off.

        Parameters
        ----------
        config : dict
            The validated configuration.
        settings : dict
            What ``overrides`` sets for each member of an association.
        chains : dict
            Steps that each member of an association goes through.
        headers : dict
            Header of each file, by its path, see `rampflow.workflow.headers.read_headers`.
        override : dict
            Path or N/A of each type of reference that the configuration names, for each member of an association.

        Returns
        -------
        dict
            Parameters of each member of an association.

        Raises
        ------
        RampflowError
            A reference is missing or has values that a parameter does not take.
        """
        if self.context is None or not step_parameters.are_enabled(config["references"]):
            return {}
        contents: dict[str, dict] = {}
        result = {}
        for member, chain in chains.items():
            header = headers[member.source]["crds"]
            types = step_parameters.parameter_reference_types(chain)
            # Together with the references: CRDS is asked once for each exposure.
            answers = self._ask(header, [*self._types(chain, override[member]), *types], member.path)
            paths = {}
            for reftype in types:
                name = answers[reftype]
                if name != NOT_APPLICABLE and references.is_found(name):
                    paths[reftype] = str(references.cache_path(name))
                    if paths[reftype] not in contents:
                        contents[paths[reftype]] = step_parameters.read_reference(_in_cache(name, self.context))
            # What the configuration sets for the exposure isn't looked up in the references.
            given = {name: [*config["given"].get(name, ()), *settings[member].parameters.get(name, ())] for name in chain}
            steps = {name: self.steps[name] for name in chain}
            result[member] = step_parameters.merge_references(paths, contents, {**config, "given": given}, steps)
        return result


def _in_cache(name: str, context: str) -> Path:
    """Path of a reference that is read before the first job; it is fetched if the cache lacks it."""
    path = references.cache_path(name)
    if not path.is_file():
        if references.is_serverless():
            raise RampflowError(
                f"{path}: this reference of {context} is not in the CRDS cache, and there is no server to fetch it from; copy "
                "it there, set CRDS_SERVER_URL, or leave CRDS's parameters out with references: {step_parameters: false}"
            )
        references.fetch(name, context)
    return path
