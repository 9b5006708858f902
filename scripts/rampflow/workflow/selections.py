"""Selections of exposures by name and metadata, and the settings that the configuration has for the selected ones.

A selection is a mapping, as ``{detector: WFI06, optical_element: F129}``: all of its keys must match. A value is a text, a
number or a list of these, of which one must match. ``*``, ``?`` and ``[...]`` in a text are those of file names. Case counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rampflow.errors import shortened
from rampflow.step.provenance import OVERRIDES
from rampflow.workflow.exposure_names import matches_name, visit_of

#: Keys of a selection with the metadata that they compare. The first three follow from names and association files.
KEYS: dict[str, tuple[str, ...]] = {
    "exposure": (),
    "association": (),
    "visit": ("observation.visit_id", "observation.visit"),
    "program": ("observation.program",),
    "execution_plan": ("observation.execution_plan",),
    "pass": ("observation.pass",),
    "segment": ("observation.segment",),
    "observation": ("observation.observation",),
    "detector": ("instrument.detector",),
    "optical_element": ("instrument.optical_element",),
    "exposure_type": ("exposure.type",),
    "ma_table": ("exposure.ma_table_name", "exposure.ma_table_number", "exposure.ma_table_id"),
}
#: Number of values that a message lists for a key.
SHOWN = 12

Facts = Mapping[str, tuple[str, ...]]
Selection = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class SelectedSettings:
    """What the section ``overrides`` sets for an exposure.

    Attributes
    ----------
    references : dict
        Reference type to file (or "N/A") and entry of the section, as ``overrides[1]``.
    parameters : dict
        For each step, its parameters by name: value and entry of the section. ``skip`` is among them.
    """

    references: dict[str, tuple[str, str]]
    parameters: dict[str, dict[str, tuple[Any, str]]]


def label(number: int) -> str:
    """Name an entry of the section.

    Parameters
    ----------
    number : int
        Index of the entry.

    Returns
    -------
    str
        ``overrides[1]`` for the second.
    """
    return f"{OVERRIDES}[{number}]"


def is_label(place: str) -> bool:
    """Test whether a parameter is from an entry of the section, and not from a reference of CRDS.

    Parameters
    ----------
    place : str
        Entry, or path of the reference.

    Returns
    -------
    bool
        True for an entry.
    """
    return place.startswith(f"{OVERRIDES}[")


def selectable_names(stem: str, association: str) -> dict[str, tuple[str, ...]]:
    """List what is known of an exposure whose header has not been read.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    association : str
        Name of its association.

    Returns
    -------
    dict of str to tuple of str
        Values of the keys ``exposure`` and ``association``.
    """
    return {"exposure": (stem,), "association": (association,)}


def selectable_values(stem: str, association: str, metadata: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """List what a selection can compare of an exposure.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    association : str
        Name of its association.
    metadata : mapping
        Metadata as text, by names such as ``roman.meta.instrument.detector``.

    Returns
    -------
    dict of str to tuple of str
        Values of each of `KEYS`; the visit has its name, identifier and number.
    """
    found = {
        key: tuple(metadata[name] for field in fields if (name := f"roman.meta.{field}") in metadata)
        for key, fields in KEYS.items()
    }
    return {**found, **selectable_names(stem, association)} | {"visit": (visit_of(stem), *found["visit"])}


def normalized(selection: Mapping[str, Any]) -> dict[str, list[str]]:
    """Write a selection of the configuration with a list of texts for each key.

    Parameters
    ----------
    selection : mapping
        Text, number or list of these for each key.

    Returns
    -------
    dict of str to list of str
        The selection.
    """
    return {key: [str(v) for v in (value if isinstance(value, list) else [value])] for key, value in selection.items()}


def matches(selection: Selection, facts: Facts, *, unknown: bool = False) -> bool:
    """Test whether a selection matches an exposure.

    Parameters
    ----------
    selection : mapping
        Texts for each key.
    facts : mapping
        What is known of the exposure.
    unknown : bool
        Whether a key that isn't known matches.

    Returns
    -------
    bool
        True if every key has a text that matches one of its values.
    """
    return all(
        any(matches_name(pattern, value) for pattern in patterns for value in facts[key]) if key in facts else unknown
        for key, patterns in selection.items()
    )


def describe_selection(selection: Selection) -> str:
    """Write a selection for a message.

    Parameters
    ----------
    selection : mapping
        Texts for each key.

    Returns
    -------
    str
        Its keys and texts, as ``detector WFI06, optical_element F129 or F158``.
    """
    return ", ".join(f"{key} {' or '.join(patterns)}" for key, patterns in selection.items())


def settings_for(overrides: Sequence[Mapping], facts: Facts) -> SelectedSettings:
    """Collect what the section sets for an exposure. A later entry wins over an earlier one.

    Parameters
    ----------
    overrides : sequence of mapping
        The section of the validated configuration.
    facts : mapping
        What is known of the exposure.

    Returns
    -------
    SelectedSettings
        References and parameters.
    """
    references: dict[str, tuple[str, str]] = {}
    parameters: dict[str, dict[str, tuple[Any, str]]] = {}
    for number, entry in enumerate(overrides):
        if matches(entry["select"], facts):
            references |= {name: (path, label(number)) for name, path in entry["references"].items()}
            for step, values in entry["steps"].items():
                parameters.setdefault(step, {}).update({name: (value, label(number)) for name, value in values.items()})
    return SelectedSettings(references, parameters)


def unmatched(selections: Mapping[str, Selection], exposures: Iterable[Facts], others: Iterable[Facts] = ()) -> list[str]:
    """Describe the selections that match no exposure, with the values that there are.

    Parameters
    ----------
    selections : mapping
        Selections by their places in the configuration.
    exposures : iterable of mapping
        What is known of each exposure of the run.
    others : iterable of mapping
        The same of exposures that are left out. A selection may match one of these, of which not all has to be known.

    Returns
    -------
    list of str
        A line for each selection. None where there is no exposure at all, which is another error.
    """
    exposures, others = list(exposures), list(others)
    lines: list[str] = []
    if not exposures:
        return lines
    for place, selection in selections.items():
        found = any(matches(selection, facts) for facts in exposures)
        if found or any(matches(selection, facts, unknown=True) for facts in others):
            continue
        # The first key that leaves no exposure is the one to look at. Exposures that are left out have such values, too.
        remaining = [*exposures, *others]
        before: dict[str, Sequence[str]] = {}
        for key, patterns in selection.items():
            kept = [facts for facts in remaining if matches({key: patterns}, facts)]
            if not kept:
                break
            remaining = kept
            before[key] = patterns
        values = sorted({value for facts in remaining for value in facts.get(key, ())})
        more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
        lines.append(
            f"configuration: {place} ({describe_selection(selection)}) matches no exposure; {key} is "
            f"{shortened(', '.join(values[:SHOWN]))}{more}{f' of those with {describe_selection(before)}' if before else ''}"
        )
    return lines


def describe_overrides(overrides: Sequence[Mapping], exposures: Mapping[str, Facts]) -> list[str]:
    """Describe which exposures each entry of the section has selected.

    Parameters
    ----------
    overrides : sequence of mapping
        The section of the validated configuration.
    exposures : mapping
        What is known of each exposure of the run, by its name.

    Returns
    -------
    list of str
        A line for each entry, with what it sets and the number of exposures.
    """
    lines = []
    for number, entry in enumerate(overrides):
        stems = [stem for stem, facts in exposures.items() if matches(entry["select"], facts)]
        settings = [f"references.{name}" for name in entry["references"]]
        settings += [f"steps.{step}.{name}" for step, values in entry["steps"].items() for name in values]
        count = f"{len(stems)} exposure{'' if len(stems) == 1 else 's'}"
        lines.append(f"{label(number)} ({describe_selection(entry['select'])}): {', '.join(settings)} for {count}")
    return lines


def without_effect(
    overrides: Sequence[Mapping],
    exposures: Mapping[str, Facts],
    chains: Mapping[str, Sequence[str]],
    readers: Mapping[str, Iterable[str]],
) -> list[str]:
    """Describe the settings that none of the selected exposures uses.

    Parameters
    ----------
    overrides : sequence of mapping
        The section of the validated configuration.
    exposures : mapping
        What is known of each exposure of the run, by its name.
    chains : mapping
        The steps that each exposure goes through.
    readers : mapping
        The steps that read each type of reference.

    Returns
    -------
    list of str
        A line for each step and reference without effect.
    """
    lines = []
    for number, entry in enumerate(overrides):
        stems = [stem for stem, facts in exposures.items() if matches(entry["select"], facts)]
        steps = {step for stem in stems for step in chains[stem]}
        for step, values in entry["steps"].items():
            if step not in steps and not values.get("skip"):
                lines.append(f"{label(number)}: steps.{step} has no effect: no selected exposure goes through {step}")
        for reftype in entry["references"]:
            if steps.isdisjoint(readers.get(reftype, ())):
                lines.append(f"{label(number)}: references.{reftype} has no effect: no step of the selected exposures reads it")
    return lines


def disagreement(members: Mapping[str, Mapping[str, Sequence]], options: Mapping[str, Any], association: str) -> str | None:
    """Describe how settings of tweakreg differ between the exposures of an association, which is aligned with one set.

    Parameters
    ----------
    members : mapping
        For each exposure that is aligned, its parameters of tweakreg that differ from `options`: value and place, by name.
    options : mapping
        Parameters of tweakreg of the configuration's section ``steps``.
    association : str
        Name of the association.

    Returns
    -------
    str or None
        A line that names the parameter, the exposures and the remedy; `None` where they agree.
    """
    selected = {
        name: place for values in members.values() for name, (_, place) in values.items() if is_label(place) and name != "skip"
    }
    for name, place in selected.items():
        values = {stem: found.get(name, (options[name],))[0] for stem, found in members.items()}
        first = next(iter(values))
        other = next((stem for stem in values if values[stem] != values[first]), None)
        if other:
            return (
                f"configuration: {place}.steps.tweakreg.{name}: {association} is aligned as a whole, and {name} is "
                f"{values[first]} for {first} and {values[other]} for {other}; select all of its exposures, with "
                f"{{association: {association}}}"
            )
    return None
