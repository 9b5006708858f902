"""Local background of sources in rings.

Stands for
    photutils 3.0.0, `photutils.aperture.ApertureStats` of a `CircularAnnulus` with ``SigmaClip(3.0)``
Equal
    to 1e-9
Saves
    2.1 s of CPU (0.2 s instead of 2.3 s) and 470 MB for 5,000 sources, 0.1 s for 300
Tests
    test_ring_clipping_agrees_with_astropy
"""

from __future__ import annotations

import numpy as np


def measure_local_background(
    image: np.ndarray, positions: np.ndarray, inner: float, outer: float
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the sigma-clipped median of the pixels in a ring around each source.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (rows, columns); pixels that are not finite are left out.
    positions : numpy.ndarray
        Positions x and y of each source, pixels, shape (sources, 2).
    inner, outer : float
        Radii of the ring, pixels.

    Returns
    -------
    median : numpy.ndarray
        Background of each source, in the unit of the image; NaN without a pixel.
    err : numpy.ndarray
        Its standard error.
    """
    from rampflow.kernels.source_catalog import clip_rings

    x, y = np.ascontiguousarray(positions.T, np.float64)  # the loop is compiled once, not anew for a single source
    median, std, count = clip_rings(image, x, y, inner, outer)
    with np.errstate(divide="ignore", invalid="ignore"):
        return median, np.sqrt(np.pi / (2 * count)) * std  # standard error of a median
