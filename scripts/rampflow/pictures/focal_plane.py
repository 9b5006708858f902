"""All detectors of an exposure in one picture: each at its place on the sky, with north up and east to the left."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rampflow.pictures.image import bin_down, draw_compass, sky_center, stretch, tangent_plane

if TYPE_CHECKING:
    from PIL import Image

MARGIN = 0.02  #: around the detectors, of the larger side


ACROSS = 6  #: detectors along the longer side of the focal plane


class Tile(NamedTuple):
    """Image of a detector.

    Attributes
    ----------
    name : str
        Name of the detector.
    image : numpy.ndarray
        Count rate (DN/s), binned; NaN where no pixel is good.
    shape : tuple of float
        Rows and columns of the whole image in binned pixels: those beyond the last whole block count, too.
    corners : numpy.ndarray
        Corners of the image on the sky, of `rampflow.pictures.image.corners_of`.
    """

    name: str
    image: np.ndarray
    shape: tuple[float, float]
    corners: np.ndarray


class Mosaic(NamedTuple):
    """Images of all detectors on one plane.

    Attributes
    ----------
    image : numpy.ndarray
        Count rate (DN/s), NaN between the detectors; first row south, first column east.
    scale : float
        Size of a pixel, arcsec.
    names : dict of tuple of float
        Column and row of the middle of each detector.
    """

    image: np.ndarray
    scale: float
    names: dict[str, tuple[float, float]]


def make_tile(name: str, image: np.ndarray, good: np.ndarray, corners: np.ndarray, size: int) -> Tile:
    """Bin the image of a detector down to about the pixels of a picture of the whole focal plane.

    Parameters
    ----------
    name : str
        Name of the detector.
    image, good : numpy.ndarray
        Count rate (DN/s), and which pixels count (bool).
    corners : numpy.ndarray
        Corners of the image on the sky, of `rampflow.pictures.image.corners_of`.
    size : int
        Pixels of the longer side of the picture.

    Returns
    -------
    Tile
        The image.
    """
    factor = max(max(image.shape) * ACROSS // size, 1)
    return Tile(name, bin_down(image, good, factor), (image.shape[0] / factor, image.shape[1] / factor), corners)


def compose(tiles: list[Tile], size: int) -> Mosaic:
    """Put the images of all detectors on the plane that touches the sky at their middle.

    The corners of each image are placed exactly, and what is between them by the projective transform that they define: the
    rest of the distortion is less than a pixel of the picture.

    Parameters
    ----------
    tiles : list of Tile
        The images.
    size : int
        Pixels of the longer side.

    Returns
    -------
    Mosaic
        The images on the plane.
    """
    from skimage.transform import ProjectiveTransform, warp

    corners = np.concatenate([tile.corners for tile in tiles])
    plane = tangent_plane(corners, sky_center(corners)) * 3600
    low, high = plane.min(axis=0), plane.max(axis=0)
    margin = MARGIN * (high - low).max()
    low, high = low - margin, high + margin
    scale = float((high - low).max() / size)
    columns, rows = np.ceil((high - low) / scale).astype(int)
    image = np.full((rows, columns), np.nan, np.float32)
    names = {}
    for tile, (east, north) in zip(tiles, plane.reshape(-1, 4, 2).transpose(0, 2, 1), strict=True):
        places = np.column_stack([(high[0] - east) / scale, (north - low[1]) / scale]) - 0.5
        height, width = tile.shape
        own = np.array([(0, 0), (0, height), (width, height), (width, 0)]) - 0.5
        # Only the part of the plane that the detector covers.
        first = np.floor(places.min(axis=0)).astype(int).clip(0)
        last = np.ceil(places.max(axis=0)).astype(int) + 1
        transform = ProjectiveTransform.from_estimate(places - first, own)
        target = image[first[1] : last[1], first[0] : last[0]]
        values = warp(tile.image, transform, output_shape=target.shape, order=0, cval=np.nan, preserve_range=True)
        np.copyto(target, values, where=np.isfinite(values))
        names[tile.name] = tuple(places.mean(axis=0))
    return Mosaic(image, scale, names)


def draw_mosaic(mosaic: Mosaic) -> Image.Image:
    """Draw the images of all detectors with one stretch, their names, north, east and a scale bar.

    Parameters
    ----------
    mosaic : Mosaic
        The images.

    Returns
    -------
    PIL.Image.Image
        The picture, in shades of gray; black where there is no good pixel.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(np.ascontiguousarray((stretch(mosaic.image)[::-1] * 255).astype(np.uint8)))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(0.014 * max(picture.size), 8))
    for name, (column, row) in mosaic.names.items():
        pen.text((column, picture.height - 1 - row), name, fill=255, font=font, anchor="mm", stroke_width=2, stroke_fill=0)
    draw_compass(picture, np.array([0.0, 1.0]), np.array([-1.0, 0.0]), mosaic.scale)
    return picture
