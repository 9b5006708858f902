"""The reference-pixel correction, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from rampflow.detector import BORDER, CHANNEL_WIDTH
from rampflow.pictures.figures import BLUE, ORANGE, new_figure, picture

SHOWN_ROWS = 200  #: of the channel that is shown by itself


def row_levels(collected: np.ndarray) -> np.ndarray:
    """Measure the level of each row of each channel, which the correlated noise changes.

    Parameters
    ----------
    collected : numpy.ndarray
        Counts between two resultants (DN), (row, column) with the reference border.

    Returns
    -------
    numpy.ndarray
        Median over the columns of each channel, less the channel's own, (row without border, channel).
    """
    science = np.array(collected, np.float32)
    science[:, :BORDER] = science[:, -BORDER:] = np.nan
    rows = science[BORDER:-BORDER].reshape(len(science) - 2 * BORDER, -1, CHANNEL_WIDTH)
    levels = np.nanmedian(rows, axis=2)
    return levels - np.nanmedian(levels, axis=0)


def row_scatter(levels: np.ndarray) -> float:
    """Measure how much the levels of neighboring rows differ, which leaves out the sky.

    Parameters
    ----------
    levels : numpy.ndarray
        Levels of `row_levels`, DN.

    Returns
    -------
    float
        Median absolute difference × 1.4826 / √2, DN.
    """
    return float(1.4826 * np.median(np.abs(np.diff(levels, axis=0))) / np.sqrt(2))


def refpix_picture(before: np.ndarray, after: np.ndarray) -> tuple[dict, dict]:
    """Draw the levels of all rows before and after the correction.

    Parameters
    ----------
    before, after : numpy.ndarray
        Counts between the same two resultants (DN), (row, column) with the reference border.

    Returns
    -------
    picture : dict
        The picture, as `rampflow.pictures.figures.picture` gives it.
    facts : dict
        Scatter of the levels of neighboring rows in DN, ``before`` and ``after``.
    """
    levels = row_levels(before), row_levels(after)
    facts = {"before": row_scatter(levels[0]), "after": row_scatter(levels[1])}
    figure = new_figure(5.4)
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.7, 1])
    maps, lines = parts
    limit = float(np.percentile(np.abs(levels[0]), 98)) or 1.0
    axes = maps.subplots(1, 2, sharey=True)
    for axis, level, name in zip(axes, levels, ("before", "after"), strict=True):
        extent = (0.5, level.shape[1] + 0.5, -0.5, len(level) - 0.5)
        shown = axis.imshow(level, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", extent=extent)
        axis.set(title=f"{name}\nscatter of rows {facts[name]:.2f} DN", xlabel="channel")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("row")
    maps.colorbar(shown, ax=axes, label="level of the row (DN)")
    axis = lines.subplots()
    channel, first = levels[0].shape[1] // 2, len(levels[0]) // 2
    rows = np.arange(first, min(first + SHOWN_ROWS, len(levels[0])))
    for level, name, color in zip(levels, ("before", "after"), (ORANGE, BLUE), strict=True):
        axis.plot(rows, level[rows, channel], color=color, lw=0.9, label=name)
    axis.set(xlabel=f"row (channel {channel + 1})", ylabel="level (DN)", xlim=(rows[0], rows[-1]))
    axis.legend(ncols=2, loc="upper right")
    caption = (
        "Level of each row of each channel, between the second resultant and the last, less the channel's own: the noise that "
        "reference pixels and amplifier 33 share with the pixels is what the correction removes."
    )
    return picture(figure, "Reference-pixel correction", caption), facts
