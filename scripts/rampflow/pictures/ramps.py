"""Ramps of a few pixels with their fit."""

from __future__ import annotations

import dataclasses

import numpy as np

from rampflow import dq
from rampflow.pictures.figures import BLACK, BLUE, ORANGE, RED, new_figure, picture


@dataclasses.dataclass(frozen=True)
class Ramp:
    """The ramp of one pixel, and what was fitted to it.

    Attributes
    ----------
    name : str
        Why this pixel was chosen.
    row, column : int
        Its place in the image.
    counts : numpy.ndarray
        Linear counts of each resultant, DN.
    flags : numpy.ndarray
        ``groupdq`` of each resultant.
    jumps : numpy.ndarray
        Resultants that a jump comes before.
    slope : float
        The count rate found, DN/s.
    """

    name: str
    row: int
    column: int
    counts: np.ndarray
    flags: np.ndarray
    jumps: np.ndarray
    slope: float


def choose_pixels(rate: np.ndarray, flags: np.ndarray, dumo: np.ndarray) -> dict[str, tuple[int, int]]:
    """Choose a pixel of each kind that there is.

    Parameters
    ----------
    rate, flags, dumo : numpy.ndarray
        Count rate (DN/s), data quality, and how far the rate is from one that jumps are part of.

    Returns
    -------
    dict
        Row and column of each. sky: at the median of the pixels without a flag, or with UNRELIABLE_SLOPE alone; bright: at
        their 99.99th percentile; jump: where it changes the rate most; saturated: the highest rate among those that saturate
        and still have one.
    """
    chosen = {}
    usable = np.isfinite(rate) & ~dq.has(flags, dq.DO_NOT_USE)
    # All pixels of an exposure of two or three resultants are UNRELIABLE_SLOPE.
    clean = np.flatnonzero(usable & (flags & ~np.uint32(dq.UNRELIABLE_SLOPE) == 0))
    if clean.size:
        values = rate.ravel()[clean]
        for name, level in (("sky", 50), ("bright", 99.99)):
            chosen[name] = clean[np.argmin(np.abs(values - np.percentile(values, level)))]
    for name, having, lacking, measure in (
        ("jump", dq.JUMP_DET, dq.SATURATED, np.abs(dumo)),
        ("saturated", dq.SATURATED, dq.JUMP_DET, rate),
    ):
        places = np.flatnonzero(usable & dq.has(flags, having) & ~dq.has(flags, lacking) & np.isfinite(measure))
        if places.size:
            chosen[name] = places[np.argmax(measure.ravel()[places])]
    return {name: (int(place) // rate.shape[1], int(place) % rate.shape[1]) for name, place in chosen.items()}


def segments(ramp: Ramp, times: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the fit as lines of its slope, each through the mean of the good resultants between two jumps.

    Parameters
    ----------
    ramp : Ramp
        The ramp.
    times : numpy.ndarray
        Mean time of each resultant, seconds.

    Returns
    -------
    list of (numpy.ndarray, numpy.ndarray)
        Times (s) and counts (DN) of each.
    """
    good = ~dq.has(ramp.flags, dq.SATURATED | dq.DO_NOT_USE)
    lines = []
    for part in np.split(np.arange(len(times)), np.unique(ramp.jumps)):
        part = part[good[part]]
        if part.size:
            lines.append((times[part], np.mean(ramp.counts[part] - ramp.slope * times[part]) + ramp.slope * times[part]))
    return lines


def ramp_picture(ramps: list[Ramp], times: np.ndarray) -> dict | None:
    """Draw the ramps of a few pixels with their fits.

    Parameters
    ----------
    ramps : list of Ramp
        The ramps.
    times : numpy.ndarray
        Mean time of each resultant, seconds.

    Returns
    -------
    dict or None
        The picture; `None` without any ramp.
    """
    if not ramps:
        return None
    rows = -(-len(ramps) // 2)
    figure = new_figure(0.4 + 2.4 * rows)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis, ramp in zip(axes, ramps, strict=False):
        good = ~dq.has(ramp.flags, dq.SATURATED | dq.DO_NOT_USE)
        axis.plot(times[good], ramp.counts[good], "o", ms=3.5, color=BLUE, label="resultant")
        axis.plot(times[~good], ramp.counts[~good], "o", ms=3.5, mfc="none", color=BLACK, label="saturated or not used")
        for i, line in enumerate(segments(ramp, times)):
            axis.plot(*line, color=RED, label="fit" if not i else None)
        for i, jump in enumerate(ramp.jumps):
            middle = (times[jump - 1] + times[jump]) / 2
            axis.axvline(middle, color=ORANGE, ls="--", label=None if i else "jump")
        axis.set_title(f"{ramp.name}: x {ramp.column}, y {ramp.row}\n{ramp.slope:.4g} DN/s", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.ticklabel_format(style="plain", useOffset=False)
    for axis in axes[len(ramps) :]:
        axis.set_visible(False)
    figure.supxlabel("time (s)", fontsize=8)
    figure.supylabel("linear counts (DN)", fontsize=8)
    labeled = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    wanted = {label: handle for label, handle in labeled.items() if len(handle.get_xdata())}
    figure.legend(wanted.values(), wanted.keys(), loc="outside upper center", ncols=4, fontsize=7)
    caption = "Ramps of a few pixels after linearity: the fit has one slope, and starts anew after each jump."
    return picture(figure, "Ramps", caption)
