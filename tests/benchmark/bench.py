"""bench: measure the pipeline on simulated exposures, beside romancal where it is installed.

Every measurement is one line of JSON in the output, kept as soon as it is made: a second call makes what is missing. Nothing
runs in parallel but what is measured. write_document turns the lines into a document::

    python bench.py measurements.jsonl --folder build/bench --peer .venv-peer/bin/python
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCRIPTS = ROOT / "scripts"
sys.path[:0] = [str(SCRIPTS), str(HERE.parent / "helpers")]

import pyarrow.parquet  # noqa: E402
from repository import revision  # noqa: E402
from simulator.metadata import MA_TABLES  # noqa: E402

from rampflow.files.asdf_reader import AsdfFile  # noqa: E402

PACKAGES = ("numpy", "numba", "scipy", "astropy", "asdf", "roman_datamodels", "photutils", "snakemake")
PRODUCTS = ("cal.asdf", "wcs.asdf", "cat.parquet", "segm.asdf")
FIELD_RADIUS = 0.09  #: degrees, for a full frame; a little wider than it
#: Stars, and as many galaxies, in the field for each source that the detector shall show: it sees two thirds of the field,
#: and the faintest are not found.
DRAWN_PER_SOURCE = 1.3
FEWEST_SOURCES = 60
#: Programs whose name is not that of their benchmark.
PROGRAMS = {"exposure": "process_exposure"}
WARM_UP = 512  #: pixels a side of the exposure that a first run compiles the loops with
IMPORT = re.compile(r"import time: +\d")  #: a line that PYTHONPROFILEIMPORTTIME makes the interpreter write
INTERVAL = 1.0  #: seconds between two looks at the memory and the disk that a run holds


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: exposures of this kind, so many at once; `sources` is how many a full frame would show.

    `job_per` is the setting of that name, and has no meaning for romancal.
    """

    size: int
    resultants: int = 9
    sources: int = 300
    exposures: int = 1
    detector: str = "WFI01"
    job_per: str = "step"

    @property
    def scale(self) -> float:
        """Width over that of a full frame."""
        return self.size / 4096

    @property
    def name(self) -> str:
        """Name of the raw file."""
        return f"{self.detector}_{self.size}_{self.resultants}_{self.sources}".lower()


@dataclasses.dataclass(frozen=True)
class Part:
    """Cases that are measured together, and how often on each side: `None` is as often as is asked for.

    Ours are measured with `job_per: step` and with `job_per: exposure`, unless `step_by_step_alone`.
    """

    cases: tuple[Case, ...]
    ours: int | None = None
    romancal: int | None = None
    profile: bool = False
    step_by_step_alone: bool = False

    def measurements(self, runs: int, peer_runs: int) -> Iterator[tuple[Case, str, int]]:
        """What to measure, in order, runs of the two sides by turns: the case, the side, and the number of the run."""
        ours, theirs = runs if self.ours is None else self.ours, peer_runs if self.romancal is None else self.romancal
        modes = ("step",) if self.step_by_step_alone else ("step", "exposure")
        for case in self.cases:
            for run in range(max(ours, theirs)):
                if run < ours:
                    yield from ((dataclasses.replace(case, job_per=mode), "ours", run) for mode in modes)
                if run < theirs:
                    yield case, "romancal", run


def parts(size: int) -> dict[str, Part]:
    """What there is to measure, in order, on detectors of `size` rows and columns."""
    memory_sizes = [s for s in (512, 1024, 2048, 4096) if s <= size]
    memory_cases = (*(Case(s, n, detector="WFI18") for s in memory_sizes for n in (4, 9, 16)), Case(size, 16, 10000))
    return {
        "four exposures": Part((Case(size, exposures=4),), romancal=1),
        "one exposure": Part((Case(size),)),
        "resultants": Part((Case(size, resultants=16), Case(size, resultants=4)), romancal=1),
        "sources": Part((Case(size, sources=3000), Case(size, sources=10000)), romancal=1),
        "sixteen exposures": Part((Case(size, exposures=16),), ours=1, romancal=0),
        "small exposures": Part((Case(min(size, 256), exposures=50),), ours=1, romancal=0),
        "imports": Part((Case(size),), ours=1, romancal=0, profile=True, step_by_step_alone=True),
        "memory": Part(memory_cases, ours=1, romancal=0),
    }


# --------------------------------------------------------------------------------------------------------------- inputs
class Inputs:
    """Simulated exposures, their references and stars, made when they are first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    def cache(self, size: int) -> Path:
        """CRDS cache with the references of a detector size."""
        path = self.folder / f"cache_{size}"
        if not path.exists():
            self._make(path, "simulator/simulate_references", "--detectors", "WFI01,WFI18", "--size", size)
        return path

    def sky(self, case: Case) -> tuple[Path, Path]:
        """Catalog to simulate, and the astrometric one; with stars enough to align a small detector too."""
        sky, stars = (self.folder / f"{name}_{case.size}_{case.sources}.ecsv" for name in ("sky", "stars"))
        if not sky.exists():
            drawn = int(DRAWN_PER_SOURCE * max(case.sources * case.scale**2, FEWEST_SOURCES))
            shape = ("--radius", FIELD_RADIUS * case.scale, "--stars", drawn, "--galaxies", drawn)
            self._make(sky, "simulator/simulate_sky", *shape, "--astrometric", stars)
        return sky, stars

    def raw(self, case: Case) -> list[Path]:
        """Raw exposures of a case: one simulated file under as many names as there are exposures."""
        one = self.folder / f"{case.name}_uncal.asdf"
        if not one.exists():
            table = next(name for name, (_, reads) in MA_TABLES.items() if len(reads) == case.resultants)
            sky, _ = self.sky(case)
            options = ("--sky", sky, "--cache", self.cache(case.size), "--detector", case.detector, "--ma-table", table)
            pointing = ("--pointing-error", 0.3, -0.4)
            self._make(one, "simulator/simulate_exposure", *options, *pointing, "--threads", os.cpu_count())
            one.with_name(f"part_{case.name}_truth.asdf").unlink()
            one.with_name(f"part_{case.name}_truth.ecsv").unlink()
        names = [self.folder / f"{case.name}_n{n:02d}_uncal.asdf" for n in range(1, case.exposures + 1)]
        for name in names:
            if not name.exists():
                os.link(one, name)
        return names

    def _make(self, output: Path, script: str, *options) -> None:
        print(f"making {output.name}", flush=True)
        parts = output.with_name(f"part_{output.name}")
        shutil.rmtree(parts, ignore_errors=True)
        subprocess.run([sys.executable, SCRIPTS / f"{script}.py", parts, *map(str, options)], check=True)
        parts.rename(output)

    def environment(self, size: int) -> dict[str, str]:
        """CRDS without a server, and nothing of the user's."""
        return {k: v for k, v in os.environ.items() if not k.startswith(("CRDS_", "PYTHON"))} | {
            "CRDS_PATH": str(self.cache(size)),
            "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
            "CRDS_OBSERVATORY": "roman",
            "CRDS_CONTEXT": "roman_0001.pmap",
        }


# ------------------------------------------------------------------------------------------------------------ measuring
class Watch(threading.Thread):
    """Looks at the memory of all processes of a run together and at the disk that its folder holds, while it runs."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        self.folder, self.ended = folder, threading.Event()
        self.memory = self.disk = 0.0

    def run(self):
        """Until it ends."""
        me = psutil.Process()
        while not self.ended.wait(INTERVAL):
            memory = 0
            for process in me.children(recursive=True):
                try:
                    memory += process.memory_info().rss / 1e6
                except psutil.Error:  # it ended meanwhile
                    continue
            self.memory, self.disk = max(self.memory, memory), max(self.disk, size_of(self.folder))


def size_of(folder: Path) -> float:
    """MB of all files in a folder, which may change meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total / 1e6


def run_programs(commands: list[list], at_once: int, folder: Path, environment: dict[str, str]) -> dict:
    """Run programs in a folder, so many at once, and measure all of it.

    Returns
    -------
    dict
        wall, user, system: seconds, with all processes that they started. memory, disk: MB, the most at any time. processes:
        what each Python process recorded of itself (see recorder/sitecustomize.py).

    Raises
    ------
    SystemExit
        One of them failed.
    """
    records, log = folder / "processes.jsonl", folder / "run.log"
    environment = environment | {"PYTHONPATH": str(HERE / "recorder"), "RECORDER": str(records)}

    def run(command):
        words = [os.fspath(word) for word in command]
        with log.open("ab") as output:
            process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}\n{log.read_text()[-4000:]}\nfailed; see {log}")
        return usage

    watch, start = Watch(folder), time.perf_counter()
    watch.start()
    with ThreadPoolExecutor(at_once) as pool:
        usages = list(pool.map(run, commands))
    wall = time.perf_counter() - start
    watch.ended.set()
    watch.join()
    return {
        "wall": wall,
        "user": sum(usage.ru_utime for usage in usages),
        "system": sum(usage.ru_stime for usage in usages),
        "memory": watch.memory,
        "disk": watch.disk,
        "processes": [json.loads(line) for line in records.read_text().splitlines()],
    }


def check_products(folder: Path, count: int) -> list[int]:
    """Check that all exposures have all products, and how every step ended; numbers of sources in the catalogs.

    Raises
    ------
    SystemExit
        A product is missing, or a step has not done its work: such a run is no measurement.
    """
    images = sorted(folder.rglob("*_cal.asdf"))
    if len(images) != count:
        raise SystemExit(f"{folder}: holds {len(images)} calibrated images and not {count}")
    sources = []
    for image in images:
        missing = [name for name in PRODUCTS if not Path(str(image).replace("cal.asdf", name)).is_file()]
        with AsdfFile(image) as file:
            steps = file.tree["roman"]["meta"]["cal_step"]
            later = ("flux", "outlier_detection", "skymatch")
            wrong = {k: v for k, v in steps.items() if v not in ("COMPLETE", "N/A") and k not in later}
        if missing or wrong:
            raise SystemExit(f"{image}: without {missing or 'nothing'}, with the steps {wrong}")
        sources.append(pyarrow.parquet.read_metadata(str(image).replace("cal.asdf", "cat.parquet")).num_rows)
    return sources


def measure_ours(inputs: Inputs, case: Case, profile: bool) -> dict:
    """Run our pipeline on a case, through Snakemake on all cores."""
    raw, environment = inputs.raw(case), inputs.environment(case.size)
    folder = empty_folder(inputs.folder / "run")
    if profile:
        environment["PYTHONPROFILEIMPORTTIME"] = "1"
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", str(os.cpu_count()), "--quiet"),
        *("--benchmark-extended", "--config", f"input={json.dumps([str(path) for path in raw])}"),
        *(f"astrometric_catalog={inputs.sky(case)[1]}", f"job_per={case.job_per}"),
    ]
    result = run_programs([command], 1, folder, environment)
    result["sources"] = check_products(folder / "results", case.exposures)
    processes = result.pop("processes")
    result["steps"] = list(steps_of(folder, processes, profile))
    main = [
        process
        for process in processes
        if not process["arguments"][0].endswith(".py") or "snakemake" in process["arguments"][0]
    ]
    result["snakemake"] = {k: sum(process[k] for process in main) for k in ("user", "system")}
    # The kernel adds a process's count to that of the one that waited for it: the first has the sum.
    result |= {name: max(process[name] for process in processes) for name in ("read", "written")}
    products = [path for path in (folder / "results").iterdir() if path.is_file()]
    result["products"] = sum(path.stat().st_size for path in products) / 1e6
    result["left"] = size_of(folder / "results") - result["products"]
    return result


def steps_of(folder: Path, processes: list[dict], profiled: bool) -> Iterator[dict]:
    """Measurements of each job: wall-clock time and resources from Snakemake's benchmark, the rest from the process itself."""
    for path in sorted((folder / "benchmarks").rglob("*.tsv")):
        names, values = (line.split("\t") for line in path.read_text().splitlines())
        benchmark = dict(zip(names, values, strict=True))
        step, stem = path.stem, path.parent.name
        process = next(
            (
                p
                for p in processes
                if Path(p["arguments"][0]).stem == PROGRAMS.get(step, step)
                and any(Path(a).name.startswith(stem) or Path(a).name == stem for a in p["arguments"])
            ),
            None,
        )
        job = {"step": step, "exposure": stem, "wall": float(benchmark["s"])}
        if process is None:  # a step of an exposure's job: its line of the benchmark is all there is
            yield job | {"cpu": float(benchmark["cpu_time"]), "peak": float(benchmark["max_rss"])}
            continue
        job |= {k: process[k] for k in ("user", "system", "peak", "read", "written")}
        job["resources"] = benchmark["resources"]
        if profiled:
            # The interpreter reports what each import took by the clock; beside other work its CPU is less.
            log = (folder / "logs" / stem / f"{step}.log").read_text()
            imports = sum(int(line.split("|")[0].split(":")[1]) for line in log.splitlines() if IMPORT.match(line)) / 1e6
            job["import_cpu"] = imports * min(1, (process["user"] + process["system"]) / process["wall"])
        yield job


def measure_romancal(inputs: Inputs, case: Case, python: Path) -> dict:
    """Run romancal on a case: a process for each exposure, as many at once as there are cores."""
    raw, environment = inputs.raw(case), inputs.environment(case.size)
    folder = empty_folder(inputs.folder / "run")
    _, stars = inputs.sky(case)
    commands = [
        [python, ROOT / "tests/validation/run_romancal.py", path, stars, "--output", folder / path.stem,
         "--measured", folder / f"{path.stem}.json"]
        for path in raw
    ]  # fmt: skip
    result = run_programs(commands, min(case.exposures, os.cpu_count()), folder, environment)
    result["sources"] = check_products(folder, case.exposures)
    processes = result.pop("processes")
    own = [json.loads((folder / f"{path.stem}.json").read_text()) for path in raw]
    result["peak"] = max(measured["peak_mb"] for measured in own)
    result["steps"] = [
        {"step": step["step"], "wall": step["wall_s"], "cpu": step["cpu_s"], "peak": step["peak_mb"]}
        for measured in own
        for step in measured["steps"]
    ]
    result |= {name: sum(process[name] for process in processes) for name in ("read", "written")}
    result["versions"] = own[0]["versions"]
    return result


def empty_folder(path: Path) -> Path:
    """A new folder in place of an old one."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def circumstances() -> dict:
    """When, on what and with what a measurement is made."""
    model = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": revision(),
        "load": os.getloadavg()[0],
        "machine": {
            "processor": model[0] if model else platform.machine(),
            "cores": os.cpu_count(),
            "memory": psutil.virtual_memory().total / 1e9,
            "kernel": platform.release().partition("-")[0],
        },
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="measurements (.jsonl); those that it has are not made again")
    parser.add_argument("--folder", type=Path, required=True, help="for simulated exposures (13 GB) and runs (40 GB)")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="Python with romancal; without it, ours alone")
    parser.add_argument("--runs", type=int, default=3, help="of our pipeline (default: %(default)s)")
    parser.add_argument("--peer-runs", type=int, default=1, help="of romancal, 4 minutes each (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns; smaller ones are for a try")
    parser.add_argument("--only", nargs="+", choices=parts(4096), metavar="PART", help=", ".join(parts(4096)))
    args = parser.parse_args()
    peer = args.peer if args.peer and args.peer.exists() else None
    print(f"romancal: {peer or 'is not installed; ours alone is measured'}", flush=True)
    inputs = Inputs(args.folder.resolve())
    inputs.folder.mkdir(parents=True, exist_ok=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.touch()
    done = {measurement["key"] for measurement in map(json.loads, args.output.read_text().splitlines())}
    warm = False
    for name, part in parts(args.size).items():
        if args.only and name not in args.only:
            continue
        for case, side, run in part.measurements(args.runs, args.peer_runs):
            mode = f" by {case.job_per}" if side == "ours" else ""
            key = f"{name}, {case.name}, {case.exposures}, {side}{mode}, {run}"
            if key in done or (side == "romancal" and not peer):
                continue
            inputs.raw(case)
            if side == "ours" and not warm:
                measure_ours(inputs, Case(WARM_UP, detector="WFI18"), profile=False)
                warm = True
            print(f"{datetime.datetime.now():%H:%M:%S} {key}", flush=True)
            measurement = {"key": key, "part": name, "side": side, "run": run, "case": dataclasses.asdict(case)}
            measurement |= circumstances()
            if side == "ours":
                measurement |= measure_ours(inputs, case, part.profile)
            else:
                measurement |= measure_romancal(inputs, case, peer.absolute())
            with args.output.open("a") as file:
                file.write(json.dumps(measurement) + "\n")
    shutil.rmtree(inputs.folder / "run", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
