"""Differences in what two products of an exposure were made of: references, parameters, versions and statuses."""

from __future__ import annotations

import re
from typing import Any

_PARAMETERS = re.compile(r" :: rampflow\.(\w+) :: INFO :: Parameters: (.*)$")
_PARAMETER = re.compile(r"(\w+)=(.*?)(?:, (?=\w+=)|$)")


def parameters_in(cal_logs: list) -> dict[str, str]:
    """Read the parameters of the steps from the log of a product.

    Parameters
    ----------
    cal_logs : list of str
        ``meta.cal_logs``. Only rampflow's lines are understood.

    Returns
    -------
    dict of str to str
        Values by ``STEP.PARAMETER``.
    """
    found: dict[str, str] = {}
    for line in cal_logs:
        if match := _PARAMETERS.search(str(line)):
            step, text = match.groups()
            found |= {f"{step}.{name}": value for name, value in _PARAMETER.findall(text)}
    return found


def origins(meta: dict) -> dict[str, dict[str, str]]:
    """Collect what a product was made of.

    Parameters
    ----------
    meta : dict
        Metadata of the calibrated image.

    Returns
    -------
    dict
        ``references`` (with the CRDS context), ``parameters``, ``versions`` and ``statuses``, each by name.
    """
    references = {key: str(value) for key, value in meta.get("ref_file", {}).items() if not isinstance(value, dict)}
    crds = meta.get("ref_file", {}).get("crds", {})
    return {
        "references": references | {"context": str(crds.get("context", "not recorded"))},
        "parameters": parameters_in(meta.get("cal_logs", [])),
        "versions": {
            "software": f"{meta.get('calibration_software_name')} {meta.get('calibration_software_version')}",
            "crds": str(crds.get("version", "not recorded")),
        },
        "statuses": {key: str(value) for key, value in meta.get("cal_step", {}).items()},
    }


def compare_origins(old: dict, new: dict) -> dict[str, dict[str, tuple[str | None, str | None]]]:
    """List what two products were made of differently.

    Parameters
    ----------
    old, new : dict
        Metadata of both images.

    Returns
    -------
    dict
        For each section of `origins`: the old and the new value of each entry that differs; `None` where it is not recorded.
        Parameters are compared where both logs record some.
    """
    before, after = origins(old), origins(new)
    if not before["parameters"] or not after["parameters"]:  # for example a product of romancal
        before["parameters"] = after["parameters"] = {}
    result: dict[str, Any] = {}
    for section, one in before.items():
        other = after[section]
        result[section] = {
            name: (one.get(name), other.get(name)) for name in sorted(one | other) if one.get(name) != other.get(name)
        }
    return result
