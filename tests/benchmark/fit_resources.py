"""fit_resources: the memory that the rules should declare, from the measurements of bench.

Of all formulas base + frames + ramps that lie some 20 % above every peak measured, the one with the least memory for the
largest detectors::

    python fit_resources.py docs/performance/measurements.jsonl

A frame is a float32 image of the raw exposure's size, a ramp as many of them as there are resultants.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import linprog

MARGIN = 1.2
#: What base, frames and ramps are rounded up to.
UNITS = np.array([10, 0.5, 0.05])


def fit(sizes: np.ndarray, resultants: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Base (MB), frames and ramps of one step.

    Parameters
    ----------
    sizes, resultants, peaks : numpy.ndarray
        (jobs,) rows and columns of the detector, resultants, MB measured.
    """
    frame = 4 * sizes**2 / 1e6
    terms = np.stack([np.ones_like(frame), frame, frame * resultants], axis=1)
    full = sizes == sizes.max()
    solution = linprog(terms[full].sum(axis=0), A_ub=-terms, b_ub=-MARGIN * peaks, bounds=(0, None))
    return np.maximum(np.ceil(solution.x / UNITS - 1e-6), 0) * UNITS


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path, help="output of bench (.jsonl)")
    runs = [json.loads(line) for line in parser.parse_args().measurements.read_text().splitlines()]
    measured = [run for run in runs if run["side"] == "ours" and run["part"] != "imports"]
    jobs = [(run["case"], job) for run in measured for job in run["steps"] if "resources" in job]  # without steps within a job
    print(f"{'step':20} {'base':>5} {'frames':>7} {'ramps':>6}   peaks measured")
    for step in dict.fromkeys(job["step"] for _, job in jobs):
        mine = [(case["size"], case["resultants"], job["peak"]) for case, job in jobs if job["step"] == step]
        base, frames, ramps = fit(*np.array(mine, float).T)
        peaks = {f"{size} × {resultants}": round(peak) for size, resultants, peak in sorted(mine)}
        print(f"{step:20} {base:5.0f} {frames:7.1f} {ramps:6.2f}   {', '.join(f'{k}: {v}' for k, v in peaks.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
