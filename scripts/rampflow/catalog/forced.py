"""A segmentation map of another image, whose sources are measured in this one (`forced_segmentation`)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.wcs.footprint import footprint_distance

log = step_logger("source_catalog")

#: Largest distance between the pointings of the two images, arcsec: a source some tenths of an arcsec wide would be outside its
#: segment.
LARGEST_OFFSET = 1.0
#: Largest distance between their footprints, arcsec: one of them may be aligned, which removes pointing errors of this size.
LARGEST_DISPLACEMENT = 6.0


def check_same_field(given: Exposure, meta: dict, scale: float) -> None:
    """Refuse a segmentation map of another detector or another part of the sky, and warn of one that is displaced.

    The labels of a map belong to pixels, so that the images must show the same sky in the same pixels.

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
        The detectors differ, or the pointings by more than `LARGEST_OFFSET`, or, where these are not known, the footprints by
        more than `LARGEST_DISPLACEMENT`.
    """
    theirs, ours = (m.get("instrument", {}).get("detector") for m in (given.meta, meta))
    if theirs != ours:
        raise RampflowError(
            f"{given.path}: this forced_segmentation is of {theirs}, and the image of {ours}; give a map of the same detector"
        )
    field, limit = "the pointing, ra_ref, dec_ref and roll_ref in meta.wcsinfo", LARGEST_OFFSET
    sections = given.meta.get("wcsinfo", {}), meta.get("wcsinfo", {})
    distance = pointing_distance(*sections, given.array("data", 2).shape, scale)
    if distance is None:
        field, limit = "meta.wcsinfo.s_region", LARGEST_DISPLACEMENT
        distance = footprint_distance(*(section.get("s_region") for section in sections))
    if distance is None:
        log.warning(
            "%s: the pointing of this forced_segmentation can't be compared with the image's: meta.wcsinfo of one of them "
            "lacks ra_ref, dec_ref and roll_ref, and s_region",
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
        log.warning("%s (%s): its sources are measured at positions that are off by as much", text, field)


def pointing_distance(one: dict, other: dict, shape: tuple[int, ...], scale: float) -> float | None:
    """Distance between the pointings of two images of one detector, arcsec at their corners.

    The pointing is the telescope's (``ra_ref``, ``dec_ref``, ``roll_ref``): an alignment changes the footprint alone.

    Parameters
    ----------
    one, other : dict
        ``meta.wcsinfo`` of each.
    shape : tuple of int
        Rows and columns.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    float or None
        `None` where the pointing of one of them is not known.
    """
    from rampflow.astrometry.region import separation, unit_vectors

    pointings: list = [[section.get(name) for name in ("ra_ref", "dec_ref", "roll_ref")] for section in (one, other)]
    if not all(isinstance(value, int | float) and abs(value) <= 360 for pointing in pointings for value in pointing):
        return None
    (ra, dec, roll), (other_ra, other_dec, other_roll) = pointings
    turn = math.radians(abs((roll - other_roll + 180) % 360 - 180))
    offset = 3600 * float(separation(unit_vectors(ra, dec), unit_vectors(other_ra, other_dec)))
    return offset + turn * math.hypot(*shape) / 2 * scale


def read_segments(path: Path, mask: np.ndarray, meta: dict, scale: float) -> tuple[np.ndarray | None, np.ndarray]:
    """Read a segmentation map whose sources are to be measured in another image.

    Parameters
    ----------
    path : pathlib.Path
        A segmentation map with its detection image, of the same shape as the image.
    mask : numpy.ndarray
        True where a pixel of the image does not count, shape (rows, columns): segments without a good pixel are left out.
    meta : dict
        ``meta`` of the image.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    labels : numpy.ndarray or None
        Label of the source that each pixel belongs to, int32, same shape; `None` if all segments are masked.
    detection : numpy.ndarray
        The image that the segments were found in, float32, same shape.

    Raises
    ------
    RampflowError
        The file is not a segmentation map with its detection image, has another shape, or `check_same_field` refuses it.
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
    log.info("Measuring %d of %s", good.sum(), counted(np.unique(labels).size - 1, "given source"))
    return labels if good.any() else None, detection
