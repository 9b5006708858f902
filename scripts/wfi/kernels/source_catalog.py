"""Compiled loops of the source_catalog step."""

import numpy as np
from numba import njit


# ------------------------------------------------------------------------------------------------------------ detection
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _weigh(values, taps, result):
    """Correlate a padded row with a profile."""
    for x in range(result.size):
        total = 0.0
        for k in range(taps.size):
            total += taps[k] * values[x + k]
        result[x] = total


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _add_row(row, tap, total):
    for x in range(row.size):
        total[x] += tap * row[x]


@njit(cache=True, nogil=True)
def smooth_rows(image, mask, taps, start, result):
    """Convolve rows of an image with a separable kernel: the weighted mean of the pixels that are not masked.

    Beyond its edges the image is zero there, and not masked.

    Parameters
    ----------
    image : numpy.ndarray
        float32, (rows, columns).
    mask : numpy.ndarray
        bool.
    taps : numpy.ndarray
        The kernel's profile along either axis, of odd length and sum 1.
    start : int
        First row wanted.
    result : numpy.ndarray
        float32: written, from `start` on; NaN where all is masked.
    """
    rows, columns = image.shape
    reach = taps.size // 2
    wanted = result.shape[0]
    # First along the rows, once for each that the kernel touches; rows without a mask have the weight 1.
    sums = np.zeros((wanted + 2 * reach, columns))
    weights = np.ones((wanted + 2 * reach, columns))
    values, good = np.zeros(columns + 2 * reach), np.ones(columns + 2 * reach)
    whole = np.ones(wanted + 2 * reach, np.bool_)
    for i in range(wanted + 2 * reach):
        y = start - reach + i
        if y < 0 or y >= rows:
            continue
        for x in range(columns):
            masked = mask[y, x]
            values[reach + x] = 0.0 if masked else image[y, x]
            good[reach + x] = 0.0 if masked else 1.0
            if masked:
                whole[i] = False
        _weigh(values, taps, sums[i])
        if not whole[i]:
            _weigh(good, taps, weights[i])
    total, weight = np.empty(columns), np.empty(columns)
    for i in range(wanted):
        total[:] = 0.0
        weight[:] = 0.0
        for k in range(taps.size):
            _add_row(sums[i + k], taps[k], total)
        if whole[i : i + taps.size].all():
            for x in range(columns):
                result[i, x] = total[x]
            continue
        for k in range(taps.size):
            _add_row(weights[i + k], taps[k], weight)
        for x in range(columns):
            # A weight that is but rounding is none: all pixels under the kernel are masked.
            result[i, x] = total[x] / weight[x] if weight[x] > 1e-12 else np.nan
