"""Files in a results folder that a run would not make: of exposures that it leaves out, and of steps that it skips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rampflow.chain import STEPS, image_chain
from rampflow.workflow.inventory import Inventory

#: Ends of the names of all products, after the exposure's or the association's.
PRODUCTS = (
    *("_cal.asdf", "_wcs.asdf", "_cal.png", "_cal_thumb.png", "_cat.parquet", "_segm.asdf"),
    *("_tweakreg.json", "_report.html"),
)
#: The same of the files between the steps, besides those that are named by the suffixes of the steps.
INTERMEDIATES = (
    *("_cat.parquet", "_segm.asdf", "_astrometric.parquet", "_tweakreg.asdf"),
    *("_ramp_pictures.json", "_image_pictures.json"),
)
#: How many are named on the screen.
MOST = 3


def expected_files(visit: Inventory, results: Path) -> Iterator[Path]:
    """All files that a run may make in its results folder, reports and the files between the steps among them."""
    intermediates = results / "intermediates"
    for stem, entry in visit.exposures.items():
        cataloged, aligned = "source_catalog" in entry.chain, "tweakreg" in entry.chain
        yield from (results / f"{stem}{end}" for end in PRODUCTS[: 6 if cataloged else 4])
        yield results / f"{entry.association}_report.html"
        yield from (intermediates / f"{stem}_{STEPS[step].suffix}.asdf" for step in image_chain(entry.chain))
        yield from (intermediates / f"{stem}{end}" for end in INTERMEDIATES[: 2 if cataloged else 0] + INTERMEDIATES[4:])
        if aligned:
            yield results / f"{entry.association}_tweakreg.json"
            yield from (intermediates / f"{entry.association}{end}" for end in INTERMEDIATES[2:4])


def stale_files(visit: Inventory, results: Path) -> list[Path]:
    """Products and files between the steps that lie in a results folder and that the run would not make."""
    expected = set(expected_files(visit, results))
    between = (*INTERMEDIATES, *(f"_{step.suffix}.asdf" for step in STEPS.values()))
    return [
        path
        for folder, ends in ((results, PRODUCTS), (results / "intermediates", between))
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.name.endswith(ends) and not path.name.startswith(".") and path not in expected
    ]


def tell(stale: list[Path]) -> str:
    """Say in one line which there are and how they are removed."""
    named = ", ".join(path.name for path in stale[:MOST])
    more = f" and {len(stale) - MOST} more" if len(stale) > MOST else ""
    return (
        f"{len(stale)} files in {stale[0].parent} are of exposures or steps that this run doesn't have: {named}{more}. To list "
        "them: snakemake remove_stale --dry-run, with this configuration; to remove them, without --dry-run"
    )
