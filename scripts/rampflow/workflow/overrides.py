"""Compare the references that the configuration names with the exposures that will read them, before any job."""

from __future__ import annotations

from pathlib import Path

from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.declaration import NOT_APPLICABLE, Reference
from rampflow.step.reference_checks import mismatches


def override_mismatch(path: str, place: str, declaration: Reference, readers: dict[str, dict]) -> str | None:
    """Describe how a reference differs from the exposures that will read it.

    Parameters
    ----------
    path : str
        The reference, or "N/A".
    place : str
        Key of the configuration that names it.
    declaration : Reference
        Declaration of the reference by a step that reads it.
    readers : dict
        For each raw file's path, ``instrument`` of its metadata, in a mapping as ``meta``.

    Returns
    -------
    str or None
        A line with the first exposure that it does not fit. None where it fits all, or can't be read: the step reports that.
    """
    if path == NOT_APPLICABLE:
        return None
    try:
        with AsdfFile(path) as file:
            meta = file.tree["roman"]["meta"]
            found = {raw: lines for raw, header in readers.items() if (lines := mismatches(meta, header, declaration))}
    except (RampflowError, AttributeError, LookupError, TypeError):
        return None
    if not found:
        return None
    first = next(iter(found))
    others = f" and {counted(len(found) - 1, 'other')}" if len(found) > 1 else ""
    return (
        f"{place}: {path}: {found[first][0][1]} ({Path(first).name}{others}); name one that was "
        "made for them, or set references.allow_mismatch"
    )
