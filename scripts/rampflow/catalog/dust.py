"""Reddening by dust in our galaxy, E(B-V), from the maps of Schlegel, Finkbeiner & Davis (1998, ApJ 500, 525).

There is a map for each galactic hemisphere, in a zenithal equal-area projection, as a FITS image. As in romancal, a position is
looked up in the map of its hemisphere (that of the north at the equator), by cubic spline interpolation.

Stands for
    astropy 8.0.2, `astropy.coordinates.SkyCoord.galactic`, and `astropy.io.fits` and `astropy.wcs` for a map with a plain
    header; they read all others
Equal
    to 1e-6 arcsec (coordinates) and 1e-9 pixels (projection)
Saves
    0.4 s of CPU, for the import of astropy, where nothing else imports it (see `rampflow.catalog.segments`)
Tests
    test_galactic_coordinates_agree_with_astropy, test_plain_maps_agree_with_astropy
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError

#: Projection of a dust map, by the keywords of its header.
PROJECTION = {"NAXIS": 2, "CTYPE1": "GLON-ZEA", "CTYPE2": "GLAT-ZEA"}
CARD, HEADER_BLOCK = 80, 2880  #: bytes of a card, and of a block of a header, in a FITS file
LARGEST_HEADER = 100 * HEADER_BLOCK
GZIP = b"\x1f\x8b"  #: first bytes of a file of gzip
#: Keywords that may change the projection or the values in a way that is left to astropy.
LEFT_TO_ASTROPY = re.compile(
    r"PC\d|PV\d|PS\d|CROTA|PROJP|LONGPOLE|AP?_|BP?_|CPDIS|CQDIS|CPERR|DP\d|DQ\d|D2IM|AXISCORR|BLANK|GROUPS|HIERARCH|CONTINUE"
)
DTYPES = {"8": "u1", "16": ">i2", "32": ">i4", "-32": ">f4", "-64": ">f8"}  #: by BITPIX
#: Pixels around the positions that are read. A pixel at this distance has a weight of 10⁻¹⁸ in a cubic spline.
MARGIN = 32


ARCSEC = np.pi / 180 / 3600


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Matrix that turns the axes of a frame by an angle (radians) around one of them."""
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
        ICRS, degrees, of the same shape.

    Returns
    -------
    longitude : numpy.ndarray
        Galactic longitude, 0 to 360 degrees, of this shape.
    latitude : numpy.ndarray
        Galactic latitude, degrees, of this shape.
    """
    ra, dec = np.radians(ra), np.radians(dec)
    x, y, z = _TO_GALACTIC @ np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


@dataclasses.dataclass(frozen=True)
class PlainMap:
    """Dust map with a plain header: ``CDELT`` or ``CD``, degrees, its center at a galactic pole.

    Attributes
    ----------
    pixels : numpy.ndarray
        Image as stored, shape (rows, columns), mapped into memory.
    scale, zero : float
        E(B-V) in mag is ``zero + scale * pixels``.
    center : tuple of float
        Column and row of the pole, counted from 0.
    latitude : float
        Galactic latitude of the pole, 90 or -90 degrees.
    turn : float
        Native longitude of the projection, less the galactic longitude that it corresponds to, degrees.
    to_pixels : numpy.ndarray
        Matrix from projected coordinates (degrees) to pixels, shape (2, 2).
    """

    pixels: np.ndarray
    scale: float
    zero: float
    center: tuple[float, float]
    latitude: float
    turn: float
    to_pixels: np.ndarray

    def locate(self, longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert galactic coordinates to pixels (Calabretta & Greisen 2002, A&A 395, 1077, equations 5, 12, 13 and 69).

        Parameters
        ----------
        longitude, latitude : numpy.ndarray
            Galactic coordinates, degrees, of shape (positions,).

        Returns
        -------
        column : numpy.ndarray
            Column in the map, counted from 0, of the same shape.
        row : numpy.ndarray
            Row in the map, likewise.
        """
        sign = np.sign(self.latitude)
        azimuth = np.radians(self.turn + sign * longitude)
        radius = np.degrees(2 * np.sin(np.radians(90 - sign * latitude) / 2))
        column, row = self.to_pixels @ np.array([radius * np.sin(azimuth), -radius * np.cos(azimuth)])
        return column + self.center[0], row + self.center[1]


def read_plain_map(path: Path) -> PlainMap | None:
    """Open a dust map without astropy, whose import takes longer than all else that is done with the map.

    Parameters
    ----------
    path : pathlib.Path
        FITS file.

    Returns
    -------
    PlainMap or None
        The map, whose pixels are read when they are used; `None` if its header has anything else than the plain map of a
        hemisphere, or the file is damaged.
    """
    cards: dict[str, str] = {}
    size = 0
    with open(path, "rb") as file:
        while "END" not in cards:
            block = file.read(HEADER_BLOCK).decode("latin-1")
            size += len(block)
            if len(block) < HEADER_BLOCK or size > LARGEST_HEADER:
                return None
            for start in range(0, HEADER_BLOCK, CARD):
                card = block[start : start + CARD]
                keyword = card[:8].rstrip()
                if keyword == "END":
                    cards[keyword] = ""
                    break
                if LEFT_TO_ASTROPY.match(keyword) or (keyword in cards and card[8:10] == "= "):
                    return None
                if card[8:10] == "= ":
                    text = card[10:].strip()
                    quoted = text[:1] == "'"
                    cards[keyword] = text[1:].partition("'")[0].rstrip() if quoted else text.partition("/")[0].rstrip()
    try:
        return _plain_map(path, cards, size)
    except (KeyError, ValueError):
        return None


def _plain_map(path, cards, size):
    """Make a plain map of the cards of a header; KeyError or ValueError if it is another one."""

    def _number(keyword, default=None):
        return float(cards[keyword] if default is None else cards.get(keyword, default))

    shape = int(cards["NAXIS2"]), int(cards["NAXIS1"])
    dtype = np.dtype(DTYPES[cards["BITPIX"]])
    plain = cards["SIMPLE"] == "T" and all(cards[keyword] == str(value) for keyword, value in PROJECTION.items())
    plain = plain and all(cards.get(keyword, "deg") == "deg" for keyword in ("CUNIT1", "CUNIT2"))
    plain = plain and cards.get("WCSAXES", "2") == "2"
    indices = ("1_1", "1_2", "2_1", "2_2")
    if any(f"CD{index}" in cards for index in indices):
        linear = np.array([_number(f"CD{index}", 0) for index in indices]).reshape(2, 2)
        plain = plain and not {"CDELT1", "CDELT2"} & cards.keys()
    else:
        linear = np.diag([_number("CDELT1"), _number("CDELT2")])
    latitude = _number("CRVAL2")
    sign = np.sign(latitude)
    # At a pole, the native longitude is that of the galaxy (north), or its negative (south), with an offset.
    turn = _number("LONPOLE", 0 if latitude >= 90 else 180) - sign * _number("CRVAL1") + (180 if sign > 0 else 0)
    values = _number("BSCALE", 1), _number("BZERO", 0), _number("CRPIX1") - 1, _number("CRPIX2") - 1
    known = np.isfinite([*values, turn]).all() and np.isfinite(linear).all() and abs(np.linalg.det(linear)) > 0
    whole = min(shape) >= 2 and path.stat().st_size >= size + shape[0] * shape[1] * dtype.itemsize
    if not (plain and known and whole and abs(latitude) == 90):
        raise ValueError(path)
    pixels = np.memmap(path, dtype, "r", size, shape)
    return PlainMap(pixels, values[0], values[1], values[2:], latitude, turn, np.linalg.inv(linear))


def interpolate_map(path: Path, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Interpolate a dust map, with the value of its edge for positions beyond it. Only a window around them is read.

    Parameters
    ----------
    path : pathlib.Path
        FITS file with an image in the projection ``GLON-ZEA``, ``GLAT-ZEA``.
    longitude, latitude : numpy.ndarray
        Galactic coordinates, finite, degrees, of shape (positions,); at least one.

    Returns
    -------
    numpy.ndarray
        E(B-V), mag, of the same shape.

    Raises
    ------
    RampflowError
        It is no FITS image, is truncated, has another projection, or is the map of the other hemisphere.
    """
    from scipy.ndimage import map_coordinates

    if (plain := read_plain_map(path)) is None:
        column, row, values, starts = _read_by_astropy(path, longitude, latitude)
    else:
        _check_hemisphere(path, plain.latitude, latitude)
        column, row = plain.locate(longitude, latitude)
        starts, window = _window(column, row, plain.pixels.shape)
        values = plain.zero + plain.scale * plain.pixels[window].astype(float)
    return map_coordinates(values, [row - starts[0], column - starts[1]], order=3, mode="nearest")


def _window(column, row, shape):
    """First row and column, and slices, of the pixels around some positions."""
    starts, window = [], []
    for position, size in zip((row, column), shape, strict=True):
        first, last = np.clip([np.floor(position.min()), np.ceil(position.max())], 0, size - 1).astype(int)
        starts.append(max(first - MARGIN, 0))
        window.append(slice(starts[-1], min(last + MARGIN + 1, size)))
    return starts, tuple(window)


def _read_by_astropy(path, longitude, latitude):
    """Locate positions in any map; read the pixels around them."""
    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # of old spellings, which astropy mends
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        warnings.filterwarnings("ignore", "File may have been truncated")  # an error, below
        try:
            with fits.open(path) as file:
                _check_map(path, file[0])
                _check_hemisphere(path, file[0].header.get("CRVAL2", 0), latitude)
                column, row = WCS(file[0].header).wcs_world2pix(longitude, latitude, 0)
                starts, window = _window(column, row, file[0].shape)
                return column, row, file[0].section[window].astype(float), starts
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise RampflowError(f"{path}: can't be read as a dust map ({error}); give another one, or N/A for none") from None


def _check_map(path: Path, image) -> None:
    """Refuse an image of a FITS file that is no dust map, or not whole."""
    if not hasattr(image, "shape"):  # astropy can't tell what it is
        raise RampflowError(f"{path}: the header is damaged; get it again")
    for keyword, takes in PROJECTION.items():
        if image.header.get(keyword) != takes:
            raise RampflowError(
                f"{path}: {keyword} is {image.header.get(keyword)}; it takes {takes}; give another dust map, or N/A for none"
            )
    if min(image.shape) < 2:
        raise RampflowError(f"{path}: has {image.shape[1]} x {image.shape[0]} pixels; give another dust map, or N/A for none")
    with open(path, "rb") as file:
        is_compressed = file.read(2) == GZIP  # astropy decompresses it; a truncated one is an EOFError
    if not is_compressed and (size := path.stat().st_size) < image.fileinfo()["datLoc"] + image.size:
        raise RampflowError(f"{path}: is truncated: {size} bytes for {image.shape[1]} x {image.shape[0]} pixels; get it again")


def _check_hemisphere(path: Path, center: float, latitude: np.ndarray) -> None:
    """Refuse the map of the other hemisphere: the positions would have the value of its edge."""
    if np.sign(center) * np.sign(latitude).sum() < 0:
        names = ("south", "north") if center < 0 else ("north", "south")
        raise RampflowError(
            f"{path}: is a dust map of the {names[0]} (CRVAL2 is {center:g}); give that of the {names[1]}, or N/A for none"
        )


def hemispheres(ra: np.ndarray, dec: np.ndarray) -> dict[str, np.ndarray]:
    """Select the positions of each galactic hemisphere.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        ICRS, degrees, of shape (positions,); NaN belongs to none.

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
        ICRS, degrees, of shape (positions,).
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
            result[inside] = interpolate_map(maps[name], *galactic(ra[inside], dec[inside]))
    return result
