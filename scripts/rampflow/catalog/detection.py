"""Find sources: subtract the background, smooth, threshold, and label what stands out."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.wcs.footprint import footprint_distance

log = step_logger("source_catalog")

SIGMA_TO_MAD = 0.6744897501960817  #: Median absolute deviation of a normal distribution of unit width: Φ⁻¹(3/4)
FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
CLIP, CLIP_ROUNDS = 3.0, 5
BLOCK = 256  #: Rows that are computed at a time, so that no second whole image is held
#: A box with more than this part of its pixels masked or clipped tells nothing of the background.
EXCLUDED_FRACTION = 0.1
#: Faintest branch of a source that deblending splits off, as a part of the source's flux.
DEBLEND_CONTRAST = 1e-4
#: Arcsec between the pointings of a forced segmentation map's image and the image: none of its sources is in its segment.
LARGEST_OFFSET = 1.0
#: Arcsec between their footprints, of which one may be aligned: beyond, they are no errors of one pointing.
LARGEST_DISPLACEMENT = 6.0


# ----------------------------------------------------------------------------------------------------------- background
def clipped_statistics(values: np.ndarray) -> tuple[float, float, int]:
    """Median and standard deviation of a sample clipped at 3 σ around the median, σ from the median absolute deviation.

    Clipping a sorted sample is taking a slice of it: it is sorted once, and each round costs two binary searches.

    Parameters
    ----------
    values : numpy.ndarray
        Finite values, 1-D.

    Returns
    -------
    median, std : float
        NaN without values.
    count : int
        Values that remain.
    """
    kept = np.sort(values)
    for _ in range(CLIP_ROUNDS):
        if not kept.size:
            break
        median = _median_of_sorted(kept)
        width = CLIP * _mad_of_sorted(kept, median) / SIGMA_TO_MAD
        inside = slice(kept.searchsorted(median - width), kept.searchsorted(median + width, "right"))
        before, kept = kept.size, kept[inside]
        if kept.size == before:
            break
    if not kept.size:
        return np.nan, np.nan, 0
    return _median_of_sorted(kept), float(kept.std(dtype=float)), kept.size


def _median_of_sorted(values):
    return (float(values[(values.size - 1) // 2]) + float(values[values.size // 2])) / 2


def _mad_of_sorted(values, median):
    def deviation(count):
        """Largest deviation among the `count` values nearest to the median: they are neighbours."""
        starts = range(values.size - count + 1)
        first = bisect_left(starts, 0, key=lambda i: float(values[i]) + float(values[i + count - 1]) - 2 * median)
        return min(
            max(median - float(values[i]), float(values[i + count - 1]) - median) for i in (first - 1, first) if i in starts
        )

    size = values.size
    return (deviation((size + 1) // 2) + deviation(size // 2 + 1)) / 2


class Background:
    """The background of an image and its noise, from sigma-clipped statistics in boxes.

    The boxes' values are those of photutils' `Background2D` (median, standard deviation, 3 × 3 median filter), and so is the
    cubic spline through them; it is evaluated by rows, as a product of two small matrices.

    Parameters
    ----------
    image : numpy.ndarray
        2-D, in any unit.
    mask : numpy.ndarray
        True where a pixel does not count.
    box : int
        Edge length of the boxes in pixels.
    threads : int
        Boxes that are measured at the same time.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray, box: int, *, threads: int = 1):
        size = tuple(min(box, n) for n in image.shape)
        try:
            meshes = _measure_boxes(image, mask, size, EXCLUDED_FRACTION, threads)
        except ValueError:
            log.info("No box has enough good pixels: the background is that of the whole image")
            size = image.shape
            meshes = _measure_boxes(image, mask, size, 1.0, threads)
        self._level, self._rms = meshes
        self._weights = [
            _spline_weights(n, length, b) for n, length, b in zip(self._level.shape, image.shape, size, strict=True)
        ]
        log.info("Background: %.6g, noise per pixel: %.6g (medians)", np.median(self._level), np.median(self._rms))
        if not self._rms.min() > 0:
            log.warning(
                "The noise of the background is 0 in %d of %d boxes (most of their pixels are equal): whatever is above it "
                "there counts as a source",
                np.count_nonzero(self._rms == 0),
                self._rms.size,
            )

    def _rows(self, mesh, start, stop):
        across, along = self._weights
        return (across[start:stop] @ mesh @ along.T).clip(mesh.min(), mesh.max())

    def level(self, start: int, stop: int) -> np.ndarray:
        """The background of rows `start` to `stop`, in the unit of the image."""
        return self._rows(self._level, start, stop)

    def rms(self, start: int, stop: int) -> np.ndarray:
        """The noise per pixel of rows `start` to `stop`, in the unit of the image."""
        return self._rows(self._rms, start, stop)


def _measure_boxes(image, mask, size, excluded, threads):
    """Level and noise of each box; `ValueError` when none has enough good pixels."""
    from scipy.ndimage import generic_filter

    corners = [range(0, n, b) for n, b in zip(image.shape, size, strict=True)]

    def measure(corner):
        box = tuple(slice(c, c + b) for c, b in zip(corner, size, strict=True))
        median, std, count = clipped_statistics(image[box][~mask[box]])
        # Cut boxes at the edges are held against the size of a whole one.
        return (median, std) if count > (1 - excluded) * math.prod(size) else (np.nan, np.nan)

    with ThreadPoolExecutor(threads) as pool:
        values = list(pool.map(measure, [(y, x) for y in corners[0] for x in corners[1]]))
    meshes = np.array(values).T.reshape(2, *map(len, corners))
    if np.isnan(meshes).all():
        raise ValueError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return [generic_filter(_fill_mesh(mesh), np.nanmedian, size=3, mode="constant", cval=np.nan) for mesh in meshes]


def _fill_mesh(mesh):
    """Give boxes without a value the mean of the ten nearest ones, weighed by the inverse of their distance (Shepard 1968)."""
    from scipy.spatial import cKDTree

    known = np.isfinite(mesh)
    if not known.all():
        nearest = range(1, min(10, np.count_nonzero(known)) + 1)
        distance, index = cKDTree(np.argwhere(known), leafsize=10).query(np.argwhere(~known), k=nearest)
        mesh[~known] = np.average(mesh[known][index], axis=1, weights=1 / distance)
    return mesh


def _spline_weights(boxes, length, box):
    """Weights of the boxes in the cubic spline through them at each pixel of an axis, (pixel, box)."""
    from scipy.ndimage import zoom

    if boxes == 1:
        return np.ones((length, 1))
    return zoom(np.eye(boxes), (box, 1), order=3, mode="reflect", grid_mode=True)[:length]


# ------------------------------------------------------------------------------------------------------------ detection
def smooth(image: np.ndarray, mask: np.ndarray, fwhm: float, *, threads: int = 1) -> np.ndarray:
    """Convolve an image with a Gaussian; masked pixels are interpolated by the same kernel.

    Parameters
    ----------
    image : numpy.ndarray
        Background-subtracted, float32; it continues as zeros beyond its edges.
    mask : numpy.ndarray
        True where a pixel does not count.
    fwhm : float
        Full width at half maximum of the kernel in pixels; the kernel ends at 1.5 times this.
    threads : int
        Blocks of rows that are computed at the same time.

    Returns
    -------
    numpy.ndarray
        float32; NaN where no pixel under the kernel is good.
    """
    from rampflow.kernels.source_catalog import smooth_rows

    reach = math.ceil(3 * fwhm) // 2
    subpixels = (np.arange(10) + 0.5) / 10 - 0.5
    profile = np.exp(-0.5 * ((np.arange(-reach, reach + 1)[:, None] + subpixels) / (fwhm * FWHM_TO_SIGMA)) ** 2).mean(axis=1)
    profile /= profile.sum()
    result = np.empty(image.shape, np.float32)
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, image.shape[0], BLOCK)
        list(pool.map(lambda start: smooth_rows(image, mask, profile, start, result[start : start + BLOCK]), starts))
    return result


def find_segments(
    detection: np.ndarray, background: Background, mask: np.ndarray, *, snr_threshold: float, npixels: int, deblend: bool
):
    """Label the sources of a detection image.

    Parameters
    ----------
    detection : numpy.ndarray
        Smoothed, background-subtracted image.
    background : Background
        Of the image before it was smoothed.
    mask : numpy.ndarray
        True where a pixel belongs to no source.
    snr_threshold : float
        Pixels above this many times the noise belong to a source.
    npixels : int
        Connected pixels (8 neighbours) that make a source.
    deblend : bool
        Split sources with more than one peak, by multiple thresholds and watershed.

    Returns
    -------
    numpy.ndarray or None
        Label of the source that each pixel belongs to, 0 for none, int32; `None` without any source.

    Raises
    ------
    RampflowError
        To deblend needs scikit-image.
    """
    from scipy.ndimage import label

    above = np.empty(detection.shape, bool)
    for start in range(0, len(above), BLOCK):
        rows = slice(start, min(start + BLOCK, len(above)))
        np.greater(detection[rows], snr_threshold * background.rms(rows.start, rows.stop), out=above[rows])
    above &= ~mask
    labels, _ = label(above, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) >= npixels
    large[0] = False
    new = np.where(large, large.cumsum(), 0).astype(np.int32)
    labels = new[labels]
    if deblend and large.any():
        labels = _deblend(detection, labels, npixels)
    log.info("Detected %d sources", labels.max())
    return labels if large.any() else None


def _deblend(detection, labels, npixels):
    from photutils.segmentation import SegmentationImage, deblend_sources

    try:
        segments = SegmentationImage(labels)
        return deblend_sources(detection, segments, npixels, contrast=DEBLEND_CONTRAST, progress_bar=False).data
    except ModuleNotFoundError as error:
        raise RampflowError(f"deblend needs the package {error.name}, which is not installed (scikit-image)") from error


def check_same_field(given: Exposure, meta: dict, scale: float) -> None:
    """Refuse a segmentation map of another detector or another part of the sky; warn of one that is displaced.

    The labels of a map are pixels: they are right for an image whose pixels lie where those of the map's image lie.

    Parameters
    ----------
    given : Exposure
        The segmentation map.
    meta : dict
        ``meta`` of the image.
    scale : float
        Arcsec per pixel.

    Raises
    ------
    RampflowError
    """
    theirs, ours = (m.get("instrument", {}).get("detector") for m in (given.meta, meta))
    if theirs != ours:
        raise RampflowError(
            f"{given.path}: this forced_segmentation is of {theirs}, and the image of {ours}; give a map of the same detector"
        )
    field, limit = "the pointing, ra_ref, dec_ref and roll_ref in meta.wcsinfo", LARGEST_OFFSET
    sections = [m.get("wcsinfo", {}) for m in (given.meta, meta)]
    distance = pointing_distance(*sections, given.array("data", 2).shape, scale)
    if distance is None:
        field, limit = "meta.wcsinfo.s_region", LARGEST_DISPLACEMENT
        distance = footprint_distance(*(section.get("s_region") for section in sections))
    if distance is None:
        log.warning(
            "%s: whether this forced_segmentation is of the image's pointing can't be told: neither the pointing nor "
            "meta.wcsinfo.s_region of both is known",
            given.path,
        )
        return
    text = f"{given.path}: this forced_segmentation lies {distance:.2f} arcsec ({distance / scale:.1f} pixels) from the image"
    if distance > limit:
        raise RampflowError(
            f"{text} ({field}), more than {limit:g} arcsec, so that its segments lie beside the sources; give a map of the "
            "same pointing"
        )
    if distance > scale:
        log.warning("%s (%s): its sources are measured at wrong places by as much", text, field)


def pointing_distance(one: dict, other: dict, shape: tuple[int, int], scale: float) -> float | None:
    """How far apart two images of one detector point: arcsec at their corners; `None` where one doesn't say.

    The pointing is what the telescope gave: an alignment of one of them, which changes its footprint, doesn't count.

    Parameters
    ----------
    one, other : dict
        ``meta.wcsinfo`` of each.
    shape : tuple of int
        Rows and columns.
    scale : float
        Arcsec per pixel.
    """
    from rampflow.astrometry.region import separation, unit_vectors

    pointings = [[section.get(name) for name in ("ra_ref", "dec_ref", "roll_ref")] for section in (one, other)]
    if not all(isinstance(value, int | float) and abs(value) <= 360 for pointing in pointings for value in pointing):
        return None
    (ra, dec, roll), (other_ra, other_dec, other_roll) = pointings
    turn = math.radians(abs((roll - other_roll + 180) % 360 - 180))
    offset = 3600 * float(separation(unit_vectors(ra, dec), unit_vectors(other_ra, other_dec)))
    return offset + turn * math.hypot(*shape) / 2 * scale


def read_segments(path: Path, mask: np.ndarray, meta: dict, scale: float):
    """A segmentation map whose sources are to be measured in another image.

    Parameters
    ----------
    path : pathlib.Path
        A segmentation map with its detection image, of the same shape as the image.
    mask : numpy.ndarray
        True where a pixel of the image does not count: segments that are masked as a whole are left out.
    meta : dict
        ``meta`` of the image.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    labels : numpy.ndarray or None
        Label of the source that each pixel belongs to, int32; `None` where none is left.
    detection : numpy.ndarray
        The image that the segments were found in, float32.

    Raises
    ------
    RampflowError
        The file is no such map, has another shape, or is of another detector or another part of the sky.
    """
    with AsdfFile(path) as file:
        exposure = Exposure(file)
        exposure.expect_model("segmentation_map", "forced_segmentation")
        check_same_field(exposure, meta, scale)
        labels = exposure.array("data", 2, shape=mask.shape).read()
        detection = exposure.array("detection_image", 2, shape=mask.shape).read().astype(np.float32, copy=False)
    good = np.zeros(int(labels.max()) + 1, bool)
    good[labels[~mask]] = True
    good[0] = False
    labels = np.where(good[labels], labels, 0).astype(np.int32)
    log.info("Measuring %d of the %d given sources", good.sum(), np.unique(labels).size - 1)
    return labels if good.any() else None, detection
