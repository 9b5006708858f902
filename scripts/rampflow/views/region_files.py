"""Sources and flagged pixels as regions of DS9, made and written by the package regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from rampflow import dq
from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing

RADIUS = 3  #: of an extended source, in units of its standard deviations along both axes
SOURCE_COLORS = {True: "green", False: "cyan"}  #: of extended sources and of point sources
#: Colors of flags in the order in which they are given.
FLAG_COLORS = ("red", "yellow", "magenta", "orange", "blue", "white")
#: Columns of a catalog that regions are made of.
COLUMNS = (
    *("label", "x_centroid", "y_centroid", "ra_centroid", "dec_centroid"),
    *("semimajor", "semiminor", "fwhm", "orientation_pix", "is_extended"),
)
#: Largest distance of an outline from the edges between flagged and other pixels: no middle of a pixel changes sides.
TOLERANCE = 0.3
PRECISION = 8  #: digits after the point, also of degrees: 0.04 mas
MARKER = 5  #: size of the cross at a single pixel, pixels of the screen
_EIGHT_NEIGHBORS = np.ones((3, 3))


class FlagCount(NamedTuple):
    """Number of regions of a flag.

    Attributes
    ----------
    written : int
        Number of regions.
    found : int
        Number of groups of touching pixels that have the flag.
    pixels : int
        Number of pixels that have it.
    """

    written: int
    found: int
    pixels: int


def import_regions() -> Any:
    """Import the package regions.

    Returns
    -------
    module
        The package.

    Raises
    ------
    RampflowError
        It is not installed.
    """
    try:
        import regions
    except ImportError:
        raise RampflowError(
            "regions of DS9 need the package regions, which is not installed: pip install regions; in a clone: make view"
        ) from None
    return regions


def source_regions(columns: dict[str, np.ndarray], pixel_side: float, wcs: Callable | None = None) -> list[Any]:
    """Make a region of each source of a catalog.

    An extended source is an ellipse of `RADIUS` standard deviations, a point source a circle with its FWHM as radius. The text
    of a region is the label of the source.

    Parameters
    ----------
    columns : dict of numpy.ndarray
        The `COLUMNS` of the catalog: pixels, degrees and arcsec.
    pixel_side : float
        Width of a pixel, arcsec.
    wcs : callable, optional
        WCS of the image. With it the regions are on the sky (ICRS), without it in pixels of the image.

    Returns
    -------
    list of regions.Region
        The regions, without sources whose position is not finite.

    Raises
    ------
    RampflowError
        The package regions is not installed.
    """
    regions = import_regions()
    unit = pixel_side if wcs is None else 1
    positions = (columns["x_centroid"], columns["y_centroid"])
    angles = columns["orientation_pix"].astype(float)
    if wcs is not None:
        # DS9 and regions count from the direction of decreasing right ascension to the north.
        angles = position_angles(wcs, *positions, angles) + 90
        positions = (columns["ra_centroid"], columns["dec_centroid"])
    place = _places(regions, positions, sky=wcs is not None)
    size = _sizes(sky=wcs is not None)
    circle, ellipse = (
        (regions.CirclePixelRegion, regions.EllipsePixelRegion)
        if wcs is None
        else (regions.CircleSkyRegion, regions.EllipseSkyRegion)
    )
    from astropy import units

    made = []
    for row in np.flatnonzero(np.isfinite(positions).all(axis=0)):
        extended = bool(columns["is_extended"][row])
        major, minor = (2 * RADIUS * columns[name][row] / unit for name in ("semimajor", "semiminor"))
        radius = columns["fwhm"][row] / unit
        if extended and np.isfinite([major, minor, angles[row]]).all():
            region = ellipse(place(row), size(major), size(minor), angle=angles[row] % 360 * units.deg)
        else:
            region = circle(place(row), size(radius if radius > 0 else 1))
        region.meta.update(text=str(columns["label"][row]), tag=["extended" if extended else "point"])
        region.visual["color"] = SOURCE_COLORS[extended]
        made.append(region)
    return made


def position_angles(wcs: Callable, x: np.ndarray, y: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turn directions on the detector into position angles.

    Parameters
    ----------
    wcs : callable
        From pixels (x, y) to (ra, dec) in degrees.
    x, y : numpy.ndarray
        Pixels.
    angles : numpy.ndarray
        Directions there, degrees from +x to +y.

    Returns
    -------
    numpy.ndarray
        Degrees from north to east.
    """
    from astropy import units
    from astropy.coordinates import SkyCoord

    step = 0.5 * np.array([np.cos(np.radians(angles)), np.sin(np.radians(angles))])
    begin, end = (SkyCoord(*wcs(x + sign * step[0], y + sign * step[1]), unit=units.deg) for sign in (-1, 1))
    return begin.position_angle(end).deg


def flag_regions(
    flags: np.ndarray, names: Sequence[str], limit: int, wcs: Callable | None = None
) -> tuple[list[Any], dict[str, FlagCount]]:
    """Make regions of the pixels that have a flag: outlines of groups of touching pixels, and points of single ones.

    Parameters
    ----------
    flags : numpy.ndarray
        Data quality, uint32.
    names : sequence of str
        Names of the flags.
    limit : int
        Largest number of regions of a flag: those of the largest groups.
    wcs : callable, optional
        WCS of the image. With it the regions are on the sky (ICRS), without it in pixels of the image.

    Returns
    -------
    regions : list of regions.Region
        The regions, tagged with the name of the flag.
    counts : dict of FlagCount
        Number of regions by name of the flag.

    Raises
    ------
    RampflowError
        The package regions is not installed.
    """
    regions = import_regions()
    point, polygon = (
        (regions.PointPixelRegion, regions.PolygonPixelRegion)
        if wcs is None
        else (regions.PointSkyRegion, regions.PolygonSkyRegion)
    )
    made, counts = [], {}
    for name, color in zip(names, FLAG_COLORS * len(names), strict=False):
        mask = dq.has(flags, dq.pixel_flags()[name])
        groups, found = ndimage.label(mask, _EIGHT_NEIGHBORS)
        outlines = list(_outlines(groups, limit))
        counts[name] = FlagCount(len(outlines), found, int(np.count_nonzero(mask)))
        if not outlines:
            continue
        corners = np.concatenate(outlines, axis=1)
        place = _places(regions, corners if wcs is None else wcs(*corners), sky=wcs is not None)
        ends = np.cumsum([outline.shape[1] for outline in outlines])
        for end, outline in zip(ends, outlines, strict=True):
            start = end - outline.shape[1]
            single = end == start + 1
            region = point(place(start)) if single else polygon(place(slice(start, end)))
            region.meta["tag"] = [name]
            region.visual.update(color=color, **({"marker": "x", "markersize": MARKER} if single else {}))
            made.append(region)
    return made, counts


def _outlines(groups: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """Middles of single pixels and corners of outlines, x and y, of the largest groups; holes are not cut out."""
    from skimage.measure import approximate_polygon, find_contours

    sizes = np.bincount(groups.ravel())[1:]
    boxes = ndimage.find_objects(groups)
    # Of groups of one size, those that are kept lie anywhere on the image, and are always the same.
    anywhere = np.random.default_rng(0).permutation(len(sizes))
    for number in np.lexsort((anywhere, -sizes))[:limit]:
        rows, columns = boxes[number]
        start = np.array([[rows.start], [columns.start]])
        if sizes[number] == 1:
            corners = start
        else:
            inside = np.pad(groups[rows, columns] == number + 1, 1).astype(float)
            outer = max(find_contours(inside, 0.5, fully_connected="high"), key=lambda line: np.ptp(line, axis=0).sum())
            # The last corner is the first one; the padding is a pixel.
            corners = approximate_polygon(outer, TOLERANCE)[:-1].T + start - 1
        yield corners[::-1].astype(float)


def _places(regions: Any, positions: Any, *, sky: bool) -> Callable[[Any], Any]:
    """A function that makes the position of a row, or of several."""
    x, y = (np.asarray(values, float) for values in positions)
    if not sky:
        return lambda rows: regions.PixCoord(x[rows], y[rows])
    from astropy import units
    from astropy.coordinates import SkyCoord

    all_positions = SkyCoord(x, y, unit=units.deg, frame="icrs")
    return lambda rows: all_positions[rows]


def _sizes(*, sky: bool) -> Callable[[float], Any]:
    from astropy import units

    return lambda value: float(value) * units.arcsec if sky else float(value)


def write_regions(path: Path, made: list[Any]) -> None:
    """Write regions as DS9 reads them.

    Parameters
    ----------
    path : pathlib.Path
        The file (.reg).
    made : list of regions.Region
        The regions, all in pixels or all on the sky.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    with replacing(path) as partial:
        if made:
            import_regions().Regions(made).write(partial, format="ds9", precision=PRECISION)
        else:  # the package would leave the file empty, which is no file of regions
            partial.write_text("# Region file format: DS9\n")
