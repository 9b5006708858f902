"""The part of the sky that images cover, as a circle around each, and their epochs, from their headers.

An image is where its WCS puts it, since tweakreg aligns it from there. The footprint (``meta.wcsinfo.s_region``) is a copy,
which stays behind where somebody replaces or moves the WCS.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rampflow.detector import PIXEL_SCALE
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.step.provenance import is_fully_saturated
from rampflow.step.reference_checks import parse_time
from rampflow.wcs.footprint import image_box
from rampflow.wcs.wcs_tree import Wcs, frame_fault

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

log = step_logger("astrometric_catalog")

#: Upper limit of a detector's half-diagonal, relative to its pixels times their mean scale: allows for the optical distortion.
DISTORTION = 1.1
#: Largest distance of images that share one request to a service, degrees. It is the radius of WFI's field of view, so that the
#: detectors of one pointing take one request.
FIELD_RADIUS = 0.5
#: Distance of the footprint in the header from that of the WCS, arcsec, above which a warning says so.
SAME_FOOTPRINT = 1.0


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    """Convert positions on the sky to directions.

    Parameters
    ----------
    ra, dec : array-like
        Positions, degrees, any shape.

    Returns
    -------
    numpy.ndarray
        Unit vectors, (..., 3).
    """
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def angles(vectors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Convert vectors to positions on the sky.

    Parameters
    ----------
    vectors : array-like
        Vectors of any length, (..., 3).

    Returns
    -------
    ra : numpy.ndarray
        Right ascension, degrees from 0 to 360, (...).
    dec : numpy.ndarray
        Declination, degrees, (...).
    """
    x, y, z = np.moveaxis(np.asarray(vectors), -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Compute the angle between directions, from their chord, which is accurate for small angles too.

    Parameters
    ----------
    a, b : array-like
        Unit vectors, (..., 3).

    Returns
    -------
    numpy.ndarray
        Angles, degrees, (...).
    """
    return np.degrees(2 * np.arcsin(np.minimum(np.linalg.norm(np.asarray(a) - b, axis=-1) / 2, 1)))


@dataclasses.dataclass(frozen=True)
class Circle:
    """A circle on the sky: center `ra`, `dec` and `radius`, in degrees."""

    ra: float
    dec: float
    radius: float

    @property
    def center(self) -> np.ndarray:
        """Direction of the center.

        Returns
        -------
        numpy.ndarray
            Unit vector, (3,).
        """
        return unit_vectors(self.ra, self.dec)

    @classmethod
    def around(cls, vectors: np.ndarray | Sequence[np.ndarray], radii: np.ndarray | Sequence[float] | float = 0.0) -> Circle:
        """Find a circle that contains points or circles.

        Parameters
        ----------
        vectors : array-like
            Unit vectors of the points, or of the centers of the circles, (n, 3).
        radii : float or array-like
            Radii of the circles, degrees.

        Returns
        -------
        Circle
            The circle.
        """
        center = np.mean(vectors, axis=0)
        center /= np.linalg.norm(center)
        ra, dec = map(float, angles(center))
        return cls(ra, dec, float(np.max(separation(vectors, center) + radii)))


@dataclasses.dataclass(frozen=True)
class Region:
    """Some circles on the sky."""

    circles: tuple[Circle, ...]

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
        """Test whether positions lie in one of the circles.

        Parameters
        ----------
        ra, dec : array-like
            Positions, degrees, any shape.

        Returns
        -------
        numpy.ndarray
            Mask, bool, same shape.
        """
        positions = unit_vectors(ra, dec)
        inside = np.zeros(positions.shape[:-1], bool)
        for circle in self.circles:
            inside |= positions @ circle.center >= math.cos(math.radians(circle.radius))
        return inside

    def grouped(self) -> Region:
        """Replace circles that are near each other by one that contains them.

        Returns
        -------
        Region
            One circle for each field of view.
        """
        left, groups = list(dict.fromkeys(self.circles)), []
        while left:
            near = [c for c in left if separation(c.center, left[0].center) <= FIELD_RADIUS]
            left = [c for c in left if c not in near]
            groups.append(Circle.around([c.center for c in near], [c.radius for c in near]))
        return Region(tuple(groups))


def survey_images(paths: list[Path], margin: float) -> tuple[Region, list[float]]:
    """Find the region and the epochs of the images of an association.

    Images that can't be aligned (fully saturated, or without a WCS to the ICRS) are left out.

    Parameters
    ----------
    paths : list of pathlib.Path
        Images of assign_wcs or a later step.
    margin : float
        Search margin around each image, arcsec.

    Returns
    -------
    region : Region
        A circle for each image.
    epochs : list of float
        Mid times of the exposures, Julian years, in the order of the circles.

    Raises
    ------
    RampflowError
        A file is damaged, or has no time.
    """
    circles, epochs = [], []
    for path in paths:
        with AsdfFile(path) as file:
            image = Exposure(file)
            circle = _circle_of(image)
            if circle is not None:
                circles.append(dataclasses.replace(circle, radius=circle.radius + margin / 3600))
                epochs.append(epoch_of(image))
    return Region(tuple(circles)), epochs


def _circle_of(image: Exposure) -> Circle | None:
    """The circle around an image; `None`, with a line in the log, for one that can't be aligned."""
    if is_fully_saturated(image.meta.get("cal_step", {})):
        log.info("%s: can't be aligned: it is fully saturated", image.path.name)
        return None
    if image.meta.get("wcs") is None:
        log.info("%s: can't be aligned: it has no WCS", image.path.name)
        return None
    if fault := frame_fault(image.meta["wcs"]):
        log.warning("%s: can't be aligned: %s", image.path.name, fault)
        return None
    stated = _corners(image.meta.get("wcsinfo", {}).get("s_region"))
    corners = _corners_by_wcs(image)
    if corners is None:
        corners = stated
    elif stated is not None and (apart := _distance(stated, corners)) > SAME_FOOTPRINT:
        log.warning(
            "%s: the footprint in its header (meta.wcsinfo.s_region) lies %.3g arcsec from that of its WCS: the stars are "
            "retrieved around the WCS",
            image.path.name,
            apart,
        )
    return circle_of_pointing(image) if corners is None else Circle.around(unit_vectors(*corners.T))


def _corners_by_wcs(image: Exposure) -> np.ndarray | None:
    """Right ascension and declination of the corners, (4, 2), in degrees, by the WCS; `None` if it has no positions there."""
    tree = image.meta["wcs"]
    if not (isinstance(tree, dict) and isinstance(tree.get("steps"), list)):
        return None  # tweakreg refuses it
    try:
        wcs = Wcs(tree)
        (x0, x1), (y0, y1) = image_box(wcs.bounding_box, image.array("data").shape)
        corners = np.transpose(wcs(np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0])))
    except Exception as error:  # gwcs and the models of astropy raise all kinds
        log.warning("%s: its WCS (meta.wcs) has no positions: %s", image.path.name, " ".join(str(error).split()))
        return None
    return corners if np.isfinite(corners).all() else None


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance from a corner of a polygon to the nearest corner of another, arcsec."""
    first, second = unit_vectors(*one.T), unit_vectors(*other.T)
    return 3600 * float(separation(first[:, None], second[None]).min(axis=1).max())


def circle_of_pointing(image: Exposure) -> Circle | None:
    """Find a circle that contains an exposure, from its pointing, which raw exposures have, too.

    Parameters
    ----------
    image : Exposure
        The exposure.

    Returns
    -------
    Circle or None
        The circle; `None`, with a warning in the log, where the exposure has no pointing.
    """
    wcsinfo = image.meta.get("wcsinfo", {})
    ra, dec = wcsinfo.get("ra_ref"), wcsinfo.get("dec_ref")
    if not (_is_angle(ra, 360) and _is_angle(dec, 90)):
        log.warning(
            "%s: has neither a footprint (meta.wcsinfo.s_region) nor a pointing: no stars are retrieved for it", image.path.name
        )
        return None
    # The reference point of the aperture is the center of the detector.
    half_diagonal = math.hypot(*image.array("data").shape[-2:]) / 2 * (PIXEL_SCALE / 3600) * DISTORTION
    return Circle(ra % 360, float(dec), half_diagonal)


def _is_angle(value, largest: float) -> bool:
    """Whether a value is an angle in degrees, and not a placeholder such as −999999."""
    return isinstance(value, int | float) and abs(value) <= largest


def _corners(s_region) -> np.ndarray | None:
    """Right ascension and declination of the corners, (n, 2), in degrees, of a footprint ``POLYGON ICRS ra dec ra dec …``."""
    words = s_region.split() if isinstance(s_region, str) else []
    try:
        values = np.array(words[2:], float)
    except ValueError:
        return None
    if [w.upper() for w in words[:2]] != ["POLYGON", "ICRS"] or len(values) < 6 or len(values) % 2:
        return None
    corners = values.reshape(-1, 2)
    return corners if np.isfinite(corners).all() and (abs(corners[:, 1]) <= 90).all() else None


def epoch_of(image: Exposure) -> float:
    """Read the mid time of an exposure.

    Parameters
    ----------
    image : Exposure
        The exposure.

    Returns
    -------
    float
        Mid time, Julian year.

    Raises
    ------
    RampflowError
        The exposure has no such time.
    """
    exposure = image.get("meta.exposure", dict)
    middle, start, end = (exposure.get(name) for name in ("mid_time", "start_time", "end_time"))
    times = [parse_time(time) for time in ([middle] if middle is not None else [start, end])]
    if None in times:
        raise RampflowError(
            f"{image.path}: meta.exposure must have a mid_time, or a start_time and an end_time, as 2027-01-31T12:00:00.000"
        )
    return float(np.mean([julian_year(time.astimezone(datetime.UTC)) for time in times if time]))


_J2000 = datetime.datetime(2000, 1, 1, 12)


def julian_year(time: datetime.datetime) -> float:
    """Convert a time in UTC to a Julian year.

    Parameters
    ----------
    time : datetime.datetime
        Time, UTC.

    Returns
    -------
    float
        Julian year.

    Notes
    -----
    The difference to dynamical time (one minute, or 2e-6 years) is neglected.
    """
    return 2000 + (time.replace(tzinfo=None) - _J2000) / datetime.timedelta(days=365.25)


def calendar_year(epoch: float) -> float:
    """Convert a Julian year to the calendar year and its fraction.

    Parameters
    ----------
    epoch : float
        Julian year.

    Returns
    -------
    float
        Calendar year with its fraction.
    """
    time = _J2000 + (epoch - 2000) * datetime.timedelta(days=365.25)
    start, end = datetime.datetime(time.year, 1, 1), datetime.datetime(time.year + 1, 1, 1)
    return time.year + (time - start) / (end - start)
