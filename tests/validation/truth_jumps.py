"""truth_jumps: which hits are found, and what is taken for one? Both pipelines against the simulated truth.

    python truth_jumps.py --truth E_truth.asdf … --ours E_cal.asdf … --romancal E_cal.asdf … --plot P.png --output P.json

The exposures are simulated with ``simulate_exposure.py --jumps``, and best with ``--gradient 1 10000`` too, for false alarms
over the count rate; products are ``_cal``, or what ramp_fitting left, with jump_indices. A hit is found if a jump is recorded
at the first resultant that shows it, or at the next one (a hit within a resultant spoils both differences). Pixels that were
hit once count; not hits before the first resultant, which no ramp shows, and not pixels that saturate. A false alarm is a
pixel with a jump that nothing hit. The JSON has

``heights``
    by class of the count rate (``rate``, e-/s) and ``low``, ``high`` of the height (electrons): ``hits``, and by pipeline
    ``found`` (fraction) and ``pull`` (mean error of the slope in units of the quoted one: what hits leave);
``resultants``
    the same by class of the height (``height``, electrons) and ``resultant`` (from 1), in pixels of up to 30 e-/s;
``false_alarms``
    by count rate: ``low``, ``high`` (e-/s), ``pixels``, ``saturated`` (fraction), and false alarms per pixel by pipeline;
``chance``
    false alarms per pixel that the threshold of 4.5 sigma allows, at most.
"""

from __future__ import annotations

import sys

import numpy as np
import truth

FAINT = 30.0  #: e-/s
CLASSES = ((0.0, FAINT), (FAINT, 1000.0))  #: of the count rate, e-/s
HEIGHTS = ((30, 60), (60, 120), (120, 240), (240, 1e5))  #: classes for completeness by resultant, electrons
CHANCE = 6.8e-6  #: that noise passes 4.5 sigma, on both sides
FEWEST = 20


def read_jumps(exposures):
    """Hits, what both pipelines made of them, pixels that nothing hit, and the chance of a false alarm.

    Returns
    -------
    hits : numpy.ndarray
        (3, hits): count rate (e-/s), height (electrons), resultant (from 0).
    found, pull : dict
        By pipeline, for each hit: whether it was found; error of the slope in units of the quoted one.
    pixels : numpy.ndarray
        (2, pixels) of those not hit: count rate (e-/s), whether it saturates.
    alarms : dict
        By pipeline, for each of these: whether it has a jump.
    chance : float
        False alarms per pixel that the threshold allows, at most.
    """
    hits, pixels, omissions = [], [], 0
    found, pull, alarms = ({name: [] for name in truth.PIPELINES} for _ in range(3))
    for true, paths in exposures:
        images = {name: truth.read_image(path) for name, path in paths.items()}
        known = truth.read_truth(true, images["rampflow"])
        pattern = images["rampflow"].read_pattern
        omissions = max(omissions, len(pattern) - 1 + sum(len(reads) > 1 for reads in pattern[1:-1]))
        good, number = truth.usable(images), known.hit
        saturated = truth.flags.has(images["rampflow"].dq, truth.flags.SATURATED)
        row, column, resultant = (known.hits[name] for name in ("row", "column", "resultant"))
        chosen = (good & (number == 1) & ~saturated)[row, column] & (resultant > 0)
        row, column, resultant = row[chosen], column[chosen], resultant[chosen]
        quiet = good & (number == 0)
        hits.append([known.rate[row, column] * truth.GAIN, known.hits["charge"][chosen], resultant])
        pixels.append([known.rate[quiet] * truth.GAIN, saturated[quiet]])
        for name, image in images.items():
            jumps = np.zeros((len(pattern) + 1, *number.shape), bool)
            jumps[tuple(image.jumps.T)] = True
            found[name].append(jumps[resultant, row, column] | jumps[resultant + 1, row, column])
            pull[name].append(((image.rate - known.rate) / image.error)[row, column])
            alarms[name].append(jumps.any(axis=0)[quiet])
    found, pull, alarms = ({name: np.concatenate(v) for name, v in each.items()} for each in (found, pull, alarms))
    return np.concatenate(hits, axis=1), found, pull, np.concatenate(pixels, axis=1), alarms, omissions * CHANCE


def measure(hits, found, pull, pixels, alarms, chance) -> dict:
    """The numbers, from `read_jumps`; see the module."""
    rate, charge, resultant = hits

    def fate(chosen) -> dict:
        by_pipeline = {
            name: {"found": float(found[name][chosen].mean()), "pull": float(pull[name][chosen].mean(dtype=np.float64))}
            for name in truth.PIPELINES
        }
        return {"hits": int(chosen.sum())} | by_pipeline

    numbers = {"heights": [], "resultants": [], "false_alarms": [], "chance": chance}
    edges = truth.steps(20, 40000, 8)
    for low_rate, high_rate in CLASSES:
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            chosen = (rate >= low_rate) & (rate < high_rate) & (charge >= low) & (charge < high)
            if chosen.sum() >= FEWEST:
                numbers["heights"].append({"rate": [low_rate, high_rate], "low": low, "high": high} | fate(chosen))
    for low, high in HEIGHTS:
        for index in np.unique(resultant):
            chosen = (rate < FAINT) & (charge >= low) & (charge < high) & (resultant == index)
            if chosen.sum() >= FEWEST:
                numbers["resultants"].append({"height": [low, high], "resultant": int(index) + 1} | fate(chosen))
    edges = truth.steps(0.1, 10000, 3)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = (pixels[0] >= low) & (pixels[0] < high)
        if chosen.sum() >= 1000:
            row = {"low": low, "high": high, "pixels": int(chosen.sum()), "saturated": float(pixels[1, chosen].mean())}
            numbers["false_alarms"].append(row | {name: float(alarms[name][chosen].mean()) for name in truth.PIPELINES})
    return numbers


def _middles(rows) -> np.ndarray:
    return np.array([(row["low"] * row["high"]) ** 0.5 for row in rows])


def draw(numbers):
    """The picture."""
    figure, ((height, where), (cost, false)) = truth.new_figure(2, 2)
    for (low, high), line in zip(CLASSES, ("-", ":"), strict=True):
        rows = [row for row in numbers["heights"] if row["rate"] == [low, high]]
        for name in truth.PIPELINES:
            look = {"linewidth": 1, "linestyle": line, "label": f"{name}, {low:g} to {high:g} e-/s" if rows else None}
            height.plot(_middles(rows), [row[name]["found"] for row in rows], **look, **truth.MARKS[name])
            cost.plot(_middles(rows), [row[name]["pull"] for row in rows], **look, **truth.MARKS[name])
    height.legend(loc="lower right", fontsize=9)
    height.set(xscale="log", title="Completeness", ylabel="fraction found", ylim=(-0.03, 1.1))
    cost.axhline(0, color=truth.GRAY, linewidth=1)
    cost.set(xscale="log", title="What hits leave in the slope", ylabel="mean error / quoted error")
    for axis in (height, cost):
        axis.set_xlabel("height of the jump (electrons)")

    last, level = 1, -1.0
    for low, high in HEIGHTS:
        if rows := [row for row in numbers["resultants"] if row["height"] == [low, high]]:
            for name in truth.PIPELINES:
                values = [row[name]["found"] for row in rows]
                where.plot([row["resultant"] for row in rows], values, linewidth=1, **truth.MARKS[name])
            text = f"{low:g} to {high:g} e-" if high < HEIGHTS[-1][1] else f"over {low:g} e-"
            level = max(values[-1], level + 0.06)  # labels don't hide each other
            where.annotate(text, (rows[-1]["resultant"], level), (9, -4), textcoords="offset points", fontsize=9)
            last = max(last, rows[-1]["resultant"])
    where.set(title=f"Completeness by resultant, up to {FAINT:g} e-/s", ylabel="fraction found", ylim=(-0.03, 1.1))
    where.set(xlabel="first resultant that shows the hit", xlim=(1.5, 1.25 * last), xticks=range(2, last + 1))

    rows = numbers["false_alarms"]
    rate, number = _middles(rows), np.array([row["pixels"] for row in rows])
    for name in truth.PIPELINES:
        share = np.array([row[name] for row in rows])
        error, some = np.sqrt(share / number), share > 0
        bars = np.minimum(error, 0.9 * share)[some], error[some]
        false.errorbar(rate[some], share[some], bars, linewidth=1, label=name, **truth.MARKS[name])
        false.plot(
            rate[~some], 1 / number[~some], **truth.MARKS[name] | {"marker": "v", "linestyle": "none"}
        )  # fewer than this
    false.axhline(numbers["chance"], color=truth.GRAY, linewidth=1, linestyle="--", label="chance at 4.5 sigma, at most")
    false.set(xscale="log", yscale="log", title="False alarms", xlabel="true count rate (e-/s)", ylabel="per pixel")
    false.legend(fontsize=9)
    return figure


def main() -> int:
    """Run from the command line."""
    args = truth.parser(__doc__).parse_args()
    numbers = measure(*read_jumps(truth.exposures(args)))
    truth.write(args, draw(numbers), numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
