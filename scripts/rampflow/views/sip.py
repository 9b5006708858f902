"""Approximate the WCS of an image by FITS keywords, and measure how far they are from it.

gwcs fits the keywords: a tangent-plane projection with SIP polynomials (Shupe et al. 2005, ASP Conf. Ser. 347, 491). The errors
are measured with astropy's FITS WCS, at other pixels than those of the fit.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

#: Pixels. gwcs takes the lowest degree whose error is below it: a hundredth of what centroids reach.
TARGET = 1e-4
DEGREES = range(1, 8)  #: of the polynomials; higher ones lose digits
POINTS = 129  #: a side of the grid on which the errors are measured, from edge to edge of the image
MAS = 3.6e6  #: per degree


class SipHeader(NamedTuple):
    """FITS keywords of a WCS, and their errors.

    Attributes
    ----------
    header : astropy.io.fits.Header
        The keywords.
    degree : int
        Degree of the polynomials; 1 without any.
    error : float
        Largest distance on the sky between the keywords' position of a pixel and that of the WCS, mas.
    pixel_error : float
        The same, in pixels.
    inverse_error : float
        Largest distance between a pixel and where the keywords' inverse polynomials place its position on the sky, pixels.
    """

    header: fits.Header
    degree: int
    error: float
    pixel_error: float
    inverse_error: float

    @property
    def largest(self) -> float:
        """The larger one of the two errors.

        Returns
        -------
        float
            Pixels.
        """
        return max(self.pixel_error, self.inverse_error)


def fit_sip(wcs: Any, shape: tuple[int, int]) -> SipHeader:
    """Approximate the WCS of an image by FITS keywords.

    Parameters
    ----------
    wcs : gwcs.wcs.WCS
        From pixels (x, y), counted from 0 at the middle of the first one, to ICRS (ra, dec) in degrees.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    SipHeader
        The keywords of the lowest degree within `TARGET`, or of the best degree if none is, and their errors.
    """
    rows, columns = shape
    box = ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    best: SipHeader | None = None
    for degree in DEGREES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of low degrees; the errors are measured below
            header = wcs.to_fits_sip(bounding_box=box, degree=degree, inv_degree=degree)
        found = measure_errors(header, wcs, shape)
        if best is None or found.largest < best.largest:
            best = found
        if best.largest < TARGET:
            break
    assert best is not None
    # Errors as gwcs estimates them, at twice the points of the fit: ours take their place.
    for name in ("NAXIS", "NAXIS1", "NAXIS2", "SIPMXERR", "SIPIVERR"):
        best.header.remove(name, ignore_missing=True)
    best.header["SIPERMAS"] = (float(f"{best.error:.3g}"), "[mas] largest error of this WCS on the image")
    best.header["SIPERPIX"] = (float(f"{best.pixel_error:.3g}"), "[pix] the same")
    best.header["SIPIVPIX"] = (float(f"{best.inverse_error:.3g}"), "[pix] largest error of the inverse, AP and BP")
    return best


def measure_errors(header: fits.Header, wcs: Any, shape: tuple[int, int]) -> SipHeader:
    """Measure how far FITS keywords are from a WCS.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The keywords.
    wcs : gwcs.wcs.WCS
        The WCS.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    SipHeader
        The keywords, and their errors on a grid of `POINTS` a side. They are infinite where a position is not finite.
    """
    rows, columns = shape
    x, y = (values.ravel() for values in np.meshgrid(*(np.linspace(-0.5, n - 0.5, POINTS) for n in (columns, rows))))
    ra, dec = wcs(x, y, with_bounding_box=False)
    approximation = WCS(header)
    error = float(np.max(_separation((ra, dec), approximation.all_pix2world(x, y, 0)), initial=0)) * MAS
    side = float(np.sqrt(abs(np.linalg.det(approximation.pixel_scale_matrix)))) * MAS
    linear = np.array(approximation.wcs_world2pix(ra, dec, 0))  # without the polynomials
    if approximation.sip is not None and approximation.sip.ap_order:
        inverse = np.array(approximation.sip_foc2pix(*(linear + 1 - approximation.wcs.crpix[:, None]), 1)) - 1
    else:
        inverse = linear
    inverse_error = float(np.max(np.hypot(*(inverse - [x, y]))))
    errors = (value if np.isfinite(value) else np.inf for value in (error, error / side, inverse_error))
    return SipHeader(header, header.get("A_ORDER", 1), *errors)


def _separation(one, other) -> np.ndarray:
    """Angles between positions (ra, dec), degrees, also tiny ones and at the poles."""
    vectors = []
    for longitude, latitude in (np.radians(one), np.radians(other)):
        cosine = np.cos(latitude)
        vectors.append(np.array([cosine * np.cos(longitude), cosine * np.sin(longitude), np.sin(latitude)]))
    return np.degrees(2 * np.arcsin(np.linalg.norm(vectors[0] - vectors[1], axis=0) / 2))
