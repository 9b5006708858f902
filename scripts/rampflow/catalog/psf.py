"""The effective PSF of an exposure, from its reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rampflow.catalog.psf_photometry import GriddedPSF
from rampflow.detector import PIXEL_SCALE
from rampflow.errors import RampflowError
from rampflow.step.declaration import Range
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.step.reference_checks import refuse_implausible

log = step_logger("source_catalog")

FOCUS, SPECTRAL_TYPE = 0, 1  #: axes 0 and 1 of the reference: in focus, of a G2V star
DEFAULT_JITTER = 8.0  #: milliarcseconds, RMS along either axis, where a file has none

STAMP_SUM = Range(
    0.85,
    1.05,
    source="a stamp some arcsec wide holds 0.95 to 1 of the light; every PSF flux is wrong by the fraction that is missing",
    quantity="sum of a stamp, divided by that of a whole PSF",
)

#: Radius of the core of a stamp (pixels); smallest fraction of the light in it (0.85 to 0.98 for a PSF in focus); largest
#: distance of the centroid of the core from the middle of the stamp (pixels), by which all fitted positions would be wrong.
CORE, LEAST_IN_CORE, LARGEST_OFFSET = 3.6, 0.5, 0.3

COMPARED_RADII = (0.2, 0.4)  #: arcsec, at which the encircled energies of the PSF and of apcorr are compared
ENERGY_TOLERANCE = 0.1  #: larger differences are contradictions; those of neighboring filters are half of it

PRIMARY_MIRROR = 2.36  #: meters
FWHM_OF_SIGMA = 8**0.5 * np.log(2) ** 0.5  #: FWHM of a Gaussian of σ = 1
DIFFUSION = 0.25 * FWHM_OF_SIGMA  #: pixels, FWHM: charge diffusion and jitter
PIXEL = 12**-0.5 * FWHM_OF_SIGMA  #: pixels, FWHM of a Gaussian of the variance of a pixel

PSF_WIDTH = Range(
    0.6,
    1.6,
    source="1.0 with charge diffusion, 0.65 (F062) to 0.95 (F213) without; an oversampling wrong by 2 gives half or twice",
    quantity="FWHM of the PSF, relative to that of the optics and charge diffusion",
)


def read_psf(reference: Exposure, guide_star: dict, optical_element: str = "") -> GriddedPSF:
    """Read the effective PSF of an exposure from its reference.

    There are two formats. Older stamps sum to 1 and are samples of the optical PSF: they are integrated over the pixel here.
    Newer stamps are integrated already, and sum to the square of the oversampling.

    Parameters
    ----------
    reference : Exposure
        The ``epsf`` reference.
    guide_star : dict
        ``meta.guide_star`` of the exposure, with its jitter.
    optical_element : str
        Optical element of the exposure: for a filter, the width of the PSF is checked (`check_width`).

    Returns
    -------
    rampflow.catalog.psf_photometry.GriddedPSF
        The PSF, integrated over the pixel, with the jitter of the exposure.

    Raises
    ------
    RampflowError
        The reference has neither format; or a stamp does not hold the light of a whole PSF (`STAMP_SUM`), or has no core in
        its middle (`check_core`), or is not as wide as the optics make it (`check_width`).
    """
    meta = reference.meta
    oversampling = reference.get("meta.oversample", int)
    plane = reference.array("psf", 5).read()
    if plane.shape[0] <= FOCUS or plane.shape[1] <= SPECTRAL_TYPE:
        raise RampflowError(f"{reference.path}: psf has the shape {plane.shape}; expected at least 2 spectral types (axis 1)")
    stamps = plane[FOCUS, SPECTRAL_TYPE].astype(float)
    if stamps.shape[1] != stamps.shape[2] or (stamps.sum(axis=(1, 2)) <= 0).any():
        raise RampflowError(
            f"{reference.path}: psf holds stamps that are not square, or not of a positive sum; give another epsf reference"
        )
    sums = stamps.sum(axis=(1, 2))
    integrated = np.median(sums) >= oversampling**2 / 2
    for light in np.array([sums.min(), sums.max()]) / (oversampling**2 if integrated else 1):
        limits = STAMP_SUM.minimum, STAMP_SUM.maximum
        refuse_implausible(reference.path, f"the {STAMP_SUM.quantity} (psf)", light, limits, "", "epsf")
    check_core(reference.path, stamps, oversampling)
    if (wavelength := wavelength_of(optical_element)) is not None:
        check_width(reference.path, stamps, oversampling, wavelength, integrated=bool(integrated))
    # The mean pixel scale is accurate enough for a jitter of some milliarcseconds.
    stamps = change_jitter(stamps, jitter(meta), jitter(guide_star), PIXEL_SCALE / oversampling)
    if not integrated:
        log.info("The ePSF stamps sum to 1: integrating them over the pixel")
        stamps = integrate_over_pixel(stamps, oversampling)
    try:
        return GriddedPSF(stamps, meta["pixel_x"], meta["pixel_y"], oversampling)
    except (KeyError, ValueError) as error:
        raise RampflowError(f"{reference.path}: not an ePSF reference ({error}); give another epsf reference") from error


def check_core(path: Path, stamps: np.ndarray, oversampling: int) -> None:
    """Refuse stamps whose core is missing, or not in their middle.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    stamps : numpy.ndarray
        Shape (positions, rows, columns), each of a positive sum.
    oversampling : int
        Samples per pixel along either axis.

    Raises
    ------
    RampflowError
        A core holds less than `LEAST_IN_CORE` of the light, or its centroid is more than `LARGEST_OFFSET` from the middle.
    """
    y, x = (np.indices(stamps.shape[1:]) - (stamps.shape[1] - 1) / 2) / oversampling
    core = stamps * (np.hypot(x, y) <= CORE)
    light = core.sum(axis=(1, 2))
    share = (light / stamps.sum(axis=(1, 2))).min()
    refuse_implausible(
        path, f"the share of a stamp's light within {CORE} pixels (psf)", share, (LEAST_IN_CORE, 1.05), "", "epsf"
    )
    offset = (np.hypot((core * x).sum(axis=(1, 2)), (core * y).sum(axis=(1, 2))) / light).max()
    what = "the distance of a stamp's centroid from its middle (psf)"
    refuse_implausible(path, what, offset, (0, LARGEST_OFFSET), "pixels", "epsf")


def energy_within(psf: GriddedPSF, radius: float) -> float:
    """Compute the fraction of a star's light within a circle around it, from the mean of the stamps of a PSF.

    Parameters
    ----------
    psf : rampflow.catalog.psf_photometry.GriddedPSF
        The PSF.
    radius : float
        Radius, pixels.

    Returns
    -------
    float
        Fraction; NaN if the circle is larger than the stamp.
    """
    middle = (psf.mean.shape[0] - 1) / 2
    if radius * psf.oversampling > middle:
        return np.nan
    row, column = np.ogrid[: psf.mean.shape[0], : psf.mean.shape[1]]
    distance = np.hypot(row - middle, column - middle)
    inside = np.clip(radius * psf.oversampling - distance + 0.5, 0, 1)  # about the part of a sample that is within the circle
    return float(np.vdot(inside, psf.mean)) / psf.oversampling**2


def compare_energy(psf: GriddedPSF, energy: dict[float, float], scale: float, epsf: str, apcorr: str) -> None:
    """Warn if the references of the PSF and of its encircled energy contradict each other.

    Compared are the radii from which `is_extended` follows. Whether the light is integrated over a pixel, never, once or twice,
    makes a difference of 0.03 there, and more within smaller radii.

    Parameters
    ----------
    psf : rampflow.catalog.psf_photometry.GriddedPSF
        The PSF.
    energy : dict
        Encircled energy by radius (arcsec), from the apcorr reference.
    scale : float
        Arcsec per pixel.
    epsf, apcorr : str
        Names of both references, for the message.
    """
    for radius in COMPARED_RADII:
        fraction = energy_within(psf, radius / scale)
        if abs(energy[radius] - fraction) > ENERGY_TOLERANCE:  # false for NaN
            log.warning(
                "%s and %s contradict each other: the encircled energy within %g arcsec is %.3f (ee_fractions) and %.3f (psf, "
                "mean of its stamps). is_extended and ee_fractions follow the first, PSF fluxes the second; give an apcorr and "
                "an epsf reference of the same PSF",
                apcorr,
                epsf,
                radius,
                energy[radius],
                fraction,
            )
            return


def wavelength_of(optical_element: str) -> float | None:
    """Wavelength of a filter, from its name.

    Parameters
    ----------
    optical_element : str
        Name of an optical element.

    Returns
    -------
    float or None
        Wavelength, µm, as 1.58 for F158; `None` if the element is not a filter.
    """
    name = optical_element.upper()
    digits = name.removeprefix("F")
    return int(digits) / 100 if len(name) == 4 and len(digits) == 3 and digits.isdecimal() else None


def full_width(stamp: np.ndarray, oversampling: int) -> float:
    """Measure the full width at half maximum of a stamp: the diameter of a circle of the area above half the peak.

    Parameters
    ----------
    stamp : numpy.ndarray
        Shape (rows, columns), with the star in its middle.
    oversampling : int
        Samples per pixel along either axis.

    Returns
    -------
    float
        Width, pixels.
    """
    from scipy.ndimage import zoom

    middle, half = np.array(stamp.shape) // 2, int(np.ceil(CORE * oversampling))
    first, last = np.maximum(middle - half, 0), middle + half + 1
    core = stamp[first[0] : last[0], first[1] : last[1]]
    finer = 8
    fine = zoom(core, finer, order=3, mode="nearest", grid_mode=True)
    above = np.count_nonzero(fine > fine.max() / 2)
    return float(2 * np.sqrt(above / np.pi) / (finer * oversampling))


def check_width(path: Path, stamps: np.ndarray, oversampling: int, wavelength: float, *, integrated: bool) -> None:
    """Refuse stamps that are far narrower or wider than the optics make a PSF, as with a wrong oversampling.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    stamps : numpy.ndarray
        Shape (positions, rows, columns).
    oversampling : int
        Samples per pixel along either axis.
    wavelength : float
        Wavelength of the filter, µm.
    integrated : bool
        Whether the stamps are integrated over the pixel.

    Raises
    ------
    RampflowError
        The width, relative to the expected one, is not in `PSF_WIDTH`.
    """
    diffraction = 1.03 * np.degrees(wavelength * 1e-6 / PRIMARY_MIRROR) * 3600 / PIXEL_SCALE
    expected = (diffraction**2 + DIFFUSION**2 + integrated * PIXEL**2) ** 0.5
    ratio = full_width(stamps.mean(axis=0), oversampling) / expected
    what = f"the {PSF_WIDTH.quantity} (psf, with meta.oversample {oversampling})"
    refuse_implausible(path, what, ratio, (PSF_WIDTH.minimum, PSF_WIDTH.maximum), "", "epsf")


def integrate_over_pixel(stamps: np.ndarray, oversampling: int) -> np.ndarray:
    """Integrate stamps of the optical PSF over the pixel, and scale them to the sum ``oversampling ** 2``.

    With an even oversampling the edges of a pixel fall on samples, which count half.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (positions, rows, columns), each of sum 1.
    oversampling : int
        Samples per pixel along either axis.

    Returns
    -------
    numpy.ndarray
        Same shape.
    """
    from scipy.ndimage import correlate1d

    weights = np.ones(oversampling + 1 - oversampling % 2)
    if oversampling % 2 == 0:
        weights[[0, -1]] = 0.5
    for axis in (1, 2):
        stamps = correlate1d(stamps, weights, axis=axis, mode="constant")
    return stamps


def jitter(meta: dict) -> tuple[float, float, float]:
    """Read the jitter from metadata.

    Parameters
    ----------
    meta : dict
        ``meta`` of a reference, or ``meta.guide_star`` of an exposure.

    Returns
    -------
    major, minor : float
        RMS along the major and minor axis, mas; `DEFAULT_JITTER` where it is missing or negative (a placeholder).
    angle : float
        Position angle of the major axis, degrees.
    """
    widths = (meta.get(name) for name in ("jitter_major", "jitter_minor"))
    major, minor = (float(width) if isinstance(width, int | float) and width >= 0 else DEFAULT_JITTER for width in widths)
    angle = meta.get("jitter_position_angle")
    return major, minor, float(angle) if isinstance(angle, int | float) and abs(angle) <= 360 else 0.0


def change_jitter(stamps: np.ndarray, old: tuple, new: tuple, scale: float) -> np.ndarray:
    """Replace the jitter that stamps of a PSF include.

    The jitter is a Gaussian narrower than a sample, too narrow to be convolved as an image. Its Fourier transform is known:
    that of the stamps is multiplied by the ratio of the new one to the old one (Lang 2020, arXiv:2012.15797).

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (positions, rows, columns).
    old, new : tuple of float
        Jitter in the stamps, and jitter wanted, as `jitter` returns them.
    scale : float
        Arcsec per sample.

    Returns
    -------
    numpy.ndarray
        Same shape.
    """
    if old == new:
        return stamps
    log.info("PSF jitter (mas, mas, degrees): from %s to %s", old, new)
    rows, columns = stamps.shape[1:]
    v, u = np.fft.fftfreq(rows, scale)[:, None], np.fft.rfftfreq(columns, scale)
    change = np.exp(_jitter_exponent(u, v, *new) - _jitter_exponent(u, v, *old))
    return np.fft.irfft2(np.fft.rfft2(stamps) * change, s=(rows, columns))


def _jitter_exponent(u, v, major, minor, angle):
    """Logarithm of the Fourier transform of a jitter at the frequencies `u` along x and `v` along y, per arcsec."""
    # The position angle runs from +y toward +x.
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    along, across = sine * u + cosine * v, cosine * u - sine * v
    return -2 * (np.pi / 1000) ** 2 * ((major * along) ** 2 + (minor * across) ** 2)
