"""Map of the differences of two images of an exposure."""

from __future__ import annotations

import warnings

import numpy as np

from rampflow.pictures.figures import new_figure, picture
from rampflow.pictures.image import binning


def difference_map(significance: np.ndarray, size: int) -> dict | None:
    """Draw the mean of (new - old) / err in blocks of pixels.

    Parameters
    ----------
    significance : numpy.ndarray
        (new - old) / err of each pixel, of shape (row, column); NaN where it is not known.
    size : int
        Largest number of blocks a side.

    Returns
    -------
    dict or None
        Title, caption and source of the picture; `None` where no value is known.
    """
    if not np.isfinite(significance).any():
        return None
    factor = binning(significance.shape, size)
    rows, columns = (length // factor for length in significance.shape)
    blocks = significance[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a block without any value is NaN
        means = np.nanmean(blocks, axis=(1, 3), dtype=float)
    limit = float(np.nanpercentile(np.abs(means), 99)) or float(np.nanmax(np.abs(means))) or 1.0
    figure = new_figure(3.4)
    axis = figure.add_subplot()
    shown = axis.imshow(means, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0, columns * factor, 0, rows * factor))
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")
    figure.colorbar(shown, ax=axis, label="mean of (new − old) / err")
    return picture(figure, "Differences of the images", f"Mean of (new − old) / err in blocks of {factor} × {factor} pixels.")
