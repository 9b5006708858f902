"""Builds the inventory of a run from the headers of its inputs, before the first job.

A second start opens only the inputs that have changed. A cluster job, which reads the Snakefile again, opens none.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.files import links
from rampflow.step.declaration import Step
from rampflow.workflow import inventory, references, step_parameters
from rampflow.workflow.association import find_members, stem_of
from rampflow.workflow.headers import files_beside, read_headers, remaining_chain
from rampflow.workflow.inventory import ExposureEntry, Inventory
from rampflow.workflow.inventory_checks import (
    check_alignment_is_possible,
    check_calibrated,
    check_overrides,
    check_paths,
    check_place,
    check_references,
)
from rampflow.workflow.reference_choice import ReferenceChoice, is_crds_needed, overriding_file
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
    members = find_members(config["input"], folder, config["exclude"])
    known = inventory.load(store)
    skipped = frozenset(name for name, options in config["steps"].items() if options.get("skip"))
    headers = read_headers(members, known.get("headers", {}), skipped, config["exclude"])
    override = {t: overriding_file(t, given, folder) for t, given in config["references"]["override"].items()}
    chains = {m: remaining_chain(m, headers[str(m.path)], skipped) for m in members}
    check_calibrated(chains, Path(config["results"]), folder)
    context = None
    if is_crds_needed(chains.values(), override, config["references"]["crds_context"], steps):
        context = references.resolve_context(config["references"]["crds_context"])
    asked = [references.source(), context, context and references.context_stamp(context)]
    recommended = known.get("recommended", {}) if known.get("asked") == asked else {}
    choice = ReferenceChoice(context, recommended, steps, override)
    exposures = {}
    parameters = choice.parameters(config, chains, headers) if context else {}
    for member, found in parameters.items():
        chains[member] = [name for name in chains[member] if not found.values.get(name, {}).get("skip", (False,))[0]]
    for member, chain in chains.items():
        header = headers[str(member.path)]
        exposures[stem_of(member.path)] = ExposureEntry(
            stem=stem_of(member.path),
            path=str(member.path),
            association=member.association,
            exposure_type=header["type"],
            detector=header["detector"],
            shape=tuple(header["shape"]),
            chain=tuple(chain),
            references=choice.paths(header["crds"], chain, member.path),
            tweakreg_catalog=str(member.tweakreg_catalog) if member.tweakreg_catalog else None,
            step_parameters=parameters[member].values if member in parameters else {},
            **dict(zip(("catalog", "segmentation"), files_beside(member), strict=True)),
        )
    visit = Inventory(exposures, context, {}, _notices(exposures, parameters.values()))
    check_alignment_is_possible(config, visit)
    if not config["references"].get("allow_mismatch"):
        check_overrides(override, chains, headers, steps)
    check_paths(visit)
    check_place(visit, folder / os.path.expanduser(config["results"]))
    check_references(visit, steps)
    contents = known.get("contents", {})
    beside = {path for entry in exposures.values() for path in entry.files[1:]}
    own = set(override.values()) | beside
    contents |= _read_contents([*visit.references(), *sorted(beside)], own, contents)
    visit.links.update(_link_all(visit, headers, contents, folder))
    inventory.save(store, {"asked": asked, "headers": headers, "recommended": recommended, "contents": contents})
    inventory.save(
        inventory.exposures_file(config, store),
        {"context": context, "exposures": [dataclasses.asdict(e) for e in exposures.values()], "links": visit.links},
    )
    return visit


def _notices(exposures: dict[str, ExposureEntry], parameters: Iterable[StepParameters]) -> tuple[str, ...]:
    """Lines on parameters of CRDS that have no effect, steps that they leave out, and associations whose members differ."""
    ignored = dict.fromkeys(line for found in parameters for line in found.ignored)
    lines = [f"{line}: rampflow has no such parameter and ignores it" for line in ignored]
    left_out: dict[tuple[str, str], list[str]] = {}
    groups: dict[str, dict[str, dict]] = {}
    for stem, entry in exposures.items():
        for step, values in entry.step_parameters.items():
            skip, path = values.get("skip", (False, ""))
            if skip:
                left_out.setdefault((path, step), []).append(stem)
        if "tweakreg" in entry.chain:
            groups.setdefault(entry.association, {})[stem] = entry.step_parameters
    for (path, step), stems in left_out.items():
        others = f" and {len(stems) - 1} others" if len(stems) > 1 else ""
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
    """Make the link of each raw file and reference.

    The content of a reference that is still to be fetched is not known. Its link stands for the content that a file of its name
    had before, or has a folder of its own, which then stands for what is fetched (see `rampflow.files.links.record_fetched`).
    """
    exposures = visit.exposures.values()
    folders = {entry.path: headers[entry.path]["content"] for entry in exposures}
    folders |= {path: contents[path]["content"] for entry in exposures for path in entry.files[1:]}
    before = {Path(path).name: found["content"] for path, found in contents.items()}
    for path in visit.references():
        name = Path(path).name
        content = contents[path]["content"] if Path(path).exists() else before.get(name)
        folders[path] = links.standing_for(content, name) if content else secrets.token_hex(8)
    found = {path: links.link_of(name, Path(path).name) for path, name in folders.items()}
    for path, link in found.items():
        # The link of a reference that has never been there is made when it has been fetched.
        if Path(path).exists() or os.path.lexists(link):
            links.point(link, folder / path)
    return {path: str(link) for path, link in found.items()}
