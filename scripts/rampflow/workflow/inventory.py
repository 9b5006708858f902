"""Inventory of the exposures of a run: what each is, which steps it goes through, and which references it needs.

Everything that the workflow's graph depends on is found here before the first job, from the headers alone, and kept in a file.
A second start opens only the inputs that have changed. A cluster job, which reads the Snakefile again, opens none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.chain import chain_of
from rampflow.detector import MINIMUM_RESULTANTS, check_shape
from rampflow.errors import RampflowError, raise_problems
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.data_models import data_model
from rampflow.files.level1 import missing_metadata, update_raw
from rampflow.step.declaration import NOT_APPLICABLE, Step, reference_types
from rampflow.step.exposure import Exposure
from rampflow.workflow import references
from rampflow.workflow.association import SPECIAL, Member, find_members, is_plain, stem_of
from rampflow.workflow.overrides import override_mismatch

FORMAT = 5  #: version of the file's format; other versions are not read
#: Parts of the metadata by which CRDS may choose references.
CRDS_PARTS = ("instrument", "exposure", "visit", "observation")
#: Numbers in the metadata that a step requires.
NUMBERS_READ = {"assign_wcs": tuple(f"meta.wcsinfo.{name}" for name in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref"))}


@dataclasses.dataclass(frozen=True)
class ExposureEntry:
    """One exposure of a run.

    Attributes
    ----------
    stem : str
        Name of the exposure.
    path : str
        Its raw file.
    association : str
        Name of its association.
    exposure_type : str
        Type of the exposure, as ``WFI_IMAGE``.
    detector : str
        Name of the detector, as ``WFI01``.
    shape : tuple of int
        Shape of the raw data: resultants, rows, columns.
    chain : tuple of str
        The steps that it goes through, in order.
    references : dict
        Reference type to path of the file, or "N/A".
    tweakreg_catalog : str or None
        Catalog for its alignment in place of its own.
    """

    stem: str
    path: str
    association: str
    exposure_type: str
    detector: str
    shape: tuple[int, int, int]
    chain: tuple[str, ...]
    references: dict[str, str]
    tweakreg_catalog: str | None


@dataclasses.dataclass(frozen=True)
class Inventory:
    """All exposures of a run.

    Attributes
    ----------
    exposures : dict
        Stem to `ExposureEntry`.
    context : str or None
        The CRDS context that chose their references. None: CRDS was not asked.
    links : dict
        For the path of each raw file and reference, the link that stands for its content (see `rampflow.files.links`). The
        rules read the link.
    """

    exposures: dict[str, ExposureEntry]
    context: str | None
    links: dict[str, str]

    def references(self) -> list[str]:
        """List the paths of all references.

        Returns
        -------
        list of str
            Sorted paths, each once.
        """
        return sorted({p for e in self.exposures.values() for p in e.references.values() if p != NOT_APPLICABLE})

    def missing_references(self) -> list[str]:
        """List the paths of references that the CRDS cache lacks.

        Returns
        -------
        list of str
            Sorted paths.
        """
        return [path for path in self.references() if not Path(path).exists()]


def read_header(path: Path) -> dict:
    """Read and check what the inventory needs from a raw file.

    Parameters
    ----------
    path : pathlib.Path
        Raw file.

    Returns
    -------
    dict
        Entries ``type``, ``detector``, ``shape``, ``crds`` (metadata by which CRDS chooses), ``content`` (digest) and
        ``refusals`` (see `find_refusals`).

    Raises
    ------
    RampflowError
        The file is damaged, not a raw exposure, or lacks an entry.
    """
    with AsdfFile(path) as file:
        raw = Exposure(file)
        header: dict[str, str] = {}
        for part in CRDS_PARTS:  # as the file has them: CRDS's rules know the versions
            _flatten(raw.meta.get(part, {}), f"roman.meta.{part}", header)
        update_raw(raw, data_model())
        shape = raw.array("data").shape
        _ = raw.read_pattern
        check_shape(path, shape)
        kind, detector = raw.get("meta.exposure.type", str), raw.get("meta.instrument.detector", str)
        try:
            chain_of(kind, detector)
        except RampflowError as error:
            raise RampflowError(f"{path}: {error}") from None
        raw.get("meta.instrument.optical_element", str)
        return {
            "type": str(kind),
            "detector": str(detector),
            "shape": list(shape),
            "crds": header,
            "content": file.content_digest(),
            "refusals": find_refusals(raw, tuple(shape)),
        }


def find_refusals(raw: Exposure, shape: tuple[int, int, int]) -> dict[str, str]:
    """Find what the steps will refuse, from the header alone.

    Parameters
    ----------
    raw : rampflow.step.exposure.Exposure
        The raw exposure, of the data model that is written by default or a newer one.
    shape : tuple of int
        Resultants, rows, columns.

    Returns
    -------
    dict
        Message for each step that will refuse the exposure.
    """
    refusals = {}
    if shape[0] < MINIMUM_RESULTANTS:
        refusals["ramp_fitting"] = (
            f"{raw.path}: the ramp has {shape[0]} resultants; ramp_fitting needs at least {MINIMUM_RESULTANTS}, "
            "to tell a jump from a bad fit"
        )
    try:
        _check_entries_of_dq_init(raw, shape)
    except RampflowError as error:
        refusals["dq_init"] = str(error)
    for step, fields in NUMBERS_READ.items():
        try:
            for field in fields:
                raw.number(field)
        except RampflowError as error:
            refusals[step] = str(error)
    if not refusals and (missing := missing_metadata(raw)):
        refusals["dq_init"] = (
            f"{raw.path}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, which the data model requires; "
            "the file is incomplete, make it again"
        )
    return refusals


def _check_entries_of_dq_init(raw: Exposure, shape: tuple[int, int, int]) -> None:
    """Refuse an exposure whose timing, guide window, encoding or arrays dq_init would refuse."""
    _ = raw.frame_time
    for name in ("xstart", "xstop", "ystart", "ystop"):
        raw.get(f"meta.guide_star.window_{name}", int)
    if raw.meta["instrument"].get("data_encoding_offset") is not None:
        raw.number("meta.instrument.data_encoding_offset")
    amp33 = raw.array("amp33", 3)
    if amp33.shape[:2] != shape[:2]:
        raise RampflowError(f"{raw.path}: amp33 has the shape {amp33.shape}, which doesn't fit data of shape {shape}")
    for name, expected in (("reference_read", shape[1:]), ("reference_amp33", amp33.shape[1:]), ("resultantdq", shape)):
        if raw.roman.get(name) is not None:
            raw.array(name, shape=expected)


def _flatten(node, name: str, result: dict) -> None:
    if isinstance(node, dict) and isinstance(node.get("value"), str) and hasattr(node, "tag"):
        node = node["value"]  # a tagged time
    if isinstance(node, dict):
        for key, value in node.items():
            _flatten(value, f"{name}.{key}", result)
    elif isinstance(node, str | int | float):
        result[name] = str(node)


def build(config: dict, folder: Path, store: Path, steps: dict[str, Step]) -> Inventory:
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
    Inventory
        Inventory of the run.

    Raises
    ------
    RampflowError
        Something is wrong with an input or a reference; the message names it.
    """
    members = find_members(config["input"], folder, config["exclude"])
    known = _load(store)
    skipped = frozenset(name for name, options in config["steps"].items() if options.get("skip"))
    headers = _read_headers(members, known.get("headers", {}), skipped, config["exclude"])
    override = {t: _overriding(t, given, folder) for t, given in config["references"]["override"].items()}
    chains = {m: chain_of(headers[str(m.path)]["type"], headers[str(m.path)]["detector"], skipped) for m in members}
    context = None
    types_of = {m: reference_types(steps[name] for name in chain) for m, chain in chains.items()}
    if any(set(types) - set(override) for types in types_of.values()):
        context = references.resolve_context(config["references"]["crds_context"])
    asked = [references.source(), context, context and references.context_stamp(context)]
    recommended = known.get("recommended", {}) if known.get("asked") == asked else {}
    exposures = {}
    for member, chain in chains.items():
        header = headers[str(member.path)]
        types = types_of[member]
        chosen = _recommend(header["crds"], [t for t in types if t not in override], context, recommended, member.path)
        exposures[stem_of(member.path)] = ExposureEntry(
            stem=stem_of(member.path),
            path=str(member.path),
            association=member.association,
            exposure_type=header["type"],
            detector=header["detector"],
            shape=tuple(header["shape"]),
            chain=tuple(chain),
            references={t: override.get(t) or chosen[t] for t in types},
            tweakreg_catalog=str(member.tweakreg_catalog) if member.tweakreg_catalog else None,
        )
    inventory = Inventory(exposures, context, {})
    if not config["references"].get("allow_mismatch"):
        _check_overrides(override, chains, headers, steps)
    _check_paths(inventory)
    _check_references(inventory, steps)
    contents = known.get("contents", {})
    contents |= _read_contents(inventory.references(), set(override.values()), contents)
    inventory.links.update(_link_all(inventory, headers, contents, folder))
    _save(store, {"asked": asked, "headers": headers, "recommended": recommended, "contents": contents})
    _save(
        exposures_file(config, store),
        {"context": context, "exposures": [dataclasses.asdict(e) for e in exposures.values()], "links": inventory.links},
    )
    return inventory


def read(path: Path) -> Inventory | None:
    """Read an inventory from its file.

    Parameters
    ----------
    path : pathlib.Path
        File that `build` has written, see `exposures_file`.

    Returns
    -------
    Inventory or None
        The inventory. None if the file does not exist, is damaged or has another format.
    """
    known = _load(path)
    if "exposures" not in known:
        return None
    entries = [ExposureEntry(**e | {"shape": tuple(e["shape"]), "chain": tuple(e["chain"])}) for e in known["exposures"]]
    return Inventory({e.stem: e for e in entries}, known["context"], known["links"])


def known_names(folder: Path) -> set[str]:
    """List the exposures and associations of all runs of this working folder.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the inventories.

    Returns
    -------
    set of str
        Names of the exposures and associations.
    """
    visits = [visit for path in folder.glob("exposures-*.json") if (visit := read(path))]
    return {name for visit in visits for entry in visit.exposures.values() for name in (entry.stem, entry.association)}


def exposures_file(config: dict, store: Path) -> Path:
    """Name the file with the exposures of a run.

    Runs with other inputs or another CRDS cache have files of their own.

    Parameters
    ----------
    config : dict
        The validated configuration.
    store : pathlib.Path
        File with what is known of all inputs.

    Returns
    -------
    pathlib.Path
        A file beside `store`.
    """
    skipped = sorted(name for name, options in config["steps"].items() if options.get("skip"))
    asked = json.dumps([config["input"], config["exclude"], config["references"], skipped, references.source()], sort_keys=True)
    return store.with_name(f"exposures-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json")


def _save(path: Path, content: dict) -> None:
    with replacing(path, shared=True) as partial:
        text = json.dumps({"format": FORMAT, **content})
        partial.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def _load(store: Path) -> dict:
    try:
        digest, _, text = store.read_bytes().partition(b"\n")
        known = json.loads(text) if hashlib.sha256(text).hexdigest().encode() == digest else None  # damaged: made again
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get("format") == FORMAT else {}


def _read_headers(members: list[Member], known: dict, skipped: frozenset[str], excluded: list[str]) -> dict:
    """Headers of the raw files, from `known` where a file has not changed; those that a step will refuse are errors."""

    def read(member):
        if member.problem:
            return None, member.problem
        try:
            status = member.path.stat()
        except OSError as error:  # a link to nowhere, a folder that may not be read
            return None, f"{member.path}: can't be opened ({error.strerror})"
        stamp = [status.st_size, status.st_mtime_ns]
        header = known.get(str(member.path))
        if header and header["stamp"] == stamp:
            return header, None
        try:
            return {**read_header(member.path), "stamp": stamp}, None
        except RampflowError as error:
            return None, str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(read, members))
    bad = {}
    for member, (header, error) in zip(members, results, strict=True):
        if header:
            chain = chain_of(header["type"], header["detector"], skipped)
            error = next((header["refusals"][step] for step in chain if step in header["refusals"]), None)
        if error:
            bad[stem_of(member.path)] = error
    leave_out = f"to go on without: {exclude_option([*excluded, *bad], sys.argv)}" if len(bad) < len(members) else ""
    raise_problems(list(bad.values()), leave_out)
    return {str(member.path): header for member, (header, _) in zip(members, results, strict=True)}


def exclude_option(names: list[str], arguments: list[str]) -> str:
    """Write the option ``--config`` that leaves out these exposures and keeps what the command line already configures.

    Snakemake takes the last ``--config`` only, so a second one would replace the user's.

    Parameters
    ----------
    names : list of str
        All exposures to leave out.
    arguments : list of str
        The command line.

    Returns
    -------
    str
        The option, quoted for a shell.
    """
    given: list[str] = []
    inside = False
    for word in arguments:
        if word in ("--config", "-C") or word.startswith("--config="):
            given, inside = [word.partition("=")[2]] * word.startswith("--config="), True
        elif word.startswith("-"):
            inside = False
        elif inside:
            given.append(word)
    kept = [word for word in given if not word.startswith("exclude=")]
    return " ".join(["--config", *(shlex.quote(word) for word in kept), f"'exclude=[{','.join(dict.fromkeys(names))}]'"])


def _overriding(reftype: str, given: str, folder: Path) -> str:
    if given == NOT_APPLICABLE:
        return given
    path = folder / os.path.expanduser(given)
    if not path.is_file():
        raise RampflowError(f"references.override.{reftype}: {path} does not exist; name a file, or N/A for none")
    return str(path)


def _recommend(header: dict, types: list[str], context: str | None, recommended: dict, path: Path) -> dict[str, str]:
    """Paths (or N/A) of the references of these types. Exposures with the same values that CRDS chooses by share them."""
    if context is None or not types:  # `build` resolves a context if any type is asked for
        return {}
    key = "|".join(header.get(name, "") for name in references.MATCHED)
    chosen = recommended.setdefault(key, {})
    if wanted := [t for t in types if t not in chosen]:
        try:
            found = references.best_references(header, wanted, context)
        except RampflowError as error:
            raise RampflowError(f"{path}: {error}") from None
        chosen |= found
    return {t: n if (n := chosen[t]) == NOT_APPLICABLE else str(references.cache_path(n)) for t in types}


def _read_contents(paths: list[str], own: set[str], known: dict) -> dict:
    """Identify the content of each existing reference, from `known` where size and time have not changed.

    Every byte of the user's own files is read, because they may have been edited in place.
    """

    def read(path):
        try:
            status = os.stat(path)
        except OSError:
            return None
        stamp = [status.st_size, status.st_mtime_ns]
        if (found := known.get(path)) and found["stamp"] == stamp:
            return found
        return {"stamp": stamp, "content": links.content_of(Path(path), trusted=path not in own)}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return {path: found for path, found in zip(paths, pool.map(read, paths), strict=True) if found}


def _link_all(inventory: Inventory, headers: dict, contents: dict, folder: Path) -> dict[str, str]:
    """Make the link of each raw file and reference.

    The content of a reference that is still to be fetched is not known. Its link stands for the content that a file of its name
    had before, or has a folder of its own, which then stands for what is fetched (see `rampflow.files.links.record_fetched`).
    """
    folders = {path: headers[path]["content"] for path in (e.path for e in inventory.exposures.values())}
    before = {Path(path).name: found["content"] for path, found in contents.items()}
    for path in inventory.references():
        name = Path(path).name
        content = contents[path]["content"] if Path(path).exists() else before.get(name)
        folders[path] = links.standing_for(content, name) if content else secrets.token_hex(8)
    found = {path: links.link_of(name, Path(path).name) for path, name in folders.items()}
    for path, link in found.items():
        # The link of a reference that has never been there is made when it has been fetched.
        if Path(path).exists() or os.path.lexists(link):
            links.point(link, folder / path)
    return {path: str(link) for path, link in found.items()}


def _check_paths(inventory: Inventory) -> None:
    """Refuse files whose paths Snakemake or asdf would misread."""
    paths = {p for e in inventory.exposures.values() for p in (e.path, e.tweakreg_catalog, *e.references.values()) if p}
    raise_problems(
        [
            f"{path!r}: a path can't have any of {SPECIAL} and control characters; rename it, or link to it"
            for path in sorted(paths)
            if not is_plain(path)
        ]
    )


def _check_overrides(override: dict[str, str], chains: dict[Member, list[str]], headers: dict, steps: dict[str, Step]) -> None:
    """Refuse references made for another detector or optical element than the exposures that will read them."""
    lines = []
    for reftype, path in override.items():
        declarations, readers = [], {}
        for member, chain in chains.items():
            if found := [r for name in chain for r in steps[name].references if r.type == reftype]:
                known = headers[str(member.path)]["crds"]
                names = ("name", "detector", "optical_element")
                readers[str(member.path)] = {"instrument": {n: known.get(f"roman.meta.instrument.{n}") for n in names}}
                declarations = found
        if declarations and (line := override_mismatch(path, declarations[0], readers)):
            lines.append(line)
    raise_problems(lines)


def _check_references(inventory: Inventory, steps: dict[str, Step]) -> None:
    """Refuse a needed reference that is N/A, and one that can't be fetched."""
    for entry in inventory.exposures.values():
        for name in entry.chain:
            for reference in steps[name].references:
                if reference.needed and entry.references[reference.type] == NOT_APPLICABLE:
                    raise RampflowError(
                        f"{entry.path}: CRDS says that no {reference.type} reference applies, and {name} can't do without; "
                        f"name one in references.override.{reference.type}"
                    )
    missing = inventory.missing_references()
    if missing and references.is_serverless():
        raise RampflowError(
            f"{missing[0]}: this reference of {inventory.context} is not in the CRDS cache, and there is no server to fetch it "
            f"from ({len(missing)} missing in all); copy it there, set CRDS_SERVER_URL, or name another in references.override"
        )
