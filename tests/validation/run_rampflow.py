"""run_rampflow: run our workflow on an exposure or an association, and measure it.

    python run_rampflow.py INPUT STARS.ecsv --output FOLDER --measured MEASURED.json

The working folder of the run is FOLDER; its products are in FOLDER/results. References are those that CRDS gives in this
environment. MEASURED.json has ``wall_s``, ``cpu_s`` of all processes, ``peak_mb`` of the largest, ``cores``, ``error`` (the
steps that failed and their last lines, or null), and when, of which ``commit`` and on what ``machine`` it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

from run_steps import SCRIPTS, run_measured

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "helpers"))

from repository import revision


def failures(folder: Path) -> str:
    """Last line of the log of each failed job, or what Snakemake said before any."""
    logs = {log: log.read_text().strip() for log in sorted((folder / "logs").rglob("*.log"))}
    lines = [f"{log.stem}: {text.splitlines()[-1]}" for log, text in logs.items() if " ERROR " in text]
    return "; ".join(lines) or (folder / "snakemake.log").read_text().strip()


def machine() -> str:
    """The machine in a few words."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release().partition('-')[0]}"


def circumstances() -> dict:
    """When, of which code and on what it is measured."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return {"date": date, "commit": revision(), "machine": machine()}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="raw exposure or association")
    parser.add_argument("stars", type=Path, help="astrometric catalog: a file with columns ra and dec")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--measured", type=Path, required=True, metavar="JSON")
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help="{step: {parameter: value}}")
    parser.add_argument("--cores", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    settings = {
        "input": str(args.input.resolve()),
        "astrometric_catalog": str(args.stars.resolve()),
        "steps": args.parameters,
    }
    config = args.output / "config.json"
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "snakemake", "--snakefile", SCRIPTS.parent / "Snakefile", "--directory", args.output]
    command += ["--configfile", config, "--cores", args.cores, "--keep-going", "--quiet", "all"]
    (args.output / "results").mkdir(exist_ok=True)
    measured = run_measured(command, args.output / "snakemake.log")
    if measured["error"]:
        measured["error"] = failures(args.output)
    args.measured.write_text(json.dumps(measured | {"cores": args.cores} | circumstances(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
