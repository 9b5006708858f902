"""Centroids, shapes, and isophotal and Kron fluxes of the sources in a segmentation map, by photutils' `SourceCatalog`."""

from __future__ import annotations

import warnings

import numpy as np

#: Scale of the Kron aperture, smallest Kron radius, smallest circular radius (pixels): photutils' defaults, and romancal's.
KRON_PARAMETERS = (2.5, 1.4, 0.0)
#: Pixels of other sources are left out of an aperture (photutils' ``aperture_mask_method``).
NEIGHBORS = "mask"
MISSING_LIGHT = 0.01  #: fraction of a flux that may lie in masked pixels before the flux counts as unreliable


def segment_properties(image: np.ndarray, err: np.ndarray, mask: np.ndarray, labels: np.ndarray, detection: np.ndarray) -> dict:
    """Measure all sources of a segmentation map.

    Parameters
    ----------
    image, err : numpy.ndarray
        Background-subtracted image and its error, shape (rows, columns), in any unit.
    mask : numpy.ndarray
        True where a pixel does not count, same shape.
    labels : numpy.ndarray
        Segmentation map, int32, same shape: 0 where there is no source.
    detection : numpy.ndarray
        Smoothed image that centroids and shapes are measured in, same shape, in any unit.

    Returns
    -------
    dict
        Arrays with one value per source, in the order of the labels; pixels, radians, and the unit of `image`:
        ``label``; the centroids ``x``, ``y`` and windowed centroids ``x_window``, ``y_window``; ``boxes``, shape (sources, 4):
        first row, row after the last, first column, column after the last; ``area``; ``semimajor``, ``semiminor``, ``angle``,
        ``cxx``, ``cxy``, ``cyy``; ``flux``, ``flux_err``; ``kron_radius``, ``kron_flux``, ``kron_flux_err``,
        ``half_light_radius``; ``masked``, True where a masked pixel touches the segment or lies in the Kron aperture;
        ``unreliable``, as in `find_missing_light`.
    """
    from photutils.segmentation import SegmentationImage, SourceCatalog

    with warnings.catch_warnings():  # of sources without light: their values are NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        catalog = SourceCatalog(
            image,
            SegmentationImage(labels),
            convolved_data=detection,
            error=err,
            mask=mask,
            aperture_mask_method=NEIGHBORS,
            kron_params=KRON_PARAMETERS,
        )
        found = {
            "label": catalog.labels,
            "x": catalog.x_centroid,
            "y": catalog.y_centroid,
            "x_window": catalog.x_centroid_win,
            "y_window": catalog.y_centroid_win,
            "boxes": np.transpose([catalog.bbox_ymin, catalog.bbox_ymax + 1, catalog.bbox_xmin, catalog.bbox_xmax + 1]),
            "area": catalog.area.value,
            "semimajor": catalog.semimajor_axis.value,
            "semiminor": catalog.semiminor_axis.value,
            "angle": catalog.orientation.to_value("rad"),
            "cxx": catalog.ellipse_cxx.value,
            "cxy": catalog.ellipse_cxy.value,
            "cyy": catalog.ellipse_cyy.value,
            "flux": catalog.segment_flux,
            "flux_err": catalog.segment_flux_err,
            "kron_radius": catalog.kron_radius.value,
            "kron_flux": catalog.kron_flux,
            "kron_flux_err": catalog.kron_flux_err,
            "half_light_radius": catalog.flux_radius(0.5).value,
        }
    apertures, fluxes = catalog.kron_aperture, (found["kron_flux"], found["kron_flux_err"])
    masked, unreliable = find_missing_light(detection, mask, labels, found["label"], apertures, *fluxes)
    masked |= touches_masked(mask, labels)[found["label"]]
    return found | {"masked": masked, "unreliable": unreliable}


def touches_masked(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Test whether masked pixels lie in or beside (8 neighbors) each segment.

    Parameters
    ----------
    mask : numpy.ndarray
        True where a pixel is masked, shape (rows, columns).
    labels : numpy.ndarray
        Segmentation map, same shape.

    Returns
    -------
    numpy.ndarray of bool
        Whether they do, by label from 0 to the largest.
    """
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    found = np.zeros(labels.max() + 1, bool)
    found[labels[grown]] = True
    return found


def find_missing_light(
    detection: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    label: np.ndarray,
    apertures: list,
    flux: np.ndarray,
    flux_err: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Find apertures with masked pixels, and those in which such pixels hold more light than may be missing.

    The light of masked pixels is estimated from the smoothed image, in which they are interpolated.

    Parameters
    ----------
    detection : numpy.ndarray
        Smoothed image, shape (rows, columns), in any unit.
    mask : numpy.ndarray
        True where a pixel is masked, same shape.
    labels : numpy.ndarray
        Segmentation map, same shape: pixels of other sources do not count.
    label : numpy.ndarray
        Label of each source.
    apertures : list of photutils.aperture.Aperture or None
        Aperture of each source.
    flux, flux_err : numpy.ndarray
        Flux of each source in its aperture without the masked pixels, and its error, in one unit.

    Returns
    -------
    masked : numpy.ndarray of bool
        Whether a masked pixel lies in the aperture, in whole or in part.
    unreliable : numpy.ndarray of bool
        Whether the light that is estimated to be missing exceeds `flux_err` or the fraction `MISSING_LIGHT` of the flux, or
        can't be estimated.
    """
    masked, unreliable = np.zeros(label.size, bool), np.zeros(label.size, bool)
    for i, aperture in enumerate(apertures):
        if aperture is None:
            continue
        weights = aperture.to_mask(method="exact")
        there, here = weights.get_overlap_slices(mask.shape)
        if there is None:  # outside the image
            continue
        own = (weights.data[here] > 0) & ((labels[there] == 0) | (labels[there] == label[i]))
        lost = mask[there][own]
        if not lost.any():
            continue
        masked[i] = True
        light = detection[there][own] * weights.data[here][own]
        seen = light[~lost].sum()
        share = light[lost].sum() / seen if seen > 0 else np.nan
        unreliable[i] = not (share <= MISSING_LIGHT and share * flux[i] <= flux_err[i])
    return masked, unreliable
