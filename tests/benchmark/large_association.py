"""large_association: measure tweakreg on an association of a thousand exposures, with the stars of its field and without.

    python large_association.py FOLDER [--pointings 67] [--cases stars few other none empty] [--refine false]

The association has 18 detectors for each pointing, with pointing errors of arcseconds, within a circle of 0.6 degrees: 67
pointings are 1,206 exposures. Their source catalogs and images without pixels are made once in FOLDER. The cases are

* ``stars``: the stars of the field that Gaia would have, with their motions;
* ``few``: a few of them, fewer than ``abs_minobj`` on each detector;
* ``corner``: the stars of one edge of the field alone, so that the others are aligned from one to the next;
* ``other``: as many stars of another field, so that no exposure can be aligned;
* ``none``: a catalog that has no stars there;
* ``empty``: no exposure has a source.

Each case prints a line of JSON: time, CPU time and peak memory of the program, the number of exposures by status, the reasons
that it gives, and the error of the aligned ones, mas.
"""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(HERE.parent / "helpers")]

import pyarrow.parquet as pq  # noqa: E402
from simulated_sky import Result, Sky  # noqa: E402

DETECTORS = [f"WFI{number:02d}" for number in range(1, 19)]
FIELD_RADIUS = 0.6  #: degrees, of the pointings
SKY_RADIUS = 1.15  #: degrees: the field of view reaches half a degree from a pointing
SOURCES, STARS = 730, 48  #: on a detector, and how many of them the catalog has
POINTING_ERROR = 1.0  #: arcsec, standard deviation of each axis
CASES = ("stars", "few", "corner", "other", "none", "empty")


def simulate(folder: Path, pointings: int) -> Sky:
    """Make the exposures and the catalogs of all cases.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder.
    pointings : int
        Number of pointings.

    Returns
    -------
    Sky
        The stars and exposures.
    """
    sky = Sky(folder, density=SOURCES, in_catalog=STARS, radius=SKY_RADIUS, with_errors=True, motion=(0.0, 5.0))
    rng = np.random.default_rng(7)
    distance, angle = FIELD_RADIUS * 3600 * np.sqrt(rng.random(pointings)), rng.uniform(0, 2 * np.pi, pointings)
    for number, dither in enumerate(np.column_stack([distance * np.cos(angle), distance * np.sin(angle)])):
        error = rng.normal(0, POINTING_ERROR, 2)
        for detector in DETECTORS:
            stem = f"p{number:03d}_{detector.lower()}"
            sky.expose(stem, detector, dither=tuple(dither), error=tuple(error), group=f"pointing {number}")
    table = pq.read_table(sky.catalog)
    stars = {name: table[name].to_numpy() for name in table.column_names}
    count = len(stars["ra"])
    chosen = {
        "few": rng.random(count) < 5 / STARS,
        "corner": stars["dec"] > sky.dec + 0.9 * FIELD_RADIUS,
        "none": np.zeros(count, bool),
    }
    for name, mask in chosen.items():
        sky.write_catalog(f"{name}.parquet", {column: values[mask] for column, values in stars.items()})
    other = Sky(folder, density=STARS, in_catalog=STARS - 1, radius=SKY_RADIUS, seed=99, motion=(0.0, 5.0))
    other.catalog.rename(folder / "other.parquet")
    sky.write_catalog("stars.parquet", stars)
    for path in (folder / f"{stem}_cat.parquet" for stem in sky.truth):
        pq.write_table(pq.read_table(path)[:0], path.with_name(f"{path.stem}_empty.parquet"))
    return sky


def measure(sky: Sky, case: str, options: list[str]) -> dict:
    """Align the exposures with the stars of a case.

    Parameters
    ----------
    sky : Sky
        The exposures.
    case : str
        One of `CASES`.
    options : list of str
        Additional arguments of tweakreg.py.

    Returns
    -------
    dict
        What was measured.
    """
    folder = sky.folder
    output, summary = folder / f"{case}_tweakreg.asdf", folder / f"{case}.json"
    catalogs = sky.catalogs
    if case == "empty":
        catalogs = [path.with_name(f"{path.stem}_empty.parquet") for path in catalogs]
    lists = folder / "images.txt", folder / "catalogs.txt"
    for path, names in zip(lists, (sky.images, catalogs), strict=True):
        path.write_text("".join(f"{name}\n" for name in names))
    stars = folder / ("stars.parquet" if case == "empty" else f"{case}.parquet")
    command = [SCRIPTS / "tweakreg.py", output, summary, "--images", f"@{lists[0]}", "--catalogs", f"@{lists[1]}"]
    command += ["--astrometric_catalog", stars, *options]
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    result = Result(sky, output, json.loads(summary.read_text()), done.stderr)
    entries = result.summary["exposures"]
    aligned = [stem for stem, entry in entries.items() if entry["status"] == "COMPLETE"]
    errors = [result.offset(stem) for stem in aligned[::20]]
    reasons = collections.Counter(re.sub(r"[\d.]+(e-?\d+)?", "N", entry["reason"] or "") for entry in entries.values())
    return {
        "case": case,
        "members": len(entries),
        "options": options,
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "memory_gb": round(after.ru_maxrss * 1024 / 1e9, 3),  # the largest of all children so far
        "status": dict(collections.Counter(entry["status"] for entry in entries.values())),
        "reasons": dict(reasons.most_common(5)),
        "error_mas": {"median": float(np.median(errors)), "largest": float(np.max(errors))} if errors else None,
        "lines_of_log": len(done.stderr.splitlines()),
    }


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the exposures, which are made if it has none")
    parser.add_argument("--pointings", type=int, default=67, help="number of pointings, of 18 exposures each")
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    arguments, options = parser.parse_known_args()
    stored = arguments.folder / "sky.pickle"
    if stored.exists():
        sky = pickle.loads(stored.read_bytes())
    else:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        sky = simulate(arguments.folder, arguments.pointings)
        stored.write_bytes(pickle.dumps(sky))
    for case in arguments.cases:
        print(json.dumps(measure(sky, case, options)), flush=True)


if __name__ == "__main__":
    main()
