"""Measure sources: segments, apertures, sharpness, neighbours, flags. Each function gives catalog columns by name."""

from __future__ import annotations

import dataclasses

import numpy as np

from rampflow import dq as dqflags
from rampflow.catalog import segments
from rampflow.catalog.detection import FWHM_TO_SIGMA
from rampflow.catalog.psf import FAR_OUTSIDE
from rampflow.step.declaration import Range
from rampflow.step.logs import step_logger
from rampflow.step.reference_checks import refuse_implausible

log = step_logger("source_catalog")

APERTURE_RADII = (0.1, 0.2, 0.4, 0.8, 1.6)  #: arcsec
ANNULUS_RADII = (2.4, 2.8)  #: arcsec, of the local background
#: A source whose flux grows from 0.2 to 0.4 arcsec by this factor more than the PSF's is extended.
EXTENDED_GROWTH = 1.2
AB_ZEROPOINT = 31.4  #: magnitude of 1 nJy

MOST_LIGHT = 0.9
MOST_LIGHT_RADIUS = Range(
    0.5,
    20,
    "pixels",
    "1.0 (F062) to 3.0 (F213), 13 in some synthetic references; in arcsec at most 0.4, in mas at least 100",
    quantity="radius of 90 % of the light of a PSF",
)
LEAST_ENCLOSED = 0.5  #: share of the light within the last radius of an apcorr reference


@dataclasses.dataclass
class Field:
    """An image to measure, and what its pixels mean.

    Attributes
    ----------
    image : numpy.ndarray
        Background-subtracted count rate, DN/s, float32.
    err : numpy.ndarray
        Its error, float32.
    dq : numpy.ndarray
        Flags, uint32.
    mask : numpy.ndarray
        True where a pixel does not count.
    wcs : rampflow.wcs.wcs_tree.Wcs or None
        None where the pointing is not known.
    unit : float
        nJy of 1 DN/s; NaN where it is not known.
    pixel_side : float
        Square root of the pixel's area, arcsec; shapes are given by it.
    pixel_scale : float
        Along the north-south axis at the centre of the image, arcsec; radii and distances are given by it.
    north : float
        Angle from +x to north at the centre of the image, degrees counter-clockwise; NaN without a WCS.
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


def scale_and_north(wcs, shape: tuple[int, int]) -> tuple[float, float]:
    """Pixel scale (arcsec) and angle from +x to north (degrees) at the centre of an image, from a step of 1 arcsec north."""
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    ra, dec = wcs(x, y)
    x, y = wcs.invert(ra, dec)
    step = 1 / 3600
    # Beyond a pole, north is the other way: there a step to the south, taken backwards, is as good.
    sign = 1 if dec + step <= 90 else -1
    x_north, y_north = wcs.invert(ra, dec + sign * step)
    dx, dy = sign * (x_north - x), sign * (y_north - y)
    return float(1 / np.hypot(dx, dy)), float(np.degrees(np.arctan2(dy, dx)))


def sky_position(wcs, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension (0 to 360) and declination of pixels, degrees; NaN outside the WCS's bounding box and without a WCS."""
    if wcs is None or not len(x):
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    ra, dec = wcs(x, y)
    return np.mod(ra, 360), np.asarray(dec)


# ------------------------------------------------------------------------------------------------------------- segments
def measure_segments(field: Field, labels: np.ndarray, detection: np.ndarray) -> dict[str, np.ndarray]:
    """Centroids, shapes, and isophotal and Kron fluxes.

    Parameters
    ----------
    field : Field
    labels : numpy.ndarray
        Segmentation map, int32.
    detection : numpy.ndarray
        Smoothed image that centroids and shapes come from, in any unit.

    Returns
    -------
    dict
        Columns; and for `flag_sources` ``masked``: whether pixels of the segment or the Kron aperture are masked, and
        ``unreliable``: whether the Kron flux lacks more light for that than its error says.
    """
    found = segments.measure(field.image, field.err, field.mask, labels, detection)
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
        "orientation_sky": (180 - field.north + angle) % 360,
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
    """AB magnitude and its error of a flux in nJy; NaN where it is not positive."""
    good = flux > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = AB_ZEROPOINT - 2.5 * np.log10(flux)
        magnitude_err = 2.5 * np.log10(1 + err / flux)
    return np.where(good, magnitude, np.nan), np.where(good, magnitude_err, np.nan)


# ------------------------------------------------------------------------------------------------------------ apertures
def aperture_names() -> list[str]:
    """Columns of the aperture fluxes: ``aper04_flux`` is that of 0.4 arcsec."""
    return [f"aper{round(10 * radius):02d}_flux" for radius in APERTURE_RADII]


def measure_apertures(field: Field, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Fluxes in circles around the sources, and the local background in a ring, which is not subtracted from them."""
    from photutils.aperture import CircularAperture

    from rampflow.kernels.source_catalog import clip_rings

    positions = _finite_positions(x, y)
    columns = {}
    for name, radius in zip(aperture_names(), APERTURE_RADII, strict=True):
        circles = CircularAperture(positions, radius / field.pixel_scale)
        flux, err = circles.do_photometry(field.image, error=field.err)
        columns[name], columns[f"{name}_err"] = flux * field.unit, err * field.unit
    inner, outer = (radius / field.pixel_scale for radius in ANNULUS_RADII)
    median, std, count = clip_rings(field.image, positions[:, 0], positions[:, 1], inner, outer)
    per_area = field.unit / field.pixel_scale**2
    columns["aper_bkg_flux"] = median * per_area
    with np.errstate(divide="ignore", invalid="ignore"):
        # Standard error of a median.
        columns["aper_bkg_flux_err"] = np.sqrt(np.pi / (2 * count)) * std * per_area
    return columns


def encircled_energy(radii, fractions, scale: float):
    """Encircled energy of the PSF in each of the apertures.

    A monotone cubic (Fritsch & Carlson 1980, SIAM J. Numer. Anal. 17, 238) goes through the fractions, from zero at radius zero
    on: between them it neither falls nor goes beyond them.

    Parameters
    ----------
    radii, fractions : array-like
        Radius in pixels (as the schema of the reference has it) at which each fraction is reached.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    dict
        Radius of the aperture in arcsec to fraction; NaN, with a line in the log, beyond the last of `radii`.

    Raises
    ------
    ValueError
        Radii that don't increase from 0 on, or fractions that fall or are not within 0 and 1.
    """
    from scipy.interpolate import PchipInterpolator

    radii, fractions = np.asarray(radii, float), np.asarray(fractions, float)
    if radii.ndim != 1 or radii.shape != fractions.shape or not radii.size:
        raise ValueError(f"ee_radii has the shape {radii.shape}, and ee_fractions {fractions.shape}")
    if not (radii[0] >= 0 and (np.diff(radii) > 0).all() and np.isfinite(radii).all()):
        raise ValueError("ee_radii must increase, from 0 pixels on")
    if not (fractions[0] >= 0 and (np.diff(fractions) >= 0).all() and fractions[-1] <= 1):
        raise ValueError("ee_fractions must not fall, and lie within 0 and 1")
    if radii[0] > 0:
        radii, fractions = np.append(0, radii), np.append(0, fractions)
    curve = PchipInterpolator(radii, fractions, extrapolate=False) if radii.size > 1 else lambda radius: np.nan
    energy = {radius: float(curve(radius / scale)) for radius in APERTURE_RADII}
    if beyond := [f"{radius:g}" for radius, fraction in energy.items() if np.isnan(fraction)]:
        log.info(
            "The apcorr reference ends at %.2f arcsec: the encircled energy within %s arcsec is not known",
            radii[-1] * scale,
            ", ".join(beyond),
        )
    return energy


def radius_of(fraction: float, radii, fractions) -> float:
    """Radius of a fraction of the light, in a straight line between the radii that are known and zero; NaN beyond the last.

    Parameters
    ----------
    fraction : float
    radii, fractions : array-like
        As `encircled_energy` takes them.
    """
    radii, fractions = np.append(0.0, radii), np.append(0.0, fractions)
    if fractions[-1] < fraction:
        return np.nan
    last = int(np.argmax(fractions >= fraction))  # energies may stay the same for a while: interp wouldn't say where
    share = (fraction - fractions[last - 1]) / (fractions[last] - fractions[last - 1])
    return float(radii[last - 1] + share * (radii[last] - radii[last - 1]))


def check_energy(path, field: str, radii, fractions) -> None:
    """Refuse encircled energies that are not of a PSF: radii of another unit, or nowhere the most of the light.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    field : str
        What of it holds the energies.
    radii, fractions : array-like
        As `encircled_energy` takes them.

    Raises
    ------
    RampflowError
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
    """True where the flux grows from 0.2 to 0.4 arcsec by more than a point source's.

    False for all, with a warning, where `energy` is `None` or not known within these radii: the data model has no "unknown".
    """
    small, large = columns["aper02_flux"], columns["aper04_flux"]
    if energy is None or not energy[0.2] > 0 or np.isnan(energy[0.4]):
        log.warning("Without encircled energies of the PSF, no source is known to be extended")
        return np.zeros(len(small), bool)
    with np.errstate(invalid="ignore"):
        return large > small * (EXTENDED_GROWTH * energy[0.4] / energy[0.2])


def _finite_positions(x, y):
    positions = np.column_stack([x, y])
    positions[~np.isfinite(positions).all(axis=1)] = FAR_OUTSIDE
    return positions


# ------------------------------------------------------------------------------------------------------- sharpness, etc.
def measure_daofind(field: Field, x: np.ndarray, y: np.ndarray, fwhm: float) -> dict[str, np.ndarray]:
    """Sharpness and roundness as DAOFIND defines them (Stetson 1987, PASP 99, 191).

    Parameters
    ----------
    field : Field
    x, y : numpy.ndarray
        Positions, pixels.
    fwhm : float
        Full width at half maximum of the Gaussian that a source is compared with, pixels.
    """
    sigma = fwhm * FWHM_TO_SIGMA
    radius = max(2.0, 1.5 * sigma)
    reach = int(radius)
    size, centre = 2 * reach + 1, reach
    offsets = np.arange(-reach, reach + 1)
    square = offsets[:, None] ** 2 + offsets**2
    inside = np.sqrt(square) <= radius
    gaussian = np.exp(-square / (2 * sigma**2)) * inside
    kernel = (gaussian - gaussian.sum() / inside.sum()) / ((gaussian**2).sum() - gaussian.sum() ** 2 / inside.sum()) * inside

    stamps, in_image = _cut_stamps(field.image, _finite_positions(x, y), size, margin=reach)
    data, in_image = (array[:, reach:-reach, reach:-reach] for array in (stamps, in_image))
    density = np.einsum("nyxij,ij->nyx", np.lib.stride_tricks.sliding_window_view(stamps, (size, size), axis=(1, 2)), kernel)
    density[~in_image] = 0
    peak, height = data[:, centre, centre], density[:, centre, centre].copy()
    around = (np.sum(data * inside, axis=(1, 2)) - peak) / (inside.sum() - 1)

    # Quarters around the central pixel, each with the half-axis that follows it.
    signs = np.zeros((size, size))
    signs[: centre + 1, centre + 1 :] = signs[centre:, :centre] = -1
    signs[:centre, : centre + 1] = signs[centre + 1 :, centre:] = 1
    density[:, centre, centre] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "sharpness": (peak - around) / height,
            "roundness1": 2 * np.sum(density * signs, axis=(1, 2)) / np.abs(density).sum(axis=(1, 2)),
        }


def _cut_stamps(image, positions, size, margin):
    """Square stamps around positions with a margin, zero beyond the image, and what of them is in it; (source, y, x)."""
    width = size + 2 * margin
    corners = np.ceil(positions - size / 2).astype(int)[:, ::-1] - margin
    rows, columns = (corners[:, axis, None] + np.arange(width) for axis in (0, 1))
    inside = ((rows >= 0) & (rows < image.shape[0]))[:, :, None] & ((columns >= 0) & (columns < image.shape[1]))[:, None]
    values = image[rows.clip(0, image.shape[0] - 1)[:, :, None], columns.clip(0, image.shape[1] - 1)[:, None]]
    return np.where(inside, values, 0.0).astype(float), inside


def find_neighbours(label: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Label of the nearest other source and its distance in arcsec; −1 and NaN without one."""
    from scipy.spatial import KDTree

    nearest, distance = np.full(len(label), -1, np.int32), np.full(len(label), np.nan)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if finite.size > 1:
        positions = np.column_stack([x, y])[finite]
        separation, index = KDTree(positions).query(positions, k=[2])
        nearest[finite], distance[finite] = np.asarray(label)[finite[index[:, 0]]], separation[:, 0] * scale
    return {"nn_label": nearest, "nn_distance": distance}


def flag_sources(dq: np.ndarray, x: np.ndarray, y: np.ndarray, masked: np.ndarray, unreliable: np.ndarray) -> np.ndarray:
    """Warning flags of sources.

    Parameters
    ----------
    dq : numpy.ndarray
        Flags of the image.
    x, y : numpy.ndarray
        Centroids, pixels.
    masked : numpy.ndarray
        Whether pixels of the segment or the Kron aperture are masked, so that their light is missing.
    unreliable : numpy.ndarray
        Whether that is more light than the error of the Kron flux says.

    Returns
    -------
    numpy.ndarray
        int32. DO_NOT_USE, as in romancal, where the pixel of the centroid has it, or the centroid is not a pixel of the image;
        OTHER_BAD_PIXEL where `masked`; UNRELIABLE_ERROR where `unreliable`.
    """
    flags = np.full(len(x), dqflags.DO_NOT_USE, np.int32)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    column, row = (np.round(position[finite]).astype(int) for position in (x, y))
    inside = (column >= 0) & (row >= 0) & (column < dq.shape[1]) & (row < dq.shape[0])
    flags[finite[inside]] = dq[row[inside], column[inside]] & np.uint32(dqflags.DO_NOT_USE)
    flags[masked] |= dqflags.OTHER_BAD_PIXEL
    flags[unreliable] |= dqflags.UNRELIABLE_ERROR
    return flags
