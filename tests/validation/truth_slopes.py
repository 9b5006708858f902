"""truth_slopes: are the slopes right, and their errors? Both pipelines against the simulated truth, over the count rate.

    python truth_slopes.py --truth E_truth.asdf … --ours E_cal.asdf … --romancal E_cal.asdf … --plot P.png --output P.json

The exposures are simulated with ``simulate_exposure.py --gradient 1 10000`` (cosmic rays or not: pixels that were hit don't
count); products are ``_cal``, or what ramp_fitting left. A bin of true count rate has the mean error of the slope (in percent
of the rate, and in units of the quoted error), the width of the pulls (error over quoted error; half the range of the middle
68 %), and χ² per degree of freedom where no resultant was left out. The error bars are those of independent pixels; the pixels
of a channel also share some 0.001 DN/s, another in each exposure, that the reference pixels' own noise leaves.

The JSON lists ``bins``: ``low``, ``high`` (e-/s), ``pixels``, ``saturated`` (fraction), and by pipeline ``bias`` (DN/s),
``relative``, ``sigma`` (in units of the quoted error), each with its uncertainty, and ``pull_width``, ``chisq`` (null where
there are no such ramps).
"""

from __future__ import annotations

import sys

import numpy as np
import truth

PIXELS = 200  #: fewest of a bin
COUNTED = truth.flags.JUMP_DET | truth.flags.SATURATED


def measure(exposures) -> list[dict]:
    """Numbers of each bin; see the module."""
    edges = truth.steps(1, 10000, 5)
    samples = [[] for _ in edges[1:]]
    for true, paths in exposures:
        images = {name: truth.read_image(path) for name, path in paths.items()}
        image = images["rampflow"]
        known = truth.read_truth(true, image)
        good = truth.usable(images) & (known.hit == 0)
        for each in images.values():
            good &= np.isfinite(each.rate)
        place = np.digitize(known.rate * truth.GAIN, edges) - 1
        for index, sample in enumerate(samples):
            chosen = good & (place == index)
            sample.append(
                {"rate": known.rate[chosen], "freedom": len(image.read_pattern) - 2}
                | {name: [a[chosen] for a in (i.rate, i.error, i.chisq, i.dq)] for name, i in images.items()}
            )
    bins = zip(edges[:-1], edges[1:], samples, strict=True)
    return [_bin(low, high, sample) for low, high, sample in bins if sum(len(s["rate"]) for s in sample) >= PIXELS]


def _bin(low, high, sample) -> dict:
    true = np.concatenate([s["rate"] for s in sample]).astype(np.float64)
    freedom = np.concatenate([np.full(len(s["rate"]), s["freedom"]) for s in sample])
    row = {"low": low, "high": high, "pixels": len(true)}
    for name in truth.PIPELINES:
        rate, error, chisq, dq = (np.concatenate([s[name][k] for s in sample]) for k in range(4))
        off = rate - true
        low_pull, high_pull = np.percentile(off / error, (15.87, 84.13))
        whole = ~truth.flags.has(dq, COUNTED)
        mean, uncertainty, quoted = off.mean(), off.std() / len(off) ** 0.5, error.mean(dtype=np.float64)
        row["saturated"] = float(truth.flags.has(dq, truth.flags.SATURATED).mean())
        row[name] = {
            "bias": [mean, uncertainty],
            "relative": [mean / true.mean(), uncertainty / true.mean()],
            "sigma": [mean / quoted, uncertainty / quoted],
            "pull_width": (high_pull - low_pull) / 2,
            "chisq": chisq[whole].sum(dtype=np.float64) / freedom[whole].sum() if whole.sum() >= PIXELS else None,
        }
    return row


def draw(bins):
    """The picture."""
    figure, axes = truth.new_figure(2, 2, sharex=True)
    panels = (
        ("relative", "Slope bias", "mean error (% of the rate)", 0, 100),
        ("sigma", "Slope bias in units of the error", "mean error / quoted error", 0, 1),
        ("pull_width", "Are the errors honest?", "width of the pulls", 1, 1),
        ("chisq", "Goodness of fit, whole ramps", "reduced χ²", 1, 1),
    )
    rate = np.array([(b["low"] * b["high"]) ** 0.5 for b in bins])
    for axis, (key, title, label, ideal, scale) in zip(axes.flat, panels, strict=True):
        axis.axhline(ideal, color=truth.GRAY, linewidth=1)
        for name in truth.PIPELINES:
            values = np.array([b[name][key] for b in bins], np.float64) * scale  # None becomes NaN
            values, errors = values.T if values.ndim == 2 else (values, None)
            axis.errorbar(rate, values, errors, label=name, linewidth=1, **truth.MARKS[name])
        saturated = [b["high"] for b in bins if b["saturated"] < 0.5]
        if saturated and saturated[-1] < bins[-1]["high"]:
            axis.axvspan(saturated[-1], bins[-1]["high"], color="#f3f0e6", zorder=0)
        axis.set(xscale="log", title=title, ylabel=label)
    for axis in axes[1]:
        axis.set_xlabel("true count rate (e-/s)")
    axes[0, 0].legend(title="shaded: ramps that saturate", alignment="left", loc="lower right")
    return figure


def main() -> int:
    """Run from the command line."""
    args = truth.parser(__doc__).parse_args()
    bins = measure(truth.exposures(args))
    if not bins:
        raise SystemExit(f"no bin of the count rate has {PIXELS} pixels: give exposures simulated with --gradient 1 10000")
    truth.write(args, draw(bins), {"bins": bins})
    return 0


if __name__ == "__main__":
    sys.exit(main())
