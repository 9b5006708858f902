"""Reddening by dust in our galaxy, E(B-V), from the maps of Schlegel, Finkbeiner & Davis (1998, ApJ 500, 525).

There is a map for each galactic hemisphere, in a zenithal equal-area projection, as a FITS image. As in romancal, a position is
looked up in the map of its hemisphere (that of the north at the equator), by cubic spline interpolation.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError

#: Projection of a dust map, by the keywords of its header.
PROJECTION = {"NAXIS": 2, "CTYPE1": "GLON-ZEA", "CTYPE2": "GLAT-ZEA"}
#: Pixels around the positions that are read. A pixel at this distance has a weight of 10⁻¹⁸ in a cubic spline.
MARGIN = 32


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
    from astropy.coordinates import SkyCoord

    sky = SkyCoord(ra, dec, unit="deg").galactic
    return sky.l.deg, sky.b.deg


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
    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning
    from scipy.ndimage import map_coordinates

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # of old spellings, which astropy mends
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        warnings.filterwarnings("ignore", "File may have been truncated")  # an error, below
        try:
            with fits.open(path) as file:
                _check_map(path, file[0])
                _check_hemisphere(path, file[0].header, latitude)
                column, row = WCS(file[0].header).wcs_world2pix(longitude, latitude, 0)
                starts, window = [], []
                for position, size in zip((row, column), file[0].shape, strict=True):
                    first, last = np.clip([np.floor(position.min()), np.ceil(position.max())], 0, size - 1).astype(int)
                    starts.append(max(first - MARGIN, 0))
                    window.append(slice(starts[-1], min(last + MARGIN + 1, size)))
                values = file[0].section[tuple(window)].astype(float)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RampflowError(f"{path}: can't be read as a dust map ({error}); give another one, or N/A for none") from None
    return map_coordinates(values, [row - starts[0], column - starts[1]], order=3, mode="nearest")


def _check_map(path: Path, image) -> None:
    """Refuse an image of a FITS file that is no dust map, or not whole."""
    for keyword, takes in PROJECTION.items():
        if image.header.get(keyword) != takes:
            raise RampflowError(
                f"{path}: {keyword} is {image.header.get(keyword)}; it takes {takes}; give another dust map, or N/A for none"
            )
    if min(image.shape) < 2:
        raise RampflowError(f"{path}: has {image.shape[1]} x {image.shape[0]} pixels; give another dust map, or N/A for none")
    if (size := path.stat().st_size) < image.fileinfo()["datLoc"] + image.size:
        raise RampflowError(f"{path}: is truncated: {size} bytes for {image.shape[1]} x {image.shape[0]} pixels; get it again")


def _check_hemisphere(path: Path, header, latitude: np.ndarray) -> None:
    """Refuse the map of the other hemisphere: the positions would have the value of its edge."""
    center = header.get("CRVAL2", 0)
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
