"""The choice of references and parameters for the exposures of a run: those of the configuration, and those of CRDS."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.workflow import references, step_parameters
from rampflow.workflow.association import Member
from rampflow.workflow.step_parameters import StepParameters


def overriding_file(reftype: str, given: str, folder: Path) -> str:
    """Find a reference that the configuration names.

    Parameters
    ----------
    reftype : str
        Type of the reference.
    given : str
        Name of the file, or N/A.
    folder : pathlib.Path
        Where relative names are taken from.

    Returns
    -------
    str
        Path of the file, or N/A.

    Raises
    ------
    RampflowError
        The file does not exist.
    """
    if given == NOT_APPLICABLE:
        return given
    path = folder / os.path.expanduser(given)
    if not path.is_file():
        raise RampflowError(f"references.override.{reftype}: {path} does not exist; name a file, or N/A for none")
    return str(path)


def is_crds_needed(chains: Iterable[list[str]], override: dict, named: str | None, steps: dict[str, Step]) -> bool:
    """Tell whether CRDS is to be asked: for a reference that the steps need, or because a context is named.

    A run whose references are all the user's own needs no cache. Parameters and optional references are then CRDS's only if a
    context is named.

    Parameters
    ----------
    chains : iterable of list of str
        Steps of each exposure.
    override : dict
        Path or N/A of each type of reference that the configuration names.
    named : str or None
        Context of the configuration.
    steps : dict
        Declaration of each step, by its name.

    Returns
    -------
    bool
        Whether to ask.
    """
    declared = {r.type: r for chain in chains for name in chain for r in steps[name].references}
    if any(not reference.optional for reftype, reference in declared.items() if reftype not in override):
        return True
    return bool(declared) and references.is_context_named(named)


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
    override : dict
        Path or N/A of each type that the configuration names.
    """

    context: str | None
    recommended: dict[str, dict[str, str]]
    steps: dict[str, Step]
    override: dict[str, str]

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

    def _types(self, chain: list[str]) -> list[str]:
        """The types of the references that CRDS chooses by the exposure for the steps of a chain."""
        declared = {r.type: r for name in chain for r in self.steps[name].references}
        return [t for t, reference in declared.items() if t not in self.override and not reference.selected_by]

    def paths(self, header: dict, chain: list[str], path: Path) -> dict[str, str]:
        """Choose the path (or N/A) of each reference of an exposure.

        Parameters
        ----------
        header : dict of str to str
            Metadata by which CRDS chooses.
        chain : list of str
            Steps of the exposure.
        path : pathlib.Path
            File of the exposure, for messages.

        Returns
        -------
        dict of str to str
            Path or N/A of each type.

        Raises
        ------
        RampflowError
            CRDS has no reference of a type that a step needs.
        """
        answers = self._ask(header, self._types(chain), path)
        chosen = {}
        for reference in {r.type: r for name in chain for r in self.steps[name].references}.values():
            reftype = reference.type
            if reftype in self.override:
                chosen[reftype] = self.override[reftype]
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

    def parameters(self, config: dict, chains: dict[Member, list[str]], headers: dict) -> dict[Member, StepParameters]:
        """Read the parameters that CRDS sets for each exposure; empty if they are switched off.

        Parameters
        ----------
        config : dict
            The validated configuration.
        chains : dict
            Steps that each member of an association goes through.
        headers : dict
            Header of each file, by its path, see `rampflow.workflow.headers.read_headers`.

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
            header = headers[str(member.path)]["crds"]
            types = step_parameters.reference_types(chain)
            # Together with the references: CRDS is asked once for each exposure.
            answers = self._ask(header, [*self._types(chain), *types], member.path)
            paths = {}
            for reftype in types:
                name = answers[reftype]
                if name != NOT_APPLICABLE and references.is_found(name):
                    paths[reftype] = str(references.cache_path(name))
                    if paths[reftype] not in contents:
                        contents[paths[reftype]] = step_parameters.read_reference(_in_cache(name, self.context))
            result[member] = step_parameters.merged(paths, contents, config, {name: self.steps[name] for name in chain})
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
