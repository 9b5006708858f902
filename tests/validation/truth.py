"""What truth_slopes, truth_jumps and truth_stars share: the command line, the images, and the look of the plots."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import asdf
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))

from rampflow import dq as flags  # noqa: E402

PIPELINES = ("rampflow", "romancal")
#: Where both agree, the full circle lies within the open square. Colors of Okabe and Ito, which all eyes tell apart.
MARKS = {
    "rampflow": {"color": "#0072B2", "marker": "o", "markersize": 4.5, "zorder": 3},
    "romancal": {"color": "#D55E00", "marker": "s", "markersize": 8.5, "markerfacecolor": "none", "zorder": 2},
}
GRAY = "#777777"
GAIN = 1.8  #: electron/DN of the simulated detectors, on average


def parser(description: str) -> argparse.ArgumentParser:
    """The command line of all three."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in (
        ("truth", "truth of each exposure, as simulate_exposure writes it"),
        ("ours", "rampflow's product of each, in the same order"),
        ("romancal", "romancal's product of each, in the same order"),
    ):
        result.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=text)
    result.add_argument("--plot", type=Path, required=True, help="picture to write (.png)")
    result.add_argument("--output", type=Path, required=True, help="numbers to write (.json)")
    return result


def exposures(args: argparse.Namespace) -> list[tuple[Path, dict[str, Path]]]:
    """Truth, and product by pipeline, of each exposure."""
    if not len(args.truth) == len(args.ours) == len(args.romancal):
        raise SystemExit("--truth, --ours and --romancal must name equally many files")
    pairs = (dict(zip(PIPELINES, pair, strict=True)) for pair in zip(args.ours, args.romancal, strict=True))
    return list(zip(args.truth, pairs, strict=True))


@dataclass(frozen=True)
class Image:
    """A count-rate image: `rate` and `error` (DN/s), flags, χ² (not reduced), jumps (resultant, row, column), reads."""

    rate: np.ndarray
    error: np.ndarray
    dq: np.ndarray
    chisq: np.ndarray
    jumps: np.ndarray
    read_pattern: list
    flat_fielded: bool


def read_image(path: Path) -> Image:
    """Read a `_cal` product, or what ramp_fitting left (`_rampfit`)."""
    with asdf.open(path) as file:
        roman = file["roman"]
        if "jump_indices" not in roman:
            raise SystemExit(f"{path}: has no jump_indices; run ramp_fitting with record_jumps")
        names = ("data", "err", "dq", "chisq", "jump_indices")
        rate, error, dq, chisq, jumps = (np.array(roman[name]) for name in names)
        flat_fielded = roman["meta"]["cal_step"]["flat_field"] == "COMPLETE"
        pattern = [list(reads) for reads in roman["meta"]["exposure"]["read_pattern"]]
        return Image(rate, error.astype(np.float32), dq, chisq.astype(np.float32), jumps, pattern, flat_fielded)


@dataclass(frozen=True)
class Truth:
    """True rates (DN/s) as the image has them, and the hits: row, column, resultant that first shows it, charge (electron)."""

    rate: np.ndarray
    hits: dict[str, np.ndarray]

    @property
    def hit(self) -> np.ndarray:
        """Number of hits of each pixel."""
        number = np.zeros(self.rate.shape, np.uint8)
        np.add.at(number, (self.hits["row"], self.hits["column"]), 1)
        return number


def read_truth(path: Path, image: Image) -> Truth:
    """Read the truth for an image: the scene, for one that is flat-fielded, else what the ramps show."""
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        truth = file["truth"]
        hits = truth["cosmic_rays"]
        names = ("row", "column", "resultant", "charge")
        return Truth(np.array(truth["scene" if image.flat_fielded else "count_rate"]), {n: np.array(hits[n]) for n in names})


def usable(images: dict[str, Image]) -> np.ndarray:
    """Pixels that neither pipeline flags, but for jumps and saturation."""
    found = np.bitwise_or.reduce([image.dq for image in images.values()])
    return found & ~np.uint32(flags.JUMP_DET | flags.SATURATED) == 0


def steps(low: float, high: float, per_decade: int) -> np.ndarray:
    """Edges of logarithmic bins."""
    return np.geomspace(low, high, round(np.log10(high / low) * per_decade) + 1)


def new_figure(rows: int, columns: int, **keywords):
    """A figure and its axes, in the look of all plots."""
    plt.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6", "font.size": 10}
        | {"axes.titlesize": 11, "axes.titlelocation": "left", "axes.axisbelow": True, "legend.frameon": False}
    )
    return plt.subplots(rows, columns, figsize=(5.4 * columns, 3.6 * rows), layout="constrained", **keywords)


def write(args: argparse.Namespace, figure, numbers: dict) -> None:
    """Write the picture and the numbers."""
    figure.savefig(args.plot, dpi=120)
    args.output.write_text(json.dumps(numbers, indent=1) + "\n")
