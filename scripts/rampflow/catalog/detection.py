"""Detection of sources. Those with more than one peak are split by photutils' `deblend_sources`.

Stands for
    photutils 3.0.0, `photutils.segmentation.detect_sources`
Equal
    exactly
Saves
    the import of photutils, together with `rampflow.catalog.segments`, which has the figures; 0.2 s of CPU for a full frame
Tests
    test_detection_agrees_with_photutils
"""

from __future__ import annotations

import numpy as np

from rampflow.catalog.background import Background
from rampflow.errors import RampflowError, counted
from rampflow.step.logs import step_logger

log = step_logger("source_catalog")

BLOCK = 256  #: rows whose threshold is computed at a time: no whole image of thresholds is held
#: Smallest fraction of a source's flux that deblending splits off.
DEBLEND_CONTRAST = 1e-4


def find_segments(
    detection: np.ndarray, background: Background, mask: np.ndarray, *, snr_threshold: float, npixels: int, deblend: bool
) -> np.ndarray | None:
    """Label the sources of a detection image.

    Parameters
    ----------
    detection : numpy.ndarray
        Smoothed, background-subtracted image, shape (rows, columns).
    background : Background
        Background of the image before it was smoothed, in the same unit.
    mask : numpy.ndarray
        True where a pixel is left out of all sources, same shape.
    snr_threshold : float
        Detection threshold, as a multiple of the noise per pixel of the background.
    npixels : int
        Minimum number of connected pixels (8 neighbors) of a source.
    deblend : bool
        Whether to split sources with more than one peak, by multiple thresholds and a watershed.

    Returns
    -------
    numpy.ndarray or None
        Label of the source that each pixel belongs to, 0 for none, int32, same shape; `None` if no source was found.

    Raises
    ------
    RampflowError
        scikit-image, which deblending needs, is not installed.
    """
    from scipy.ndimage import label

    above = np.empty(detection.shape, bool)  # by blocks of rows: no second whole image of thresholds
    for start in range(0, len(above), BLOCK):
        rows = slice(start, min(start + BLOCK, len(above)))
        np.greater(detection[rows], snr_threshold * background.rms(rows.start, rows.stop), out=above[rows])
    above &= ~mask
    labels, _ = label(above, np.ones((3, 3)))
    count = remove_small(labels, above, npixels)
    if count and deblend:
        labels, count = _deblend(detection, labels, npixels)
    log.info("Detected %s", counted(count, "source"))
    return labels if count else None


def remove_small(labels: np.ndarray, inside: np.ndarray, npixels: int) -> int:
    """Remove small segments from a segmentation map and number the others consecutively, in place.

    Parameters
    ----------
    labels : numpy.ndarray
        Segmentation map, int32, shape (rows, columns), changed.
    inside : numpy.ndarray of bool
        Whether a pixel lies in a segment, same shape.
    npixels : int
        Minimum number of pixels of a segment.

    Returns
    -------
    int
        Number of segments that remain.
    """
    pixels = np.flatnonzero(inside)
    old = labels.ravel()[pixels]
    large = np.bincount(old, minlength=1) >= npixels
    large[0] = False
    labels.ravel()[pixels] = np.where(large, large.cumsum(), 0)[old]
    return int(large.sum())


def _deblend(detection, labels, npixels):
    from photutils.segmentation import SegmentationImage, deblend_sources

    try:
        segments = deblend_sources(detection, SegmentationImage(labels), npixels, contrast=DEBLEND_CONTRAST, progress_bar=False)
    except ModuleNotFoundError as error:
        raise RampflowError(f"deblend: true needs the package {error.name} (scikit-image), which is not installed") from error
    return segments.data.astype(np.int32, copy=False), segments.n_labels
