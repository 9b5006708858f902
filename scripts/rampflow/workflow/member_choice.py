"""The choice of the exposures of a run: those that the configuration leaves out, and those that can't be read."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml

from rampflow.errors import raise_problems
from rampflow.workflow import selections
from rampflow.workflow.association import Member, find_excluded, find_members
from rampflow.workflow.command_line import given_configurations
from rampflow.workflow.exposure_names import stem_of
from rampflow.workflow.headers import read_headers, remaining_chain
from rampflow.workflow.selections import Facts, SelectedSettings

#: What a notice says of an exposure whose file can't be read yet.
LEFT_OUT = "left out, it can't be read yet"


class Choice(NamedTuple):
    """The exposures of a run, and those that it leaves out.

    Attributes
    ----------
    members : list of rampflow.workflow.association.Member
        The exposures of the run.
    excluded : dict
        Exposures that the configuration leaves out: what is known of each, by association and name.
    headers : dict
        Header of each file, by its path.
    settings : dict
        What ``overrides`` sets for each member.
    left_out : dict
        The same of exposures whose files can't be read yet; empty without ``incoming: true``.
    notices : list of str
        A line for each of these, and for what is not there yet.
    """

    members: list[Member]
    excluded: dict[str, dict[str, dict]]
    headers: dict[str, dict]
    settings: dict[Member, SelectedSettings]
    left_out: dict[str, dict[str, dict]]
    notices: list[str]


def choose_members(config: dict, folder: Path, known: dict) -> Choice:
    """Choose the exposures of a run, and read their headers, from `known` where a file has not changed.

    Parameters
    ----------
    config : dict
        The validated configuration.
    folder : pathlib.Path
        Where relative names are taken from.
    known : dict
        Headers of an earlier run, by the paths of their files.

    Returns
    -------
    Choice
        The exposures, and those that are left out.

    Raises
    ------
    RampflowError
        A file can't be read, a step will refuse it, or a selection fits no exposure. With ``incoming: true``: no file can be
        read, or a step will refuse one.
    """
    overrides, incoming = config.get("overrides", ()), config.get("incoming", False)
    notices: list[str] = []
    names = [entry for entry in config["exclude"] if isinstance(entry, str)]
    leave_out = {f"exclude[{n}]": entry for n, entry in enumerate(config["exclude"]) if not isinstance(entry, str)}
    members = find_members(config["input"], folder, names, notices if incoming else None)
    by_name = find_excluded(config["input"], folder, names)
    headers, errors = read_headers(members, known, config["data_model"])
    facts = {member: selection_facts(member, headers.get(member.source)) for member in members}
    by_selection = [m for m in members if any(selections.matches(entry, facts[m]) for entry in leave_out.values())]
    kept = [member for member in members if member not in by_selection]
    unreadable = [member for member in kept if incoming and member.source in errors]
    notices += [f"{stem_of(m.path)}: {LEFT_OUT}: {errors[m.source]}" for m in unreadable]
    kept = [member for member in kept if member not in unreadable]
    if notices and not kept:
        raise_problems(notices, "incoming: no exposure can be read yet, so that there is nothing to do; start again later")
    settings = {member: selections.settings_for(overrides, facts[member]) for member in kept}
    _refuse_unreadable(config, kept, headers, errors, settings)
    selects = {f"{selections.label(n)}.select": entry["select"] for n, entry in enumerate(overrides)}
    of_run, others = [facts[m] for m in kept], [facts[m] for m in (*by_selection, *unreadable)]
    lines = selections.unmatched(leave_out | selects, of_run, others)
    if lines and by_name:  # it may be that one of these is meant
        found, _ = read_headers(by_name, known, config["data_model"])
        others += [selection_facts(member, found.get(member.source)) for member in by_name]
        lines = selections.unmatched(leave_out | selects, of_run, others)
    if incoming:  # what they select may arrive later
        notices += lines
    else:
        raise_problems(lines)
    excluded = _by_association([*by_name, *by_selection], known | headers)
    left_out = _by_association(unreadable, known)
    return Choice(kept, excluded, headers, settings, left_out, notices)


def _by_association(members: Iterable[Member], headers: dict[str, dict]) -> dict[str, dict[str, dict]]:
    """What the headers say of exposures, by association and name; headers of excluded ones need not be known."""
    found: dict[str, dict[str, dict]] = {}
    for member in members:
        known = headers.get(str(member.path), {}).get("identification", {})
        found.setdefault(member.association, {})[stem_of(member.path)] = known
    return found


def selection_facts(member: Member, header: dict | None) -> Facts:
    """Collect what a selection can compare of an exposure, whose header may be unreadable.

    Parameters
    ----------
    member : rampflow.workflow.association.Member
        Member of an association.
    header : dict or None
        Its header, if it can be read.

    Returns
    -------
    rampflow.workflow.selections.Facts
        The facts.
    """
    if header is None:
        return selections.selectable_names(stem_of(member.path), member.association)
    return selections.selectable_values(stem_of(member.path), member.association, header["crds"])


def skipped_steps(config: dict, settings: SelectedSettings) -> frozenset[str]:
    """List the steps that the configuration leaves out for an exposure.

    Parameters
    ----------
    config : dict
        The validated configuration.
    settings : rampflow.workflow.selections.SelectedSettings
        What ``overrides`` sets for the exposure.

    Returns
    -------
    frozenset of str
        Names of the steps.
    """
    chosen = {name: options.get("skip", False) for name, options in config["steps"].items()}
    chosen |= {name: values["skip"][0] for name, values in settings.parameters.items() if "skip" in values}
    return frozenset(name for name, skip in chosen.items() if skip)


def _refuse_unreadable(
    config: dict,
    members: list[Member],
    headers: dict[str, dict],
    errors: dict[str, str],
    settings: dict[Member, SelectedSettings],
) -> None:
    """Refuse files that can't be read, or that a step will refuse."""
    bad = {}
    for member in members:
        path = member.source
        error = errors.get(path)
        if header := headers.get(path):
            chain = remaining_chain(member, header, skipped_steps(config, settings[member]))
            error = next((header["refusals"][step] for step in chain if step in header["refusals"]), None)
        if error:
            bad[stem_of(member.path)] = error
    excluded = [*config["exclude"], *bad]
    leave_out = f"to go on without: {exclude_option(excluded, sys.argv)}" if len(bad) < len(members) else ""
    raise_problems(list(bad.values()), leave_out)


def exclude_option(excluded: list, arguments: list[str]) -> str:
    """Write the option ``--config`` that leaves out these exposures and keeps what the command line already configures.

    Snakemake takes the last ``--config`` only, so a second one would replace the user's.

    Parameters
    ----------
    excluded : list
        All exposures to leave out: names, patterns and selections.
    arguments : list of str
        The command line.

    Returns
    -------
    str
        The option, quoted for a shell.
    """
    given = (given_configurations(arguments) or [[]])[-1]
    kept = [word for word in given if not word.startswith("exclude=")]
    names = dict.fromkeys(yaml.safe_dump(entry, default_flow_style=True, width=math.inf).splitlines()[0] for entry in excluded)
    return " ".join(["--config", *(shlex.quote(word) for word in kept), shlex.quote(f"exclude=[{','.join(names)}]")])
