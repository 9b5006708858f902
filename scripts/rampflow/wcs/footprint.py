"""Footprints of images and sizes of their pixels, from a WCS or a distortion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

#: Distance from an image, pixels, beyond which no bounding box of its WCS ends: a detector has as many rows and columns. A cut
#: of an image may keep the box of the whole.
FARTHEST_END = 4096

Box = tuple[tuple[float, float], tuple[float, float]]  #: first and last x, and first and last y


def image_box(box: Any, shape: tuple[int, ...]) -> Box:
    """Bounding box of a WCS; that of the image, whole pixels, where it has none or one that is impossible.

    Parameters
    ----------
    box : iterable or None
        First and last x, and first and last y, as the WCS has them.
    shape : tuple of int
        Shape of the image; its last two axes are rows and columns.

    Returns
    -------
    tuple
        `box`, if it isn't empty and ends nowhere farther than `FARTHEST_END` from the image; else that of the image.
    """
    rows, columns = shape[-2:]
    whole = (-0.5, columns - 0.5), (-0.5, rows - 0.5)
    if box is None:
        return whole
    x, y = ((float(low), float(high)) for low, high in box)
    limits = ((start - FARTHEST_END, end + FARTHEST_END) for start, end in whole)
    possible = all(start <= low < high <= end for (low, high), (start, end) in zip((x, y), limits, strict=True))
    return (x, y) if possible else whole


def pixel_width(distortion: Callable, shape: tuple[int, int]) -> float:
    """Width of a pixel in the middle of a detector: the square root of its area.

    Parameters
    ----------
    distortion : callable
        Transform from pixels (x, y) to a plane, as an astropy.modeling.Model.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    float
        Width in the unit of the plane.
    """
    u, v = distortion(*_around_middle(shape))
    return float(abs((u[0] - u[1]) * (v[2] - v[3]) - (u[2] - u[3]) * (v[0] - v[1])) ** 0.5)


def middle_of(distortion: Callable, shape: tuple[int, int]) -> tuple[float, float]:
    """Compute the position of the middle of a detector.

    Parameters
    ----------
    distortion : callable
        Transform from pixels (x, y) to a plane, as an astropy.modeling.Model.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    u : float
        First coordinate, in the unit of the plane.
    v : float
        Second coordinate.
    """
    u, v = distortion(*_around_middle(shape))
    return float(np.mean(u)), float(np.mean(v))


def pixel_solid_angle(wcs: Callable, shape: tuple[int, int]) -> float:
    """Compute the solid angle of a pixel in the middle of an image.

    Parameters
    ----------
    wcs : rampflow.wcs.wcs_tree.Wcs or gwcs.wcs.WCS
        From pixels (x, y) to (ra, dec) in degrees.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    float
        Solid angle, sr; NaN where the WCS has no position there.
    """
    longitude, latitude = np.radians(wcs(*_around_middle(shape)))
    points = np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]).T
    return float(np.linalg.norm(np.cross(points[0] - points[1], points[2] - points[3])))


def _around_middle(shape):
    # x and y of points half a pixel to the right and left of the middle, and above and below it.
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return np.array([x + 0.5, x - 0.5, x, x]), np.array([y, y, y + 0.5, y - 0.5])


def s_region(wcs: Any) -> str | None:
    """Footprint of an image: the corners of the WCS's bounding box on the sky.

    Parameters
    ----------
    wcs : rampflow.wcs.wcs_tree.Wcs or gwcs.wcs.WCS
        From pixels (x, y) to (ra, dec) in degrees.

    Returns
    -------
    str or None
        ``POLYGON ICRS`` and ra, dec of the corners in degrees, ra from 0 to 360; `None` where a corner is not finite.
    """
    (x0, x1), (y0, y1) = wcs.bounding_box
    corners = np.transpose(wcs(np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0])))
    if not np.isfinite(corners).all():
        return None
    corners[corners[:, 0] < 0, 0] += 360
    # Two spaces after ICRS, as in romancal's products, so that a search for the one finds the other.
    return "POLYGON ICRS  " + " ".join(f"{value:.9f}" for value in corners.ravel())


def footprint_distance(one: str | None, other: str | None) -> float | None:
    """Largest distance from a corner of one footprint to the nearest corner of another.

    Parameters
    ----------
    one, other : str or None
        Footprints as `s_region` writes them.

    Returns
    -------
    float or None
        Distance, arcsec; `None` where one of them is not a polygon (a placeholder).
    """
    vectors = []
    for region in (one, other):
        words = region.split() if isinstance(region, str) else []
        try:
            angles = np.radians(np.array(words[2:], float).reshape(-1, 2))
        except ValueError:
            return None
        if [word.upper() for word in words[:2]] != ["POLYGON", "ICRS"] or not len(angles) or not np.isfinite(angles).all():
            return None
        ra, dec = angles.T
        vectors.append(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1))
    chords = np.linalg.norm(vectors[0][:, None] - vectors[1], axis=-1).min(axis=1)
    return float(np.degrees(2 * np.arcsin(np.minimum(chords / 2, 1))).max() * 3600)
