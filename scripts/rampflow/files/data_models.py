"""Data models: which tags the files of each version of RAD have, and which versions of raw exposures can be read."""

from __future__ import annotations

import re
from typing import NamedTuple

from rampflow.errors import RampflowError
from rampflow.files.tags import DATA_MODELS, DEFAULT_DATA_MODEL, RAW_TAGS, REFERENCE_VERSIONS, ROMAN_PREFIX

_TAG = re.compile(r"(?P<model>[a-z_]+)-(?P<version>\d+\.\d+\.\d+)")
#: Raw data models that can be read; the last two are of ground tests.
RAW_MODELS = ("wfi_science_raw", "fps", "tvac")
GROUND_TEST_MODELS = RAW_MODELS[1:]
#: Version of the oldest calibrated image that is written anew. Texts and lists of older ones have tags of their own.
OLDEST_IMAGE = "1.4.0"


class DataModel(NamedTuple):
    """Tags of one data model.

    Attributes
    ----------
    version : str
        Version of RAD, major and minor.
    raw, ramp, image, wcs, segmentation_map : str
        Tag of each kind of file.
    """

    version: str
    raw: str
    ramp: str
    image: str
    wcs: str
    segmentation_map: str

    @property
    def has_second_flags(self) -> bool:
        """Whether ramps and images have a second array of flags (``pixeldq2``, ``dq2``).

        Returns
        -------
        bool
            True from version 1.2 on.
        """
        return _numbers(self.version) >= (1, 2)


def data_model(version: str = DEFAULT_DATA_MODEL) -> DataModel:
    """Look up a data model by its version.

    Parameters
    ----------
    version : str
        One of `rampflow.files.tags.DATA_MODELS`.

    Returns
    -------
    DataModel
        Its tags.
    """
    return DataModel(version, **DATA_MODELS[version])


def data_model_of(tag: str) -> DataModel:
    """Find the data model that a file belongs to.

    Parameters
    ----------
    tag : str
        Tag of the file's ``roman`` tree, with or without its prefix.

    Returns
    -------
    DataModel
        The newest data model whose files of this kind are not newer than the tag; the oldest that is known for older files.
    """
    name, _, version = tag.removeprefix(ROMAN_PREFIX).rpartition("-")
    found = data_model(min(DATA_MODELS, key=_numbers))
    for known in sorted(DATA_MODELS, key=_numbers):
        for own in DATA_MODELS[known].values():
            own_name, _, own_version = own.removeprefix(ROMAN_PREFIX).rpartition("-")
            if own_name == name and _numbers(own_version) <= _numbers(version):
                found = data_model(known)
    return found


class RawVersion(NamedTuple):
    """Data model of a raw exposure.

    Attributes
    ----------
    model : str
        One of `RAW_MODELS`.
    nearest : str
        The newest known version that is not newer, a name as in `rampflow.files.tags.RAW_TAGS`.
    newer : bool
        Whether the exposure's version is newer than all that are known.
    """

    model: str
    nearest: str
    newer: bool


def raw_version(path: object, tag: str) -> RawVersion:
    """Tell which raw data model a file has.

    Minor versions add entries, and a newer one than those known can be read. Another major version may mean something else by
    the same name.

    Parameters
    ----------
    path : path-like
        The file, for the message.
    tag : str
        Its tag without prefix, ``wfi_science_raw-2.1.0`` for example.

    Returns
    -------
    RawVersion
        The data model.

    Raises
    ------
    RampflowError
        It is no raw exposure, or one of an unknown major version.
    """
    found = _TAG.fullmatch(tag)
    if not found or found["model"] not in RAW_MODELS:
        raise RampflowError(
            f"{path}: expected the data model 'wfi_science_raw', 'fps' or 'tvac', found {tag or 'none'!r}; "
            "give a raw exposure (_uncal.asdf) or a ramp"
        )
    known = [_numbers(name.rpartition("-")[2]) for name in RAW_TAGS if name.rpartition("-")[0] == found["model"]]
    version = _numbers(found["version"])
    older = [numbers for numbers in known if numbers[0] == version[0] and numbers <= version]
    if not older:
        versions = ", ".join(".".join(map(str, numbers)) for numbers in known)
        raise RampflowError(
            f"{path}: has the data model {tag}, whose major version is unknown; versions of {found['model']} that can be read: "
            f"{versions}, and newer minor versions of these; update rampflow"
        )
    nearest = f"{found['model']}-{'.'.join(map(str, max(older)))}"
    return RawVersion(found["model"], nearest, newer=version > max(known))


def check_image_version(path: object, tag: str) -> None:
    """Refuse a calibrated image of a newer major version than those that are known, or of one that is too old.

    Parameters
    ----------
    path : path-like
        The file, for the message.
    tag : str
        Its tag without prefix, ``wfi_image-2.1.0`` for example.

    Raises
    ------
    RampflowError
        It has such a version.
    """
    newest = max((model["image"].removeprefix(ROMAN_PREFIX) for model in DATA_MODELS.values()), key=_version_of)
    if not _numbers(OLDEST_IMAGE) <= _version_of(tag) < (_version_of(newest)[0] + 1,):
        raise RampflowError(
            f"{path}: has the data model {tag}; calibrated images can be read from wfi_image-{OLDEST_IMAGE} to {newest}, and "
            "newer minor versions: process the raw exposure, or update rampflow"
        )


def describe_newer(tag: str, nearest: str) -> str:
    """Describe a newer version than those that are known, for a warning.

    Parameters
    ----------
    tag : str
        Tag of the exposure, without prefix.
    nearest : str
        The newest known version.

    Returns
    -------
    str
        The warning.
    """
    return (
        f"the data model {tag} is newer than {nearest}, the newest that is known: it is read as this one, and entries that it "
        "adds are copied; update rampflow"
    )


def describe_newer_reference(tag: str) -> str:
    """Describe a reference of a newer version than those that are known, for a warning.

    Parameters
    ----------
    tag : str
        Tag of the reference, without prefix.

    Returns
    -------
    str
        The warning; empty for a known version.
    """
    name, _, version = tag.rpartition("-")
    known = REFERENCE_VERSIONS.get(name)
    if known is None or _numbers(version) <= _numbers(known):
        return ""
    return f"the data model {tag} is newer than {known}, the newest version that is known: its arrays are read by their names"


def _version_of(tag: str) -> tuple[int, ...]:
    """The version in a tag as numbers."""
    return _numbers(tag.rpartition("-")[2])


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers; empty where it is none."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+(\.\d+)*", version) else ()
