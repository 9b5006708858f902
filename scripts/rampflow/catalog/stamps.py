"""Square cutouts around sources."""

from __future__ import annotations

import numpy as np

FAR_OUTSIDE = -1000.0  #: pixels; stands for a position that is not finite: nothing overlaps there


def finite_positions(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Replace positions that are not finite by one far outside the image.

    Parameters
    ----------
    x, y : numpy.ndarray
        Positions of the sources, pixels, shape (sources,).

    Returns
    -------
    numpy.ndarray
        Positions x and y of each source, pixels, shape (sources, 2).
    """
    positions = np.column_stack([x, y])
    positions[~np.isfinite(positions).all(axis=1)] = FAR_OUTSIDE
    return positions


def cut_stamps(image: np.ndarray, positions: np.ndarray, size: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square out of an image around each position.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (rows, columns).
    positions : numpy.ndarray
        Positions x and y of each source, pixels, shape (sources, 2).
    size : int
        Edge length of a square without its margin, pixels.
    margin : int
        Pixels that are added on each side.

    Returns
    -------
    stamps : numpy.ndarray of float64
        Squares, shape (sources, size + 2 margin, size + 2 margin); zero beyond the image.
    inside : numpy.ndarray of bool
        Whether a pixel lies in the image, same shape.
    """
    width = size + 2 * margin
    corners = np.ceil(positions - size / 2).astype(int)[:, ::-1] - margin
    rows, columns = (corners[:, axis, None] + np.arange(width) for axis in (0, 1))
    inside = ((rows >= 0) & (rows < image.shape[0]))[:, :, None] & ((columns >= 0) & (columns < image.shape[1]))[:, None]
    values = image[rows.clip(0, image.shape[0] - 1)[:, :, None], columns.clip(0, image.shape[1] - 1)[:, None]]
    return np.where(inside, values, 0.0).astype(float), inside
