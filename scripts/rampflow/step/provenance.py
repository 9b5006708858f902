"""Provenance of a product: its name, time and software, its references, and the statuses of the steps."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from rampflow import SOFTWARE_NAME, __version__
from rampflow.chain import STEPS
from rampflow.files.tags import TIME
from rampflow.files.yaml_tree import tagged

#: Key of the metadata of an intermediate catalog with the log of its step, which becomes a part of the image's ``cal_logs``.
LOG_KEY = b"rampflow.cal_logs"


def is_fully_saturated(cal_step: dict) -> bool:
    """Tell whether an exposure is saturated in all pixels and resultants.

    The saturation step then marks all following steps SKIPPED. ramp_fitting is never skipped for another reason, so its status
    is the one that is tested.

    Parameters
    ----------
    cal_step : dict
        ``meta.cal_step``.

    Returns
    -------
    bool
        Whether the exposure is fully saturated.
    """
    return cal_step.get(STEPS["ramp_fitting"].status) == "SKIPPED"


def stamp(meta: dict, filename: str) -> None:
    """Record the file's name, the time and the software, in place.

    Parameters
    ----------
    meta : dict
        Metadata of the product.
    filename : str
        Name of its file.
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    meta["filename"] = filename
    meta["file_date"] = tagged({"base_format": "datetime", "value": now}, TIME)
    meta["calibration_software_name"] = SOFTWARE_NAME
    meta["calibration_software_version"] = __version__


def reference_name(path: Path) -> str:
    """Choose the name to record for a reference.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    str
        ``crds://NAME`` for a file of a CRDS cache, the path as it was given for another.
    """
    parts = path.parts
    in_cache = any(parts[i : i + 2] == ("references", "roman") for i in range(len(parts) - 1))
    return f"crds://{path.name}" if in_cache else os.fspath(path)


def crds_version() -> str:
    """Look up the version of the installed package `crds`, for ``meta.ref_file.crds``.

    Returns
    -------
    str
        The version; empty where it is not installed.
    """
    import importlib.metadata

    try:
        return importlib.metadata.version("crds")
    except importlib.metadata.PackageNotFoundError:
        return ""
