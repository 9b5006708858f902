"""What existing files were made from, by their own word: parameters, references and code of each step.

Snakemake knows this of the files that it has made under their present names. Of a results folder that was renamed or copied, or
that another working folder has made, it knows nothing, and would take files for those of other parameters. Therefore each step
logs its recipe, a hash of all that it is made from, and the log is part of the file. Files that no run of this working folder
has made are opened, and compared with what they should be.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.astrometry import source_files
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.step.provenance import LOG_KEY

#: In Snakemake's folder: whoever removes its records of what it has made removes this one too.
STORE = Path(".snakemake/rampflow/made.json")
#: Of a stamp that is no reason to make anything again.
_LONG_AGO = 86400

# YAML may have broken a line of the log at a space.
_LOGGED = re.compile(rb"rampflow\.(\w+)\s+::\s+INFO\s+::\s+Recipe\s+([0-9a-f]{16})\b")


def recipe(*parts: str) -> str:
    """Hash of what a step is made from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def recipes_in(path: Path) -> dict[str, str]:
    """The recipe of each step that a file has gone through, by its log; empty where it has none that can be read."""
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
    """What a file that the configuration names holds; for a service or a file that is not there, the name itself.

    Of the folder of a HATS catalog, what the files hold that are written anew whenever one of its partitions is.
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


def differing(expected: dict[Path, dict[str, str]], store: Path = STORE) -> dict[Path, list[str]]:
    """Existing files that no run of this working folder has made and that are not what they should be.

    Parameters
    ----------
    expected : dict
        For each file, each step that it has gone through with its recipe.
    store : pathlib.Path
        What is known of files already.

    Returns
    -------
    dict
        For each such file the steps that differ; all, where it doesn't say what it was made from.
    """
    known = _load(store)

    def read(path):
        stamp, entry = _stamp(path), known.get(str(path))
        if stamp is None or (entry and entry["stamp"] == stamp):
            return stamp and entry
        return {"stamp": stamp, "recipes": recipes_in(path)}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = {str(path): entry for path, entry in zip(expected, pool.map(read, expected), strict=True) if entry}
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


def remember(files: dict[Path, dict[str, str]], since: float, store: Path = STORE) -> None:
    """Note which files a run has made, with their recipes: those that are newer than its begin, `since`.

    Of these Snakemake knows what they were made from.
    """
    made = {}
    for path, steps in files.items():
        stamp = _stamp(path)
        if stamp and stamp[1] >= since * 1e9:
            made[str(path)] = {"stamp": stamp, "recipes": steps, "made_here": True}
    if made:
        _save(store, _load(store) | made)


def are_as_remembered(files: dict[Path, dict[str, str]], store: Path = STORE) -> bool:
    """Whether all of these files were made in this working folder, from these recipes."""
    known = _load(store)
    return all(
        (entry := known.get(str(path))) and entry["stamp"] == _stamp(path) and entry["recipes"] == steps
        for path, steps in files.items()
    )


def set_stamp(path: Path, *, outdated: bool) -> None:
    """Set a file whose time says whether what depends on it is to be made again: now, or long ago."""
    if outdated or not path.exists() or path.stat().st_mtime != _LONG_AGO:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if not outdated:
            os.utime(path, (_LONG_AGO, _LONG_AGO))


def tell(differing: dict[Path, list[str]]) -> str:
    """Say what is made again and why, in one line."""
    first = min(differing)
    others = f" and {len(differing) - 1} others" if len(differing) > 1 else ""
    return (
        f"{first}{others}: was not made by a run of this working folder, and from other references, parameters or code of "
        f"{', '.join(differing[first])}; what differs is made again"
    )
