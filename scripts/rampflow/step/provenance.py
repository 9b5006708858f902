"""Provenance of a product: its name, time and software, its references, and the statuses of the steps."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rampflow import SOFTWARE_NAME, __version__
from rampflow.chain import STEPS
from rampflow.files.tags import TIME
from rampflow.files.yaml_tree import tagged

#: Section of the configuration with settings of selected exposures, as a source of parameters.
OVERRIDES = "overrides"
#: Key of the metadata of an intermediate catalog with the log of its step, which becomes a part of the image's ``cal_logs``.
LOG_KEY = b"rampflow.cal_logs"


def is_fully_saturated(cal_step: dict) -> bool:
    """Tell whether an exposure is saturated in all pixels and resultants.

    The saturation step then marks all following steps SKIPPED. This function tests the status of ramp_fitting, which is skipped
    for no other reason.

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


def parameter_sources(options: Sequence[str]) -> dict[str, str]:
    """List the references of CRDS that have set parameters of a step.

    Parameters
    ----------
    options : sequence of str
        Values of the option ``--parameters_from``: the file's name or `OVERRIDES`, a colon, and the parameters.

    Returns
    -------
    dict
        Entries for ``meta.ref_file``: name of the file by its type (``pars-rampfitstep``), which is a part of the name.
    """
    files = [option.partition(":")[0] for option in options]
    return {found[1]: f"crds://{file}" for file in files if (found := re.search(r"_(pars-[a-z0-9]+)_", file))}


def describe_parameter_sources(options: Sequence[str]) -> list[str]:
    """Describe for the log which parameters are from CRDS, and which from the configuration's ``overrides``.

    Parameters
    ----------
    options : sequence of str
        Values of the option ``--parameters_from``.

    Returns
    -------
    list of str
        One line for the parameters from CRDS and one for those of ``overrides``, if there are any.
    """
    sources = {source: names.replace(",", ", ") for source, _, names in (option.partition(":") for option in options)}
    selected = sources.pop(OVERRIDES, "")
    from_crds = "; ".join(f"{names} from {file}" for file, names in sources.items())
    lines = {"Parameters of CRDS": from_crds, f"Parameters of the configuration's {OVERRIDES}": selected}
    return [f"{kind}: {names}" for kind, names in lines.items() if names]


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
