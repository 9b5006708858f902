"""Builds the inventory of a run from the headers of its inputs, before the first job.

A second start opens only the inputs that have changed. A cluster job, which reads the Snakefile again, opens none.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.errors import counted
from rampflow.files import links
from rampflow.step.declaration import Step
from rampflow.workflow import inventory, references, selections, step_parameters
from rampflow.workflow.exposure_names import stem_of
from rampflow.workflow.headers import files_beside, remaining_chain
from rampflow.workflow.inventory import ExposureEntry, Inventory
from rampflow.workflow.inventory_checks import (
    check_alignment_is_possible,
    check_alignments_agree,
    check_calibrated,
    check_overrides,
    check_paths,
    check_place,
    check_references,
    check_skipped_alignments,
)
from rampflow.workflow.member_choice import choose_members, selection_facts, skipped_steps
from rampflow.workflow.reference_choice import ReferenceChoice, is_crds_needed, overriding_files
from rampflow.workflow.selections import Facts, SelectedSettings
from rampflow.workflow.step_parameters import StepParameters


def build_inventory(config: dict, folder: Path, store: Path, steps: dict[str, Step]) -> Inventory:
    """Make the inventory of a run, and keep it in `store`. What is known there is used where the files have not changed.

    Parameters
    ----------
    config : dict
        The validated configuration.
    folder : pathlib.Path
        Where relative names are taken from.
    store : pathlib.Path
        File with what is known of all inputs.
    steps : dict
        Declaration of each step, by its name.

    Returns
    -------
    rampflow.workflow.inventory.Inventory
        Inventory of the run.

    Raises
    ------
    RampflowError
        Something is wrong with an input or a reference; the message names it.
    """
    known = inventory.load(store)
    chosen = choose_members(config, folder, known.get("headers", {}))
    members, headers, settings = chosen.members, chosen.headers, chosen.settings
    facts = {member: selection_facts(member, headers[member.source]) for member in members}
    override = {m: overriding_files(config, own, folder) for m, own in settings.items()}
    chains = {m: remaining_chain(m, headers[m.source], skipped_steps(config, own)) for m, own in settings.items()}
    check_calibrated(chains, headers, Path(config["results"]), folder)
    context = None
    if is_crds_needed(chains, override, config["references"], steps):
        context = references.resolve_context(config["references"]["crds_context"])
    asked = [references.source(), context, context and references.context_stamp(context)]
    recommended = known.get("recommended", {}) if known.get("asked") == asked else {}
    choice = ReferenceChoice(context, recommended, steps)
    exposures = {}
    parameters = choice.parameters(config, settings, chains, headers, override) if context else {}
    check_skipped_alignments(parameters)
    for member, found in parameters.items():
        chains[member] = [name for name in chains[member] if not found.values.get(name, {}).get("skip", (False,))[0]]
    for member, chain in chains.items():
        header = headers[member.source]
        exposures[stem_of(member.path)] = ExposureEntry(
            stem=stem_of(member.path),
            path=member.source,
            remote=member.remote,
            association=member.association,
            exposure_type=header["type"],
            detector=header["detector"],
            shape=tuple(header["shape"]),
            chain=tuple(chain),
            references=choice.paths(header["crds"], chain, member.path, override[member]),
            tweakreg_catalog=str(member.tweakreg_catalog) if member.tweakreg_catalog else None,
            step_parameters=_combined(parameters[member].values if member in parameters else {}, settings[member]),
            own_references={name: entry for name, (_, entry) in settings[member].references.items()},
            identification=header["identification"],
            **dict(zip(("catalog", "segmentation"), files_beside(member), strict=True)),
        )
    by_stem = {stem_of(member.path): found for member, found in facts.items()}
    notices = [*chosen.notices, *_notices(exposures, parameters.values()), *_unused_settings(config, by_stem, exposures, steps)]
    selected = selections.describe_overrides(config.get("overrides", ()), by_stem)
    visit = Inventory(exposures, context, {}, tuple(notices), chosen.excluded, tuple(selected), chosen.left_out)
    check_alignment_is_possible(config, visit)
    check_alignments_agree(config, visit)
    if not config["references"].get("allow_mismatch"):
        check_overrides(settings, override, chains, headers, steps)
    check_paths(visit)
    check_place(visit, folder / os.path.expanduser(config["results"]))
    check_references(visit, steps)
    contents = known.get("contents", {})
    beside = {path for entry in exposures.values() for path in entry.files[1:]}
    own_files = {path for paths in override.values() for path in paths.values()} | beside
    contents |= _read_contents([*visit.references(), *sorted(beside)], own_files, contents)
    visit.links.update(_link_all(visit, headers, contents, folder))
    inventory.save(store, {"asked": asked, "headers": headers, "recommended": recommended, "contents": contents})
    entries = [dataclasses.asdict(e) for e in exposures.values()]
    inventory.save(
        inventory.name_exposures_file(config, store),
        {"context": context, "exposures": entries, "links": visit.links}
        | {"excluded": visit.excluded, "left_out": visit.left_out},
    )
    return visit


def _combined(from_crds: dict[str, dict[str, Sequence]], settings: SelectedSettings) -> dict[str, dict[str, Sequence]]:
    """The parameters that CRDS or ``overrides`` set for an exposure, which have no value in common."""
    result = {step: dict(values) for step, values in from_crds.items()}
    for step, values in settings.parameters.items():
        own = {name: found for name, found in values.items() if name != "skip" or found[0]}
        if own:
            result.setdefault(step, {}).update(own)
    return result


def _unused_settings(
    config: dict, facts: dict[str, Facts], exposures: dict[str, ExposureEntry], steps: dict[str, Step]
) -> list[str]:
    """Lines on settings of ``overrides`` that no selected exposure uses."""
    readers: dict[str, set[str]] = {}
    for name, step in steps.items():
        for reference in step.references:
            readers.setdefault(reference.type, set()).add(name)
    chains = {stem: entry.chain for stem, entry in exposures.items()}
    return selections.without_effect(config.get("overrides", ()), facts, chains, readers)


def _notices(exposures: dict[str, ExposureEntry], parameters: Iterable[StepParameters]) -> tuple[str, ...]:
    """Lines on parameters of CRDS that have no effect, steps that they leave out, and associations whose members differ."""
    ignored = dict.fromkeys(line for found in parameters for line in found.ignored)
    lines = [f"{line}: rampflow has no such parameter and ignores it" for line in ignored]
    left_out: dict[tuple[str, str], list[str]] = {}
    groups: dict[str, dict[str, dict]] = {}
    for stem, entry in exposures.items():
        from_crds = {
            step: {name: found for name, found in values.items() if not selections.is_label(found[1])}
            for step, values in entry.step_parameters.items()
        }
        for step, values in from_crds.items():
            skip, path = values.get("skip", (False, ""))
            if skip:
                left_out.setdefault((path, step), []).append(stem)
        if "tweakreg" in entry.chain:
            groups.setdefault(entry.association, {})[stem] = from_crds
    for (path, step), stems in left_out.items():
        others = f" and {counted(len(stems) - 1, 'other')}" if len(stems) > 1 else ""
        lines.append(f"{path}: steps.{step}.skip is true: {step} is left out for {stems[0]}{others}")
    differing = [step_parameters.differing_alignments(members, name) for name, members in groups.items()]
    return (*lines, *(line for line in differing if line))


def _read_contents(paths: list[str], own: set[str], known: dict) -> dict:
    """Identify the content of each existing reference, from `known` where size and time have not changed.

    Every byte of the user's own files is read, because they may have been edited in place.
    """

    def read(path):
        try:
            status = os.stat(path)
        except OSError:
            return None
        stamp = links.stamp_of(status)
        if (found := known.get(path)) and found["stamp"] == stamp:
            return found
        return {"stamp": stamp, "content": links.content_of(Path(path), trusted=path not in own)}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return {path: found for path, found in zip(paths, pool.map(read, paths), strict=True) if found}


def _link_all(visit: Inventory, headers: dict, contents: dict, folder: Path) -> dict[str, str]:
    """Make the link of each raw file of this machine, and of each reference.

    The content of a reference that is still to be fetched is not known. Its link stands for the content that a file of its name
    had before, or has a folder of its own, which then stands for what is fetched (see `rampflow.files.links.record_fetched`).
    """
    exposures = visit.exposures.values()
    folders = {entry.path: headers[entry.path]["content"] for entry in exposures if not entry.remote}
    folders |= {path: contents[path]["content"] for entry in exposures for path in entry.files[1:]}
    before = {Path(path).name: found["content"] for path, found in contents.items()}
    for path in visit.references():
        name = Path(path).name
        content = contents[path]["content"] if Path(path).exists() else before.get(name)
        folders[path] = links.folder_of_content(content, name) if content else secrets.token_hex(8)
    found = {path: links.link_of(name, Path(path).name) for path, name in folders.items()}
    for path, link in found.items():
        # The link of a reference that has never been there is made when it has been fetched.
        if Path(path).exists() or os.path.lexists(link):
            links.make_link(link, folder / path)
    return {path: str(link) for path, link in found.items()}
