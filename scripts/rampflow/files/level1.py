"""Raw exposures of ground tests and of older versions, brought in place to the version that is written.

Only the metadata change: the arrays stay in the file, and are read by rows as those of any exposure.
"""

from __future__ import annotations

import copy
import datetime
import reprlib
from typing import Any

from rampflow.files.data_models import GROUND_TEST_MODELS, DataModel, RawVersion, raw_version
from rampflow.files.models import has_schema, misfits, missing_entries, required_entries
from rampflow.files.tags import ROMAN_PREFIX, TIME
from rampflow.files.yaml_tree import TaggedDict, map_tree, tagged

#: Arrays of ground tests that a raw exposure has too. Their reference read has been added back to the data already.
GROUND_TEST_ARRAYS = ("data", "amp33", "resultantdq")
#: Entries of ``meta`` that the steps write, whatever the raw exposure has.
WRITTEN_ANEW = (
    *("filename", "file_date", "model_type", "calibration_software_name", "calibration_software_version"),
    *("cal_step", "cal_logs", "ref_file"),
)
#: Entries of ``meta`` that the newest version has under another name, with the name in older versions or ground tests.
RENAMED = {
    "exposure.engineering_quality": "visit.engineering_quality",
    "exposure.nresultants": "exposure.ngroups",
    "guide_star.guide_mode": "guidestar.gw_fgs_mode",
    "guide_star.guide_window_id": "guidestar.gw_id",
    "guide_star.window_xstart": "guidestar.gw_window_xstart",
    "guide_star.window_xstop": "guidestar.gw_window_xstop",
    "guide_star.window_ystart": "guidestar.gw_window_ystart",
    "guide_star.window_ystop": "guidestar.gw_window_ystop",
    "pointing.pa_aperture": "wcsinfo.pa_aperture",
    "pointing.pointing_engineering_source": "visit.pointing_engineering_source",
    "prd_version": "prd_software_version",
    "ref_file.inverselinearity": "ref_file.inverse_linearity",
}


def update_raw(raw: Any, target: DataModel) -> RawVersion:
    """Bring a raw exposure to a data model, in place, if it is of an older one.

    What the data model asks for is taken from where the older one has it (`RENAMED`, `derive_entries`). What the older one
    doesn't ask for gets RAD's placeholders ("?", −999999). What it does ask for and the file lacks stays missing: a placeholder
    would hide it. The statistics that ground-test files keep in ``meta`` go to ``extras``, because that name means something
    else now. Exposures of the same version or a newer one stay as they are.

    Parameters
    ----------
    raw : `rampflow.step.exposure.Exposure`
        The exposure as it came.
    target : DataModel
        The data model that is written.

    Returns
    -------
    RawVersion
        The data model of the exposure as it came.

    Raises
    ------
    RampflowError
        It is not a raw exposure, or one of an unknown version.
    """
    version = raw_version(raw.path, raw.tag)
    new = target.raw.removeprefix(ROMAN_PREFIX)
    if not is_older(version.nearest, new):
        return version
    roman = _without_old_tags(raw.roman)
    meta = roman["meta"]
    _update_metadata(meta, version.nearest, new)
    if version.model in GROUND_TEST_MODELS:
        extras = {"extras": {"ground_test": {"statistics": meta.pop("statistics")}}} if "statistics" in meta else {}
        arrays = {name: roman[name] for name in GROUND_TEST_ARRAYS if name in roman}
        # They have units: a mapping of the array and its unit.
        arrays = {name: node.get("value") if isinstance(node, TaggedDict) else node for name, node in arrays.items()}
        roman = {"meta": meta, **arrays, **extras}
    raw.roman = tagged(roman, target.raw)
    return version


def update_processed(exposure: Any, tag: str) -> None:
    """Bring the metadata of a ramp, an image or a segmentation map to a newer tag of its kind, in place, as `update_raw` does.

    Parameters
    ----------
    exposure : `rampflow.step.exposure.Exposure`
        The file as it came; of a newer version, it stays as it is.
    tag : str
        The tag that is written.
    """
    old, new = exposure.tag, tag.removeprefix(ROMAN_PREFIX)
    if is_older(old, new) and has_schema(old):
        _update_metadata(exposure.meta, old, new)


def newer_metadata(meta: dict, old: str, new: str) -> dict:
    """Copy metadata of an older data model, brought to a newer one, as `update_raw` does.

    Parameters
    ----------
    meta : dict
        Metadata of an image.
    old, new : str
        Names of the two data models, with their versions.

    Returns
    -------
    dict
        The copy.
    """
    result = _without_old_tags(meta)
    if has_schema(old):
        _update_metadata(result, old, new)
    return result


def _update_metadata(meta: dict, old: str, new: str) -> None:
    """Bring the metadata of a raw exposure or a ramp from one data model to a newer one, in place."""
    spell_data_problem(meta)
    rename_entries(meta)
    derive_entries(meta)
    add_placeholders(meta, old, new)


def forget_extensions(tree: dict) -> None:
    """Take the packages that wrote a raw file out of its tree, in place: they have not written what is made of it.

    asdf warns of each file whose packages are newer than the installed ones. Other entries of the history stay.

    Parameters
    ----------
    tree : dict
        The whole tree of the file.
    """
    history = tree.get("history")
    if isinstance(history, dict):
        history.pop("extensions", None)
        if not history:
            del tree["history"]


def is_older(name: str, than: str) -> bool:
    """Tell whether a raw data model is older than another one.

    Parameters
    ----------
    name, than : str
        Names with their versions, ``wfi_science_raw-2.1.0`` for example.

    Returns
    -------
    bool
        Whether the first one has an older version, or is of a ground test.
    """
    versions = [[int(number) for number in text.rpartition("-")[2].split(".")] for text in (name, than)]
    return name.rpartition("-")[0] != than.rpartition("-")[0] or versions[0] < versions[1]


def missing_metadata(raw: Any, target: DataModel) -> list[str]:
    """List the metadata that a raw exposure lacks, and that the data model which is written requires.

    Parameters
    ----------
    raw : `rampflow.step.exposure.Exposure`
        The exposure, as `update_raw` leaves it.
    target : DataModel
        The data model that is written.

    Returns
    -------
    list of str
        Dotted names, with ``meta``.
    """
    required = required_entries(target.raw.removeprefix(ROMAN_PREFIX))
    return [f"meta.{name}" for name in required if not _has(raw.meta, name)]


def wrong_metadata(raw: Any, target: DataModel) -> list[str]:
    """List the metadata of a raw exposure whose values the data model which is written doesn't take.

    What the pipeline writes itself, as the statuses of the steps, isn't looked at.

    Parameters
    ----------
    raw : `rampflow.step.exposure.Exposure`
        The exposure, as `update_raw` leaves it.
    target : DataModel
        The data model that is written.

    Returns
    -------
    list of str
        For each, its dotted name, its value, and what it takes.
    """
    found = misfits(target.raw.removeprefix(ROMAN_PREFIX), raw.meta, WRITTEN_ANEW)
    return [f"meta.{name} is {reprlib.repr(_entry(raw.meta, name))}; it takes {takes}" for name, takes in sorted(found.items())]


def add_placeholders(meta: dict, old: str, new: str) -> None:
    """Add placeholders for the metadata that a version requires and an older one doesn't, in place.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure or a ramp.
    old, new : str
        Names of the two versions.
    """
    required = set(required_entries(old))
    for name, value in missing_entries(old, new).items():
        *sections, last = name.split(".")
        if _has(meta, name) or RENAMED.get(name) in required:
            continue
        place: Any = meta
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = copy.copy(value)


def spell_data_problem(meta: dict) -> None:
    """Bring ``meta.exposure.data_problem`` to the form of the newest version, in place: older files have a boolean.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    """
    exposure = meta.get("exposure")
    if isinstance(exposure, dict) and isinstance(exposure.get("data_problem"), bool):
        exposure["data_problem"] = "True" if exposure["data_problem"] else None


def rename_entries(meta: dict) -> None:
    """Copy entries that the newest version has under another name to that name, in place.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    """
    for new, old in RENAMED.items():
        *section, name = new.split(".")
        value = _entry(meta, old)
        if value is not None and _entry(meta, new) is None:
            place = meta
            for part in section:
                place = place.setdefault(part, {})
            place[name] = value


def derive_entries(meta: dict) -> None:
    """Set entries that follow from others of an older version, in place.

    The WFI observes in parallel with the Coronagraph in the files of a visit after the first (``visit_file_sequence`` > 1);
    romancal has the same rule. Exposures of ground tests have a start and a duration, but no end.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    """
    sequence = _entry(meta, "observation.visit_file_sequence")
    if _entry(meta, "observation.wfi_parallel") is None and isinstance(sequence, int):
        meta["observation"]["wfi_parallel"] = sequence > 1
    start, duration = _entry(meta, "exposure.start_time"), _entry(meta, "exposure.exposure_time")
    if start is not None and _entry(meta, "exposure.end_time") is None and isinstance(duration, int | float) and duration > 0:
        text = start.get("value") if isinstance(start, dict) else start
        try:
            end = datetime.datetime.fromisoformat(str(text)) + datetime.timedelta(seconds=duration)
        except (ValueError, OverflowError):
            return
        meta["exposure"]["end_time"] = tagged(end.isoformat(timespec="milliseconds"), TIME)


def _entry(meta: dict, name: str) -> Any:
    """The value of a dotted name, `None` where there is none."""
    node: Any = meta
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def _has(meta: dict, name: str) -> bool:
    """Whether there is an entry of a dotted name, which may be null."""
    *sections, last = name.split(".")
    place = _entry(meta, ".".join(sections)) if sections else meta
    return isinstance(place, dict) and last in place


def _without_old_tags(roman: dict) -> dict:
    """A tree without the tags by which older versions name its sections and texts."""

    def _untagged(node: Any) -> Any:
        tag = getattr(node, "tag", "")
        if not tag.startswith(ROMAN_PREFIX):
            return node
        if isinstance(node, dict):
            return dict(node)
        if isinstance(node, list):
            return list(node)
        return tagged(str(node), TIME) if "file_date" in tag else str(node)

    return map_tree(roman, _untagged)
