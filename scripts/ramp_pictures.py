"""Draw pictures of what happens to a ramp, for the report, from files that exist only between the steps."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from rampflow import transient
from rampflow.chain import STEPS
from rampflow.detector import BORDER, SCIENCE, TRANSIENT_DETECTOR, mean_reads, pixel_read_times
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.pictures.ramps import Ramp, choose_pixels, ramp_picture
from rampflow.pictures.refpix import refpix_picture
from rampflow.pictures.transient import transient_picture
from rampflow.step.exposure import Exposure
from rampflow.step.program import reported_errors


def read_ramps(ramp: Exposure, image: Exposure) -> tuple[list[Ramp], np.ndarray]:
    """Read the ramps to show.

    Parameters
    ----------
    ramp, image : Exposure
        The exposure before and after ramp_fitting.

    Returns
    -------
    ramps : list of rampflow.pictures.ramps.Ramp
        The ramps of a few pixels.
    times : numpy.ndarray
        Mean time of each resultant, seconds.
    """
    rate, flags, dumo = (image.array(name, 2).read() for name in ("data", "dq", "dumo"))
    jumps = image.array("jump_indices", 2).read() if "jump_indices" in image.roman else np.empty((0, 3), int)
    data, groupdq = ramp.array("data", 3), ramp.array("groupdq", 3)
    ramps = []
    for name, (row, column) in choose_pixels(rate, flags, dumo).items():
        counts, group = (array.read_rows(row + BORDER, row + BORDER + 1)[:, 0, column + BORDER] for array in (data, groupdq))
        here = jumps[(jumps[:, 1] == row) & (jumps[:, 2] == column), 0]
        ramps.append(Ramp(name, row, column, counts, group, np.sort(here), float(rate[row, column])))
    return ramps, mean_reads(ramp.read_pattern) * ramp.frame_time


def collected(ramp: Exposure) -> np.ndarray:
    """Read what a ramp collects from the second resultant, which no transient touches, to the last.

    Parameters
    ----------
    ramp : Exposure
        The ramp.

    Returns
    -------
    numpy.ndarray
        Difference of these resultants, DN, of shape (row, column).
    """
    data = ramp.array("data", 3)
    return data.read_plane(data.shape[0] - 1) - data.read_plane(min(1, data.shape[0] - 1))


def transient_of(ramp: Exposure) -> dict | None:
    """Draw the transient of a ramp and its fit.

    Parameters
    ----------
    ramp : Exposure
        The ramp before wfi18_transient.

    Returns
    -------
    dict or None
        The picture; `None` where there are too few resultants to measure the transient.
    """
    data = ramp.array("data", 3)
    if data.shape[0] < transient.MIN_RESULTANTS:
        return None
    pixel_times = pixel_read_times(data.plane_shape, ramp.frame_time, TRANSIENT_DETECTOR)[SCIENCE]
    times, resultant_times = pixel_times.mean(axis=1), mean_reads(ramp.read_pattern) * ramp.frame_time
    groupdq, numbers = ramp.array("groupdq", 3), range(min(transient.MEASURING_RESULTANTS, data.shape[0]))
    first, flags = (np.stack([array.read_plane(i)[SCIENCE] for i in numbers]) for array in (data, groupdq))
    good = transient.usable_pixels(flags)
    by_row = transient.transient_by_row(first, resultant_times, good)
    fit = transient.fit_transient(times, by_row)
    affected = range(0, transient.MASKED_ROWS * len(times) // transient.FULL_ROWS, 16)
    curved = transient.largest_curvature(
        [transient.curvature(first[:, [row]], resultant_times, good[[row]]) for row in affected]
    )
    if fit is None or transient.why_implausible(fit, times, by_row, pixel_times.min(), curved):
        return transient_picture(times, by_row, None, "")
    formula = f"{fit[0]:.3g} DN · exp(−t / {fit[2]:.3g} s) {fit[1]:+.3g} DN · exp(−t / {fit[3]:.3g} s)".replace("-", "−")
    return transient_picture(times, by_row, transient.double_exponential(times, *fit), formula)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="ramp_pictures.py", description=__doc__)
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the pictures to write (.json)")
    parser.add_argument("--ramp", metavar="FILE", type=Path, required=True, help="the exposure before ramp_fitting (.asdf)")
    parser.add_argument("--image", metavar="FILE", type=Path, required=True, help="the exposure after it (_rampfit.asdf)")
    parser.add_argument(
        "--refpix", metavar=("BEFORE", "AFTER"), type=Path, nargs=2, help="the exposure before and after refpix"
    )
    parser.add_argument("--transient", metavar="FILE", type=Path, help="the exposure before wfi18_transient")
    arguments = parser.parse_args(argv)
    with reported_errors("ramp_pictures") as outcome:
        result: dict = {"pictures": []}
        with AsdfFile(arguments.image) as image_file, AsdfFile(arguments.ramp) as ramp_file:
            image, ramp = Exposure(image_file), Exposure(ramp_file)
            # Of an exposure that is saturated everywhere there is nothing to see.
            fitted = image.meta["cal_step"][STEPS["ramp_fitting"].status] == "COMPLETE"
            if fitted:
                result["pictures"].append(ramp_picture(*read_ramps(ramp, image)))
        if fitted and arguments.refpix:
            counts = []
            for path in arguments.refpix:
                with AsdfFile(path) as file:
                    counts.append(collected(Exposure(file)))
            shown, result["refpix"] = refpix_picture(*counts)
            result["pictures"].append(shown)
        if fitted and arguments.transient:
            with AsdfFile(arguments.transient) as file:
                result["pictures"].append(transient_of(Exposure(file)))
        result["pictures"] = [shown for shown in result["pictures"] if shown]
        with replacing(arguments.output) as partial:
            partial.write_text(json.dumps(result))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
