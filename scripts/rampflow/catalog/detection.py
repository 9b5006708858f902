"""Detection of sources, by photutils' `detect_sources` and `deblend_sources`."""

from __future__ import annotations

import warnings

import numpy as np

from rampflow.catalog.background import Background
from rampflow.errors import RampflowError
from rampflow.step.logs import step_logger

log = step_logger("source_catalog")

BLOCK = 256  #: rows whose threshold is computed at a time: no whole image of thresholds is held
#: Smallest fraction of a source's flux that deblending splits off.
DEBLEND_CONTRAST = 1e-4


def find_segments(
    detection: np.ndarray, background: Background, mask: np.ndarray, *, snr_threshold: float, npixels: int, deblend: bool
):
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
        Label of the source that each pixel belongs to, 0 for none, int32; `None` if no source was found.

    Raises
    ------
    RampflowError
        scikit-image, which deblending needs, is not installed.
    """
    from photutils.segmentation import detect_sources

    above = np.empty(detection.shape, bool)  # by blocks of rows: no second whole image of thresholds
    for start in range(0, len(above), BLOCK):
        rows = slice(start, min(start + BLOCK, len(above)))
        np.greater(detection[rows], snr_threshold * background.rms(rows.start, rows.stop), out=above[rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NoDetectionsWarning
        segments = detect_sources(above, 0, npixels, mask=mask)
    if segments is not None and deblend:
        segments = _deblend(detection, segments, npixels)
    log.info("Detected %d sources", 0 if segments is None else segments.n_labels)
    return None if segments is None else segments.data.astype(np.int32, copy=False)


def _deblend(detection, segments, npixels):
    from photutils.segmentation import deblend_sources

    try:
        return deblend_sources(detection, segments, npixels, contrast=DEBLEND_CONTRAST, progress_bar=False)
    except ModuleNotFoundError as error:
        raise RampflowError(f"deblend: true needs the package {error.name} (scikit-image), which is not installed") from error
