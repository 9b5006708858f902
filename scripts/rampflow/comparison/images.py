"""Differences of two calibrated images of an exposure, and of their segmentation maps."""

from __future__ import annotations

import numpy as np

from rampflow import dq
from rampflow.step.exposure import Exposure
from rampflow.wcs.wcs_tree import Wcs

#: Points a side of the grid at which two WCSs are compared.
GRID = 9


def same_values(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Tell where two arrays have the same value; NaN equals NaN.

    Parameters
    ----------
    one, other : numpy.ndarray
        Arrays of one shape.

    Returns
    -------
    numpy.ndarray
        Of the same shape, bool.
    """
    equal = one == other
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        equal |= np.isnan(one) & np.isnan(other)
    return equal


def different_arrays(old: Exposure, new: Exposure) -> list[str]:
    """List the arrays of two exposures that are not the same.

    Parameters
    ----------
    old, new : Exposure
        Files of one data model.

    Returns
    -------
    list of str
        Names of the arrays that only one of them has, or whose types, shapes or values differ.
    """
    names = [{name for name, node in e.roman.items() if hasattr(node, "dtype")} for e in (old, new)]
    different = names[0] ^ names[1]
    for name in names[0] & names[1]:
        one, other = (e.array(name, kinds="fiub") for e in (old, new))
        if one.shape != other.shape or one.dtype.newbyteorder("=") != other.dtype.newbyteorder("="):
            different.add(name)
        elif not same_values(one.read(), other.read()).all():
            different.add(name)
    return sorted(different)


def compare_images(
    old: dict[str, np.ndarray], new: dict[str, np.ndarray]
) -> tuple[dict[str, float], dict[str, dict[str, int]], np.ndarray]:
    """Compare the values and the flags of two images.

    Parameters
    ----------
    old, new : dict of numpy.ndarray
        ``data`` and ``err`` (DN/s) and ``dq`` (flags) of each image, of one shape.

    Returns
    -------
    measures : dict of str to float
        Measures of the images, named as in `rampflow.comparison.measures`.
    flags : dict
        For each flag that differs, by its name: in how many pixels it was ``set`` and ``cleared``.
    significance : numpy.ndarray
        (new - old) / err of the old image, float32; NaN where a pixel is not good in both.
    """
    good = [~dq.has(image["dq"], dq.DO_NOT_USE) & np.isfinite(image["data"]) for image in (old, new)]
    both = good[0] & good[1]
    difference = new["data"].astype(np.float32) - old["data"]
    with np.errstate(divide="ignore", invalid="ignore"):
        significance = np.where(both & np.isfinite(old["err"]) & (old["err"] > 0), difference / old["err"], np.nan)
    values = significance[np.isfinite(significance)]
    changed = old["dq"] ^ new["dq"]
    measures = {
        "pixels_compared": int(both.sum()),
        "pixels_different": int((both & (difference != 0)).sum()),
        "image_median": float(np.median(values)) if values.size else np.nan,
        "image_rms": float(np.sqrt(np.mean(np.square(values, dtype=float)))) if values.size else np.nan,
        "image_beyond_5": float(np.mean(np.abs(values) > 5)) if values.size else np.nan,
        "pixels_gained": int((good[1] & ~good[0]).sum()),
        "pixels_lost": int((good[0] & ~good[1]).sum()),
        "flags_different": int(np.count_nonzero(changed)),
    }
    return measures, count_changed_flags(changed[changed != 0], new["dq"][changed != 0]), significance.astype(np.float32)


def count_changed_flags(changed: np.ndarray, new: np.ndarray) -> dict[str, dict[str, int]]:
    """Count by name the flags that differ.

    Parameters
    ----------
    changed : numpy.ndarray
        The bits that differ in each pixel.
    new : numpy.ndarray
        The new flags of these pixels.

    Returns
    -------
    dict
        For each flag that differs, by its name: in how many pixels it was ``set`` and ``cleared``.
    """
    counts = {}
    for name, flag in dq.pixel_flags().items():
        number, now_set = int(dq.has(changed, flag).sum()), int(dq.has(changed & new, flag).sum())
        if number:
            counts[name] = {"set": now_set, "cleared": number - now_set}
    return counts


def compare_wcs(old: dict | None, new: dict | None, shape: tuple[int, int]) -> dict[str, float]:
    """Compare the positions that two WCSs give the pixels of an image.

    Parameters
    ----------
    old, new : dict or None
        Tree of each WCS; `None` where an image has none.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    dict of str to float
        Median and largest distance (mas), named as in `rampflow.comparison.measures`. 0 if neither image has a WCS, NaN if one
        has none, or no position is finite.
    """
    if old is None and new is None:
        return {"wcs_shift_median": 0.0, "wcs_shift_max": 0.0}
    if old is None or new is None:
        return {"wcs_shift_median": np.nan, "wcs_shift_max": np.nan}
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, GRID), np.linspace(0, shape[0] - 1, GRID))
    (ra0, dec0), (ra1, dec1) = (np.radians(Wcs(tree)(x, y)) for tree in (old, new))
    # The haversine formula, which keeps its precision for small distances.
    chord = np.sin((dec1 - dec0) / 2) ** 2 + np.cos(dec0) * np.cos(dec1) * np.sin((ra1 - ra0) / 2) ** 2
    distances = np.degrees(2 * np.arcsin(np.sqrt(chord))) * 3.6e6
    if not np.isfinite(distances).any():
        return {"wcs_shift_median": np.nan, "wcs_shift_max": np.nan}
    return {"wcs_shift_median": float(np.nanmedian(distances)), "wcs_shift_max": float(np.nanmax(distances))}
