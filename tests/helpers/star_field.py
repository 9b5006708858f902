"""A field of isolated stars of known position and flux, and the references of its PSF."""

import numpy as np
from small_files import write_image

from rampflow.files.asdf_writer import create_asdf
from rampflow.wcs.conversion import tree_of_wcs

SIZE = 248
SCALE = 0.11  # arcsec per pixel
CONVERSION, AREA = 0.5, 2.8e-13
UNIT = CONVERSION * AREA * 1e15  # nJy of 1 DN/s
META = {"photometry.conversion_megajanskys": CONVERSION, "photometry.pixel_area": AREA, "guide_star.jitter_major": 8.0,
        "guide_star.jitter_minor": 8.0, "guide_star.jitter_position_angle": 0.0}  # fmt: skip
SIGMA = 0.8  # pixels: width of the PSF
OVERSAMPLING = 4
#: x, y and flux (DN/s) of isolated stars, at many fractions of a pixel.
STARS = np.array(
    [
        (40.0, 50.25, 300),
        (90.5, 40.1, 120),
        (150.3, 60.7, 80),
        (200.8, 45.5, 500),
        (45.2, 120.9, 90),
        (120.6, 130.4, 1000),
        (190.1, 125.2, 60),
        (60.4, 200.6, 250),
        (130.9, 210.3, 150),
        (205.7, 195.8, 100),
    ]
)
LEVEL, NOISE = 2.0, 0.05


def gaussian_stamps(*, widths=(SIGMA,) * 4, old_format=False, size=81):
    """Stamps of Gaussian PSFs at the corners of the detector; the newer format is integrated over the pixel."""
    from scipy.special import erf

    offsets = (np.arange(size) - size // 2) / OVERSAMPLING
    stamps = []
    for sigma in widths:
        if old_format:
            profile = np.exp(-0.5 * (offsets / sigma) ** 2)
            profile /= profile.sum()
        else:
            profile = OVERSAMPLING * (erf((offsets + 0.5) / sigma / 2**0.5) - erf((offsets - 0.5) / sigma / 2**0.5)) / 2
            profile /= OVERSAMPLING  # times the oversampling along either axis, per sample
        stamps.append(np.outer(profile, profile))
    return np.array(stamps)


def write_epsf(path, stamps, *, jitter=8.0):
    """An ePSF reference with the stamps at the corners of the image, and others that must not be used."""
    from roman_datamodels import datamodels

    model = datamodels.EpsfRefModel.create_fake_data()
    model.meta.instrument.update({"detector": "WFI07", "optical_element": "F158"})
    model.psf = np.full((1, 3, *stamps.shape), 1e3, np.float32)
    model.psf[0, 1] = stamps
    model.meta.oversample = OVERSAMPLING
    model.meta.pixel_x, model.meta.pixel_y = [0.0, SIZE - 1.0] * 2, [0.0, 0.0, SIZE - 1.0, SIZE - 1.0]
    model.meta.jitter_major = model.meta.jitter_minor = jitter
    model.meta.jitter_position_angle = 0.0
    model.save(path)
    return path


def write_apcorr(path, *, radii=None, fractions=None):
    """An apcorr reference with the encircled energy of the Gaussian PSF, unless another is given."""
    radii = np.linspace(0.2, 16, 60) if radii is None else radii
    fractions = 1 - np.exp(-0.5 * (radii / SIGMA) ** 2) if fractions is None else fractions
    with create_asdf(path, {"roman": {"meta": {}, "data": {"F158": {"ee_radii": radii, "ee_fractions": fractions}}}}):
        pass
    return path


def sky_wcs(*, mirrored=False, north=90):
    """A tangent plane with east to the left of north, or to the right; north is an angle from +x, in degrees."""
    from astropy import coordinates, units
    from astropy.modeling.models import Pix2Sky_TAN, RotateNative2Celestial, Rotation2D, Scale, Shift
    from gwcs import WCS, coordinate_frames

    center = (SIZE - 1) / 2
    axis = Scale(SCALE / 3600)
    turned = (Shift(-center) & Shift(-center)) | Rotation2D(90 - north)
    linear = turned | (axis if mirrored else Scale(-SCALE / 3600)) & axis
    transform = linear | Pix2Sky_TAN() | RotateNative2Celestial(270.0, 66.0, 180.0)
    detector = coordinate_frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    world = coordinate_frames.CelestialFrame(name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg))
    wcs = WCS([(detector, transform), (world, None)])
    wcs.bounding_box = ((-0.5, SIZE - 0.5), (-0.5, SIZE - 0.5))
    return wcs


def star_image(stars=STARS, *, sigma=SIGMA, noise=NOISE):
    """Stars integrated over the pixels, on a level with noise."""
    from scipy.special import erf

    def profile(center):
        edges = np.arange(SIZE + 1) - 0.5 - center
        return np.diff(erf(edges / sigma / 2**0.5)) / 2

    data = np.random.default_rng(3).normal(LEVEL, noise, (SIZE, SIZE))
    for x, y, flux in stars:
        data += flux * np.outer(profile(y), profile(x))
    return data.astype(np.float32)


def write_sky(path, data=None, *, err=NOISE, meta=None, **arrays):
    """A flat-fielded image with a WCS."""
    data = star_image() if data is None else data
    meta = {**META, "wcs": tree_of_wcs(sky_wcs()), **(meta or {})}
    return write_image(path, data, meta, err=np.full(data.shape, err, np.float16), **arrays)
