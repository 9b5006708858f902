"""write_document: turn the measurements of bench into docs/performance.md and its pictures.

Every number of the document comes from the measurements; the goals alone are written here::

    python write_document.py docs/performance/measurements.jsonl docs/performance.md
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, ScalarFormatter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from rampflow.chain import STEPS

# Blue, orange and green of Okabe and Ito's palette, which color-blind readers tell apart; gray for the rest.
OURS, ROMANCAL, THIRD, REST = "#0072B2", "#E69F00", "#009E73", "#999999"
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
         "svg.hashsalt": "rampflow"}  # fmt: skip
ORDER = (*(name for name in STEPS if name != "tweakreg"), "astrometric_catalog", "tweakreg", "finalize")
#: Our steps by the names that romancal measures them by.
OUR_NAMES = {step.status: step.name for step in STEPS.values()}

INTRODUCTION = """# Performance

This page compares the cost of an exposure in rampflow and romancal, on the same simulated full frames and the same machine.
`make bench` measures and writes this page. Its numbers come from [measurements.jsonl](performance/measurements.jsonl)."""

#: CPU seconds of romancal for a frame of 9 resultants on the machine that the goals in seconds are for.
ROMANCAL_SECONDS = 240

METHOD = """## How it is measured

- **rampflow** is a run of Snakemake on all cores. Everything counts: Snakemake, the start of each program, reading, writing,
  alignment, products.
- **romancal** is a process with its whole exposure pipeline, which writes the same four products. As many processes run at a
  time as there are cores.
- **Runs** of the two alternate. A table has the median of the runs. A run counts only if all products exist and all steps are
  COMPLETE. Files are in the page cache, and rampflow's compiled loops in numba's cache, from a previous run.
- **CPU seconds** are user and system time of all processes, as the kernel counts them.
- **CPU, memory and bytes of a step** are what its process counts at its end. Snakemake's `benchmark:` samples every half
  second, and most steps end sooner. Wall-clock times and declared resources come from `benchmark:`.
- **Memory** is resident memory. That of all processes together is sampled once a second.
- **romancal's steps** are timed within its process.
- **Bytes** are those of the system calls read and write.

Exposures are simulated by `scripts/simulator/simulate_exposure.py`, {size} × {size} pixels. Several exposures are one raw file
under as many names."""

REPRODUCE = """## Measure again

    make .venv-peer/.made                   # romancal's environment; without it, only rampflow is measured
    rm docs/performance/measurements.jsonl  # measurements in this file are not repeated
    make bench                              # an hour; options of tests/benchmark/bench.py: make bench BENCH='--peer-runs 3'

This needs a machine that runs nothing else, with 60 GB of disk and 16 GB of memory. `tests/benchmark/fit_resources.py` fits the
memory of the rules to the measurements."""


class Measurements:
    """Measurements by what they are of."""

    def __init__(self, path: Path):
        self.all = [json.loads(line) for line in path.read_text().splitlines()]

    def select(self, part: str, side: str, **case) -> list[dict]:
        """Runs of a part, a side, and a case with these properties."""
        return [
            m for m in self.all if m["part"] == part and m["side"] == side and all(m["case"][k] == v for k, v in case.items())
        ]

    def steps(self) -> list[str]:
        """Names of our steps, those of the pipeline first."""
        found = {job["step"] for m in self.all if m["side"] == "ours" for job in m["steps"]}
        return [step for step in ORDER if step in found] + sorted(found - set(ORDER))


def value(runs: list[dict], of: Callable[[dict], float | None]) -> float | None:
    """Median of a quantity of some runs; None without a run that has it."""
    found = [v for v in map(of, runs) if v is not None]
    return median(found) if found else None


# ----------------------------------------------------------------------------------------------------------- quantities
def cpu(run: dict) -> float:
    """CPU seconds per exposure of a run, all processes."""
    return (run["user"] + run["system"]) / run["case"]["exposures"]


def wall(run: dict) -> float:
    """Seconds of a run."""
    return run["wall"]


def peak(run: dict) -> float:
    """MB of the largest process of a run."""
    return run.get("peak") or max(step["peak"] for step in run["steps"])


def step_value(step: str, quantity: str) -> Callable[[dict], float | None]:
    """Function of a run: a quantity of a step, `None` when the run has no such step."""

    def of(run: dict) -> float | None:
        found = [s for s in run["steps"] if OUR_NAMES.get(s["step"], s["step"]) == step]
        values = [s.get(quantity) if quantity != "cpu" or "cpu" in s else s["user"] + s["system"] for s in found]
        return sum(values) / run["case"]["exposures"] if values and None not in values else None

    return of


def slowest_of(steps: Iterable[str]) -> Callable[[dict], float | None]:
    """Function of a run: CPU seconds of the step that takes most of them."""
    return lambda run: max((v for v in (step_value(step, "cpu")(run) for step in steps) if v is not None), default=None)


def ramps_written(run: dict) -> float:
    """What a run of ours writes beside its products, per exposure, in ramps (samples of 5 bytes, pixels of 4)."""
    case = run["case"]
    ramp = case["size"] ** 2 * (5 * case["resultants"] + 4) / 1e6
    return (run["written"] - run["products"]) / ramp / case["exposures"]


# --------------------------------------------------------------------------------------------------------------- tables
def number(x: float | None) -> str:
    """Three digits, or as many as a whole number has."""
    if x is None:
        return "–"
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def goals(data: Measurements) -> str:
    """The table of goals; goals in seconds are scaled by the time that romancal takes on this machine."""
    ours, theirs = data.select("step by step", "ours"), data.select("step by step", "romancal")
    long, their_long = (data.select("resultants", side, resultants=16) for side in ("ours", "romancal"))
    four, their_four = data.select("exposures", "ours", exposures=4), data.select("romancal two at a time", "romancal")
    small = ("saturation", "dark_decay", "dq_init")
    slowness = (value(theirs, cpu) or ROMANCAL_SECONDS) / ROMANCAL_SECONDS

    def row(what, unit, theirs, ours, of, goal, scale=1.0, relative=False):
        them, us = (v and v * scale for v in (value(theirs, of), value(ours, of)))
        ratio = us / them if us is not None and them else None
        reached = ratio if relative else us
        allowed = goal * slowness if unit == "s" and not relative else goal
        missed = " **missed**" if reached is not None and reached > allowed else ""
        limit = f"≤ {goal * 100:g} % of romancal" if relative else f"≤ {number(allowed)} {unit}".rstrip()
        percent = f"{100 * ratio:.1f} %" if ratio is not None else "–"
        return [what, *(f"{number(x)} {unit}".rstrip() if x is not None else "–" for x in (them, us)), percent, limit + missed]

    rows = [
        row("CPU per exposure, whole pipeline", "s", theirs, ours, cpu, 40),
        row("wall time, one exposure", "s", theirs, ours, wall, 35),
        row("wall time, four exposures", "s", their_four, four, wall, 0.2, relative=True),
        row("ramp_fitting, CPU", "s", theirs, ours, step_value("ramp_fitting", "cpu"), 12),
        row("linearity, CPU", "s", theirs, ours, step_value("linearity", "cpu"), 6),
        row("refpix, CPU", "s", theirs, ours, step_value("refpix", "cpu"), 5),
        row("saturation, dark_decay, dq_init, CPU of the slowest", "s", theirs, ours, slowest_of(small), 1.5),
        row("peak memory of any one job, 9 resultants", "GB", theirs, ours, peak, 1.5, 1e-3),
        row("16 resultants, CPU", "s", their_long, long, cpu, 60),
        row("16 resultants, peak memory", "GB", their_long, long, peak, 2, 1e-3),
        row("written per exposure beside products, in ramps", "", [], ours, ramps_written, 7),
    ]
    text = f"The goals in seconds were set for a machine on which romancal takes {ROMANCAL_SECONDS} s of CPU for this frame."
    if theirs:
        text += (
            f" romancal takes {slowness:.2f} times as long on this machine, and the table has the goals times {slowness:.2f}."
        )
    return table(["", "romancal", "rampflow", "rampflow / romancal", "goal"], rows) + "\n\n" + text


def steps_table(data: Measurements) -> str:
    """What each step costs on both sides."""
    ours, theirs = data.select("step by step", "ours"), data.select("step by step", "romancal")
    rows = []
    for step in data.steps():
        us, them = ({q: value(runs, step_value(step, q)) for q in ("wall", "cpu", "peak", "read", "written")}
                    for runs in (ours, theirs))  # fmt: skip
        if us["wall"] is None:
            continue
        ratio = f"{100 * us['cpu'] / them['cpu']:.0f} %" if them["cpu"] else "–"
        pairs = [number(side[q]) for q in ("wall", "cpu") for side in (them, us)]
        rows.append([step, *pairs, ratio, *(number(v) for v in (them["peak"], us["peak"], us["read"], us["written"]))])
    whole = [
        *("**whole run**", *(number(value(runs, of)) for of in (wall, cpu) for runs in (theirs, ours))),
        f"{100 * value(ours, cpu) / value(theirs, cpu):.0f} %" if theirs else "–",
        *(number(value(runs, peak)) for runs in (theirs, ours)),
        *(number(value(ours, lambda run, q=q: run[q])) for q in ("read", "written")),
    ]
    header = [
        "step",
        "wall, romancal",
        "wall",
        "CPU, romancal",
        "CPU",
        "rampflow / romancal",
        "peak, romancal",
        "peak",
        "read",
        "written",
    ]
    return table(header, [*rows, whole])


def shares(data: Measurements) -> list[tuple[str, float, float, float]]:
    """For Snakemake and each step: CPU seconds of starting up, of reading and writing, and of computing."""
    runs, profiled = data.select("step by step", "ours"), data.select("imports", "ours")
    result = []
    for step in data.steps():
        user, system, total = (value(runs, step_value(step, q)) for q in ("user", "system", "cpu"))
        imports = value(profiled, step_value(step, "import_cpu"))
        if None not in (user, system, imports):
            start = min(imports, total)
            kernel = min(system, total - start)
            result.append((step, start, kernel, total - start - kernel))
    snakemake = value(runs, lambda run: sum(run["snakemake"].values()))
    return [("Snakemake", snakemake, 0.0, 0.0), *result] if result else []


def shares_text(data: Measurements) -> str:
    """One sentence on where the time goes."""
    found = shares(data)
    if not found:
        return "Where the time goes was not measured."
    start, kernel, computing = (sum(share[k] for share in found) for k in (1, 2, 3))
    whole = start + kernel + computing
    start, kernel, computing = (f"{number(part)} ({100 * part / whole:.0f} %)" for part in (start, kernel, computing))
    return (
        f"Of {number(whole)} CPU seconds, {start} are start-up (Snakemake, and the import of packages by each program), "
        f"{kernel} are spent in the kernel (reading, writing, allocating memory), and {computing} compute."
    )


def declared(job: dict) -> dict:
    """The resources of a job's rule, as Snakemake recorded them."""
    return ast.literal_eval(job["resources"])


def memory_table(data: Measurements) -> str:
    """Declared against measured memory, over all sizes and resultants."""
    runs = [run for run in data.all if run["side"] == "ours" and run["part"] != "imports"]
    jobs = [(run["case"], job) for run in runs for job in run["steps"]]
    largest = max(case["size"] for case, _ in jobs)
    rows = []
    for step in data.steps():
        mine = [(case, job) for case, job in jobs if job["step"] == step]
        if not mine:
            continue
        cells = []
        for resultants in (9, 16):
            full = [job for case, job in mine if (case["size"], case["resultants"]) == (largest, resultants)]
            for values in ([job["peak"] for job in full], [declared(job)["mem_mb"] for job in full]):
                cells.append(number(max(values, default=None)))
        room = min(declared(job)["mem_mb"] / job["peak"] for _, job in mine)
        longest, minutes = max(job["wall"] for _, job in mine) / 60, max(declared(job)["runtime"] for _, job in mine)
        rows.append([step, *cells, f"{room:.2f}", f"{longest:.2f}", str(minutes)])
    header = ["step", "peak, 9 resultants", "declared", "peak, 16 resultants", "declared", "least declared / peak"]
    header += ["longest, minutes", "declared"]
    return table(header, rows)


# ------------------------------------------------------------------------------------------------------------- pictures
def draw_steps(data: Measurements, path: Path) -> None:
    """CPU seconds of each step on both sides, and where ours go."""
    ours, theirs = data.select("step by step", "ours"), data.select("step by step", "romancal")
    steps = [step for step in data.steps() if value(ours, step_value(step, "cpu")) is not None]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
        for runs, label, color, shift in ((theirs, "romancal", ROMANCAL, -0.2), (ours, "rampflow", OURS, 0.2)):
            seconds = [value(runs, step_value(step, "cpu")) or 0 for step in steps]
            left.barh([k + shift for k in range(len(steps))], seconds, 0.4, color=color, label=label)
        left.set(yticks=range(len(steps)), yticklabels=steps, xscale="log", xlabel="CPU seconds (logarithmic)")
        left.xaxis.set_major_formatter(ScalarFormatter())
        left.set_title("CPU of each step")
        found = shares(data)
        edges = [0.0] * len(found)
        for k, label, color in (
            (1, "starting up", REST),
            (2, "kernel (reading, writing)", THIRD),
            (3, "computing", OURS),
        ):
            widths = [share[k] for share in found]
            right.barh(range(len(found)), widths, 0.7, left=edges, color=color, label=label)
            edges = [edge + width for edge, width in zip(edges, widths, strict=True)]
        right.set(yticks=range(len(found)), yticklabels=[share[0] for share in found], xlabel="CPU seconds")
        right.set_title("Where ours go")
        for axes in (left, right):
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_axisbelow(True)
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=8)
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_scaling(data: Measurements, path: Path) -> None:
    """Cost against resultants, sources and exposures."""

    def points(part: str, side: str, x: Callable[[dict], float], y: Callable[[dict], float | None]):
        runs = [*data.select(part, side), *data.select("step by step", side)]
        places = sorted({x(run) for run in runs})
        found = [(place, value([run for run in runs if x(run) == place], y)) for place in places]
        return zip(*[(a, b) for a, b in found if b is not None], strict=True) if found else ([], [])

    def resultants(run):
        return run["case"]["resultants"]

    def per_exposure(run):
        return run["wall"] / run["case"]["exposures"]

    panels = [
        ("resultants", resultants, cpu, "resultants", "CPU seconds per exposure"),
        ("resultants", resultants, lambda run: peak(run) / 1e3, "resultants", "peak memory of a process, GB"),
        ("sources", lambda run: median(run["sources"]), step_value("source_catalog", "cpu"), "sources found",
         "CPU seconds of source_catalog"),
        ("exposures", lambda run: run["case"]["exposures"], per_exposure, "exposures in a run", "wall seconds per exposure"),
    ]  # fmt: skip
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
        for axes, (part, x, y, along, up) in zip(grid.flat, panels, strict=True):
            for side, label, color, marker in (("romancal", "romancal", ROMANCAL, "s"), ("ours", "rampflow", OURS, "o")):
                name = "romancal two at a time" if (part, side) == ("exposures", "romancal") else part
                places, values = points(name, side, x, y)
                axes.plot(places, values, marker=marker, color=color, label=label)
            axes.margins(0.08)
            axes.set(xlabel=along, ylabel=up)
            axes.set(xlim=(0, None), ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        grid[0, 0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


# ------------------------------------------------------------------------------------------------------------- document
def circumstances(data: Measurements) -> str:
    """Machine, versions, dates, number of runs and load."""
    last, loads = data.all[-1], [m["load"] for m in data.all]
    dates, commits = sorted(m["date"] for m in data.all), dict.fromkeys(m["commit"] for m in data.all)
    counts = [len(data.select("step by step", side)) for side in ("ours", "romancal")]
    theirs = [m["versions"] for m in data.all if m["side"] == "romancal"]
    machine = last["machine"]
    mine = next(m["versions"] for m in reversed(data.all) if m["side"] == "ours")

    def spell(versions):
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    lines = [
        f"- machine: {machine['processor']}, {machine['cores']} cores, {machine['memory']:.0f} GB of memory, "
        f"Linux {machine['kernel']}",
        f"- measured: {dates[0]} to {dates[-1]} UTC, on the commits {', '.join(commits)}; the one-minute load before a run was "
        f"{median(loads):.1f} in the median and {max(loads):.1f} at most",
        f"- runs step by step: {counts[0]} of rampflow, {counts[1]} of romancal",
        f"- rampflow: {spell(mine)}",
        *([f"- romancal: {spell(theirs[-1])}"] if theirs else []),
    ]
    return "\n".join(lines)


def space_text(data: Measurements) -> str:
    """What runs hold at a time, and what stays."""
    one, many = data.select("step by step", "ours"), data.select("exposures", "ours", exposures=16)

    def gigabytes(runs, quantity):
        return f"{number(value(runs, lambda run: run[quantity] / 1e3))} GB"

    text = (
        f"A run of one exposure needs at most {gigabytes(one, 'disk')} of disk. {gigabytes(one, 'left')} stay beside the "
        "products: the image and the catalog that another alignment reads."
    )
    if many:
        text += (
            f" Sixteen exposures in one run take {number(value(many, wall))} s, at most {gigabytes(many, 'memory')} of memory "
            f"for all processes together, and {gigabytes(many, 'disk')} of disk."
        )
    return text


def document(data: Measurements, pictures: str) -> str:
    """The whole page."""
    standard = data.select("step by step", "ours")
    case, found = standard[0]["case"], value(standard, lambda run: median(run["sources"]))
    return "\n\n".join(
        [
            INTRODUCTION,
            "## Summary",
            f"A frame has {case['resultants']} resultants and {found:.0f} sources, unless a row says otherwise:",
            goals(data),
            space_text(data),
            "## Step by step",
            "Wall and CPU are in seconds, peak memory and bytes in MB. Columns without a name are rampflow's.",
            steps_table(data),
            f"![CPU of each step]({pictures}/steps.svg)",
            shares_text(data),
            "## Resultants, sources, exposures",
            f"![Cost against resultants, sources and exposures]({pictures}/scaling.svg)",
            "## Declared and measured resources",
            "Memory in MB and time in minutes that the rules declare for the first attempt. The least ratio is over all sizes, "
            "resultants and sources measured.",
            memory_table(data),
            METHOD.format(size=case["size"]),
            circumstances(data),
            REPRODUCE,
        ]
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path, help="output of bench (.jsonl)")
    parser.add_argument("document", type=Path, help="page to write (.md); its pictures go to a folder of its name")
    args = parser.parse_args()
    data = Measurements(args.measurements)
    if not data.select("step by step", "ours"):
        parser.error(f"{args.measurements}: has no measurement of the part 'step by step'; run bench first")
    pictures = args.document.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    draw_steps(data, pictures / "steps.svg")
    draw_scaling(data, pictures / "scaling.svg")
    args.document.write_text(document(data, pictures.name) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
