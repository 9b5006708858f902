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
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.chain import STEPS, chain_of
from rampflow.detector import MINIMUM_RESULTANTS, check_shape
from rampflow.errors import RampflowError, raise_problems
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.data_models import data_model
from rampflow.files.level1 import missing_metadata, update_raw
from rampflow.files.parquet_footer import read_footer
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.step.exposure import Exposure
from rampflow.step.provenance import is_fully_saturated
from rampflow.step.ramp_input import check_ramp, is_ramp
from rampflow.workflow import references, step_parameters
from rampflow.workflow.association import RAW_SUFFIX, SPECIAL, Member, find_members, is_calibrated, is_plain, stem_of
from rampflow.workflow.overrides import override_mismatch
from rampflow.workflow.step_parameters import StepParameters

FORMAT = 6  #: version of the file's format; other versions are not read
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
        Its raw file or calibrated image.
    association : str
        Name of its association.
    exposure_type : str
        Type of the exposure, as ``WFI_IMAGE``.
    detector : str
        Name of the detector, as ``WFI01``.
    shape : tuple of int
        Shape of the data: resultants (1 for a calibrated image), rows, columns.
    chain : tuple of str
        The steps that it goes through, in order.
    references : dict
        Reference type to path of the file, or "N/A".
    tweakreg_catalog : str or None
        Catalog for its alignment in place of its own.
    catalog, segmentation : str or None
        Source catalog and segmentation map beside a calibrated image, if it has both.
    step_parameters : dict
        For each step, the parameters that CRDS sets and the configuration does not: value and path of the reference, by name
        (see `rampflow.workflow.step_parameters.StepParameters`).
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
    catalog: str | None = None
    segmentation: str | None = None
    step_parameters: dict[str, dict[str, Sequence]] = dataclasses.field(default_factory=dict)

    @property
    def is_calibrated(self) -> bool:
        """Whether the input is a calibrated image.

        Returns
        -------
        bool
            False for a raw exposure.
        """
        return is_calibrated(Path(self.path))

    @property
    def is_cataloged(self) -> bool:
        """Whether the exposure has a source catalog.

        Returns
        -------
        bool
            Whether one is made, or lies beside the calibrated image.
        """
        return "source_catalog" in self.chain or self.catalog is not None

    @property
    def files(self) -> list[str]:
        """The files of the exposure that are read, besides its references.

        Returns
        -------
        list of str
            Paths of the raw file, or of the calibrated image, its source catalog and its segmentation map.
        """
        return [path for path in (self.path, self.catalog, self.segmentation) if path]


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
    notices : tuple of str
        What users should know of the parameters that CRDS sets: those without effect, and steps that are left out.
    """

    exposures: dict[str, ExposureEntry]
    context: str | None
    links: dict[str, str]
    notices: tuple[str, ...] = ()

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
    """Read and check what the inventory needs from a raw file or a calibrated image.

    Parameters
    ----------
    path : pathlib.Path
        Raw file or calibrated image, see `rampflow.workflow.association.is_calibrated`.

    Returns
    -------
    dict
        Entries ``type``, ``detector``, ``shape``, ``crds`` (metadata by which CRDS chooses), ``content`` (digest) and
        ``refusals`` (see `find_refusals`).

    Raises
    ------
    RampflowError
        The file is damaged, not what its name says, or lacks an entry.
    """
    with AsdfFile(path) as file:
        raw = Exposure(file)
        if is_calibrated(path):
            return _header_of_image(raw)
        chosen_by = _metadata_for_crds(raw)  # as the file has them: CRDS's rules know the versions
        if not is_ramp(raw):
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
        return _header(raw, tuple(shape), chosen_by, find_refusals(raw, tuple(shape)))


def _metadata_for_crds(exposure: Exposure) -> dict[str, str]:
    """The metadata by which CRDS may choose references, by their dotted names."""
    header: dict[str, str] = {}
    for part in CRDS_PARTS:
        _flatten(exposure.meta.get(part, {}), f"roman.meta.{part}", header)
    return header


def _header(exposure: Exposure, shape: tuple[int, int, int], chosen_by: dict[str, str], refusals: dict[str, str]) -> dict:
    """What `read_header` returns."""
    return {
        "type": str(exposure.get("meta.exposure.type", str)),
        "detector": str(exposure.get("meta.instrument.detector", str)),
        "shape": list(shape),
        "crds": chosen_by,
        "content": exposure.file.content_digest(),
        "refusals": refusals,
    }


def _header_of_image(image: Exposure) -> dict:
    """What `read_header` returns for a calibrated image, which must have all that its alignment reads."""
    image.expect_model("wfi_image", "tweakreg")
    kind = image.get("meta.exposure.type", str)
    if kind not in STEPS["tweakreg"].exposure_types:
        raise RampflowError(
            f"{image.path}: is a calibrated image of type {kind}, which isn't aligned; there is nothing to do for it"
        )
    shape = image.array("data", 2).shape
    cal_step = image.get("meta.cal_step", dict)
    without_wcs = is_fully_saturated(cal_step) or cal_step.get("assign_wcs") == "SKIPPED"
    if not without_wcs:
        image.get("meta.wcs")
        for name in ("v2_ref", "v3_ref", "roll_ref"):
            image.number(f"meta.wcsinfo.{name}")
    if not image.meta.get("group_id"):
        image.get("meta.observation.observation_id", str)
    return _header(image, (1, *shape), _metadata_for_crds(image), {})


def _files_beside(member: Member) -> tuple[str | None, str | None]:
    """Source catalog and segmentation map beside a calibrated image; None for a raw file, or without both."""
    if not is_calibrated(member.path):
        return None, None
    catalog, segmentation = (member.path.with_name(f"{stem_of(member.path)}_{end}") for end in ("cat.parquet", "segm.asdf"))
    return (str(catalog), str(segmentation)) if catalog.is_file() and segmentation.is_file() else (None, None)


def _chain(member: Member, header: dict, skipped: frozenset[str]) -> list[str]:
    """The steps that a member of an association goes through: of a calibrated image, those that it still needs."""
    chain = chain_of(header["type"], header["detector"], skipped)
    if not is_calibrated(member.path):
        return chain
    done = ("source_catalog",) if _files_beside(member)[0] else ()
    return [name for name in chain if name in ("source_catalog", "tweakreg") and name not in done]


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
            f"{raw.path}: the ramp has {shape[0]} resultant; ramp_fitting needs at least {MINIMUM_RESULTANTS}, "
            "because a slope is fitted to differences"
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
    if is_ramp(raw):
        check_ramp(raw)
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
    chains = {m: _chain(m, headers[str(m.path)], skipped) for m in members}
    _check_calibrated(chains, Path(config["results"]), folder)
    context = None
    if _is_crds_needed(chains.values(), override, config["references"]["crds_context"], steps):
        context = references.resolve_context(config["references"]["crds_context"])
    asked = [references.source(), context, context and references.context_stamp(context)]
    recommended = known.get("recommended", {}) if known.get("asked") == asked else {}
    choice = _Choice(context, recommended, steps, override)
    exposures = {}
    parameters = _read_parameters(config, chains, headers, choice) if context else {}
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
            **dict(zip(("catalog", "segmentation"), _files_beside(member), strict=True)),
        )
    inventory = Inventory(exposures, context, {}, _notices(exposures, parameters.values()))
    _check_alignment_is_possible(config, inventory)
    if not config["references"].get("allow_mismatch"):
        _check_overrides(override, chains, headers, steps)
    _check_paths(inventory)
    _check_place(inventory, folder / os.path.expanduser(config["results"]))
    _check_references(inventory, steps)
    contents = known.get("contents", {})
    beside = {path for entry in exposures.values() for path in entry.files[1:]}
    own = set(override.values()) | beside
    contents |= _read_contents([*inventory.references(), *sorted(beside)], own, contents)
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
    # CRDS's parameters leave out steps, and those of the configuration have precedence.
    own = {name: [options.get("skip", False), config["given"].get(name, [])] for name, options in config["steps"].items()}
    asked = json.dumps([config["input"], config["exclude"], config["references"], own, references.source()], sort_keys=True)
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


def _stamp_of(status: os.stat_result) -> list[int]:
    """What changes whenever a file does: a copy may keep the time of modification, but not the time of the last change."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read_headers(members: list[Member], known: dict, skipped: frozenset[str], excluded: list[str]) -> dict:
    """Headers of the raw files, from `known` where a file has not changed; those that a step will refuse are errors."""

    def read(member):
        if member.problem:
            return None, member.problem
        try:
            status = member.path.stat()
        except OSError as error:  # a link to nowhere, a folder that may not be read
            return None, f"{member.path}: can't be opened ({error.strerror})"
        stamp = _stamp_of(status)
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
            chain = _chain(member, header, skipped)
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


def _is_crds_needed(chains: Iterable[list[str]], override: dict, named: str | None, steps: dict[str, Step]) -> bool:
    """Tell whether CRDS is to be asked: for a reference that the steps need, or because a context is named.

    A run whose references are all the user's own needs no cache. Parameters and optional references are then CRDS's only if a
    context is named.
    """
    declared = {r.type: r for chain in chains for name in chain for r in steps[name].references}
    if any(not reference.optional for reftype, reference in declared.items() if reftype not in override):
        return True
    return bool(declared) and references.is_context_named(named)


@dataclasses.dataclass
class _Choice:
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

    def ask(self, header: dict, types: list[str], path: Path) -> dict[str, str]:
        """Return CRDS's answer for each type, and ask for those that are not known."""
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

    def types(self, chain: list[str]) -> list[str]:
        """List the types of the references that CRDS chooses by the exposure for the steps of a chain."""
        declared = {r.type: r for name in chain for r in self.steps[name].references}
        return [t for t, reference in declared.items() if t not in self.override and not reference.selected_by]

    def paths(self, header: dict, chain: list[str], path: Path) -> dict[str, str]:
        """Choose the path (or N/A) of each reference of an exposure."""
        answers = self.ask(header, self.types(chain), path)
        chosen = {}
        for reference in {r.type: r for name in chain for r in self.steps[name].references}.values():
            reftype = reference.type
            if reftype in self.override:
                chosen[reftype] = self.override[reftype]
                continue
            if reference.selected_by:
                crds_type = reference.crds_type or reftype
                answer = self.ask(references.INSTRUMENT | reference.selected_by, [crds_type], path)[crds_type]
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


def _read_parameters(
    config: dict, chains: dict[Member, list[str]], headers: dict, choice: _Choice
) -> dict[Member, StepParameters]:
    """Read the parameters that CRDS sets for each exposure; empty if they are switched off."""
    if choice.context is None or not step_parameters.are_enabled(config["references"]):
        return {}
    contents: dict[str, dict] = {}
    result = {}
    for member, chain in chains.items():
        header = headers[str(member.path)]["crds"]
        types = step_parameters.reference_types(chain)
        # Together with the references: CRDS is asked once for each exposure.
        answers = choice.ask(header, [*choice.types(chain), *types], member.path)
        paths = {}
        for reftype in types:
            name = answers[reftype]
            if name != NOT_APPLICABLE and references.is_found(name):
                paths[reftype] = str(references.cache_path(name))
                if paths[reftype] not in contents:
                    contents[paths[reftype]] = step_parameters.read_reference(_in_cache(name, choice.context))
        result[member] = step_parameters.merged(paths, contents, config, {name: choice.steps[name] for name in chain})
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


def _check_alignment_is_possible(config: dict, inventory: Inventory) -> None:
    """Refuse parameters of CRDS that leave out the alignment if the configuration requires it."""
    for entry in inventory.exposures.values() if config.get("require_alignment") else ():
        for step in ("source_catalog", "tweakreg"):
            skip, path = entry.step_parameters.get(step, {}).get("skip", (False, ""))
            if skip:
                raise RampflowError(
                    f"{path}: steps.{step}.skip is true for {entry.stem}, and require_alignment is true in the configuration; "
                    f"change one of them: steps: {{{step}: {{skip: false}}}} in the configuration keeps the step"
                )


def _read_contents(paths: list[str], own: set[str], known: dict) -> dict:
    """Identify the content of each existing reference, from `known` where size and time have not changed.

    Every byte of the user's own files is read, because they may have been edited in place.
    """

    def read(path):
        try:
            status = os.stat(path)
        except OSError:
            return None
        stamp = _stamp_of(status)
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
    exposures = inventory.exposures.values()
    folders = {entry.path: headers[entry.path]["content"] for entry in exposures}
    folders |= {path: contents[path]["content"] for entry in exposures for path in entry.files[1:]}
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


def _check_calibrated(chains: dict[Member, list[str]], results: Path, folder: Path) -> None:
    """Refuse calibrated images that can't be aligned, or whose products would take their place."""
    lines = []
    for member in (member for member in chains if is_calibrated(member.path)):
        if "tweakreg" not in chains[member]:
            lines.append(f"{member.path}: is a calibrated image, and steps.tweakreg.skip is true: nothing is left to do for it")
        elif "source_catalog" not in chains[member] and not _files_beside(member)[0]:
            lines.append(
                f"{member.path}: has no {stem_of(member.path)}_cat.parquet and _segm.asdf beside it, and "
                "steps.source_catalog.skip is true: set it to false, so that the sources are found again"
            )
        if (catalog := _files_beside(member)[0]) and (fault := _fault_of_catalog(Path(catalog))):
            lines.append(f"{catalog}: {fault}; get it again, or remove it, so that the sources are found again")
        if (folder / results).resolve() == member.path.parent.resolve():
            lines.append(
                f"{member.path}: its products would be written over it and the files beside it; choose another folder with "
                "--config results=FOLDER"
            )
    raise_problems(lines)


def _fault_of_catalog(path: Path) -> str:
    """What is wrong with the catalog beside a calibrated image, by its end; empty if nothing is."""
    try:
        return "" if b"roman.meta." in read_footer(path) else "has no metadata of a product (roman.meta)"
    except (OSError, ValueError) as error:
        return f"can't be read ({error})"


def _check_paths(inventory: Inventory) -> None:
    """Refuse files whose paths Snakemake or asdf would misread."""
    paths = {p for e in inventory.exposures.values() for p in (*e.files, e.tweakreg_catalog, *e.references.values()) if p}
    raise_problems(
        [
            f"{path!r}: a path can't have any of {SPECIAL} and control characters; rename it, or link to it"
            for path in sorted(paths)
            if not is_plain(path)
        ]
    )


def _check_place(inventory: Inventory, results: Path) -> None:
    """Refuse files in the folder of the results, or links to them, where a step writes files of the same names."""
    results = results.resolve()
    inside = [path for e in inventory.exposures.values() for path in e.files if Path(path).resolve().is_relative_to(results)]
    raise_problems(
        [
            f"{path}: lies in the folder of the results ({results}), where it would be overwritten; copy it elsewhere"
            for path in inside
            if not path.endswith(RAW_SUFFIX)
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
