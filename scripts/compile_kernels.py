"""Compile the loops of all steps for the processor of this machine, so that no exposure waits for it.

`make env` runs this program. Run it again on each other kind of processor, such as that of a cluster's nodes. What is compiled
already is not compiled again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from rampflow import dq
from rampflow.command_line import script_parser
from rampflow.detector import CHANNEL_WIDTH
from rampflow.step.program import reported_errors


def call_float16() -> None:
    """Call the loop that rounds to half precision with the type of values that the steps have."""
    from rampflow.kernels.float16 import to_float16

    to_float16(np.ones(1, np.float32))


def call_linearity() -> None:
    """Call the loop of linearity with the types of values that the step has."""
    from rampflow.kernels.linearity import correct_rows

    ramp = np.ones((2, 1, 1, CHANNEL_WIDTH), np.float32)
    groupdq, pixeldq = np.zeros(ramp.shape, np.uint8), np.zeros(ramp.shape[1:], np.uint32)
    single = np.ones(2, np.float32)
    correct_rows(
        ramp,
        groupdq,
        pixeldq,
        ramp,
        pixeldq,
        ramp,
        np.ones(5),
        single,
        np.array([0, 1, 2], np.intp),
        single,
        np.zeros((1, 2)),
        np.float32(0),
        np.float32(1),
        np.uint8(dq.SATURATED),
        np.uint8(dq.DO_NOT_USE),
        np.uint32(dq.NO_LIN_CORR),
        np.float32(1),
        np.empty_like(ramp),
        np.empty_like(groupdq),
        np.empty_like(pixeldq),
    )


def call_ramp_fitting() -> None:
    """Call the loops of ramp_fitting with the types of values that the step has."""
    from rampflow.kernels.ramp_fitting import search_ramps, solve_ramps, sorting_network

    resultants, flags = np.ones((4, 1, 8), np.float32), np.zeros((4, 1, 8), np.uint8)
    pixels, rate = np.ones((1, 8), np.float32), np.ones((1, 8))
    covariance = np.ones((6, len(resultants) - 1))
    flag = np.uint8(dq.JUMP_DET)
    search_ramps(resultants, flags, pixels, pixels, covariance, sorting_network(3), 4.5, 4.5, flag, flag, rate, flags.copy())
    solve_ramps(resultants, flags, flags, pixels, pixels, covariance, rate, *(np.empty_like(pixels) for _ in range(5)))


def call_refpix() -> None:
    """Call the loops of refpix with the types of values that the step has."""
    from rampflow.kernels.refpix import SAMPLES, combine, subtract

    response, spectra = np.ones((1, SAMPLES // 2 + 1), np.complex64), np.ones((1, 3, SAMPLES // 2 + 1), np.complex64)
    combine((response, response, response), spectra, (0, 0), (0, 0), np.empty(SAMPLES, np.complex64))
    counts = np.ones((1, CHANNEL_WIDTH), np.float32)
    subtract(counts, counts.copy(), 0, 0.0, 0.0, True, np.ones((CHANNEL_WIDTH, 1), np.complex64), 0)


def call_source_catalog() -> None:
    """Call the loops of source_catalog with the types of values that the step has."""
    from rampflow.catalog.segments import segment_properties
    from rampflow.kernels.source_catalog import clip_rings, fit_group, smooth_rows, sum_circles

    image, mask = np.ones((16, 16), np.float32), np.zeros((16, 16), bool)
    smooth_rows(image, mask, np.ones(3) / 3, 0, np.empty_like(image))
    labels = np.zeros(image.shape, np.int32)
    labels[6:11, 6:11] = 1
    segment_properties(image, image, mask, labels, image)
    center = np.array([8.0])
    sum_circles(image, image, mask, center, center, 3.0)
    clip_rings(image, center, center, 1.0, 3.0)
    rows, columns = (axis.ravel() for axis in np.mgrid[6.0:11.0, 6.0:11.0])
    stamp = np.exp(-0.5 * np.sum((np.mgrid[-8:9, -8:9] / 3.0) ** 2, axis=0))
    grid = np.array([0.0])
    fit_group(rows * 0 + 1, rows * 0 + 1, columns, rows, np.array([[1.0, 8.0, 8.0]]), stamp[None, None], grid, grid, 2)


CALLS: dict[str, Callable[[], None]] = {
    "float16": call_float16,
    "linearity": call_linearity,
    "ramp_fitting": call_ramp_fitting,
    "refpix": call_refpix,
    "source_catalog": call_source_catalog,
}


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    script_parser("compile_kernels.py", __doc__ or "").parse_args(argv)
    with reported_errors("compile_kernels") as outcome:
        for name, call in CALLS.items():
            begin = time.monotonic()
            call()
            print(f"loops of {name}: ready after {time.monotonic() - begin:.1f} s", flush=True)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
