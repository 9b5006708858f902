"""The transient of WFI18's first read, and its fit."""

from __future__ import annotations

import numpy as np

from rampflow.pictures.figures import BLUE, RED, new_figure, picture


def transient_picture(times: np.ndarray, transient: np.ndarray, model: np.ndarray | None, formula: str) -> dict:
    """Draw the transient by row, and what the fit leaves.

    Parameters
    ----------
    times : numpy.ndarray
        Mean read time of each row, seconds.
    transient : numpy.ndarray
        Measured in each row, DN.
    model : numpy.ndarray or None
        The fit at these times, DN; `None` where it failed and rows are masked instead.
    formula : str
        Formula of the fit.

    Returns
    -------
    dict
        The picture.
    """
    figure, size = new_figure(4.4), 2.5 if len(times) < 1000 else 1
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    top.plot(times, transient, ".", ms=size, color=BLUE, label="mean of each row")
    bottom.set(xlabel="time since the start of the first read (s)", ylabel="less the fit (DN)")
    top.set_ylabel("transient (DN)")
    caption = "What the first resultant of WFI18 has more than the next ones predict, by row."
    if model is None:
        bottom.set_visible(False)
        caption += " It could not be fitted: the rows that it affects most are not used."
    else:
        order = np.argsort(times)
        top.plot(times[order], model[order], color=RED, label=formula)
        bottom.plot(times, transient - model, ".", ms=size, color=BLUE)
        bottom.axhline(0, color=RED)
        spread = np.nanpercentile(np.abs(transient - model), 99)
        bottom.set_ylim(-1.3 * spread, 1.3 * spread)
    low, high = np.nanpercentile(transient, (0.3, 99.7))
    top.set_ylim(low - 0.1 * (high - low), high + 0.15 * (high - low))
    figure.legend(loc="outside upper center", markerscale=3)
    return picture(figure, "Transient of WFI18", caption)
