"""From the sky to the detector: the positions of the sources, and their images through the optics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rampflow.astrometry.region import angles, unit_vectors
from rampflow.detector import PIXEL_SCALE

if TYPE_CHECKING:
    from astropy.modeling import Model
    from astropy.table import Table
    from numpy.typing import ArrayLike

FOCAL_PLANE_CENTER = (1546.38, -892.79)  #: V2, V3 (arcsec) of the aperture WFI_CEN
V3_YANGLE, VPARITY = -60.0, -1  #: angle from V3 to the detectors' y axis, degrees; x runs opposite to V2
AB_ZERO_FLUX = 3.6307805e12  #: nJy, of a source of AB magnitude 0
TRACE_LENGTH, TRACE_SIGMA = 120, 0.8  #: length and width of the spectra of GRISM and PRISM, pixels (assumed)


# -------------------------------------------------------------------------------------------------------------- pointing
def attitude(v2: float, v3: float, ra: float, dec: float, roll: float) -> np.ndarray:
    """Compute the attitude of the telescope.

    Parameters
    ----------
    v2, v3 : float
        A point of the focal plane, arcsec.
    ra, dec : float
        Its position on the sky, degrees.
    roll : float
        Position angle of V3 there, degrees from north to east.

    Returns
    -------
    numpy.ndarray
        Rotation matrix from the telescope's V frame to the sky, (3, 3).
    """
    from scipy.spatial.transform import Rotation

    to_axis = Rotation.from_euler("zyx", [-v2 / 3600, v3 / 3600, -roll], degrees=True)
    return (Rotation.from_euler("yz", [-dec, ra], degrees=True) * to_axis).as_matrix()


def great_circle_rotation(ra: float, dec: float, offset: tuple[float, float]) -> np.ndarray:
    """Compute the rotation that moves a position along a great circle.

    Applied to an attitude, it moves the telescope without turning it about its axis: directions keep their angle to the great
    circle. Near a pole, where north turns by much within a few arcsec, the position angle of V3 changes accordingly.

    Parameters
    ----------
    ra, dec : float
        The position, degrees.
    offset : tuple of float
        Distance to the east and north, arcsec.

    Returns
    -------
    numpy.ndarray
        Rotation matrix, (3, 3).
    """
    from scipy.spatial.transform import Rotation

    place, east, north = unit_vectors(ra, dec), unit_vectors(ra + 90, 0), unit_vectors(ra, dec + 90)
    toward = np.radians(offset[0] / 3600) * east + np.radians(offset[1] / 3600) * north
    return Rotation.from_rotvec(np.cross(place, toward)).as_matrix()


def pointing_at(matrix: np.ndarray, v2: float, v3: float) -> tuple[float, float, float]:
    """Compute the position on the sky of a point of the focal plane.

    Parameters
    ----------
    matrix : numpy.ndarray
        See `attitude`.
    v2, v3 : float
        The point of the focal plane, arcsec.

    Returns
    -------
    ra, dec : float
        Its position on the sky, degrees; `ra` from 0 to less than 360.
    roll : float
        Position angle of V3 there, degrees from 0 to less than 360. At a pole, it is measured from the meridian of `ra`.
    """
    ra, dec = (float(angle) for angle in angles(matrix @ unit_vectors(v2 / 3600, v3 / 3600)))
    ra %= 360  # the remainder of a tiny negative angle is 360
    east, north = unit_vectors(ra + 90, 0), unit_vectors(ra, dec + 90)
    v3_axis = matrix[:, 2]
    return ra, dec, float(np.degrees(np.arctan2(v3_axis @ east, v3_axis @ north)) % 360 % 360)


class Projection:
    """Projection between the sky and the pixels of one detector, for one exposure.

    Parameters
    ----------
    distortion : astropy.modeling.Model
        From pixels, without the reference border, to V2, V3 (arcsec), with its inverse.
    v2_ref, v3_ref : float
        Point of the focal plane (arcsec) where velocity aberration has no effect.
    matrix : numpy.ndarray
        See `attitude`.
    scale : float
        Ratio of true to observed angles, by velocity aberration.
    """

    def __init__(self, distortion: Model, v2_ref: float, v3_ref: float, matrix: np.ndarray, scale: float):
        self._distortion, self._reference, self._matrix, self._scale = distortion, (v2_ref, v3_ref), matrix, scale

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Project pixels to the sky.

        Parameters
        ----------
        x, y : array-like
            Pixels, without the reference border, any shape.

        Returns
        -------
        ra : numpy.ndarray
            Right ascension, degrees from 0 to 360, same shape.
        dec : numpy.ndarray
            Declination, degrees, same shape.
        """
        seen = self._distortion(np.asarray(x, float), np.asarray(y, float))
        v2, v3 = (ref + self._scale * (v - ref) for v, ref in zip(seen, self._reference, strict=True))
        return angles(unit_vectors(v2 / 3600, v3 / 3600) @ self._matrix.T)

    def to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Project positions on the sky to pixels.

        Parameters
        ----------
        ra, dec : array-like
            Degrees, any shape.

        Returns
        -------
        x : numpy.ndarray
            Columns, pixels without the reference border, same shape.
        y : numpy.ndarray
            Rows, in the same way.
        """
        longitude, latitude = angles(unit_vectors(ra, dec) @ self._matrix)
        true = 3600 * np.where(longitude > 180, longitude - 360, longitude), 3600 * latitude
        return self._distortion.inverse(*(ref + (v - ref) / self._scale for v, ref in zip(true, self._reference, strict=True)))


# ---------------------------------------------------------------------------------------------------------------- images
class PointSpread:
    """Point-spread function of a detector, interpolated between the positions of an ePSF reference.

    The reference's stamps sum to 1 and sample the light at points. They are integrated over a pixel by the trapezoidal rule. A
    cubic spline interpolates between samples; linear interpolation in x and y, between positions.

    Parameters
    ----------
    stamps : numpy.ndarray
        Samples, (positions, y, x); their number per side is odd, and the star is on the central one.
    x, y : numpy.ndarray
        Positions, pixels: a full grid, x varies fastest.
    oversample : int
        Samples per pixel, even.
    """

    def __init__(self, stamps: np.ndarray, x, y, oversample: int):
        from scipy.interpolate import RectBivariateSpline
        from scipy.ndimage import convolve1d

        self.stamps, self.oversample = np.asarray(stamps, float), oversample
        self._x, self._y = np.unique(x), np.unique(y)
        self.half = stamps.shape[-1] // 2 / oversample
        weights = np.ones(oversample + 1)
        weights[[0, -1]] = 0.5
        axis = np.arange(stamps.shape[-1]) / oversample - self.half
        self._splines = []
        for stamp in self.stamps:
            integrated = convolve1d(convolve1d(stamp, weights, axis=0, mode="constant"), weights, axis=1, mode="constant")
            self._splines.append(RectBivariateSpline(axis, axis, integrated))

    def neighbors(self, x: float, y: float) -> list[tuple[int, float]]:
        """Find the reference positions around a pixel.

        Parameters
        ----------
        x, y : float
            Pixels.

        Returns
        -------
        list of (int, float)
            Indices of the positions, with their weights.
        """
        i, u = _interval(self._x, x)
        j, v = _interval(self._y, y)
        columns = len(self._x)
        corners = [(j, i, (1 - v) * (1 - u)), (j, i + 1, (1 - v) * u), (j + 1, i, v * (1 - u)), (j + 1, i + 1, v * u)]
        return [(row * columns + column, weight) for row, column, weight in corners if weight]

    def add_star(self, image: np.ndarray, x: float, y: float, flux: float) -> None:
        """Add a star to an image, in place.

        Parameters
        ----------
        image : numpy.ndarray
            The image, (rows, columns).
        x, y : float
            Position, pixels.
        flux : float
            Total flux, in the unit of the image.
        """
        rows, columns = _window(image.shape, x, y, self.half)
        if rows.stop > rows.start and columns.stop > columns.start:
            dy, dx = np.arange(rows.start, rows.stop) - y, np.arange(columns.start, columns.stop) - x
            for index, weight in self.neighbors(x, y):
                image[rows, columns] += flux * weight * self._splines[index](dy, dx)

    def add_galaxy(self, image: np.ndarray, x: float, y: float, flux: float, radius: float, ratio: float, angle: float) -> None:
        """Add an elliptical exponential disk to an image, in place.

        The disk is convolved with the nearest point-spread function.

        Parameters
        ----------
        image : numpy.ndarray
            The image, (rows, columns).
        x, y : float
            Center, pixels.
        flux : float
            Total flux, in the unit of the image.
        radius : float
            Half-light radius along the major axis, pixels.
        ratio : float
            Minor over major axis.
        angle : float
            Angle of the major axis, from the image's x axis to its y axis, radians.
        """
        from scipy.signal import fftconvolve

        n, reach = self.oversample, int(np.ceil(5 * radius)) + 4
        column, row = int(np.floor(x)) - reach, int(np.floor(y)) - reach
        side = 2 * reach + 2
        sample = (np.arange(side * n) + 0.5) / n - 0.5
        dx, dy = np.meshgrid(sample + column - x, sample + row - y)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        disk = np.exp(-1.678347 * np.hypot(along, across / ratio) / radius)  # half of the light lies within 1.678 scale lengths
        nearest = max(self.neighbors(x, y), key=lambda neighbor: neighbor[1])[0]
        edge = max(self.stamps.shape[-1] // 2 - 10 * n, 0)  # wings beyond 10 pixels are negligible for a galaxy
        stamp = self.stamps[nearest][edge : self.stamps.shape[-1] - edge, edge : self.stamps.shape[-1] - edge]
        seen = fftconvolve(disk, stamp, mode="same").reshape(side, n, side, n).sum(axis=(1, 3))
        _add_stamp(image, np.maximum(seen, 0) * (flux / seen.sum()), row, column)


def defocus(stamps: np.ndarray, width: float) -> np.ndarray:
    """Widen point-spread functions, roughly as a defocus does.

    Parameters
    ----------
    stamps : numpy.ndarray
        Samples, (positions, y, x).
    width : float
        Standard deviation of a Gaussian, in samples; 0 for none.

    Returns
    -------
    numpy.ndarray
        The stamps convolved with the Gaussian, with the same sums.
    """
    if not width:
        return stamps
    from scipy.ndimage import gaussian_filter

    wide = gaussian_filter(np.asarray(stamps, float), (0, width, width), mode="constant")
    return wide * (stamps.sum(axis=(1, 2)) / wide.sum(axis=(1, 2)))[:, None, None]


def enclosed_fraction(stamp: np.ndarray, oversample: int, radii: np.ndarray) -> np.ndarray:
    """Compute the fraction of a star's light within circles, on average over its positions within a pixel.

    The point-spread function is convolved with a pixel twice: a pixel collects the light that falls on it, and a circle counts
    each pixel by the fraction of it that is inside.

    Parameters
    ----------
    stamp : numpy.ndarray
        Point-spread function, see `PointSpread`, of sum 1, with the star on the central sample.
    oversample : int
        Samples per pixel, even.
    radii : numpy.ndarray
        Ascending radii in pixels, within the stamp.

    Returns
    -------
    numpy.ndarray
        Fractions of the light, of the shape of `radii`.
    """
    from scipy.integrate import cumulative_trapezoid
    from scipy.interpolate import RectBivariateSpline
    from scipy.ndimage import convolve1d

    weights = np.ones(oversample + 1) / oversample
    weights[[0, -1]] /= 2
    seen = np.asarray(stamp, float)
    for axis in (0, 1, 0, 1):
        seen = convolve1d(seen, weights, axis=axis, mode="constant")
    place = (np.arange(len(seen)) - len(seen) // 2) / oversample
    density = RectBivariateSpline(place, place, seen * oversample**2)  # light per square pixel
    radius, angle = np.linspace(0, radii[-1], 1 + int(np.ceil(50 * radii[-1]))), np.arange(64) * 2 * np.pi / 64
    ring = density.ev(np.outer(radius, np.sin(angle)), np.outer(radius, np.cos(angle))).mean(axis=1) * 2 * np.pi * radius
    return np.interp(radii, radius, cumulative_trapezoid(ring, radius, initial=0))


def add_trace(image: np.ndarray, x: float, y: float, flux: float) -> None:
    """Add a featureless spectrum along y, centered on the source, to an image, in place.

    Parameters
    ----------
    image : numpy.ndarray
        The image, (rows, columns).
    x, y : float
        Position of the source, pixels.
    flux : float
        Total flux, in the unit of the image.
    """
    row, column = round(y) - TRACE_LENGTH // 2, round(x) - 4
    across = np.exp(-0.5 * ((column + np.arange(9) - x) / TRACE_SIGMA) ** 2)
    _add_stamp(image, np.tile(flux / TRACE_LENGTH * across / across.sum(), (TRACE_LENGTH, 1)), row, column)


def _interval(points: np.ndarray, value: float) -> tuple[int, float]:
    """Index of the interval of `points` that contains `value`, and the fraction of it below `value`; clipped to the ends."""
    index = int(np.clip(np.searchsorted(points, value) - 1, 0, len(points) - 2))
    return index, float(np.clip((value - points[index]) / (points[index + 1] - points[index]), 0, 1))


def _window(shape, x, y, half) -> tuple[slice, slice]:
    """Rows and columns of the image whose centers lie within `half` of a position."""
    rows, columns = (
        slice(max(int(np.ceil(c - half)), 0), min(int(np.floor(c + half)) + 1, n)) for c, n in ((y, shape[0]), (x, shape[1]))
    )
    return rows, columns


def _add_stamp(image: np.ndarray, stamp: np.ndarray, row: int, column: int) -> None:
    """Add the part of a stamp that lies on the image."""
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + stamp.shape[0], image.shape[0]), min(column + stamp.shape[1], image.shape[1])
    if bottom > top and right > left:
        image[top:bottom, left:right] += stamp[top - row : bottom - row, left - column : right - column]


def render_sources(
    shape: tuple[int, int], sky: Table, projection: Projection, spread: PointSpread | None, per_njy: float
) -> tuple[np.ndarray, Table]:
    """Render the sources on an image.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image, without the reference border.
    sky : astropy.table.Table
        Sources, see `simulator.simulate_sky.make_sky`.
    projection : Projection
        Projection of the exposure.
    spread : PointSpread or None
        Point-spread function; `None` to disperse the light into spectra.
    per_njy : float
        Count rate of a source of 1 nJy, DN/s.

    Returns
    -------
    image : numpy.ndarray
        Count rate, DN/s, float64, of `shape`.
    truth : astropy.table.Table
        Sources whose center lies on the image, with x, y (pixels), flux (nJy) and count_rate (DN/s).
    """
    sources = sky.copy()
    x, y = projection.to_pixel(sources["ra"], sources["dec"])
    flux = AB_ZERO_FLUX * 10 ** (-0.4 * np.asarray(sources["mag"]))
    sources["x"], sources["y"], sources["flux"], sources["count_rate"] = x, y, flux, flux * per_njy

    # The major axis on the image: toward a point 0.1 arcsec along the position angle.
    ra, dec, angle = (np.asarray(sources[name]) for name in ("ra", "dec", "position_angle"))
    east, north = unit_vectors(ra + 90, np.zeros_like(dec)), unit_vectors(ra, dec + 90)
    sine, cosine = np.sin(np.radians(angle))[:, np.newaxis], np.cos(np.radians(angle))[:, np.newaxis]
    step = np.radians(0.1 / 3600)
    ahead = projection.to_pixel(*angles(unit_vectors(ra, dec) + step * (sine * east + cosine * north)))
    tilt = np.arctan2(ahead[1] - y, ahead[0] - x)

    image = np.zeros(shape)
    margin = TRACE_LENGTH if spread is None else spread.half
    near = (x > -margin) & (y > -margin) & (x < shape[1] + margin) & (y < shape[0] + margin)
    for index in np.flatnonzero(near):
        place, rate = (float(x[index]), float(y[index])), float(sources["count_rate"][index])
        if spread is None:
            add_trace(image, *place, rate)
        elif sources["type"][index] == "star":
            spread.add_star(image, *place, rate)
        else:
            radius = float(sources["half_light_radius"][index]) / PIXEL_SCALE
            spread.add_galaxy(image, *place, rate, radius, float(sources["axis_ratio"][index]), float(tilt[index]))
    inside = (x >= -0.5) & (y >= -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)
    return image, sources[inside]
