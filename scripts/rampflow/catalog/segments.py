"""Centroids, shapes, and isophotal and Kron fluxes of the sources in a segmentation map.

The quantities are SExtractor's (Bertin & Arnouts 1996, A&AS 117, 393), with the limits that photutils' `SourceCatalog` sets
them; its import alone takes longer than to measure the sources of a whole image.
"""

from __future__ import annotations

import numpy as np

from rampflow.catalog.detection import FWHM_TO_SIGMA

#: A Kron aperture is the ellipse of the moments times this and the Kron radius, which is at least `KRON_LEAST`.
KRON_SCALE, KRON_LEAST = 2.5, 1.4
KRON_REACH = 6.0  #: Radius that the Kron radius is measured within; beyond, it has no meaning
THINNEST = 1 / 12  #: Variance (pixels²) that a source narrower than a pixel is widened by
MISSING_LIGHT = 0.01  #: Part of a flux that may lie in masked pixels before it counts as unreliable
SMALLEST_RADIUS = 0.1  #: Half-light radii are looked for from here on, pixels
SMALLEST_WINDOW = 0.5  #: Half-light radius of the narrowest window, pixels


def measure(image: np.ndarray, err: np.ndarray, mask: np.ndarray, labels: np.ndarray, detection: np.ndarray) -> dict:
    """Measure all sources.

    Parameters
    ----------
    image, err : numpy.ndarray
        Background-subtracted image and its error.
    mask : numpy.ndarray
        True where a pixel does not count.
    labels : numpy.ndarray
        Segmentation map, int32: 0 where there is no source.
    detection : numpy.ndarray
        Smoothed image that centroids and shapes come from, in any unit.

    Returns
    -------
    dict
        Arrays by name, in pixels, degrees and the unit of the image; ``masked`` is true where a masked pixel touches the
        segment or the Kron aperture, ``unreliable`` where the Kron flux lacks more light than its error says.
    """
    from scipy.ndimage import find_objects

    from rampflow.kernels.source_catalog import measure_kron_radii, measure_moments, measure_windowed_centroids

    places = find_objects(labels)
    label = np.array([i for i, place in enumerate(places, 1) if place is not None], np.int32)
    boxes = np.array([[n for s in places[i - 1] for n in (s.start, s.stop)] for i in label]).reshape(-1, 4)
    moments = measure_moments(detection, image, err, mask, labels, label, boxes)
    x, y, xx, xy, yy, flux, flux_err, area = moments.T
    shape = ellipses(xx, xy, yy)
    angle, cxx, cxy, cyy = (shape[name] for name in ("angle", "cxx", "cxy", "cyy"))
    kron = measure_kron_radii(image, mask, labels, label, x, y, cxx, cxy, cyy, KRON_REACH, KRON_LEAST)
    kron = np.where(kron > KRON_REACH, np.nan, np.maximum(kron, KRON_LEAST))
    axes = [KRON_SCALE * kron * shape[name] for name in ("semimajor", "semiminor")]
    arrays = image, err, mask, labels
    kron_flux, kron_flux_err = sum_kron(*arrays, label, x, y, *axes, angle)
    masked, unreliable = find_missing_light(detection, err, mask, labels, label, x, y, *axes, angle, kron_flux, kron_flux_err)
    half_light = half_light_radii(*arrays, label, x, y, kron_flux, axes[0])
    sigma = 2 * FWHM_TO_SIGMA * np.maximum(half_light, SMALLEST_WINDOW)
    window = measure_windowed_centroids(image, mask, labels, label, x, y, sigma)
    # A window that has lost its source to a neighbour, or the image's edge, is of no use.
    dx, dy = window[0] - x, window[1] - y
    lost = np.isnan(window).any(axis=0) & np.isfinite(sigma) | (cxx * dx**2 + cxy * dx * dy + cyy * dy**2 > 1)
    window = np.where(lost, [x, y], window)
    return shape | {
        "label": label,
        "x": x,
        "y": y,
        "x_window": window[0],
        "y_window": window[1],
        "boxes": boxes,
        "area": np.where(area > 0, area, np.nan),
        "kron_radius": kron,
        "half_light_radius": half_light,
        "flux": flux,
        "flux_err": flux_err,
        "kron_flux": kron_flux,
        "kron_flux_err": kron_flux_err,
        "masked": masked | touches_masked(mask, labels)[label],
        "unreliable": unreliable,
    }


def touches_masked(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether a masked pixel lies in or beside (8 neighbours) the segment of each label from 0 on."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    found = np.zeros(labels.max() + 1, bool)
    found[labels[grown]] = True
    return found


def ellipses(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> dict[str, np.ndarray]:
    """Ellipses of the Gaussians with some variances (pixels²).

    Returns
    -------
    dict
        ``semimajor``, ``semiminor`` (1 σ), ``angle`` of the major axis from +x (radians), and the coefficients ``cxx``,
        ``cxy``, ``cyy`` of the equation of the ellipse.
    """
    invalid = ~(xx * yy - xy**2 >= 0)
    xx, xy, yy = (np.where(invalid, np.nan, values) for values in (xx, xy, yy))
    while (thin := xx * yy - xy**2 < THINNEST**2).any():
        xx, yy = xx + THINNEST * thin, yy + THINNEST * thin
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major = np.sqrt(mean + half)
    minor = np.sqrt(np.maximum(mean - half, 0))
    angle = np.arctan2(2 * xy, xx - yy) / 2 % (2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "semimajor": major,
            "semiminor": minor,
            "angle": angle,
            "cxx": (cosine / major) ** 2 + (sine / minor) ** 2,
            "cxy": 2 * cosine * sine * (1 / major**2 - 1 / minor**2),
            "cyy": (sine / major) ** 2 + (cosine / minor) ** 2,
        }


def sum_kron(image, err, mask, labels, label, x, y, major, minor, angle) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes in the Kron apertures and their errors; NaN without an aperture or a pixel in it."""
    from rampflow.kernels.source_catalog import sum_ellipse

    result = np.full((2, label.size), np.nan)
    for i in np.flatnonzero(np.isfinite([x, y, major, minor, angle]).all(axis=0) & (minor > 0)):
        *sums, count = sum_ellipse(image, err, mask, labels, label[i], x[i], y[i], major[i], minor[i], angle[i])
        if count > 0:
            result[:, i] = sums
    return result[0], result[1]


def find_missing_light(detection, err, mask, labels, label, x, y, major, minor, angle, flux, flux_err):
    """Where masked pixels lie in the Kron apertures, and where they hold more light than may be missing.

    What they hold is estimated from the smoothed image, where they are interpolated.

    Returns
    -------
    masked : numpy.ndarray
        A masked pixel lies in the aperture, in whole or in part.
    unreliable : numpy.ndarray
        The light estimated to be missing is more than the error of the flux or more than `MISSING_LIGHT` of the flux, or can't
        be estimated.
    """
    from rampflow.kernels.source_catalog import sum_ellipse

    masked, unreliable, nothing = np.zeros(label.size, bool), np.zeros(label.size, bool), np.zeros_like(mask)
    for i in np.flatnonzero(np.isfinite([x, y, major, minor, angle]).all(axis=0) & (minor > 0)):
        ellipse = label[i], x[i], y[i], major[i], minor[i], angle[i]
        whole, _, count = sum_ellipse(detection, err, nothing, labels, *ellipse)
        seen, _, good = sum_ellipse(detection, err, mask, labels, *ellipse)
        masked[i] = count > good
        if masked[i]:
            share = (whole - seen) / seen if seen > 0 else np.nan
            unreliable[i] = not (share <= MISSING_LIGHT and share * flux[i] <= flux_err[i])
    return masked, unreliable


def half_light_radii(image, err, mask, labels, label, x, y, flux, largest) -> np.ndarray:
    """Radii of the circles with half the flux, no larger than `largest`; NaN where there is none."""
    from scipy.optimize import brentq

    from rampflow.kernels.source_catalog import sum_ellipse

    result = np.full(label.size, np.nan)
    for i in np.flatnonzero(np.isfinite([x, y, flux, largest]).all(axis=0) & (flux != 0)):

        def missing(radius, i=i):
            total, _, _ = sum_ellipse(image, err, mask, labels, label[i], x[i], y[i], radius, radius, 0.0)
            return 1 - 2 * total / flux[i]

        # Negative pixels can take the flux below the half again: then a smaller circle is the limit.
        at_least, limit, step = missing(SMALLEST_RADIUS), largest[i], largest[i] / 10
        while limit > SMALLEST_RADIUS and at_least * missing(limit) > 0:
            limit -= step
        if limit > SMALLEST_RADIUS:
            result[i] = brentq(missing, SMALLEST_RADIUS, limit)
    return result
