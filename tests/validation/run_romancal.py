"""run_romancal: run romancal's exposure pipeline on an exposure or an association, and measure each step.

It runs in an environment with romancal, not in rampflow's::

    python run_romancal.py EXPOSURE_uncal.asdf STARS.ecsv --output FOLDER --measured MEASURED.json --cache CRDS_CACHE

The products come into FOLDER; with ``--save-steps``, what each step leaves too, uncompressed, as FOLDER/STEM_STEP.asdf (the
catalog as .parquet). MEASURED.json has wall-clock seconds, CPU seconds and the largest resident memory, of the whole program
(``wall_s``, ``cpu_s``, ``peak_mb``) and of each step of each exposure (``steps``); saving is left out of the times. ``error``
is what ended the pipeline, or null.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

#: Steps that romancal's pipeline knows by another name than rampflow.
ROMANCAL_NAMES = {"ramp_fitting": "rampfit"}
OUR_NAMES = {theirs: ours for ours, theirs in ROMANCAL_NAMES.items()}
PACKAGES = ("romancal", "stcal", "roman_datamodels", "rad", "stpipe", "tweakwcs", "photutils", "numpy")


class Clock:
    """Seconds of wall clock and CPU, without what was spent saving."""

    def __init__(self):
        self.start, self.saving = self._now(), (0.0, 0.0)

    @staticmethod
    def _now():
        return time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Wall-clock and CPU seconds since the program started."""
        return tuple(now - start - saving for now, start, saving in zip(self._now(), self.start, self.saving, strict=True))

    def save(self, function, *args, **options) -> None:
        """Call `function`; its time doesn't count."""
        before = self._now()
        function(*args, **options)
        self.saving = tuple(s + now - then for s, now, then in zip(self.saving, self._now(), before, strict=True))


def forget_peak() -> None:
    """Let the kernel count the largest resident memory anew, where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory() -> float:
    """Largest resident memory since `forget_peak`, MB (of the whole program where the kernel can't count anew)."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def stem_of(model) -> str | None:
    """Name of the exposure of a model; None of a library of them."""
    return model.meta.filename.rpartition("_")[0] if hasattr(model, "meta") else None


def save_result(result, folder: Path, stem: str, step: str) -> None:
    """Write what a step returned: a ramp, an image, or a catalog and its segmentation map."""
    if isinstance(result, tuple):
        catalog, segmentation = result
        catalog.to_parquet(folder / f"{stem}_{step}.parquet")
        result, step = segmentation, "segmentation"
    needs_wcs = "data" in result and "dq" in result and "wcs" not in result.meta
    if needs_wcs:  # an image before assign_wcs is valid with null in its place, and with nothing it can't be written
        result.meta["wcs"] = None
    result.to_asdf(folder / f"{stem}_{step}.asdf", all_array_compression=None)
    if needs_wcs:
        del result.meta["wcs"]


def measure_steps(clock: Clock, saved_in: Path | None) -> list[dict]:
    """Make every step of romancal measure itself; what it measures is added to the list returned."""
    import stpipe

    measured, run = [], stpipe.Step.run

    def measured_run(step, *args):
        if step.parent is None:  # the pipeline itself
            return run(step, *args)
        stem, name = stem_of(args[0]), OUR_NAMES.get(step.name, step.name)
        forget_peak()
        before = clock.read()
        result = run(step, *args)
        wall, cpu = (after - start for after, start in zip(clock.read(), before, strict=True))
        measured.append({"exposure": stem, "step": name, "wall_s": wall, "cpu_s": cpu, "peak_mb": peak_memory()})
        if saved_in and stem:
            clock.save(save_result, result, saved_in, stem, name)
        return result

    stpipe.Step.run = measured_run
    return measured


def main() -> int:
    """Run from the command line."""
    clock = Clock()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="raw exposure (_uncal.asdf) or association (.json)")
    parser.add_argument("stars", type=Path, help="astrometric catalog: a file with columns ra and dec")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the products")
    parser.add_argument("--measured", type=Path, required=True, metavar="JSON", help="times and memory to write")
    parser.add_argument("--cache", type=Path, help="CRDS cache with no server (default: CRDS as the environment has it)")
    parser.add_argument("--save-steps", action="store_true", help="write what each step leaves too")
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help="{step: {parameter: value}}")
    parser.add_argument("--allow-failure", action="store_true", help="an error of romancal is a result too: exit with 0")
    args = parser.parse_args()

    # Parameters from CRDS would be those of another cache, or none.
    os.environ |= {"CRDS_OBSERVATORY": "roman", "STPIPE_DISABLE_CRDS_STEPPARS": "true"}
    if args.cache:
        os.environ |= {"CRDS_PATH": str(args.cache.resolve()), "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu"}
    args.output.mkdir(parents=True, exist_ok=True)
    steps = {"tweakreg": {"abs_refcat": str(args.stars.resolve())}}
    for name, values in args.parameters.items():
        steps.setdefault(ROMANCAL_NAMES.get(name, name), {}).update(values)

    from romancal.pipeline import ExposurePipeline

    measured, error, largest = measure_steps(clock, args.output if args.save_steps else None), None, peak_memory()
    try:
        ExposurePipeline.call(str(args.input), steps=steps, save_results=True, output_dir=str(args.output))
    except Exception as failure:
        if not args.allow_failure:
            raise
        error = f"{type(failure).__name__}: {failure}".splitlines()[0]
        print(error, file=sys.stderr)
    wall, cpu = clock.read()
    largest = max(largest, peak_memory(), *(step["peak_mb"] for step in measured), 0)
    result = {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_mb": largest,
        "error": error,
        "steps": measured,
    }
    args.measured.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
