"""Files in a results folder that a run would not make: of exposures that it leaves out, and of steps that it skips.

Only files named after an exposure or an association of an earlier run count. Others were put there by somebody.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from rampflow import SOFTWARE_NAME
from rampflow.chain import STEPS, image_chain
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.folders import HOME, SHARE
from rampflow.workflow.inventory import Inventory, known_names
from rampflow.workflow.paths import FETCHED

#: Ends of the names of all products, after the exposure's or the association's.
PRODUCTS = (
    *("_cal.asdf", "_wcs.asdf", "_qa.json", "_cal.png", "_cal_thumb.png", "_cat.parquet", "_segm.asdf"),
    *("_tweakreg.json", "_report.html"),
)
#: The same of the files between the steps, besides those that are named by the suffixes of the steps.
INTERMEDIATES = (
    *("_cat.parquet", "_segm.asdf", "_astrometric.parquet", "_tweakreg.asdf"),
    *("_ramp_pictures.json", "_image_pictures.json"),
)
PAGES = ("_report", ".html")  #: ends of the folder of an association, and of the pages of its exposures in it
_SOFTWARE = "calibration_software_name"
#: Number of files that the message names.
SHOWN = 3


def expected_files(visit: Inventory, results: Path) -> Iterator[Path]:
    """Yield all files that a run may make in its results folder, with the reports and the files between the steps.

    Parameters
    ----------
    visit : rampflow.workflow.inventory.Inventory
        Inventory of the run.
    results : pathlib.Path
        Results folder.

    Yields
    ------
    pathlib.Path
        File that the run may make.
    """
    intermediates = results / "intermediates"
    for stem, entry in visit.exposures.items():
        cataloged, aligned = "source_catalog" in entry.chain, "tweakreg" in entry.chain
        yield from (results / f"{stem}{end}" for end in PRODUCTS[: 7 if entry.is_cataloged else 5])
        yield results / f"{entry.association}_report.html"
        yield results / f"{entry.association}{PAGES[0]}" / f"{stem}{PAGES[1]}"
        yield from (intermediates / f"{stem}_{STEPS[step].suffix}.asdf" for step in image_chain(entry.chain))
        yield from (intermediates / f"{stem}{end}" for end in INTERMEDIATES[: 2 if cataloged else 0] + INTERMEDIATES[4:])
        if entry.remote:
            yield intermediates / f"{stem}{FETCHED}"
        if aligned:
            yield results / f"{entry.association}_tweakreg.json"
            yield from (intermediates / f"{entry.association}{end}" for end in INTERMEDIATES[2:4])


def names_in(results: Path) -> set[str]:
    """List the exposures and associations whose products in a folder this pipeline has made, as their metadata says.

    A results folder that was copied holds products of runs that this working folder does not know.

    Parameters
    ----------
    results : pathlib.Path
        Results folder.

    Returns
    -------
    set of str
        Names of the exposures and associations.
    """
    names = set()
    for path in results.glob("*_cal.asdf"):
        with contextlib.suppress(RampflowError, OSError, ValueError), AsdfFile(path, parse=False) as file:
            if all(f"{k}: {v}\n".encode() in file.text for k, v in (("filename", path.name), (_SOFTWARE, SOFTWARE_NAME))):
                names.add(path.name.removesuffix("_cal.asdf"))
    for path in results.glob("*_tweakreg.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if names & set(json.loads(path.read_text())["exposures"]):
                names.add(path.name.removesuffix("_tweakreg.json"))
    return names


def find_stale_files(visit: Inventory, results: Path, inventories: Path) -> list[Path]:
    """Find products and files between the steps in a results folder that the run does not make.

    Parameters
    ----------
    visit : rampflow.workflow.inventory.Inventory
        Inventory of the run.
    results : pathlib.Path
        Results folder.
    inventories : pathlib.Path
        Folder of the inventories of all runs.

    Returns
    -------
    list of pathlib.Path
        Stale files, in the order of their names in each folder.
    """
    expected = set(expected_files(visit, results))
    between = (*INTERMEDIATES, FETCHED, *(f"_{step.suffix}.asdf" for step in STEPS.values()))
    pages = ((folder, PAGES[1:]) for folder in sorted(results.glob(f"*{PAGES[0]}")))
    found = [
        (path, {path.name.removesuffix(end) for end in ends if path.name.endswith(end)})
        for folder, ends in ((results, PRODUCTS), (results / "intermediates", between), *pages)
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path not in expected and not (path.is_dir() and not path.is_symlink())
    ]
    found = [(path, names) for path, names in found if names]
    ours = known_names(inventories) | names_in(results) if found else set()
    ours -= {stem for stems in visit.left_out.values() for stem in stems}  # their files will be read by a later run
    return [path for path, names in found if names & ours]


def describe_stale(stale: list[Path]) -> str:
    """Write the message that names stale files and the command that removes them.

    Parameters
    ----------
    stale : list of pathlib.Path
        Files that `find_stale_files` has found; at least one.

    Returns
    -------
    str
        The message.
    """
    named = ", ".join(path.name for path in stale[:SHOWN])
    more = f" and {len(stale) - SHOWN} more" if len(stale) > SHOWN else ""
    folder = stale[0].parent
    are = counted(len(stale), f"file in {folder} is", f"files in {folder} are")
    # The package has the command rampflow, and not always snakemake on the PATH.
    target = "rampflow run INPUT --cores 1 remove_stale" if HOME == SHARE else "snakemake remove_stale"
    return (
        f"{are} of exposures or steps that this run doesn't have: {named}{more}. To list them: {target} "
        "--dry-run, with this configuration; to remove them, without --dry-run"
    )
