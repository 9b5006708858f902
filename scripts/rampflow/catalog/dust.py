"""Reddening by dust in our galaxy, E(B-V), from the maps of Schlegel, Finkbeiner & Davis (1998, ApJ 500, 525).

There is a map for each galactic hemisphere, in a zenithal equal-area projection, as a FITS image. As in romancal, a position is
looked up in the map of its hemisphere (that of the north at the equator), by cubic spline interpolation.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError

#: A header in FITS files: blocks of 36 cards of 80 characters.
CARD, BLOCK = 80, 2880
LARGEST_HEADER = 1000 * BLOCK
DTYPES = {8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}  #: by BITPIX
#: Pixels around the positions that are read. A pixel at this distance has a weight of 10⁻¹⁸ in a cubic spline.
MARGIN = 32
ARCSEC = np.pi / 180 / 3600


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Matrix that turns the axes of a frame by an angle (radian) around one of them."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[[first, second], [first, second]] = cos
    matrix[first, second], matrix[second, first] = sin, -sin
    return matrix


#: From ICRS to FK5 at J2000, 23 mas in right ascension: Kaplan (2005, USNO Circular 179), section 3.5.
_TO_FK5 = _rotation(0, 19.9e-3 * ARCSEC) @ _rotation(1, 9.1e-3 * ARCSEC) @ _rotation(2, -22.9e-3 * ARCSEC)
#: The north galactic pole at J2000, and the galactic longitude of the celestial pole (degrees): those of Blaauw et al. (1960,
#: MNRAS 121, 123) precessed, with the digits of astropy, whose galactic coordinates romancal uses.
POLE, LONGITUDE = (192.8594812065348, 27.12825118085622), 122.9319185680026
_FROM_FK5 = (
    _rotation(2, np.radians(180 - LONGITUDE)) @ _rotation(1, np.radians(90 - POLE[1])) @ _rotation(2, np.radians(POLE[0]))
)
_TO_GALACTIC = _FROM_FK5 @ _TO_FK5


def galactic(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert positions to galactic coordinates.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        ICRS, degrees.

    Returns
    -------
    longitude : numpy.ndarray
        Galactic longitude in the system of 1958, 0 to 360 degrees.
    latitude : numpy.ndarray
        Galactic latitude, degrees.
    """
    ra, dec = np.radians(ra), np.radians(dec)
    x, y, z = _TO_GALACTIC @ np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


@dataclasses.dataclass(frozen=True)
class DustMap:
    """A map of E(B-V), whose pixels are read when they are needed.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    pixels : numpy.ndarray
        Its image as stored, shape (rows, columns); mapped into memory.
    scale, zero : float
        E(B-V) in mag is ``zero + scale * pixels``.
    reference_pixel : tuple of float
        Column and row of the reference point, counted from 0.
    pole : tuple of float
        Galactic longitude and latitude of the reference point, degrees.
    native_longitude : float
        Longitude of the galactic pole in the projection (``LONPOLE``), degrees.
    to_pixels : numpy.ndarray
        Matrix from projected coordinates (degrees) to pixels.
    """

    path: Path
    pixels: np.ndarray
    scale: float
    zero: float
    reference_pixel: tuple[float, float]
    pole: tuple[float, float]
    native_longitude: float
    to_pixels: np.ndarray

    def locate(self, longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert galactic coordinates to pixels: Calabretta & Greisen (2002, A&A 395, 1077), equations 5, 12, 13 and 69.

        Parameters
        ----------
        longitude, latitude : numpy.ndarray
            Galactic coordinates, degrees.

        Returns
        -------
        column : numpy.ndarray
            Column in the map, counted from 0.
        row : numpy.ndarray
            Row in the map, counted from 0.
        """
        difference, latitude = np.radians(longitude - self.pole[0]), np.radians(latitude)
        pole = np.radians(self.pole[1])
        east = -np.cos(latitude) * np.sin(difference)
        north = np.sin(latitude) * np.cos(pole) - np.cos(latitude) * np.sin(pole) * np.cos(difference)
        towards = np.sin(latitude) * np.sin(pole) + np.cos(latitude) * np.cos(pole) * np.cos(difference)
        azimuth = np.radians(self.native_longitude) + np.arctan2(east, north)
        distance = np.arctan2(np.hypot(east, north), towards)
        radius = np.degrees(2 * np.sin(distance / 2))
        column, row = self.to_pixels @ np.array([radius * np.sin(azimuth), -radius * np.cos(azimuth)])
        return column + self.reference_pixel[0], row + self.reference_pixel[1]

    def interpolate(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """Interpolate the map, with the value of its edge for positions beyond it. Only a window around them is read.

        Parameters
        ----------
        longitude, latitude : numpy.ndarray
            Galactic coordinates, finite, degrees; at least one.

        Returns
        -------
        numpy.ndarray
            E(B-V), mag.
        """
        from scipy.ndimage import map_coordinates

        column, row = self.locate(longitude, latitude)
        starts, window = [], []
        for position, size in zip((row, column), self.pixels.shape, strict=True):
            first, last = np.clip([np.floor(position.min()), np.ceil(position.max())], 0, size - 1).astype(int)
            starts.append(max(first - MARGIN, 0))
            window.append(slice(starts[-1], min(last + MARGIN + 1, size)))
        values = self.zero + self.scale * self.pixels[tuple(window)].astype(float)
        return map_coordinates(values, [row - starts[0], column - starts[1]], order=3, mode="nearest")


def read_cards(path: Path) -> tuple[dict[str, str], int]:
    """Read the header of the primary image of a FITS file.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    cards : dict
        Text of each value by its keyword, without the comment.
    size : int
        Length of the header in bytes; the image follows.

    Raises
    ------
    RampflowError
        It is no FITS file.
    """
    cards: dict[str, str] = {}
    with open(path, "rb") as file:
        for start in range(0, LARGEST_HEADER, BLOCK):
            block = file.read(BLOCK).decode("latin-1")
            if len(block) < BLOCK or (start == 0 and not block.startswith("SIMPLE  =")):
                break
            for position in range(0, BLOCK, CARD):
                card = block[position : position + CARD]
                keyword, value = card[:8].strip(), card[10:]
                if keyword == "END":
                    return cards, start + BLOCK
                if card[8:10] == "= ":
                    text = value.strip()
                    cards[keyword] = text[1:].partition("'")[0].strip() if text[:1] == "'" else text.partition("/")[0].strip()
    raise RampflowError(f"{path}: is no FITS file, or its header is damaged; give another dust map, or N/A for none")


def open_map(path: Path) -> DustMap:
    """Open a dust map.

    Parameters
    ----------
    path : pathlib.Path
        FITS file with an image in the projection ``GLON-ZEA``, ``GLAT-ZEA``.

    Returns
    -------
    DustMap
        The map.

    Raises
    ------
    RampflowError
        It is no FITS image, is truncated, or has another projection.
    """
    cards, offset = read_cards(path)

    def _refuse(field: str, takes: str) -> RampflowError:
        return RampflowError(f"{path}: {field} is {cards.get(field)}; it takes {takes}; give another dust map, or N/A for none")

    def _number(field: str, default: float | None = None) -> float:
        try:
            value = float(cards[field].upper().replace("D", "E")) if field in cards or default is None else default
        except (KeyError, ValueError):
            raise _refuse(field, "a number") from None
        if not np.isfinite(value):
            raise _refuse(field, "a finite number")
        return value

    for field, takes in (("NAXIS", ("2",)), ("CTYPE1", ("GLON-ZEA",)), ("CTYPE2", ("GLAT-ZEA",))):
        if cards.get(field) not in takes:
            raise _refuse(field, takes[0])
    for field in ("CUNIT1", "CUNIT2"):
        if cards.get(field, "deg") not in ("deg", ""):
            raise _refuse(field, "deg")
    for field in cards:
        if field.startswith(("PV1_", "PV2_", "CROTA")) and _number(field):
            raise _refuse(field, "0: the projection of a dust map has no such parameter")
    if _number("BITPIX") not in DTYPES:
        raise _refuse("BITPIX", f"one of {', '.join(map(str, DTYPES))}")
    dtype = np.dtype(DTYPES[int(_number("BITPIX"))])
    shape = int(_number("NAXIS2")), int(_number("NAXIS1"))
    if min(shape) < 2:
        raise _refuse("NAXIS1" if shape[1] < 2 else "NAXIS2", "at least 2 pixels")
    if (size := path.stat().st_size) < offset + shape[0] * shape[1] * dtype.itemsize:
        raise RampflowError(f"{path}: is truncated: {size} bytes for {shape[1]} x {shape[0]} pixels; get it again")
    indices = ("1_1", "1_2", "2_1", "2_2")
    if any(f"CD{index}" in cards for index in indices):
        linear = np.array([_number(f"CD{index}", 0) for index in indices]).reshape(2, 2)
    else:
        axes = np.array([_number(f"PC{index}", float(index[0] == index[2])) for index in indices]).reshape(2, 2)
        linear = np.array([[_number("CDELT1")], [_number("CDELT2")]]) * axes
    if not abs(np.linalg.det(linear)) > 0:
        raise _refuse("CDELT1", "a scale other than 0")
    latitude = _number("CRVAL2")
    return DustMap(
        path=path,
        pixels=np.memmap(path, dtype, "r", offset, shape),
        scale=_number("BSCALE", 1),
        zero=_number("BZERO", 0),
        reference_pixel=(_number("CRPIX1") - 1, _number("CRPIX2") - 1),
        pole=(_number("CRVAL1"), latitude),
        native_longitude=_number("LONPOLE", 0 if latitude >= 90 else 180),
        to_pixels=np.linalg.inv(linear),
    )


def hemispheres(ra: np.ndarray, dec: np.ndarray) -> dict[str, np.ndarray]:
    """Select the positions of each galactic hemisphere.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        ICRS, degrees; NaN belongs to none.

    Returns
    -------
    dict
        For ``north``, with the equator, and ``south``: whether each position belongs to it.
    """
    latitude = galactic(ra, dec)[1]
    return {"north": latitude >= 0, "south": latitude < 0}


def reddening(ra: np.ndarray, dec: np.ndarray, maps: dict[str, Path]) -> np.ndarray:
    """Look up E(B-V) at some positions.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        ICRS, degrees.
    maps : dict
        Map of the ``north`` and of the ``south``, which may be missing.

    Returns
    -------
    numpy.ndarray
        E(B-V), mag, float32; NaN for positions that are NaN or whose map is missing.

    Raises
    ------
    RampflowError
        A map that is needed can't be read.
    """
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    result = np.full(ra.shape, np.nan, np.float32)
    for name, inside in hemispheres(ra, dec).items():
        if name in maps and inside.any():
            result[inside] = open_map(maps[name]).interpolate(*galactic(ra[inside], dec[inside]))
    return result
