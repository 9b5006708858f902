"""run_steps: run each of our steps on what romancal left after the step before, and compare the two results.

    python run_steps.py INPUT STARS.ecsv ROMANCAL --output STEPS.json --work FOLDER

INPUT is a raw exposure or an association, ROMANCAL the folder of `run_romancal.py --save-steps` for it. References are those
that CRDS gives in this environment. A result is deleted once it is compared. The JSON has the versions of our side and a list
``steps``: exposure, step, ``wall_s``, ``cpu_s``, ``peak_mb`` of the step's program, ``error`` (its last line, or null) and
``products``, the rows of `compare` by product. Our alignment reads romancal's catalogs;
the products are made from it and from our catalog of romancal's image.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import declarations  # noqa: E402

from rampflow import __version__  # noqa: E402
from rampflow.chain import image_chain  # noqa: E402
from rampflow.workflow import configuration  # noqa: E402
from rampflow.workflow.inventory_building import build_inventory  # noqa: E402

PRODUCTS = ("cal.asdf", "wcs.asdf", "cat.parquet", "segm.asdf")


def run_measured(command: list, log: Path) -> dict:
    """Run a program and measure it. Its memory is 80 MB at least: the kernel counts what this program had at its start."""
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    error = (log.read_text().strip().splitlines() or ["no message"])[-1] if process.returncode else None
    return {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * unit / 1e6,
        "error": error,
    }


def compare(pairs: dict[str, tuple[Path, Path]], work: Path) -> dict[str, list]:
    """Rows of `compare` for each product: a program of its own, so that its memory is not counted for the next step's."""
    rows = {}
    for name, (ours, theirs) in pairs.items():
        result = work / "differences.json"
        subprocess.run([sys.executable, HERE / "compare.py", ours, theirs, "--output", result], check=True)
        rows[name] = json.loads(result.read_text())
    return rows


class Comparison:
    """Our steps beside romancal's, one by one.

    Parameters
    ----------
    settings : dict
        The validated configuration.
    romancal, work : pathlib.Path
        Folders of romancal's results, and for ours.
    threads : int
    context : str
        The CRDS context that chose the references.
    """

    def __init__(self, settings: dict, romancal: Path, work: Path, threads: int, context: str):
        self.settings, self.romancal, self.work = settings, romancal, work
        self.every_job = ["--threads", str(threads), "--crds_context", context]
        self.steps: list[dict] = []

    def theirs(self, stem: str, step: str) -> Path:
        """What romancal's step left."""
        return self.romancal / f"{stem}_{step}.{'parquet' if step == 'source_catalog' else 'asdf'}"

    def options(self, entry, step: str) -> list[str]:
        """References and parameters of a step, as the workflow gives them."""
        declared = declarations.steps()[step]
        references = [word for r in declared.references for word in (f"--{r.type}", entry.references[r.type])]
        return [*references, *self.parameters(declared.parameters, step), *self.every_job]

    def parameters(self, declared, step: str) -> list[str]:
        """Parameters as the workflow gives them."""
        return shlex.split(configuration.command_line(declared, self.settings["steps"][step]))

    def run(self, stem: str, step: str, command: list, pairs: dict[str, tuple[Path, Path]]) -> None:
        """Run a step and compare its results, as far as romancal has them."""
        measured = run_measured(command, self.work / f"{stem}_{step}.log")
        pairs = {name: pair for name, pair in pairs.items() if pair[1].exists()}
        rows = {} if measured["error"] else compare(pairs, self.work)
        self.steps.append({"exposure": stem, "step": step} | measured | {"products": rows})

    def run_steps(self, entry, failed: bool) -> None:
        """All steps of an exposure up to its catalog; of those where romancal failed, the first one too."""
        before = entry.path
        for step in entry.chain:
            if step == "tweakreg" or not Path(before).exists():
                break
            theirs, ours = self.theirs(entry.stem, step), self.work / f"{entry.stem}_{step}.asdf"
            if not theirs.exists() and not failed:
                break
            outputs, pairs = [ours], {"exposure": (ours, theirs)}
            if step == "source_catalog":
                catalog = ours.with_suffix(".parquet")
                outputs = [catalog, ours]
                pairs = {"cat": (catalog, theirs), "segm": (ours, self.romancal / f"{entry.stem}_segmentation.asdf")}
            command = [sys.executable, SCRIPTS / f"{step}.py", before, *outputs, *self.options(entry, step)]
            self.run(entry.stem, step, command, pairs)
            for output in outputs if step != "source_catalog" else []:  # the products are made from our catalog
                output.unlink(missing_ok=True)
            before = theirs

    def align(self, association: str, entries: list, stars: Path) -> None:
        """The alignment of an association from romancal's images and catalogs, and the products."""
        entries = [e for e in entries if self.theirs(e.stem, "source_catalog").exists()]
        images = {e.stem: self.theirs(e.stem, image_chain(e.chain)[-1]) for e in entries}
        if not entries:
            return
        catalogs = [self.theirs(e.stem, "source_catalog") for e in entries]
        table, solutions = self.work / "stars.parquet", self.work / f"{association}_tweakreg.asdf"
        step = declarations.steps()["tweakreg"]
        own = {p.name for p in step.parameters}
        search = [p for p in configuration.parameters_of(step) if p.name not in own]
        script = [sys.executable, SCRIPTS / "astrometric_catalog.py", table, "--images", *images.values()]
        command = [*script, "--astrometric_catalog", stars, *self.parameters(search, "tweakreg")]
        self.run(association, "astrometric_catalog", command, {})
        script = [sys.executable, SCRIPTS / "tweakreg.py", solutions, self.work / "summary.json", "--images", *images.values()]
        command = [*script, "--catalogs", *catalogs, "--astrometric_catalog", table, "--catalog_name", stars]
        self.run(association, "tweakreg", [*command, *self.parameters(step.parameters, "tweakreg")], {})
        for entry in entries:
            names = {product.partition(".")[0]: f"{entry.stem}_{product}" for product in PRODUCTS}
            pairs = {product: (self.work / name, self.romancal / name) for product, name in names.items()}
            cal, wcs, cat, segm = (ours for ours, _ in pairs.values())
            command = [sys.executable, SCRIPTS / "finalize.py", images[entry.stem], cal, wcs, "--solutions", solutions]
            measured = self.work / f"{entry.stem}_source_catalog.asdf"
            command += ["--catalog", measured.with_suffix(".parquet"), cat, "--segmentation", measured, segm]
            self.run(entry.stem, "finalize", command, pairs)
            for path in (measured, measured.with_suffix(".parquet"), cal, wcs, cat, segm):
                path.unlink(missing_ok=True)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="raw exposure or association")
    parser.add_argument("stars", type=Path, help="astrometric catalog: a file with columns ra and dec")
    parser.add_argument("romancal", type=Path, help="folder of run_romancal.py --save-steps")
    parser.add_argument("--output", type=Path, required=True, metavar="JSON")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="for results until they are compared")
    parser.add_argument("--measured", type=Path, help="what run_romancal.py measured: tells whether it failed")
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help="{step: {parameter: value}}")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    settings = configuration.validated({"input": str(args.input), "steps": args.parameters}, declarations.steps())
    visit = build_inventory(settings, Path.cwd(), args.work / "inventory.json", declarations.steps())
    failed = bool(args.measured and json.loads(args.measured.read_text())["error"])

    comparison = Comparison(settings, args.romancal, args.work, args.threads, visit.context)
    for entry in visit.exposures.values():
        comparison.run_steps(entry, failed)
    for association in sorted({entry.association for entry in visit.exposures.values()}):
        entries = [e for e in visit.exposures.values() if e.association == association and "tweakreg" in e.chain]
        comparison.align(association, entries, args.stars)
    versions = {"rampflow": __version__, "python": platform.python_version()}
    args.output.write_text(json.dumps({"versions": versions, "steps": comparison.steps}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
