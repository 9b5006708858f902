"""An image of the sky at a glance: binned, stretched, with north, east and a scale. It uses numpy and Pillow only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rampflow import SOFTWARE_NAME, __version__

if TYPE_CHECKING:
    from PIL import Image

PREVIEW_SIZE, THUMBNAIL_SIZE = 1080, 300  #: pixels a side at most; those of the previews in the Roman archive
SCALES = (1, 2, 5, 10, 20, 30, 60, 120, 180, 300)  #: lengths of a scale bar, arcsec


def binning(shape: tuple[int, int], size: int) -> int:
    """Choose the side of the square blocks that bring an image down to a size.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    size : int
        Largest number of blocks a side.

    Returns
    -------
    int
        Pixels a side of a block.
    """
    return max(math.ceil(max(shape) / size), 1)


def bin_down(image: np.ndarray, good: np.ndarray, factor: int) -> np.ndarray:
    """Average an image over square blocks.

    Parameters
    ----------
    image, good : numpy.ndarray
        Values, and which of them count (bool).
    factor : int
        Side of a block; rows and columns beyond the last whole block are left out.

    Returns
    -------
    numpy.ndarray
        Mean of the good pixels of each block (float32), NaN where there is none.
    """
    rows, columns = (n // factor * factor for n in image.shape)
    result = np.empty((rows // factor, columns // factor), np.float32)
    for start in range(0, rows, factor):  # a few rows at a time stay in the processor's cache
        counted = good[start : start + factor, :columns]
        values = np.where(counted, image[start : start + factor, :columns], 0).sum(axis=0, dtype=np.float32)
        total, number = (sums.reshape(-1, factor).sum(axis=1) for sums in (values, counted.sum(axis=0)))
        with np.errstate(invalid="ignore"):
            result[start // factor] = total / number
    return result


def stretch(image: np.ndarray) -> np.ndarray:
    """Turn an image into shades: the sky and its noise in the darker third, and the bright sources compressed above.

    Parameters
    ----------
    image : numpy.ndarray
        Values; NaN becomes black.

    Returns
    -------
    numpy.ndarray
        Shades from 0 (black) to 1 (white): asinh of the height above the sky, in units of its noise, from 1.5σ below the
        median to the 99.9th percentile.
    """
    values = image[np.isfinite(image)]
    if not values.size:
        return np.zeros(image.shape, np.float32)
    sky, top = np.percentile(values, (50, 99.9))
    noise = 1.4826 * np.median(np.abs(values - sky)) or 1.0
    low, high = -1.5, max((top - sky) / noise, 5.0)
    softening = 3.0  # σ: up to here nearly linear
    shades = np.arcsinh((image - sky) / noise / softening)
    low, high = np.arcsinh(low / softening), np.arcsinh(high / softening)
    return np.nan_to_num(np.clip((shades - low) / (high - low), 0, 1))


def corners_of(s_region: str | None) -> np.ndarray | None:
    """Read the corners of a footprint.

    Parameters
    ----------
    s_region : str or None
        Text ``POLYGON ICRS`` with ra and dec (degrees) of the corners (0, 0), (0, top), (right, top) and (right, 0).

    Returns
    -------
    numpy.ndarray or None
        Right ascension and declination in degrees, of shape (4, 2); `None` where there is no such polygon.
    """
    words = (s_region or "").split()
    if len(words) != 10 or words[0] != "POLYGON":
        return None
    return np.array(words[2:], float).reshape(4, 2)


def sky_center(positions: np.ndarray) -> np.ndarray:
    """Compute the middle of positions on the sky, by unit vectors: no place is special.

    Parameters
    ----------
    positions : numpy.ndarray
        Right ascension and declination, degrees, of shape (n, 2).

    Returns
    -------
    numpy.ndarray
        Right ascension and declination of the middle, degrees.
    """
    ra, dec = np.radians(positions).T
    x, y, z = np.mean([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    return np.degrees([np.arctan2(y, x) % (2 * np.pi), np.arctan2(z, np.hypot(x, y))])


def tangent_plane(positions: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Project positions on the plane that touches the sky at a center.

    Parameters
    ----------
    positions : numpy.ndarray
        Right ascension and declination, degrees, of shape (n, 2), less than 90 degrees from the center.
    center : numpy.ndarray
        Right ascension and declination of the center, degrees.

    Returns
    -------
    numpy.ndarray
        Distances to the east and the north, degrees, of shape (n, 2).
    """
    (ra, dec), (ra0, dec0) = np.radians(positions).T, np.radians(center)
    depth = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    east = np.cos(dec) * np.sin(ra - ra0) / depth
    north = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / depth
    return np.degrees(np.column_stack([east, north]))


def from_tangent_plane(plane: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Compute the positions on the sky of places in the plane that touches it at a center.

    Parameters
    ----------
    plane : numpy.ndarray
        Distances to the east and the north, degrees, of shape (n, 2).
    center : numpy.ndarray
        Right ascension and declination of the center, degrees.

    Returns
    -------
    numpy.ndarray
        Right ascension and declination, degrees, of shape (n, 2).
    """
    (east, north), (ra0, dec0) = np.radians(plane).T, np.radians(center)
    towards, up = np.cos(dec0) - north * np.sin(dec0), np.sin(dec0) + north * np.cos(dec0)
    ra = ra0 + np.arctan2(east, towards)
    return np.degrees(np.column_stack([ra, np.arctan2(up, np.hypot(east, towards))]))


def compass_directions(corners: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Find north, east and the scale of an image.

    Parameters
    ----------
    corners : numpy.ndarray
        Corners of its footprint, of `corners_of`.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    north, east : numpy.ndarray
        Unit vectors (x, y) on the detector.
    scale : float
        Size of a pixel, arcsec.
    """
    plane = tangent_plane(corners, sky_center(corners)).T
    along_x = (plane[:, 3] + plane[:, 2] - plane[:, 0] - plane[:, 1]) / 2 / shape[1]
    along_y = (plane[:, 1] + plane[:, 2] - plane[:, 0] - plane[:, 3]) / 2 / shape[0]
    sky_from_pixels = np.stack([along_x, along_y], axis=1)
    east, north = np.linalg.inv(sky_from_pixels).T
    scale = 3600 * np.sqrt(abs(np.linalg.det(sky_from_pixels)))
    return north / np.linalg.norm(north), east / np.linalg.norm(east), float(scale)


def draw(shades: np.ndarray, corners: np.ndarray | None = None):
    """Draw an image with its first row at the bottom, arrows to north and east, and a scale bar.

    Parameters
    ----------
    shades : numpy.ndarray
        Shades of the image, of `stretch`.
    corners : numpy.ndarray, optional
        Corners of its footprint, of `corners_of`; without them there are no arrows and no bar.

    Returns
    -------
    PIL.Image.Image
        The picture, in shades of gray.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray((shades[::-1] * 255).astype(np.uint8)))
    if corners is not None:
        draw_compass(picture, *compass_directions(corners, shades.shape))
    return picture


def save_picture(picture: Image.Image, size: int, path: Path) -> None:
    """Shrink a picture, and write it as PNG that names this software.

    Parameters
    ----------
    picture : PIL.Image.Image
        The picture. It is shrunk in place.
    size : int
        Pixels a side at most.
    path : pathlib.Path
        File to write.
    """
    from PIL.PngImagePlugin import PngInfo

    software = PngInfo()
    software.add_text("Software", f"{SOFTWARE_NAME} {__version__}")
    picture.thumbnail((size, size))
    picture.save(path, "PNG", pnginfo=software)


def draw_compass(picture, north: np.ndarray, east: np.ndarray, scale: float) -> None:
    """Draw arrows to north and east, and a scale bar, into a picture.

    Parameters
    ----------
    picture : PIL.Image.Image
        The picture, in shades of gray.
    north, east : numpy.ndarray
        Unit vectors (x, y), y up.
    scale : float
        Size of a pixel of the picture, arcsec.
    """
    from PIL import ImageDraw, ImageFont

    width, height = picture.size
    pen, arm = ImageDraw.Draw(picture), 0.06 * width
    font, thick = ImageFont.load_default(0.026 * width), max(round(width / 500), 1)
    center, start = np.array([width - 2 * arm, height - 2 * arm]), np.array([arm, height - arm])
    length = max((s for s in SCALES if s / scale < 0.3 * width), default=SCALES[0])
    lines, texts = [[start, start + [length / scale, 0]]], []
    texts.append((start + [length / scale / 2, -0.35 * arm], f'{length}"' if length < 60 else f"{length // 60}'"))
    for direction, name in ((north, "N"), (east, "E")):
        along = direction * [1, -1]  # rows of a picture run down
        across, tip = along[::-1] * [-1, 1], center + arm * along
        barbs = [tip + arm * (0.18 * side * across - 0.25 * along) for side in (-1, 1)]
        lines += [[center, tip], [barbs[0], tip, barbs[1]]]
        texts.append((center + 1.35 * arm * along, name))
    for shade, extra in ((0, 2 * thick), (255, 0)):  # a dark rim around white: to be seen on any background
        for line in lines:
            pen.line([tuple(point) for point in line], fill=shade, width=2 * thick + extra, joint="curve")
    for place, text in texts:
        pen.text(tuple(place), text, fill=255, font=font, anchor="mm", stroke_width=thick, stroke_fill=0)
