"""The part of the sky that images cover, a circle around each, and when they were taken; from their headers alone."""

from __future__ import annotations

import dataclasses
import datetime
import math
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.step.provenance import is_fully_saturated

log = step_logger("astrometric_catalog")

PIXEL_SCALE = 0.11 / 3600  #: degrees, on average over the detectors
#: A detector's half-diagonal may be this much longer than its pixels times their mean scale: the optics' distortion.
DISTORTION = 1.1
#: Degrees: images within this distance of each other are asked for together where each question costs a request. It is the
#: radius of WFI's field of view, so that the detectors of one pointing make one question.
FIELD_RADIUS = 0.5


def unit_vectors(ra, dec) -> np.ndarray:
    """Directions on the sky as unit vectors, (…, 3), of `ra`, `dec` in degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def angles(vectors) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension from 0 to 360 and declination, in degrees, of vectors (…, 3) of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors), -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation(a, b) -> np.ndarray:
    """Angle between unit vectors, in degrees; by their chord, which is exact for small angles too."""
    return np.degrees(2 * np.arcsin(np.minimum(np.linalg.norm(np.asarray(a) - b, axis=-1) / 2, 1)))


@dataclasses.dataclass(frozen=True)
class Circle:
    """A circle on the sky: centre `ra`, `dec` and `radius`, in degrees."""

    ra: float
    dec: float
    radius: float

    @property
    def centre(self) -> np.ndarray:
        """Unit vector of the centre."""
        return unit_vectors(self.ra, self.dec)

    @classmethod
    def around(cls, vectors, radii=0.0) -> Circle:
        """A circle that holds the points `vectors` (n, 3), or circles of `radii` (degrees) around them."""
        centre = np.mean(vectors, axis=0)
        centre /= np.linalg.norm(centre)
        ra, dec = map(float, angles(centre))
        return cls(ra, dec, float(np.max(separation(vectors, centre) + radii)))


@dataclasses.dataclass(frozen=True)
class Region:
    """Some circles on the sky."""

    circles: tuple[Circle, ...]

    def contains(self, ra, dec) -> np.ndarray:
        """Which of the positions (degrees) lie in one of the circles."""
        positions = unit_vectors(ra, dec)
        inside = np.zeros(positions.shape[:-1], bool)
        for circle in self.circles:
            inside |= positions @ circle.centre >= math.cos(math.radians(circle.radius))
        return inside

    def grouped(self) -> Region:
        """Fewer and larger circles that hold all of these: those of one field of view become one."""
        left, groups = list(dict.fromkeys(self.circles)), []
        while left:
            near = [c for c in left if separation(c.centre, left[0].centre) <= FIELD_RADIUS]
            left = [c for c in left if c not in near]
            groups.append(Circle.around([c.centre for c in near], [c.radius for c in near]))
        return Region(tuple(groups))


def survey_images(paths: list[Path], margin: float) -> tuple[Region, list[float]]:
    """What the images of an association cover together, and when.

    Images that are not to be aligned (fully saturated, or without a WCS) don't count.

    Parameters
    ----------
    paths : list of pathlib.Path
        Images with a WCS, or as a later step left them.
    margin : float
        By how much a circle is larger than its image, arcsec.

    Returns
    -------
    region : Region
        A circle for each image.
    epochs : list of float
        The exposures' mid times, Julian years, in the order of the circles.

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
    """The circle around an image; `None`, with a line in the log, for one that is not to be aligned."""
    if is_fully_saturated(image.meta.get("cal_step", {})):
        log.info("%s: is fully saturated, so that it can't be aligned", image.path.name)
        return None
    if image.meta.get("wcs") is None:
        log.info("%s: has no WCS, so that it can't be aligned", image.path.name)
        return None
    wcsinfo = image.meta.get("wcsinfo", {})
    corners = _corners(wcsinfo.get("s_region"))
    if corners is not None:
        return Circle.around(unit_vectors(*corners.T))
    ra, dec = wcsinfo.get("ra_ref"), wcsinfo.get("dec_ref")
    if not (_is_angle(ra, 360) and _is_angle(dec, 90)):
        log.warning("%s: says neither its footprint (meta.wcsinfo.s_region) nor its pointing; no stars there", image.path.name)
        return None
    # The aperture's reference point is the middle of the detector.
    half_diagonal = math.hypot(*image.array("data").shape[-2:]) / 2 * PIXEL_SCALE * DISTORTION
    return Circle(ra % 360, float(dec), half_diagonal)


def _is_angle(value, largest: float) -> bool:
    """Whether a value is a number of degrees, and not a placeholder as −999999."""
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
    """When the exposure was half done, Julian year.

    Raises
    ------
    RampflowError
        It has no such time.
    """
    exposure = image.get("meta.exposure", dict)
    middle, start, end = (exposure.get(name) for name in ("mid_time", "start_time", "end_time"))
    times = [middle] if middle is not None else [start, end]
    try:
        texts = [time.get("value") if isinstance(time, dict) else time for time in times]  # a tagged time may be a mapping
        return float(np.mean([julian_year(datetime.datetime.fromisoformat(str(text))) for text in texts]))
    except (TypeError, ValueError):
        raise RampflowError(
            f"{image.path}: meta.exposure must have a mid_time, or a start_time and an end_time, as 2027-01-31T12:00:00.000"
        ) from None


_J2000 = datetime.datetime(2000, 1, 1, 12)


def julian_year(time: datetime.datetime) -> float:
    """Julian year of a time in UTC.

    Dynamical time is a minute ahead: two millionths of a year, which no star notices.
    """
    return 2000 + (time.replace(tzinfo=None) - _J2000) / datetime.timedelta(days=365.25)


def calendar_year(epoch: float) -> float:
    """The calendar year and the part of it that has passed, of a Julian year."""
    time = _J2000 + (epoch - 2000) * datetime.timedelta(days=365.25)
    start, end = datetime.datetime(time.year, 1, 1), datetime.datetime(time.year + 1, 1, 1)
    return time.year + (time - start) / (end - start)
