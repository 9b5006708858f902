"""Measurements of sources in the units of a catalog: segments, apertures, extent, neighbors, flags."""

from __future__ import annotations

import dataclasses

import numpy as np

from rampflow import dq as dqflags
from rampflow.catalog import segments
from rampflow.catalog.circles import sum_in_circles
from rampflow.catalog.local_background import measure_local_background
from rampflow.catalog.stamps import finite_positions
from rampflow.step.declaration import Range
from rampflow.step.logs import step_logger
from rampflow.step.reference_checks import refuse_implausible

log = step_logger("source_catalog")

APERTURE_RADII = (0.1, 0.2, 0.4, 0.8, 1.6)  #: arcsec
ANNULUS_RADII = (2.4, 2.8)  #: arcsec, of the local background
#: Growth of the flux from 0.2 to 0.4 arcsec, in units of the PSF's, above which a source is extended.
EXTENDED_GROWTH = 1.2
AB_ZEROPOINT = 31.4  #: magnitude of 1 nJy

MOST_LIGHT = 0.9
MOST_LIGHT_RADIUS = Range(
    0.5,
    20,
    "pixels",
    "1.0 (F062) to 3.0 (F213), 13 in some synthetic references; radii in arcsec would be at most 0.4, in mas at least 100",
    quantity="radius of 90 % of the light of a PSF",
)
LEAST_ENCLOSED = 0.5  #: share of the light within the last radius of an apcorr reference


@dataclasses.dataclass
class Field:
    """An image to measure, its units and its WCS.

    Attributes
    ----------
    image : numpy.ndarray
        Count rate, DN/s, float32, shape (rows, columns); background-subtracted when sources are measured.
    err : numpy.ndarray
        Standard deviation of `image`, DN/s, float32, same shape.
    dq : numpy.ndarray
        Flags, uint32, same shape.
    mask : numpy.ndarray
        True where a pixel does not count, same shape.
    wcs : rampflow.wcs.wcs_tree.Wcs or None
        `None` if the pointing is not known.
    unit : float
        Flux density of 1 DN/s, nJy; NaN if it is not known.
    pixel_side : float
        Square root of the pixel area, arcsec: the unit of lengths of shapes.
    pixel_scale : float
        Length of a pixel along the north-south axis at the center of the image, arcsec: the unit of radii and distances.
    north : float
        Angle from +x to north at the center of the image, degrees counter-clockwise; NaN without a WCS.
    mirrored : bool
        With north up, is east to the right? It is to the left in an image as the sky is seen.
    """

    image: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    mask: np.ndarray
    wcs: object
    unit: float
    pixel_side: float
    pixel_scale: float
    north: float
    mirrored: bool


def scale_and_north(wcs, shape: tuple[int, int]) -> tuple[float, float]:
    """Measure pixel scale and orientation at the center of an image, by a step of 1 arcsec to the north.

    Parameters
    ----------
    wcs : rampflow.wcs.wcs_tree.Wcs
        WCS of the image.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    scale : float
        Arcsec per pixel.
    north : float
        Angle from +x to north, degrees counter-clockwise.
    """
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    ra, dec = wcs(x, y)
    x, y = wcs.invert(ra, dec)
    step = 1 / 3600
    # Within 1 arcsec of the pole a step north would cross it: a step south is taken instead, and reversed.
    sign = 1 if dec + step <= 90 else -1
    x_north, y_north = wcs.invert(ra, dec + sign * step)
    dx, dy = sign * (x_north - x), sign * (y_north - y)
    return float(1 / np.hypot(dx, dy)), float(np.degrees(np.arctan2(dy, dx)))


def is_mirrored(wcs, shape: tuple[int, int]) -> bool:
    """Find out whether an image shows the sky as in a mirror: with north up, east is to the right.

    Parameters
    ----------
    wcs : rampflow.wcs.wcs_tree.Wcs
        WCS of the image.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    bool
        True if a turn from +x to +y is one from north to west.
    """
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    ra, dec = (np.radians(angle) for angle in wcs(x + np.array([0, 1, 0]), y + np.array([0, 0, 1])))
    center, along_x, along_y = np.transpose([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    return bool(np.dot(center, np.cross(along_x - center, along_y - center)) > 0)


def position_angle(angle: np.ndarray, north: float, mirrored: bool) -> np.ndarray:
    """Convert angles in the image to position angles of the same axes on the sky.

    Parameters
    ----------
    angle : numpy.ndarray
        Angles from +x, degrees counter-clockwise.
    north : float
        The angle of north, likewise.
    mirrored : bool
        From `is_mirrored`.

    Returns
    -------
    numpy.ndarray
        Angles from north to east, 0 to 360 degrees. An axis has two, 180 degrees apart: this is that of its other end, as in
        romancal.
    """
    turn = north - angle if mirrored else angle - north
    return (180 + turn) % 360


def sky_position(wcs, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the sky position of pixels.

    Parameters
    ----------
    wcs : rampflow.wcs.wcs_tree.Wcs or None
        WCS of the image.
    x, y : numpy.ndarray
        Pixels, of the same shape.

    Returns
    -------
    ra : numpy.ndarray
        Right ascension, 0 to 360 degrees; NaN outside the bounding box of the WCS, and without a WCS.
    dec : numpy.ndarray
        Declination, degrees; NaN likewise.
    """
    if wcs is None or not len(x):
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    ra, dec = wcs(x, y)
    return np.mod(ra, 360), np.asarray(dec)


# ------------------------------------------------------------------------------------------------------------- segments
def measure_segments(field: Field, labels: np.ndarray, detection: np.ndarray) -> dict[str, np.ndarray]:
    """Measure centroids, shapes, and isophotal and Kron fluxes.

    Parameters
    ----------
    field : Field
        The image.
    labels : numpy.ndarray
        Segmentation map, int32, shape (rows, columns).
    detection : numpy.ndarray
        Smoothed image in which centroids and shapes are measured, in any unit, same shape.

    Returns
    -------
    dict
        Columns by name; and, for `flag_sources`, ``masked`` and ``unreliable`` as in
        `rampflow.catalog.segments.segment_properties`.
    """
    found = segments.segment_properties(field.image, field.err, field.mask, labels, detection)
    side, area = field.pixel_side, field.pixel_side**2
    major, minor, angle = found["semimajor"], found["semiminor"], np.degrees(found["angle"])
    top, bottom, left, right = found["boxes"].T
    columns = {
        "label": found["label"],
        "x_centroid": found["x"],
        "y_centroid": found["y"],
        "x_centroid_win": found["x_window"],
        "y_centroid_win": found["y_window"],
        "bbox_xmin": left,
        "bbox_xmax": right - 1,
        "bbox_ymin": top,
        "bbox_ymax": bottom - 1,
        "segment_area": found["area"] * area,
        "semimajor": major * side,
        "semiminor": minor * side,
        "fwhm": 2 * np.sqrt(np.log(2) * (major**2 + minor**2)) * side,
        "ellipticity": 1 - minor / major,
        "orientation_pix": angle,
        "orientation_sky": position_angle(angle, field.north, field.mirrored),
        "cxx": found["cxx"] / area,
        "cxy": found["cxy"] / area,
        "cyy": found["cyy"] / area,
        "kron_radius": found["kron_radius"] * side,
        "fluxfrac_radius_50": found["half_light_radius"] * side,
        "segment_flux": found["flux"] * field.unit,
        "segment_flux_err": found["flux_err"] * field.unit,
        "kron_flux": found["kron_flux"] * field.unit,
        "kron_flux_err": found["kron_flux_err"] * field.unit,
        "masked": found["masked"],
        "unreliable": found["unreliable"],
    }
    columns["kron_abmag"], columns["kron_abmag_err"] = ab_magnitude(columns["kron_flux"], columns["kron_flux_err"])
    return columns


def ab_magnitude(flux: np.ndarray, err: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert fluxes to AB magnitudes.

    Parameters
    ----------
    flux, err : numpy.ndarray
        Flux densities and their errors, nJy, shape (sources,).

    Returns
    -------
    magnitude : numpy.ndarray
        AB magnitude; NaN where the flux is not positive.
    magnitude_err : numpy.ndarray
        Its error; NaN likewise.
    """
    good = flux > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = AB_ZEROPOINT - 2.5 * np.log10(flux)
        magnitude_err = 2.5 * np.log10(1 + err / flux)
    return np.where(good, magnitude, np.nan), np.where(good, magnitude_err, np.nan)


# ------------------------------------------------------------------------------------------------------------ apertures
def aperture_names() -> list[str]:
    """List the columns of aperture fluxes.

    Returns
    -------
    list of str
        Names of the columns, in the order of `APERTURE_RADII`: ``aper04_flux`` is the flux within 0.4 arcsec.
    """
    return [f"aper{round(10 * radius):02d}_flux" for radius in APERTURE_RADII]


def measure_apertures(field: Field, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Measure fluxes in circles around sources, and the local background, which is not subtracted from them.

    Parameters
    ----------
    field : Field
        The image. Masked pixels count, as in romancal.
    x, y : numpy.ndarray
        Positions of the sources, pixels, shape (sources,).

    Returns
    -------
    dict
        Columns by name: fluxes (nJy) within `APERTURE_RADII`, and the background (nJy/arcsec²) within `ANNULUS_RADII`, with
        their errors; NaN outside the image.
    """
    positions = finite_positions(x, y)
    columns = {}
    for name, radius in zip(aperture_names(), APERTURE_RADII, strict=True):
        flux, err = sum_in_circles(field.image, field.err, positions, radius / field.pixel_scale)
        columns[name], columns[f"{name}_err"] = flux * field.unit, err * field.unit
    median, err = measure_local_background(field.image, positions, *(radius / field.pixel_scale for radius in ANNULUS_RADII))
    per_area = field.unit / field.pixel_scale**2
    return columns | {"aper_bkg_flux": median * per_area, "aper_bkg_flux_err": err * per_area}


def encircled_energy(radii, fractions, scale: float) -> dict[float, float]:
    """Interpolate the encircled energy of the PSF to the radii of the apertures.

    The interpolation is a monotone cubic (Fritsch & Carlson 1980, SIAM J. Numer. Anal. 17, 238) through the fractions, and zero
    at radius zero: it rises between them, and stays within them.

    Parameters
    ----------
    radii, fractions : array-like
        Radii, pixels (the unit of the schema of the reference), and the fraction of the energy within each of them, 0 to 1.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    dict
        Fraction by radius of the aperture (arcsec); NaN, with a line in the log, beyond the last of `radii`.

    Raises
    ------
    ValueError
        Radii that do not increase from 0 on, or fractions that decrease or lie outside 0 to 1.
    """
    from scipy.interpolate import PchipInterpolator

    radii, fractions = np.asarray(radii, float), np.asarray(fractions, float)
    if radii.ndim != 1 or radii.shape != fractions.shape or not radii.size:
        raise ValueError(f"ee_radii has the shape {radii.shape}, and ee_fractions {fractions.shape}")
    if not (radii[0] >= 0 and (np.diff(radii) > 0).all() and np.isfinite(radii).all()):
        raise ValueError("ee_radii must be finite, at least 0 pixels, and increase")
    if not (fractions[0] >= 0 and (np.diff(fractions) >= 0).all() and fractions[-1] <= 1):
        raise ValueError("ee_fractions must lie within 0 and 1, and not decrease")
    if radii[0] > 0:
        radii, fractions = np.append(0, radii), np.append(0, fractions)
    curve = PchipInterpolator(radii, fractions, extrapolate=False) if radii.size > 1 else lambda radius: np.nan
    energy = {radius: float(curve(radius / scale)) for radius in APERTURE_RADII}
    if beyond := [f"{radius:g}" for radius, fraction in energy.items() if np.isnan(fraction)]:
        log.info(
            "The apcorr reference ends at a radius of %.2f arcsec: the encircled energy within %s arcsec is not known",
            radii[-1] * scale,
            ", ".join(beyond),
        )
    return energy


def radius_of(fraction: float, radii, fractions) -> float:
    """Interpolate the radius within which a fraction of the light lies, linearly between the known radii and zero.

    Parameters
    ----------
    fraction : float
        Fraction of the light, 0 to 1.
    radii, fractions : array-like
        As in `encircled_energy`.

    Returns
    -------
    float
        Radius, pixels; NaN if all fractions are smaller.
    """
    radii, fractions = np.append(0.0, radii), np.append(0.0, fractions)
    if fractions[-1] < fraction:
        return np.nan
    last = int(np.argmax(fractions >= fraction))  # not numpy.interp: fractions may repeat
    share = (fraction - fractions[last - 1]) / (fractions[last] - fractions[last - 1])
    return float(radii[last - 1] + share * (radii[last] - radii[last - 1]))


def check_energy(path, field: str, radii, fractions) -> None:
    """Refuse encircled energies that are not of a PSF: radii in another unit, or less than half of the light in all.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    field : str
        Field of the reference that holds the energies, for the message.
    radii, fractions : array-like
        As in `encircled_energy`.

    Raises
    ------
    RampflowError
        The last fraction is not from `LEAST_ENCLOSED` to 1, or the radius of 90 % of the light not in `MOST_LIGHT_RADIUS`.
    """
    radii, fractions = np.asarray(radii, float), np.asarray(fractions, float)
    refuse_implausible(path, f"the last of {field}.ee_fractions", fractions[-1], (LEAST_ENCLOSED, 1.0), "", "apcorr")
    radius, low = radius_of(MOST_LIGHT, radii, fractions), MOST_LIGHT_RADIUS.minimum
    if np.isnan(radius):  # it is farther out than this
        radius, low = radii[-1], 0.0
    refuse_implausible(
        path,
        f"the {MOST_LIGHT_RADIUS.quantity} ({field})",
        radius,
        (low, MOST_LIGHT_RADIUS.maximum),
        MOST_LIGHT_RADIUS.unit,
        "apcorr",
    )


def flag_extended(columns: dict, energy: dict | None) -> np.ndarray:
    """Mark sources whose flux grows from 0.2 to 0.4 arcsec by more than a point source's.

    Parameters
    ----------
    columns : dict
        Columns by name, with ``aper02_flux`` and ``aper04_flux``.
    energy : dict or None
        Encircled energy of the PSF by aperture radius (arcsec).

    Returns
    -------
    numpy.ndarray of bool
        Whether each source is extended. False for all sources, with a warning, if `energy` is `None` or NaN at these radii: the
        data model has no value for "unknown".
    """
    small, large = columns["aper02_flux"], columns["aper04_flux"]
    if energy is None or not energy[0.2] > 0 or np.isnan(energy[0.4]):
        log.warning(
            "is_extended is false for all sources: the encircled energy within 0.2 and 0.4 arcsec is not known (apcorr)"
        )
        return np.zeros(len(small), bool)
    with np.errstate(invalid="ignore"):
        return large > small * (EXTENDED_GROWTH * energy[0.4] / energy[0.2])


# ------------------------------------------------------------------------------------------------- neighbors and flags
def find_neighbors(label: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Find the nearest other source of each source.

    Parameters
    ----------
    label : numpy.ndarray
        Labels of the sources, shape (sources,).
    x, y : numpy.ndarray
        Positions, pixels, same shape.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    dict
        ``nn_label``, and ``nn_distance`` in arcsec; −1 and NaN without another source.
    """
    from scipy.spatial import KDTree

    nearest, distance = np.full(len(label), -1, np.int32), np.full(len(label), np.nan)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if finite.size > 1:
        positions = np.column_stack([x, y])[finite]
        separation, index = KDTree(positions).query(positions, k=[2])
        nearest[finite], distance[finite] = np.asarray(label)[finite[index[:, 0]]], separation[:, 0] * scale
    return {"nn_label": nearest, "nn_distance": distance}


def flag_sources(dq: np.ndarray, x: np.ndarray, y: np.ndarray, masked: np.ndarray, unreliable: np.ndarray) -> np.ndarray:
    """Set the warning flags of sources.

    Parameters
    ----------
    dq : numpy.ndarray
        Flags of the image, uint32, shape (rows, columns).
    x, y : numpy.ndarray
        Centroids of the sources, pixels, shape (sources,).
    masked : numpy.ndarray of bool
        Whether a masked pixel touches the segment or lies in the Kron aperture of the source, so that light is missing.
    unreliable : numpy.ndarray of bool
        Whether more light is missing than the error of the Kron flux allows.

    Returns
    -------
    numpy.ndarray of int32
        Flags of each source: DO_NOT_USE if the pixel of the centroid has it (as in romancal), or the centroid is outside the
        image; OTHER_BAD_PIXEL if `masked`; UNRELIABLE_ERROR if `unreliable`.
    """
    flags = np.full(len(x), dqflags.DO_NOT_USE, np.int32)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    column, row = (np.round(position[finite]).astype(int) for position in (x, y))
    inside = (column >= 0) & (row >= 0) & (column < dq.shape[1]) & (row < dq.shape[0])
    flags[finite[inside]] = dq[row[inside], column[inside]] & np.uint32(dqflags.DO_NOT_USE)
    flags[masked] |= dqflags.OTHER_BAD_PIXEL
    flags[unreliable] |= dqflags.UNRELIABLE_ERROR
    return flags
