"""Sums of the pixels in circles.

Stands for
    photutils 3.0.0, `photutils.aperture.CircularAperture` with ``method="exact"``
Equal
    to 1e-9
Saves
    the import of photutils, together with `rampflow.catalog.segments`, which has the figures
Tests
    test_circles_agree_with_photutils
"""

from __future__ import annotations

import numpy as np


def sum_in_circles(
    image: np.ndarray, err: np.ndarray, positions: np.ndarray, radius: float, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the pixels in a circle around each source, each by the fraction of it that lies inside.

    Parameters
    ----------
    image, err : numpy.ndarray
        Image and its error, float32, shape (rows, columns).
    positions : numpy.ndarray
        Positions x and y of each source, pixels, shape (sources, 2).
    radius : float
        Radius, pixels.
    mask : numpy.ndarray, optional
        True where a pixel does not count, same shape as the image; by default, all pixels count.

    Returns
    -------
    flux : numpy.ndarray
        Sum of each circle, in the unit of the image, float64, shape (sources,); NaN outside the image.
    err : numpy.ndarray
        Its error.
    """
    from rampflow.kernels.source_catalog import sum_circles

    if mask is None:
        mask = np.zeros(image.shape, bool)
    x, y = np.ascontiguousarray(positions.T, np.float64)  # the loop is compiled once, not anew for a single source
    return sum_circles(image, err, mask, x, y, float(radius))
