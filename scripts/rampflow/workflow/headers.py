"""Headers of the raw files and calibrated images of a run, and what the steps will refuse in them."""

from __future__ import annotations

import datetime
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.astrometry.region import epoch_of
from rampflow.chain import STEPS, chain_of
from rampflow.detector import CHANNEL_WIDTH, MINIMUM_RESULTANTS, check_shape
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.data_models import DataModel, check_image_version, data_model
from rampflow.files.level1 import missing_metadata, update_processed, update_raw, wrong_metadata
from rampflow.files.tags import DEFAULT_DATA_MODEL, TIME
from rampflow.quality.exposure_numbers import identify_exposure
from rampflow.remote.files import REQUESTS, RemoteReader
from rampflow.step.exposure import Exposure
from rampflow.step.provenance import is_fully_saturated
from rampflow.step.ramp_input import check_ramp, is_ramp
from rampflow.step.reference_checks import parse_time
from rampflow.workflow.association import Member
from rampflow.workflow.exposure_names import is_calibrated_image, stem_of

#: Parts of the metadata by which CRDS may choose references.
CRDS_PARTS = ("instrument", "exposure", "visit", "observation")
#: Numbers in the metadata that a step requires.
NUMBERS_READ = {"assign_wcs": tuple(f"meta.wcsinfo.{name}" for name in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref"))}


def read_headers(members: list[Member], known: dict, model: str) -> tuple[dict[str, dict], dict[str, str]]:
    """Read the headers of files, from `known` where a file has not changed.

    Parameters
    ----------
    members : list of rampflow.workflow.association.Member
        The exposures.
    known : dict
        Headers of an earlier run, by the paths or addresses of their files.
    model : str
        Version of the data model that is written.

    Returns
    -------
    headers : dict
        Header of each file that can be read, by its path or address, see `read_header`, with a ``stamp`` that changes with the
        file.
    errors : dict of str
        What is wrong with the others, by path or address.
    """
    # The network makes one wait, and the disk doesn't.
    threads = REQUESTS if any(member.remote for member in members) else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda member: _header_or_problem(member, known, model), members))
    results = {member.source: result for member, result in zip(members, found, strict=True)}
    headers = {path: header for path, (header, _) in results.items() if header}
    return headers, {path: error for path, (_, error) in results.items() if error}


def _header_or_problem(member: Member, known: dict, model: str) -> tuple[dict | None, str | None]:
    """The header of a file, from `known` if it has not changed, or what is wrong with it."""
    if member.problem:
        return None, member.problem
    stamp: list
    if member.remote:
        stamp = [member.remote.size, member.remote.version]
    else:
        try:
            stamp = links.stamp_of(member.path.stat())
        except OSError as error:  # a link to nowhere, a folder that may not be read
            return None, f"{member.path}: can't be opened ({error.strerror})"
    header = known.get(member.source)
    if header and (header["stamp"], header["data_model"]) == (stamp, model):
        return header, None
    try:
        header = read_header(member.path, model, RemoteReader(member.remote) if member.remote else None)
    except RampflowError as error:
        return None, _named(member, str(error))
    refusals = {step: _named(member, text) for step, text in header["refusals"].items()}
    return {**header, "refusals": refusals, "stamp": stamp, "data_model": model}, None


def _named(member: Member, text: str) -> str:
    """A message that begins with the path of a file, with its address instead if it has one."""
    begin = f"{member.path}: "
    return f"{member.source}: {text.removeprefix(begin)}" if text.startswith(begin) else text


def read_header(path: Path, model: str = DEFAULT_DATA_MODEL, source: RemoteReader | None = None) -> dict:
    """Read and check what the inventory needs from a raw file or a calibrated image.

    Parameters
    ----------
    path : pathlib.Path
        Raw file or calibrated image, see `rampflow.workflow.association.is_calibrated_image`.
    model : str
        Version of the data model that is written.
    source : rampflow.remote.files.RemoteReader, optional
        The bytes of a file of the network.

    Returns
    -------
    dict
        Entries ``type``, ``detector``, ``shape``, ``crds`` (metadata by which CRDS chooses), ``identification`` (see
        `rampflow.quality.exposure_numbers.identify_exposure`), ``content`` (digest) and ``refusals`` (see `find_refusals`).

    Raises
    ------
    RampflowError
        The file is damaged, not what its name says, or lacks an entry.
    """
    with AsdfFile(path, source=source) as file:
        raw = Exposure(file)
        if is_calibrated_image(path):
            return _header_of_image(raw)
        chosen_by = metadata_for_crds(raw)  # as the file has them: CRDS's rules know the versions
        if is_ramp(raw):
            update_processed(raw, data_model(model).ramp)
        else:
            update_raw(raw, data_model(model))
        shape = raw.array("data").shape
        _ = raw.read_pattern
        check_shape(path, shape)
        kind, detector = raw.get("meta.exposure.type", str), raw.get("meta.instrument.detector", str)
        try:
            chain_of(kind, detector)
        except RampflowError as error:
            raise RampflowError(f"{path}: {error}") from None
        raw.get("meta.instrument.optical_element", str)
        content = source.file.content if source else file.content_digest()
        return _header(raw, tuple(shape), chosen_by, find_refusals(raw, tuple(shape), data_model(model)), content)


def metadata_for_crds(exposure: Exposure) -> dict[str, str]:
    """Read the metadata by which CRDS may choose references.

    Parameters
    ----------
    exposure : rampflow.step.exposure.Exposure
        The exposure, after any step.

    Returns
    -------
    dict of str
        Values by their dotted names, such as ``roman.meta.instrument.detector``.
    """
    header: dict[str, str] = {}
    for part in CRDS_PARTS:
        _flatten(exposure.meta.get(part, {}), f"roman.meta.{part}", header)
    return header


def _header(
    exposure: Exposure, shape: tuple[int, int, int], chosen_by: dict[str, str], refusals: dict[str, str], content: str
) -> dict:
    """What `read_header` returns."""
    return {
        "type": str(exposure.get("meta.exposure.type", str)),
        "detector": str(exposure.get("meta.instrument.detector", str)),
        "shape": list(shape),
        "crds": chosen_by,
        "identification": identify_exposure(exposure.meta),
        "content": content,
        "refusals": refusals,
    }


def _header_of_image(image: Exposure) -> dict:
    """What `read_header` returns for a calibrated image, which must have all that its alignment reads."""
    image.expect_model("wfi_image", "tweakreg")
    check_image_version(image.path, image.tag)
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
    epoch_of(image)
    return _header(image, (1, *shape), metadata_for_crds(image), {}, image.file.content_digest())


def find_refusals(raw: Exposure, shape: tuple[int, int, int], model: DataModel) -> dict[str, str]:
    """Find what the steps will refuse, from the header alone.

    Parameters
    ----------
    raw : rampflow.step.exposure.Exposure
        The raw exposure, of the data model that is written or a newer one.
    shape : tuple of int
        Resultants, rows, columns.
    model : DataModel
        The data model that is written.

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
    if not refusals and (wrong := wrong_metadata(raw, model)):
        refusals["dq_init"] = f"{raw.path}: {', and '.join(wrong)}; correct the metadata of the file, or make it again"
    elif not refusals and (missing := missing_metadata(raw, model)):
        refusals["dq_init"] = (
            f"{raw.path}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, which the data model requires; "
            "the file is incomplete, make it again"
        )
    if "dq_init" not in refusals and (width := raw.array("amp33").shape[2]) != CHANNEL_WIDTH:
        refusals["refpix"] = f"{raw.path}: amp33 has {width} columns; refpix needs {CHANNEL_WIDTH}: make the file again"
    try:
        epoch_of(raw)  # the stars that it is aligned to are moved to it
    except RampflowError as error:
        refusals["tweakreg"] = str(error)
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


def _time_text(node) -> str:
    """A time as CRDS compares it: as the file has it, if that is ISO 8601."""
    text = str(node.get("value") if isinstance(node, dict) else node)
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        found = parse_time(node)
        return found.replace(tzinfo=None).isoformat(timespec="milliseconds") if found else text
    return text


def _flatten(node, name: str, result: dict) -> None:
    if getattr(node, "tag", "").startswith(TIME.rpartition("-")[0]):
        node = _time_text(node)
    if isinstance(node, dict):
        for key, value in node.items():
            _flatten(value, f"{name}.{key}", result)
    elif isinstance(node, str | int | float):
        result[name] = str(node)


def files_beside(member: Member) -> tuple[str | None, str | None]:
    """Find the source catalog and the segmentation map beside a calibrated image.

    Parameters
    ----------
    member : rampflow.workflow.association.Member
        Member of an association.

    Returns
    -------
    tuple
        Paths of the catalog and the map; None and None for a raw file, or without both.
    """
    if not is_calibrated_image(member.path):
        return None, None
    catalog, segmentation = (member.path.with_name(f"{stem_of(member.path)}_{end}") for end in ("cat.parquet", "segm.asdf"))
    return (str(catalog), str(segmentation)) if catalog.is_file() and segmentation.is_file() else (None, None)


def remaining_chain(member: Member, header: dict, skipped: frozenset[str]) -> list[str]:
    """List the steps that a member of an association goes through: of a calibrated image, those that it still needs.

    Parameters
    ----------
    member : rampflow.workflow.association.Member
        Member of an association.
    header : dict
        Its header, see `read_header`.
    skipped : frozenset of str
        Steps that the configuration leaves out.

    Returns
    -------
    list of str
        Names of the steps, in order.
    """
    chain = chain_of(header["type"], header["detector"], skipped)
    if not is_calibrated_image(member.path):
        return chain
    done = ("source_catalog",) if files_beside(member)[0] else ()
    return [name for name in chain if name in ("source_catalog", "tweakreg") and name not in done]
