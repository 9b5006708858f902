"""Sharpness and roundness of sources at given positions.

Stands for
    photutils 3.0.0, `photutils.detection.DAOStarFinder` with ``xycoords``
Equal
    to 1e-6
Saves
    no time: `DAOStarFinder` leaves out sources without saying which (7 of 208 in a sparse field, 95 of 4,942 in a crowded one)
Tests
    test_sharpness_and_roundness_agree_with_photutils
"""

from __future__ import annotations

import math

import numpy as np

from rampflow.catalog.stamps import cut_stamps, finite_positions

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))


def measure_daofind(image: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm: float) -> dict[str, np.ndarray]:
    """Measure sharpness and roundness as DAOFIND defines them (Stetson 1987, PASP 99, 191).

    Parameters
    ----------
    image : numpy.ndarray
        Background-subtracted image, shape (rows, columns).
    x, y : numpy.ndarray
        Positions of the sources, pixels, shape (sources,).
    fwhm : float
        Full width at half maximum of the Gaussian that a source is compared with, pixels.

    Returns
    -------
    dict
        ``sharpness`` and ``roundness1``, without a unit; NaN where there is no light.
    """
    sigma = fwhm * FWHM_TO_SIGMA
    radius = max(2.0, 1.5 * sigma)
    reach = int(radius)
    size, center = 2 * reach + 1, reach
    offsets = np.arange(-reach, reach + 1)
    square = offsets[:, None] ** 2 + offsets**2
    inside = np.sqrt(square) <= radius
    gaussian = np.exp(-square / (2 * sigma**2)) * inside
    kernel = (gaussian - gaussian.sum() / inside.sum()) / ((gaussian**2).sum() - gaussian.sum() ** 2 / inside.sum()) * inside

    stamps, in_image = cut_stamps(image, finite_positions(x, y), size, margin=reach)
    data, in_image = (array[:, reach:-reach, reach:-reach] for array in (stamps, in_image))
    windows = np.lib.stride_tricks.sliding_window_view(stamps, (size, size), axis=(1, 2))
    density = windows[..., inside] @ kernel[inside]  # a NaN in the corner of a window, beyond the circle, does not count
    density[~in_image] = 0
    peak, height = data[:, center, center], density[:, center, center].copy()
    around = (np.sum(data * inside, axis=(1, 2)) - peak) / (inside.sum() - 1)

    # Quarters around the central pixel, each with the half-axis that follows it.
    signs = np.zeros((size, size))
    signs[: center + 1, center + 1 :] = signs[center:, :center] = -1
    signs[:center, : center + 1] = signs[center + 1 :, center:] = 1
    density[:, center, center] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "sharpness": (peak - around) / height,
            "roundness1": 2 * np.sum(density * signs, axis=(1, 2)) / np.abs(density).sum(axis=(1, 2)),
        }
