"""Recipes: what existing files were made from, as their own logs say.

A recipe hashes the parameters, the references and the code of a step.

Snakemake knows this of the files that it has made under their present names. It knows nothing of a results folder that was
renamed or copied, or that another working folder has made, and would accept files of other parameters. Therefore each step logs
its recipe, and the log is part of the file. Files that no run of this working folder has made are opened, and their recipes are
compared with those that they should have.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.astrometry import source_files
from rampflow.errors import RampflowError, counted
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.step.provenance import LOG_KEY

#: In Snakemake's folder, so that it is removed together with Snakemake's own records.
STORE = Path(".snakemake/rampflow/made.json")
#: Time of a stamp that repeats nothing, in seconds.
_LONG_AGO = 86400

# YAML may break a line of the log at a space.
_LOGGED = re.compile(rb"rampflow\.(\w+)\s+::\s+INFO\s+::\s+Recipe\s+([0-9a-f]{16})\b")


def recipe(*parts: str) -> str:
    """Hash what a step is made from.

    Parameters
    ----------
    *parts : str
        What the step is made from: arguments, fingerprint of its code, content of its files.

    Returns
    -------
    str
        Hash of 16 hexadecimal digits.
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def recipes_in(path: Path) -> dict[str, str]:
    """Read the recipe of each step that a file has gone through from its log.

    Parameters
    ----------
    path : pathlib.Path
        ASDF or parquet file.

    Returns
    -------
    dict of str to str
        Recipe of each step, by its name; empty for a file without a readable log.
    """
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            text = (parquet.read_schema(path).metadata or {}).get(LOG_KEY, b"")
        else:
            with AsdfFile(path, parse=False) as file:
                text = file.text
    except (RampflowError, OSError, ValueError):  # damaged, or not one of ours
        return {}
    return {step.decode(): digest.decode() for step, digest in _LOGGED.findall(text)}


@functools.cache
def content(path: str) -> str:
    """Identify the content of a file that the configuration names.

    The content of the folder of a HATS catalog is that of the files that change whenever one of its partitions does.

    Parameters
    ----------
    path : str
        File, folder of a HATS catalog, or name of a service.

    Returns
    -------
    str
        Hash of the content; `path` itself for a service or a missing file.
    """
    files = source_files(path)
    found = [links.content_of(Path(file), trusted=False) for file in files]
    return found[0] if files == [path] else recipe(*found) if files else path


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _load(store: Path) -> dict:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(store.read_text())
        if isinstance(known, dict):
            return known
    return {}


def _save(store: Path, known: dict) -> None:
    with replacing(store, shared=True) as partial:
        partial.write_text(json.dumps(known))


def differing(
    expected: dict[Path, dict[str, str]],
    store: Path = STORE,
    read: Callable[[Path], dict[str, str]] | None = None,
) -> dict[Path, list[str]]:
    """Find existing files that no run of this working folder has made and whose recipes are not those that they should have.

    Parameters
    ----------
    expected : dict
        For each file, the recipe of each step that it should have gone through.
    store : pathlib.Path
        File with what is known of files already.
    read : callable, optional
        Function that reads the recipes of a file; `recipes_in` by default.

    Returns
    -------
    dict
        For each such file the steps that differ: all of them where its log has no recipe.
    """
    known = _load(store)

    def _read(path):
        stamp, entry = _stamp(path), known.get(str(path))
        if stamp is None or (entry and entry["stamp"] == stamp):
            return stamp and entry
        return {"stamp": stamp, "recipes": (read or recipes_in)(path)}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = {str(path): entry for path, entry in zip(expected, pool.map(_read, expected), strict=True) if entry}
    if any(known.get(path) != entry for path, entry in found.items()):
        _save(store, known | found)
    result = {}
    for path, steps in expected.items():
        entry = found.get(str(path))
        if entry and not entry.get("made_here"):
            recorded = entry["recipes"]
            if steps_differing := [step for step in {**steps, **recorded} if steps.get(step) != recorded.get(step)]:
                result[path] = steps_differing
    return result


def remember(files: dict[Path, dict[str, str]], since: float, in_one_job: Collection[Path] = (), store: Path = STORE) -> None:
    """Record which files a run has made, with their recipes. Snakemake knows what these were made from.

    Parameters
    ----------
    files : dict
        For each file that the run may have made, the recipe of each step.
    since : float
        When the run began, as a file's time of modification; older files are passed over.
    in_one_job : collection of pathlib.Path
        Those that belong to an exposure whose steps one job has run.
    store : pathlib.Path
        File with what is known of files.
    """
    made = {}
    for path, steps in files.items():
        stamp = _stamp(path)
        if stamp and stamp[1] >= since * 1e9:
            made[str(path)] = {"stamp": stamp, "recipes": steps, "made_here": True, "in_one_job": path in in_one_job}
    if made:
        _save(store, _load(store) | made)


def made_in_one_job(files: dict[Path, dict[str, str]], store: Path = STORE) -> dict[Path, bool]:
    """Tell whether one job has run the steps of an exposure, for the files that were made in this working folder.

    Parameters
    ----------
    files : dict
        For each file of an exposure, the recipes of the steps that count.
    store : pathlib.Path
        File with what is known of files.

    Returns
    -------
    dict of pathlib.Path to bool
        False if a job has run each step. Without the files that were made elsewhere, have changed since, or have other recipes.
    """
    known, found = _load(store), {}
    for path, steps in files.items():
        entry = known.get(str(path), {})
        if entry.get("made_here") and steps.items() <= entry["recipes"].items() and entry["stamp"] == _stamp(path):
            found[path] = entry.get("in_one_job", False)
    return found


def changed_since_made(files: dict[Path, dict[str, str]], store: Path = STORE) -> set[str]:
    """List the steps that have other recipes than when this working folder has made some files.

    Parameters
    ----------
    files : dict
        For each file, the recipe of each step that it should have gone through.
    store : pathlib.Path
        File with what is known of files.

    Returns
    -------
    set of str
        Names of the steps. Files that were made elsewhere, or have changed since, do not count.
    """
    known, changed = _load(store), set()
    for path, steps in files.items():
        entry = known.get(str(path), {})
        if entry.get("made_here") and entry["stamp"] == _stamp(path):
            changed |= {step for step in {**steps, **entry["recipes"]} if steps.get(step) != entry["recipes"].get(step)}
    return changed


def are_as_remembered(files: dict[Path, dict[str, str]], store: Path = STORE) -> bool:
    """Test whether all of these files were made in this working folder, with these recipes.

    Parameters
    ----------
    files : dict
        For each file, the recipe of each step.
    store : pathlib.Path
        File with what is known of files.

    Returns
    -------
    bool
        True if the record of every file agrees with the file and its recipes.
    """
    known = _load(store)
    return all(
        (entry := known.get(str(path))) and entry["stamp"] == _stamp(path) and entry["recipes"] == steps
        for path, steps in files.items()
    )


def set_stamp(path: Path, *, outdated: bool) -> None:
    """Set the time of a stamp: now where what depends on it is to be made again, otherwise long ago.

    Parameters
    ----------
    path : pathlib.Path
        The stamp; it is created if it does not exist.
    outdated : bool
        Whether what depends on it is to be made again.
    """
    if outdated or not path.exists() or path.stat().st_mtime != _LONG_AGO:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new content: Snakemake disregards the time of a small input whose content is that of the last time.
        path.write_text(f"{time.time_ns()}\n")
        if not outdated:
            os.utime(path, (_LONG_AGO, _LONG_AGO))


def describe_outdated(differing: dict[Path, list[str]]) -> str:
    """Write the message that names what is made again, and why.

    Parameters
    ----------
    differing : dict
        Steps that differ for each file, as `differing` returns them; at least one file.

    Returns
    -------
    str
        The message.
    """
    first = min(differing)
    others = f" and {counted(len(differing) - 1, 'other')}" if len(differing) > 1 else ""
    return (
        f"{first}{others}: was not made by a run of this working folder, and from other references, parameters or code of "
        f"{', '.join(differing[first])}; outdated files are made again"
    )


def describe_damaged(damaged: Sequence[Path]) -> str:
    """Write the message that names damaged products.

    Parameters
    ----------
    damaged : sequence of pathlib.Path
        Products that are damaged, or are those of another exposure or run; at least one.

    Returns
    -------
    str
        The message.
    """
    others = f" and {counted(len(damaged) - 1, 'other')}" if len(damaged) > 1 else ""
    return f"{damaged[0]}{others}: is damaged, or is the product of another exposure or run; damaged files are made again"
