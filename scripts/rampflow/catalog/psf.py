"""PSF photometry: the effective PSF of an exposure, and its fit to the sources."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rampflow.errors import RampflowError
from rampflow.step.declaration import Range
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.step.reference_checks import refuse_implausible

log = step_logger("source_catalog")

FOCUS, SPECTRAL_TYPE = 0, 1  #: The stamps of the reference that are used: in focus, of a G2V star
DEFAULT_JITTER = 8.0  #: Milliarcseconds, RMS along either axis, where a file says nothing
NOMINAL_SCALE = 0.11  #: Arcsec per pixel, good enough for a jitter of some milliarcseconds
FIT_WIDTH = 5  #: Pixels along either axis that are fitted
GROUP_SEPARATION = 5.0  #: Sources nearer than this, in pixels, are fitted together
PARAMETERS = 3  #: flux, x, y
FAR_OUTSIDE = -1000.0  #: stands for a position that is not finite: nothing overlaps there

STAMP_SUM = Range(
    0.85,
    1.05,
    source="a stamp some arcsec wide holds 0.95 to 1 of the light; what is missing is missing in every PSF flux",
    quantity="sum of a stamp, over that of a whole PSF",
)

#: Pixels around its middle in which a stamp is looked at, share of its light that they hold at least (0.85 to 0.98 of a PSF in
#: focus), and how far its centroid there may be from the middle: the fitted positions are off by as much.
CORE, LEAST_IN_CORE, LARGEST_OFFSET = 3.6, 0.5, 0.3

PRIMARY_MIRROR = 2.36  #: metres
FWHM_OF_SIGMA = 8**0.5 * np.log(2) ** 0.5  #: of a Gaussian
DIFFUSION = 0.25 * FWHM_OF_SIGMA  #: pixels, FWHM: charge diffusion and jitter
PIXEL = 12**-0.5 * FWHM_OF_SIGMA  #: pixels, FWHM of a Gaussian of the variance of a pixel

PSF_WIDTH = Range(
    0.6,
    1.6,
    source="1.0 with charge diffusion, 0.65 (F062) to 0.95 (F213) without; an oversampling wrong by 2 gives half or twice",
    quantity="FWHM of the PSF over what the optics and charge diffusion give",
)

#: Bits of ``psf_flags``, as photutils' PSFPhotometry sets them.
FLAGS = {
    "n_pixels_fit_partial": 1,
    "outside_bounds": 2,
    "negative_flux": 4,
    "no_convergence": 8,
    "no_covariance": 16,
    "no_overlap": 64,
    "fully_masked": 128,
    "too_few_pixels": 256,
    "non_finite_position": 512,
    "non_finite_flux": 1024,
}


# --------------------------------------------------------------------------------------------------------------- models
class GriddedPSF:
    """An effective PSF that changes over the detector: oversampled stamps on a grid of positions.

    Between its samples a stamp is a cubic spline, and between the positions the stamps are interpolated linearly, as in
    photutils' `GriddedPSFModel`; beyond its edges it is zero.

    Parameters
    ----------
    stamps : numpy.ndarray
        (position, y, x), each integrated over the pixel and of sum ``oversampling ** 2``.
    x, y : array-like
        Position of each stamp in pixels; all combinations of their values must be there.
    oversampling : int
        Samples per pixel along either axis.

    Attributes
    ----------
    x, y : numpy.ndarray
        Ascending positions of the columns and rows of the grid.
    coefficients : numpy.ndarray
        Of the splines, float64, (y, x, stamp y, stamp x).
    oversampling : int
    """

    def __init__(self, stamps: np.ndarray, x, y, oversampling: int):
        from scipy.ndimage import spline_filter

        self.x, self.y, self.oversampling = np.unique(x), np.unique(y), int(oversampling)
        self.coefficients = np.full((self.y.size, self.x.size, *stamps.shape[1:]), np.nan)
        for stamp, column, row in zip(stamps, np.searchsorted(self.x, x), np.searchsorted(self.y, y), strict=True):
            self.coefficients[row, column] = spline_filter(stamp, order=3, mode="mirror")
        if not np.isfinite(self.coefficients).all():
            raise ValueError("the stamps must be finite and lie on a rectangular grid")


def read_psf(reference: Exposure, guide_star: dict, optical_element: str = "") -> GriddedPSF:
    """The effective PSF of an exposure from its reference.

    Two formats are about. The older stamps sum to 1 and are samples of the optical PSF: they are integrated over the pixel
    here. The newer ones are integrated and sum to the square of the oversampling.

    Parameters
    ----------
    reference : Exposure
        The ``epsf`` reference.
    guide_star : dict
        ``meta.guide_star`` of the exposure, with its jitter.
    optical_element : str
        That of the exposure. The width of the PSF is checked for a filter (`check_width`).

    Raises
    ------
    RampflowError
        The reference is not one of the formats, or a stamp doesn't hold the light of a whole PSF (`STAMP_SUM`) with its
        core in the middle (`check_core`), or the PSF is not as wide as the optics make it (`check_width`).
    """
    meta = reference.meta
    oversampling = reference.get("meta.oversample", int)
    plane = reference.array("psf", 5).read()
    if plane.shape[0] <= FOCUS or plane.shape[1] <= SPECTRAL_TYPE:
        raise RampflowError(f"{reference.path}: psf has the shape {plane.shape}; it needs a second spectral type")
    stamps = plane[FOCUS, SPECTRAL_TYPE].astype(float)
    if stamps.shape[1] != stamps.shape[2] or (stamps.sum(axis=(1, 2)) <= 0).any():
        raise RampflowError(f"{reference.path}: psf holds stamps that are not square, or empty; give a whole reference")
    sums = stamps.sum(axis=(1, 2))
    integrated = np.median(sums) >= oversampling**2 / 2
    for light in (sums.min(), sums.max()) / np.float64(oversampling**2 if integrated else 1):
        limits = STAMP_SUM.minimum, STAMP_SUM.maximum
        refuse_implausible(reference.path, f"the {STAMP_SUM.quantity} (psf)", light, limits, "", "epsf")
    check_core(reference.path, stamps, oversampling)
    if (wavelength := wavelength_of(optical_element)) is not None:
        check_width(reference.path, stamps, oversampling, wavelength, integrated=bool(integrated))
    stamps = change_jitter(stamps, jitter(meta), jitter(guide_star), NOMINAL_SCALE / oversampling)
    if not integrated:
        log.info("The ePSF stamps sum to 1: they are integrated over the pixel")
        stamps = integrate_over_pixel(stamps, oversampling)
    try:
        return GriddedPSF(stamps, meta["pixel_x"], meta["pixel_y"], oversampling)
    except (KeyError, ValueError) as error:
        raise RampflowError(f"{reference.path}: is no usable ePSF reference ({error})") from error


def check_core(path, stamps: np.ndarray, oversampling: int) -> None:
    """Refuse stamps without a core in their middle.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    stamps : numpy.ndarray
        Of shape (position, y, x), each of a positive sum.
    oversampling : int
        Samples per pixel.

    Raises
    ------
    RampflowError
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


def wavelength_of(optical_element: str) -> float | None:
    """Wavelength (µm) that a filter is named after, as 1.58 for F158; `None` for what is no filter."""
    name = optical_element.upper()
    digits = name.removeprefix("F")
    return int(digits) / 100 if len(name) == 4 and len(digits) == 3 and digits.isdecimal() else None


def full_width(stamp: np.ndarray, oversampling: int) -> float:
    """Full width at half maximum of a stamp, pixels: the diameter of a circle as large as what is above half its peak.

    Parameters
    ----------
    stamp : numpy.ndarray
        (y, x), with the star in its middle.
    oversampling : int
        Samples per pixel.
    """
    from scipy.ndimage import zoom

    middle, half = np.array(stamp.shape) // 2, int(np.ceil(CORE * oversampling))
    first, last = np.maximum(middle - half, 0), middle + half + 1
    core = stamp[first[0] : last[0], first[1] : last[1]]
    finer = 8
    fine = zoom(core, finer, order=3, mode="nearest", grid_mode=True)
    above = np.count_nonzero(fine > fine.max() / 2)
    return float(2 * np.sqrt(above / np.pi) / (finer * oversampling))


def check_width(path, stamps: np.ndarray, oversampling: int, wavelength: float, *, integrated: bool) -> None:
    """Refuse stamps that are far narrower or wider in pixels than the optics make a PSF: of a wrong oversampling.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    stamps : numpy.ndarray
        Of shape (position, y, x).
    oversampling : int
        Samples per pixel.
    wavelength : float
        µm.
    integrated : bool
        Whether the stamps are integrated over the pixel.

    Raises
    ------
    RampflowError
    """
    diffraction = 1.03 * np.degrees(wavelength * 1e-6 / PRIMARY_MIRROR) * 3600 / NOMINAL_SCALE
    expected = (diffraction**2 + DIFFUSION**2 + integrated * PIXEL**2) ** 0.5
    ratio = full_width(stamps.mean(axis=0), oversampling) / expected
    what = f"the {PSF_WIDTH.quantity} (psf, with meta.oversample {oversampling})"
    refuse_implausible(path, what, ratio, (PSF_WIDTH.minimum, PSF_WIDTH.maximum), "", "epsf")


def integrate_over_pixel(stamps: np.ndarray, oversampling: int) -> np.ndarray:
    """Integrate stamps of the optical PSF over the pixel, and scale them to the sum ``oversampling ** 2``.

    For an even oversampling the pixel's edges fall on samples, which count half.
    """
    from scipy.ndimage import correlate1d

    weights = np.ones(oversampling + 1 - oversampling % 2)
    if oversampling % 2 == 0:
        weights[[0, -1]] = 0.5
    for axis in (1, 2):
        stamps = correlate1d(stamps, weights, axis=axis, mode="constant")
    return stamps


def jitter(meta: dict) -> tuple[float, float, float]:
    """Jitter that a file's metadata names: RMS along the major and minor axis (mas), position angle (degrees)."""

    def value(name, default, valid):
        given = meta.get(name)
        return float(given) if isinstance(given, int | float) and valid(given) else default

    # Placeholders of unset fields are negative.
    widths = [value(name, DEFAULT_JITTER, lambda width: width >= 0) for name in ("jitter_major", "jitter_minor")]
    return (*widths, value("jitter_position_angle", 0.0, lambda angle: abs(angle) <= 360))


def change_jitter(stamps: np.ndarray, old: tuple, new: tuple, scale: float) -> np.ndarray:
    """Replace the jitter that stamps of a PSF include by another.

    The jitter is a Gaussian narrower than a sample, which can't be convolved as an image. But its Fourier transform is known,
    and at the frequencies where the PSF has power one transform is divided by the other (Lang 2020, arXiv:2012.15797).

    Parameters
    ----------
    stamps : numpy.ndarray
        Of shape (stamp, y, x).
    old, new : tuple
        As `jitter` returns them.
    scale : float
        Arcsec per sample.
    """
    if old == new:
        return stamps
    log.info("PSF jitter (mas, mas, degrees): from %s to %s", old, new)
    rows, columns = stamps.shape[1:]
    v, u = np.fft.fftfreq(rows, scale)[:, None], np.fft.rfftfreq(columns, scale)

    def exponent(major, minor, angle):
        # The position angle runs from +y towards +x.
        sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
        along, across = sine * u + cosine * v, cosine * u - sine * v
        return -2 * (np.pi / 1000) ** 2 * ((major * along) ** 2 + (minor * across) ** 2)

    change = np.exp(exponent(*new) - exponent(*old))
    return np.fft.irfft2(np.fft.rfft2(stamps) * change, s=(rows, columns))


# ----------------------------------------------------------------------------------------------------------------- fits
def group_sources(x: np.ndarray, y: np.ndarray, separation: float) -> list[np.ndarray]:
    """Indices of the sources in each chain whose members are no further than `separation` from the next."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    if not x.size:
        return []
    pairs = KDTree(np.column_stack([x, y])).query_pairs(separation, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(x.size, x.size))
    _, labels = connected_components(links, directed=False)
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def fit_psf(
    psf: GriddedPSF,
    image: np.ndarray,
    err: np.ndarray,
    mask: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    unit: float = 1.0,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Fit the flux and position of each source by weighted least squares on 5 × 5 pixels, neighbours together.

    The model, the pixels, the trust region and the criteria to stop are those of photutils' `PSFPhotometry` with its default
    fitter, and so are the flags.

    Parameters
    ----------
    psf : GriddedPSF
    image, err : numpy.ndarray
        Background-subtracted image and its error, DN/s.
    mask : numpy.ndarray
        True where a pixel does not count.
    x, y : numpy.ndarray
        Where the fits begin, pixels.
    unit : float
        nJy of 1 DN/s. Steps are measured in pixels and this unit alike, so a fit that is hard to bring to an end depends on it.
    threads : int
        Groups that are fitted at the same time.

    Returns
    -------
    dict
        ``x_psf``, ``y_psf``, ``psf_flux`` (nJy), each with ``_err`` (NaN where there is no fit), ``psf_gof`` (reduced χ² over
        the source's own pixels) and ``psf_flags``.
    """
    from photutils.aperture import CircularAperture

    from rampflow.kernels.source_catalog import fit_group

    count = len(x)
    scale = unit if np.isfinite(unit) else 1.0
    positions = np.where(np.isfinite(x) & np.isfinite(y), [x, y], FAR_OUTSIDE).T
    flux, _ = CircularAperture(positions, FIT_WIDTH).do_photometry(image, mask=mask)
    start = np.column_stack([flux * scale, x, y]).astype(float)
    fitted, errors = np.full((count, PARAMETERS), np.nan), np.full((count, PARAMETERS), np.nan)
    gof, flags = np.full(count, np.nan), np.zeros(count, np.int32)
    corner = np.ceil(positions - FIT_WIDTH / 2).clip(-1e9, 1e9).astype(int)[:, ::-1]  # row, column
    overlaps = ((corner > -FIT_WIDTH) & (corner < image.shape)).all(axis=1)
    pixels = np.zeros(count, int)
    for i in np.flatnonzero(overlaps):
        pixels[i] = np.count_nonzero(~mask[_window(corner[i])])
    flags[~overlaps & np.isfinite(start[:, 1:]).all(axis=1)] |= FLAGS["no_overlap"]
    flags[overlaps & (pixels == 0)] |= FLAGS["fully_masked"]
    flags[(pixels > 0) & (pixels < PARAMETERS)] |= FLAGS["too_few_pixels"]
    usable = np.flatnonzero((pixels >= PARAMETERS) & np.isfinite(start).all(axis=1))

    def fit(members):
        stamps = [_stamp(image, err, mask, corner[i]) for i in members]
        values, deviations, columns, rows = (np.concatenate(parts) for parts in zip(*stamps, strict=True))
        best, covariance, residuals, converged = fit_group(
            values * scale, deviations * scale, columns, rows, start[members], psf.coefficients, psf.x, psf.y, psf.oversampling
        )
        fitted[members] = best
        if values.size > best.size:
            errors[members] = np.sqrt(np.diag(covariance)).reshape(best.shape)
        ends = np.cumsum(pixels[members])
        with np.errstate(divide="ignore", invalid="ignore"):
            chi2 = np.add.reduceat(residuals**2, ends - pixels[members])
            gof[members] = chi2 / (pixels[members] - PARAMETERS)
        if not converged:
            flags[members] |= FLAGS["no_convergence"]

    groups = [usable[members] for members in group_sources(x[usable], y[usable], GROUP_SEPARATION)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fit, groups))

    height, width = image.shape
    with np.errstate(invalid="ignore"):
        outside = (fitted[:, 1:] < -0.5).any(axis=1) | (fitted[:, 1] > width - 0.5) | (fitted[:, 2] > height - 0.5)
        flags[fitted[:, 0] <= 0] |= FLAGS["negative_flux"]
    flags[outside] |= FLAGS["outside_bounds"]
    flags[pixels < FIT_WIDTH**2] |= FLAGS["n_pixels_fit_partial"]
    flags[np.isnan(errors).any(axis=1)] |= FLAGS["no_covariance"]
    flags[~np.isfinite(fitted[:, 1:]).all(axis=1)] |= FLAGS["non_finite_position"]
    flags[~np.isfinite(fitted[:, 0])] |= FLAGS["non_finite_flux"]
    known = np.array([unit / scale, 1.0, 1.0])  # NaN without a unit
    fitted, errors = fitted * known, errors * known
    result = {"psf_gof": gof, "psf_flags": flags}
    for i, name in enumerate(("psf_flux", "x_psf", "y_psf")):
        result |= {name: fitted[:, i], f"{name}_err": errors[:, i]}
    return result


def _window(corner):
    row, column = corner
    return np.s_[max(row, 0) : row + FIT_WIDTH, max(column, 0) : column + FIT_WIDTH]


def _stamp(image, err, mask, corner):
    """Good pixels around a source: values, errors, columns and rows."""
    window = _window(corner)
    rows, columns = np.nonzero(~mask[window])
    rows, columns = rows + window[0].start, columns + window[1].start
    return image[rows, columns].astype(float), err[rows, columns].astype(float), columns.astype(float), rows.astype(float)
