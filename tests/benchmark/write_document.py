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

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "scripts"), str(HERE)]

from node import Cost, simulate  # noqa: E402

from rampflow.chain import STEPS  # noqa: E402

#: The sides: rampflow with each value of `job_per`, and romancal.
MODES = ("step", "exposure")
SIDES = (*MODES, "romancal")
# Blue, orange and green of Okabe and Ito's palette, which color-blind readers tell apart; gray for the rest.
OURS, ROMANCAL, THIRD, REST = "#0072B2", "#E69F00", "#009E73", "#999999"
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
         "svg.hashsalt": "rampflow"}  # fmt: skip
ORDER = (*(name for name in STEPS if name != "tweakreg"), "astrometric_catalog", "tweakreg", "finalize")
#: Our steps by the names that romancal measures them by.
OUR_NAMES = {step.status: step.name for step in STEPS.values()}

#: The node that is simulated, and how many exposures it processes.
NODE = {"cores": 128, "memory": 256}
EXPOSURES = 1800

INTRODUCTION = """# Performance

This page compares the cost of an exposure in rampflow and romancal, on the same simulated full frames and the same machine.
`make bench` measures and writes this page. Its numbers come from [measurements.jsonl](performance/measurements.jsonl)."""

#: CPU seconds of romancal for a frame of 9 resultants on the machine that the goals in seconds are for.
ROMANCAL_SECONDS = 190

#: How many times less CPU than romancal an exposure is to take, for each of `MODES`.
CPU_GOALS = (11, 16)

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

Exposures are simulated by `scripts/simulator/simulate_exposure.py`, {size} × {size} pixels. The exposures of a run are one raw
file under different names."""

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
        """Runs of a part, one of `SIDES`, and a case with these properties."""
        return [
            m
            for m in self.all
            if m["part"] == part and side_of(m) == side and all(m["case"][name] == value for name, value in case.items())
        ]

    def steps(self) -> list[str]:
        """Names of our steps, those of the pipeline first."""
        found = {job["step"] for m in self.all if m["side"] == "ours" for job in m["steps"]}
        return [step for step in ORDER if step in found] + sorted(found - set(ORDER))


def side_of(run: dict) -> str:
    """Which of `SIDES` a run measures."""
    return run["side"] if run["side"] == "romancal" else run["case"]["job_per"]


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
    four, long, crowded = (
        {side: data.select(part, side, **case) for side in SIDES}
        for part, case in (("four exposures", {}), ("resultants", {"resultants": 16}), ("sources", {"sources": 3000}))
    )
    slowness = (value(four["romancal"], cpu) or ROMANCAL_SECONDS) / ROMANCAL_SECONDS

    def row(what, unit, runs, of, goal, scale=1.0):
        """A line; goals for each mode, as a limit, or as how many times less than romancal ("11 times")."""
        found = {side: v and v * scale for side in SIDES if (v := value(runs[side], of)) is not None}
        cells = [f"{number(found['romancal'])} {unit}" if "romancal" in found else "–"]
        for mode, limit in zip(MODES, goal, strict=True):
            mine, theirs = found.get(mode), found.get("romancal")
            times = theirs / mine if mine and theirs else None
            cells.append(
                "–"
                if mine is None
                else f"{number(mine)} {unit}" + (f" ({times:.1f} times less)" if times and times > 1 else "")
            )
            relative = isinstance(limit, str)
            if limit is None:
                cells.append("")
                continue
            missed = times is not None and times < float(limit.split()[0]) if relative else mine is not None and mine > limit
            text = f"{limit} less" if relative else f"≤ {number(limit)} {unit}"
            cells.append(text + " **missed**" * missed)
        return [what, *cells]

    def wall_each(run):
        return run["wall"] / run["case"]["exposures"]

    def bytes_each(name):
        return lambda run: run[name] / run["case"]["exposures"]

    # A crowded field and long ramps: the same ratios within a fifth.
    quantities = [
        ("CPU per exposure", "s", four, cpu, tuple(f"{times} times" for times in CPU_GOALS)),
        ("wall per exposure", "s", four, wall_each, (None, 7.5 * slowness)),
        ("read per exposure", "GB", four, bytes_each("read"), (None, 1.5), 1e-3),
        ("written per exposure", "GB", four, bytes_each("written"), (None, 0.7), 1e-3),
        ("peak memory of a process", "GB", four, peak, (0.75, 1.8), 1e-3),
        ("16 resultants, CPU", "s", long, cpu, ("8.8 times", "12.8 times")),
        ("16 resultants, peak memory", "GB", long, peak, (0.75, 2.8), 1e-3),
        ("3,000 sources, CPU", "s", crowded, cpu, ("8.8 times", "12.8 times")),
    ]
    rows = [row(*quantity) for quantity in quantities if any(quantity[2].values())]  # without what was not measured
    text = f"The goals in seconds were set for a machine on which romancal takes {ROMANCAL_SECONDS} s of CPU for this frame."
    if four["romancal"]:
        text += (
            f" romancal takes {slowness:.2f} times as long on this machine, and the table has these goals times {slowness:.2f}."
        )
    header = ["", "romancal", "`job_per: step`", "goal", "`job_per: exposure`", "goal"]
    return table(header, rows) + "\n\n" + text


def steps_table(data: Measurements) -> str:
    """What each step costs on both sides."""
    ours, theirs = data.select("one exposure", "step"), data.select("one exposure", "romancal")
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
    runs, profiled = data.select("one exposure", "step"), data.select("imports", "step")
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
    """One sentence on where the time goes; empty if that was not measured."""
    found = shares(data)
    if not found:
        return ""
    start, kernel, computing = (sum(share[k] for share in found) for k in (1, 2, 3))
    whole = start + kernel + computing
    start, kernel, computing = (f"{number(part)} ({100 * part / whole:.0f} %)" for part in (start, kernel, computing))
    return (
        f"Of {number(whole)} CPU seconds, {start} are start-up (Snakemake, and the import of packages by each program), "
        f"{kernel} are spent in the kernel (reading, writing, allocating memory), and {computing} compute."
    )


def start_up_text(data: Measurements) -> str:
    """What of the CPU does not depend on the pixels, and what the goals leave for these."""
    lines = []
    theirs = value(data.select("four exposures", "romancal"), cpu)
    for mode, times in zip(MODES, CPU_GOALS, strict=True):
        full, small = (value(data.select(name, mode), cpu) for name in ("four exposures", "small exposures"))
        if None in (full, small, theirs):
            continue
        lines.append(
            f"- With `job_per: {mode}`, {number(small)} of {number(full)} s. The pixels of a full frame take the other "
            f"{number(full - small)} s, and the goal leaves {number(theirs / times - small)} s for them."
        )
    if not lines:
        return ""
    return (
        "A part of the CPU time does not depend on the number of pixels: each program imports packages and loads the compiled "
        "loops, Snakemake starts the jobs, and each exposure has its alignment. The small exposures above "
        "measure it:\n\n" + "\n".join(lines)
    )


def declared(job: dict) -> dict:
    """The resources of a job's rule, as Snakemake recorded them."""
    return ast.literal_eval(job["resources"])


def memory_table(data: Measurements) -> str:
    """Declared against measured memory, over all sizes and resultants."""
    runs = [run for run in data.all if run["side"] == "ours" and run["part"] != "imports"]
    jobs = [(run["case"], job) for run in runs for job in run["steps"] if "resources" in job]  # without steps within a job
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
    """CPU seconds of each step on both sides, and where ours go if that was measured."""
    ours, theirs = data.select("one exposure", "step"), data.select("one exposure", "romancal")
    steps = [step for step in data.steps() if value(ours, step_value(step, "cpu")) is not None]
    found = shares(data)
    panels = 2 if found else 1
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, panels, figsize=(4.75 * panels, 4.2), layout="constrained", squeeze=False)
        left = grid[0, 0]
        for runs, label, color, shift in ((theirs, "romancal", ROMANCAL, -0.2), (ours, "rampflow", OURS, 0.2)):
            seconds = [value(runs, step_value(step, "cpu")) or 0 for step in steps]
            left.barh([k + shift for k in range(len(steps))], seconds, 0.4, color=color, label=label)
        left.set(yticks=range(len(steps)), yticklabels=steps, xscale="log", xlabel="CPU seconds (logarithmic)")
        left.xaxis.set_major_formatter(ScalarFormatter())
        left.set_title("CPU of each step")
        if found:
            draw_shares(grid[0, 1], found)
        for axes in grid.flat:
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_axisbelow(True)
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=8)
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_shares(axes: plt.Axes, found: list[tuple[str, float, float, float]]) -> None:
    """CPU seconds of Snakemake and of each step, by what they are spent on, see `shares`."""
    edges = [0.0] * len(found)
    for k, label, color in ((1, "starting up", REST), (2, "kernel (reading, writing)", THIRD), (3, "computing", OURS)):
        widths = [share[k] for share in found]
        axes.barh(range(len(found)), widths, 0.7, left=edges, color=color, label=label)
        edges = [edge + width for edge, width in zip(edges, widths, strict=True)]
    axes.set(yticks=range(len(found)), yticklabels=[share[0] for share in found], xlabel="CPU seconds")
    axes.set_title("Where ours go")


def draw_scaling(data: Measurements, path: Path) -> None:
    """Cost against resultants, sources and exposures."""

    def points(parts: tuple[str, ...], side: str, x: Callable[[dict], float], y: Callable[[dict], float | None]):
        runs = [run for part in parts for run in data.select(part, side)]
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
            for side, label, color, marker in (
                ("romancal", "romancal", ROMANCAL, "s"),
                ("step", "job_per: step", OURS, "o"),
                ("exposure", "job_per: exposure", THIRD, "^"),
            ):
                parts = (
                    ("one exposure", "four exposures", "sixteen exposures") if part == "exposures" else (part, "one exposure")
                )
                places, values = points(parts, side, x, y)
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
    counts = [len(data.select("four exposures", side)) for side in SIDES]
    theirs = [m["versions"] for m in data.all if m["side"] == "romancal"]
    machine = last["machine"]
    mine = next(m["versions"] for m in reversed(data.all) if m["side"] == "ours")

    def spell(versions):
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    on_commits = f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    lines = [
        f"- machine: {machine['processor']}, {machine['cores']} cores, {machine['memory']:.0f} GB of memory, "
        f"Linux {machine['kernel']}",
        f"- measured: {dates[0]} to {dates[-1]} UTC, on {on_commits}; the one-minute load before a run was "
        f"{median(loads):.1f} in the median and {max(loads):.1f} at most",
        f"- runs of four exposures: {counts[0]} with `job_per: step`, {counts[1]} with `job_per: exposure`, {counts[2]} of "
        "romancal",
        f"- rampflow: {spell(mine)}",
        *([f"- romancal: {spell(theirs[-1])}"] if theirs else []),
    ]
    return "\n".join(lines)


def space_text(data: Measurements) -> str:
    """What runs hold at a time, and what stays; many exposures in a run."""

    def gigabytes(runs, quantity):
        return f"{number(value(runs, lambda run: run[quantity] / 1e3))} GB"

    sentences = []
    for mode in MODES:
        one, many, small = (data.select(f"{name}", mode) for name in ("one exposure", "sixteen exposures", "small exposures"))
        words = []
        if one:
            words.append(
                f"a run of one exposure needs at most {gigabytes(one, 'disk')} of disk, and leaves {gigabytes(one, 'left')} "
                "beside the products"
            )
        if many:
            count = many[0]["case"]["exposures"]
            words.append(
                f"{count} exposures in one run take {number(value(many, cpu))} s of CPU each, {number(value(many, wall))} s "
                f"together, and at most {gigabytes(many, 'memory')} of memory for all processes and {gigabytes(many, 'disk')} "
                "of disk"
            )
        if small:
            count, size = small[0]["case"]["exposures"], small[0]["case"]["size"]
            jobs = value(small, lambda run: len({(job["step"], job["exposure"]) for job in run["steps"] if "resources" in job}))
            words.append(
                f"{count} exposures of {size} × {size} pixels take {number(value(small, cpu))} s of CPU each; Snakemake "
                f"completes {number(jobs / value(small, wall))} jobs per second"
            )
        if words:
            sentences.append(f"- With `job_per: {mode}`, {'; '.join(words)}.")
    return "\n".join(sentences)


def node_text(data: Measurements) -> str:
    """What a large node does per hour."""
    rows = []
    for mode in MODES:
        run, small = (data.select(name, mode) for name in ("four exposures", "small exposures"))
        if not run or not small:
            continue
        each = {job["step"]: job for job in run[0]["steps"] if "resources" in job}
        costs = {
            step: Cost(job["user"] + job["system"], 1, declared(job)["mem_mb"] / 1e3)
            for step, job in each.items()
            if step != "astrometric_catalog"
        }
        alignment = costs.pop("tweakreg")
        products = [costs.pop("finalize")]
        chain = [costs[step] for step in data.steps() if step in costs]
        jobs = value(small, lambda run: len({(job["step"], job["exposure"]) for job in run["steps"] if "resources" in job}))
        own = value(small, lambda run: sum(run["snakemake"].values())) / jobs
        unlimited, limited = (
            EXPOSURES / simulate(chain, alignment, products, exposures=EXPOSURES, members=18, rate=rate, **NODE)
            for rate in (1e6, 1 / own)
        )
        traffic = [run[0][name] / run[0]["case"]["exposures"] / 1e6 for name in ("read", "written")]  # TB
        rows.append(
            [
                f"`job_per: {mode}`",
                f"{unlimited:,.0f}",
                f"{own:.2f} s",
                f"{limited:,.0f}",
                *(f"{number(limited * terabytes)} TB" for terabytes in traffic),
            ]
        )
    if not rows:
        return "This was not measured."
    header = ["", "exposures per hour", "CPU of Snakemake for each job", "exposures per hour with one Snakemake"]
    header += ["read per hour", "written per hour"]
    return (
        f"A simulation of {EXPOSURES:,} exposures in associations of 18, on a node of {NODE['cores']} cores and "
        f"{NODE['memory']} GB: each job takes one core, its measured CPU time, and the memory that its rule declares. One "
        "process of Snakemake starts the jobs of all exposures one by one. On such a node this takes longer than the jobs: run "
        "several processes of Snakemake, each with a part of the exposures.\n\n" + table(header, rows)
    )


def document(data: Measurements, pictures: str) -> str:
    """The whole page."""
    standard = data.select("four exposures", "step")
    case, found = standard[0]["case"], value(standard, lambda run: median(run["sources"]))
    parts = [
        INTRODUCTION,
        "## Summary",
        f"A frame has {case['resultants']} resultants and {found:.0f} sources, and a run has four exposures, unless a row "
        "says otherwise:",
        goals(data),
        space_text(data),
        "## Step by step",
        "A run of one exposure with `job_per: step`. Wall and CPU are in seconds, peak memory and bytes in MB. Columns "
        "without a name are rampflow's.",
        steps_table(data),
        f"![CPU of each step]({pictures}/steps.svg)",
        shares_text(data),
        start_up_text(data),
        "## Resultants, sources, exposures",
        f"![Cost against resultants, sources and exposures]({pictures}/scaling.svg)",
        "## A large node",
        node_text(data),
        "## Declared and measured resources",
        "Memory (MB) and time (minutes) that the rules declare for the first attempt. The least ratio of declared memory to "
        "peak is taken over all sizes, resultants and sources measured.",
        memory_table(data),
        METHOD.format(size=case["size"]),
        circumstances(data),
        REPRODUCE,
    ]
    return "\n\n".join(part for part in parts if part)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path, help="output of bench (.jsonl)")
    parser.add_argument("document", type=Path, help="page to write (.md); its pictures go to a folder of its name")
    args = parser.parse_args()
    data = Measurements(args.measurements)
    if not all(data.select("four exposures", mode) for mode in MODES) or not data.select("one exposure", "step"):
        parser.error(f"{args.measurements}: lacks measurements of four exposures or of one; run bench first")
    pictures = args.document.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    draw_steps(data, pictures / "steps.svg")
    draw_scaling(data, pictures / "scaling.svg")
    args.document.write_text(document(data, pictures.name) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
