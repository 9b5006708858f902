"""Make synthetic references of every type that the pipeline reads, in a local CRDS cache.

The cache has the files that the `crds` package expects below ``CRDS_PATH``: a configuration, mappings with checksums, and
references. With ``CRDS_SERVER_URL=https://crds-serverless-mode.stsci.edu`` it needs no network. A second call adds a later
context, with new references for some types and detectors and the same ones for all others::

    python simulate_references.py CACHE --detectors WFI01,WFI18 --size 512 --seed 1
    python simulate_references.py CACHE --detectors WFI01 --size 512 --seed 2 --context roman_0002.pmap --new flat

As real references do, these have a few bad entries: NaN, zero, negative and flagged values, dead and hot pixels. The values
are assumed, of the order of those of the Roman WFI (18 H4RG-10 detectors, 0.11 arcsec per pixel).
"""

from __future__ import annotations

import argparse
import hashlib
import pprint
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# The library lies beside the simulator.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rampflow import dq as flags
from rampflow.chain import EXPOSURE_TYPES
from rampflow.detector import BORDER, CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH, PIXEL_SCALE, SCIENCE, detector_number
from rampflow.errors import RampflowError
from simulator.optics import FOCAL_PLANE_CENTER, V3_YANGLE, VPARITY, enclosed_fraction

#: Effective wavelength (µm) of the imaging filters: their names have it in hundredths of a micron.
FILTERS = {name: int(name[1:]) / 100 for name in ("F062", "F087", "F106", "F129", "F146", "F158", "F184", "F213")}
UNFILTERED = ("GRISM", "PRISM", "DARK")
USEAFTER = "2020-01-01 00:00:00"

FOCAL_PLANE_COLUMNS = 6  #: the 18 detectors are in 3 rows of 6
FOCAL_PLANE_PITCH = 1.1  #: center-to-center distance of the detectors, relative to their side

GAIN = 1.8  #: electron / DN
READ_NOISE = 7.0  #: DN
SATURATION = 55000.0  #: DN
QUADRATIC, CUBIC = 1.0e-6, 4.0e-12  #: linear counts = x + QUADRATIC x² + CUBIC x³: 8 % at saturation
PRIMARY_MIRROR = 2.36  #: meters


@dataclass(frozen=True)
class Detector:
    """A detector to make references for.

    Attributes
    ----------
    name : str
        WFI01 to WFI18.
    size : int
        Number of rows and of columns, with the reference border.
    seed : int
        Seed of the random numbers.
    """

    name: str
    size: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the detector.

        Returns
        -------
        tuple of int
            Rows and columns with the reference border.
        """
        return self.size, self.size

    @property
    def channels(self) -> int:
        """Number of readout channels.

        Returns
        -------
        int
            Number of channels of 128 columns.
        """
        return self.size // CHANNEL_WIDTH

    def generator(self, topic: str) -> np.random.Generator:
        """Make a random number generator for one topic, so that the references don't depend on each other.

        Parameters
        ----------
        topic : str
            Name of the topic.

        Returns
        -------
        numpy.random.Generator
            Random numbers that depend on the seed, the detector and the topic.
        """
        return np.random.default_rng([self.seed, detector_number(self.name), zlib.crc32(topic.encode())])


# ----------------------------------------------------------------------------------------------------------- ingredients
def smooth_field(rng: np.random.Generator, shape: tuple[int, int], modes: int = 5) -> np.ndarray:
    """Draw a field that varies slowly over a detector: a random sum of the first cosine modes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    shape : tuple of int
        Rows and columns.
    modes : int
        Number of modes along each axis.

    Returns
    -------
    numpy.ndarray
        Field of zero mean and largest absolute value 1, float32, of `shape`.
    """
    rows, columns = (np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, np.arange(modes))) for n in shape)
    weights = rng.normal(size=(modes, modes)) / (1 + np.hypot.outer(np.arange(modes), np.arange(modes)))
    weights[0, 0] = 0
    field = rows @ weights @ columns.T
    return (field / np.abs(field).max()).astype(np.float32)


def random_pixels(rng: np.random.Generator, shape: tuple[int, int], fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw random pixels inside the reference border.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    shape : tuple of int
        Rows and columns with the reference border.
    fraction : float
        Fraction of the pixels inside the border; at least three are drawn.

    Returns
    -------
    row : numpy.ndarray
        Rows of the pixels, (n,), int.
    column : numpy.ndarray
        Columns of the pixels, (n,), int.
    """
    inside = tuple(n - 2 * BORDER for n in shape)
    count = max(3, round(fraction * np.prod(inside)))
    row, column = np.unravel_index(rng.choice(np.prod(inside), count, replace=False), inside)
    return row + BORDER, column + BORDER


def inverse_coefficients(degree: int = 6, largest: float = 80000.0) -> np.ndarray:
    """Fit the inverse of the polynomial x + QUADRATIC x² + CUBIC x³, with no offset and unit slope.

    Parameters
    ----------
    degree : int
        Degree of the inverse.
    largest : float
        Largest linear count to fit, DN.

    Returns
    -------
    numpy.ndarray
        Coefficients, constant first, (degree + 1,).
    """
    x = np.linspace(1, largest, 2000)
    y = x + QUADRATIC * x**2 + CUBIC * x**3
    powers = np.arange(2, degree + 1)
    scale = y[-1]
    terms = (y[:, None] / scale) ** powers
    solved = np.linalg.lstsq(terms, (x - y) / scale, rcond=None)[0]
    return np.concatenate([[0, 1], solved * scale ** (1.0 - powers)])


def nonlinearity_scale(detector: Detector) -> np.ndarray:
    """Draw the strength of the non-linearity of each pixel.

    With p the polynomial of the mean pixel and q its inverse, a pixel of scale s follows p(s x) / s, whose inverse is
    q(s y) / s: one accurate inverse is enough for all pixels.

    Parameters
    ----------
    detector : Detector
        Detector to make references for.

    Returns
    -------
    numpy.ndarray
        Ratio to the mean non-linearity, float32, (rows, columns); 0 (linear) in the reference border.
    """
    scale = np.zeros(detector.shape, np.float32)
    scale[SCIENCE] = 1 + 0.15 * smooth_field(detector.generator("nonlinearity"), detector.shape)[SCIENCE]
    return scale


def diffraction_psf(wavelength: float, oversample: int, half: int, broadening: float = 1.0) -> np.ndarray:
    """Compute the Airy pattern, blurred by 0.25 pixel for jitter and charge diffusion, not integrated over the pixel.

    Parameters
    ----------
    wavelength : float
        Wavelength, µm.
    oversample : int
        Samples per pixel.
    half : int
        Distance from the center to the stamp's edge, pixels.
    broadening : float
        Factor on the width.

    Returns
    -------
    numpy.ndarray
        Square stamp of sum 1, with the star on its central sample.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.special import j1

    axis = np.arange(-half * oversample, half * oversample + 1) / oversample
    width = np.degrees(wavelength * 1e-6 / PRIMARY_MIRROR) * 3600 / PIXEL_SCALE * broadening
    radius = np.maximum(np.pi * np.hypot.outer(axis, axis) / width, 1e-6)
    stamp = gaussian_filter((2 * j1(radius) / radius) ** 2, 0.25 * oversample)
    return stamp / stamp.sum()


def detector_center(detector: Detector) -> tuple[float, float]:
    """Compute the position of a detector's center in the focal plane, which scales with the size of the detectors.

    Parameters
    ----------
    detector : Detector
        Detector to make references for.

    Returns
    -------
    v2 : float
        Position along V2, arcsec.
    v3 : float
        Position along V3, arcsec.
    """
    row, column = divmod(detector_number(detector.name) - 1, FOCAL_PLANE_COLUMNS)
    pitch = FOCAL_PLANE_PITCH * detector.size * PIXEL_SCALE
    x, y = pitch * (column - (FOCAL_PLANE_COLUMNS - 1) / 2), pitch * (row - 1)
    cosine, sine = np.cos(np.radians(V3_YANGLE)), np.sin(np.radians(V3_YANGLE))
    v2, v3 = FOCAL_PLANE_CENTER
    return v2 + VPARITY * x * cosine + y * sine, v3 - VPARITY * x * sine + y * cosine


# ------------------------------------------------------------------------------------------------------------ references
# Each function returns the models of one reference type for a detector, by the optical elements that they are for.
def _model(name: str, detector: Detector, elements: tuple[str, ...] = ()):
    """Valid empty reference model with the metadata common to all references; `elements` are those that it is for."""
    import roman_datamodels.datamodels as rdm
    from astropy.time import Time

    model = getattr(rdm, name).create_fake_data()
    model.meta.instrument.detector = detector.name
    model.meta.update({"pedigree": "DUMMY", "author": "rampflow", "origin": "STSCI", "useafter": Time(USEAFTER, format="iso")})
    model.meta.description = f"Simulated reference for tests and demonstrations, {detector.size} pixels, seed {detector.seed}"
    if "optical_element" in model.meta.instrument and elements:
        model.meta.instrument.optical_element = elements[0]
        if len(elements) > 1:  # the schema has one only; the others in the way of p_exptype
            model.meta.instrument["p_optical_element"] = "".join(f"{element}|" for element in elements)
    if "exposure" in model.meta:
        model.meta.exposure.p_exptype = "".join(f"{kind}|" for kind in EXPOSURE_TYPES)
    return model


def _make_mask(detector: Detector) -> dict:
    """Make the mask: dead and hot pixels, the reference border, and a few bad reference pixels."""
    rng = detector.generator("mask")
    dq = np.full(detector.shape, flags.REFERENCE_PIXEL, np.uint32)
    dq[rng.random(detector.shape) < 1e-3] |= flags.BAD_REF_PIXEL
    dq[SCIENCE] = 0
    dq[random_pixels(rng, detector.shape, 5e-4)] |= flags.DO_NOT_USE | flags.DEAD
    dq[hot_pixels(detector)] |= flags.DO_NOT_USE | flags.HOT
    model = _model("MaskRefModel", detector)
    model.dq = dq
    return {(): model}


def hot_pixels(detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Draw the hot pixels, which both the mask and the dark have.

    Parameters
    ----------
    detector : Detector
        Detector to make references for.

    Returns
    -------
    row : numpy.ndarray
        Rows of the pixels, (n,), int.
    column : numpy.ndarray
        Columns of the pixels, (n,), int.
    """
    return random_pixels(detector.generator("hot"), detector.shape, 3e-4)


def _make_saturation(detector: Detector) -> dict:
    """Make saturation thresholds (DN); some are NaN, some zero, some flagged NO_SAT_CHECK."""
    rng = detector.generator("saturation")
    model = _model("SaturationRefModel", detector)
    model.data = SATURATION + 3000 * smooth_field(rng, detector.shape)
    model.dq = np.zeros(detector.shape, np.uint32)
    model.data[random_pixels(rng, detector.shape, 1e-5)] = np.nan
    model.dq[random_pixels(rng, detector.shape, 1e-5)] |= flags.NO_SAT_CHECK
    model.data[random_pixels(rng, detector.shape, 1e-6)] = 0
    return {(): model}


def _make_refpix(detector: Detector) -> dict:
    """Make the weights of the border columns and of amplifier 33 in the low-frequency noise of each channel.

    The border columns are read once per row, so that they sample frequencies up to half that rate. Amplifier 33 is read with
    every pixel and has most of the weight. The simulated noise of a channel is the common noise times the sum of the three
    weights: the correction can remove all of it but the noise of the reference pixels themselves.
    """
    rng = detector.generator("refpix")
    clocks = CHANNEL_WIDTH + CHANNEL_DEAD_COLUMNS
    frequency = np.fft.rfftfreq(detector.size * clocks)  # cycles per pixel clock
    strength = 1 + 0.1 * rng.normal(size=(detector.channels, 1))
    delay = rng.uniform(0, 0.5, (detector.channels, 1))  # in clocks: why the weights are complex
    channel = strength * np.exp(-2j * np.pi * frequency * delay)
    slow, fast = np.exp(-((frequency * 2 * clocks) ** 2)), np.exp(-((frequency * clocks / 4) ** 2))
    model = _model("RefpixRefModel", detector)
    model.gamma = model.zeta = 0.1 * channel * slow
    model.alpha = channel * (fast - 0.2 * slow)
    return {(): model}


def _make_darkdecaysignal(detector: Detector) -> dict:
    """Make the amplitude (DN) and time constant (s) of the dark decay of all 18 detectors."""
    model = _model("DarkdecaysignalRefModel", detector)
    rng = np.random.default_rng([detector.seed, zlib.crc32(b"darkdecaysignal")])
    model["decay_table"] = {
        f"WFI{n:02d}": {"amplitude": float(rng.uniform(1, 4)), "time_constant": float(rng.uniform(15, 40))}
        for n in range(1, 19)
    }
    return {(): model}


def _make_linearity(detector: Detector) -> dict:
    """Make linearity coefficients; some are NaN, some linear terms are zero, some pixels flagged."""
    rng = detector.generator("linearity")
    scale = nonlinearity_scale(detector)
    coeffs = np.stack([np.zeros_like(scale), np.ones_like(scale), QUADRATIC * scale, CUBIC * scale**2]).astype(np.float32)
    dq = np.zeros(detector.shape, np.uint32)
    dq[random_pixels(rng, detector.shape, 2e-5)] |= flags.NO_LIN_CORR
    coeffs[(slice(None), *random_pixels(rng, detector.shape, 1e-5))] = np.nan
    coeffs[(1, *random_pixels(rng, detector.shape, 1e-5))] = 0
    coeffs[(2, *random_pixels(rng, detector.shape, 1e-6))] = np.nan
    model = _model("LinearityRefModel", detector)
    model.coeffs, model.dq = coeffs, dq
    return {(): model}


def _make_inverselinearity(detector: Detector) -> dict:
    """Make inverse linearity coefficients; some are NaN, some linear terms are zero, some pixels flagged."""
    rng = detector.generator("inverselinearity")
    scale = nonlinearity_scale(detector)
    inverse = inverse_coefficients()
    coeffs = np.empty((len(inverse), *detector.shape), np.float32)
    coeffs[0] = 0
    for power, coefficient in enumerate(inverse[1:], start=1):
        coeffs[power] = coefficient * scale ** (power - 1)
    coeffs[(slice(None), *random_pixels(rng, detector.shape, 1e-6))] = np.nan
    coeffs[(1, *random_pixels(rng, detector.shape, 1e-6))] = 0
    dq = np.zeros(detector.shape, np.uint32)
    dq[random_pixels(rng, detector.shape, 1e-6)] |= flags.NO_LIN_CORR
    model = _model("InverselinearityRefModel", detector)
    model.coeffs, model.dq = coeffs, dq
    return {(): model}


def _make_integralnonlinearity(detector: Detector) -> dict:
    """Make waves of one or two DN in the analog-to-digital conversion of each channel."""
    rng = detector.generator("integralnonlinearity")
    model = _model("IntegralnonlinearityRefModel", detector)
    model.meta.n_channels, model.meta.n_pixels_per_channel = detector.channels, CHANNEL_WIDTH
    model.value = np.arange(0, 2**16, 16, dtype=np.uint16)
    table = {}
    for channel in range(detector.channels):
        waves = [rng.uniform(0.5, 1) * np.sin(2 * np.pi * (model.value / period + rng.random())) for period in (1500, 7000)]
        table[f"science_channel_{channel + 1:02d}"] = {"instrument_channel": channel, "correction": sum(waves)}
    model["inl_table"] = table
    return {(): model}


def _make_readnoise(detector: Detector) -> dict:
    """Make the read noise (DN per read), with a tail of noisy pixels; some are NaN, some zero."""
    rng = detector.generator("readnoise")
    noise = rng.normal(READ_NOISE, 0.5, detector.shape).astype(np.float32)
    noise[random_pixels(rng, detector.shape, 2e-4)] *= 4
    noise[random_pixels(rng, detector.shape, 1e-6)] = np.nan
    noise[random_pixels(rng, detector.shape, 1e-6)] = 0
    model = _model("ReadnoiseRefModel", detector)
    model.data = noise
    return {(): model}


def _make_gain(detector: Detector) -> dict:
    """Make the gain (electron / DN); some pixels are NaN, some negative, some zero."""
    rng = detector.generator("gain")
    model = _model("GainRefModel", detector)
    model.data = GAIN * (1 + 0.03 * smooth_field(rng, detector.shape))
    model.data[random_pixels(rng, detector.shape, 1e-6)] = np.nan
    model.data[random_pixels(rng, detector.shape, 1e-6)] *= -1
    model.data[random_pixels(rng, detector.shape, 1e-6)] = 0
    return {(): model}


def _make_dark(detector: Detector) -> dict:
    """Make the dark current (DN/s): small and smooth, with hot pixels; some are NaN, some flagged."""
    rng = detector.generator("dark")
    model = _model("DarkRefModel", detector, ("DARK",))
    slope = 0.005 * (1 + 0.3 * smooth_field(rng, detector.shape))
    hot = hot_pixels(detector)
    slope[hot] = rng.uniform(1, 30, len(hot[0]))
    slope[~_inside(detector.shape)] = 0
    model.dark_slope, model.dark_slope_error = slope, np.full(detector.shape, 5e-4, np.float32)
    model.dq = np.zeros(detector.shape, np.uint32)
    model.dq[hot] = flags.HOT
    model.dark_slope[random_pixels(rng, detector.shape, 1e-6)] = np.nan
    model.dq[random_pixels(rng, detector.shape, 1e-6)] |= flags.DO_NOT_USE
    return {(): model}


def _inside(shape: tuple[int, int]) -> np.ndarray:
    """Mask of the light-sensitive pixels."""
    inside = np.zeros(shape, bool)
    inside[SCIENCE] = True
    return inside


def _make_flat(detector: Detector) -> dict:
    """Make a flat field: smooth illumination and grain; some pixels are NaN, some zero, some flagged."""
    rng = detector.generator("flat")
    side = detector.size - 2 * BORDER
    shape = (side, side)
    model = _model("FlatRefModel", detector, tuple(FILTERS))
    flat = 1 + 0.04 * smooth_field(rng, shape) + rng.normal(0, 0.003, shape).astype(np.float32)
    flat[random_pixels(rng, shape, 1e-5)] = np.nan
    flat[random_pixels(rng, shape, 1e-5)] = 0
    model.data, model.err = flat, np.full(shape, 0.002, np.float32)
    model.dq = np.zeros(shape, np.uint32)
    model.dq[random_pixels(rng, shape, 1e-5)] = flags.NO_FLAT_FIELD
    return {tuple(FILTERS): model}


def make_distortion(detector: Detector) -> dict:
    """Make the distortion: a cubic polynomial that deviates by half a pixel at the edge of the detector.

    Parameters
    ----------
    detector : Detector
        Detector to make the reference for.

    Returns
    -------
    dict of DistortionRefModel
        The model, under the names of all optical elements. It takes pixels, without the border, to V2 and V3 (arcsec).
    """
    from astropy.modeling.models import Mapping, Polynomial2D, Shift

    rng = detector.generator("distortion")
    half = (detector.size - 2 * BORDER - 1) / 2
    scale, angle = PIXEL_SCALE, np.radians(V3_YANGLE)
    x_v2, y_v2 = VPARITY * scale * np.cos(angle), scale * np.sin(angle)
    x_v3, y_v3 = -VPARITY * scale * np.sin(angle), scale * np.cos(angle)
    bend = {
        f"c{i}_{j}": (size * scale * rng.uniform(-1, 1, 2) / half ** (i + j))
        for i, j, size in ((2, 0, 0.3), (1, 1, 0.3), (0, 2, 0.3), (3, 0, 0.05), (1, 2, 0.05))
    }
    to_v2 = Polynomial2D(3, c1_0=x_v2, c0_1=y_v2, **{name: value[0] for name, value in bend.items()})
    to_v3 = Polynomial2D(3, c1_0=x_v3, c0_1=y_v3, **{name: value[1] for name, value in bend.items()})

    # Fitted beyond the edge of the field; the inverse, of degree 5, is accurate to 1e-5 pixel.
    axis = np.linspace(-1.1 * half, 1.1 * half, 41)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    to_x, to_y = (_fit_polynomial(5, to_v2(x, y), to_v3(x, y), target) for target in (x, y))

    v2, v3 = detector_center(detector)
    fan_out = Mapping((0, 1, 0, 1))
    transform = (Shift(-half) & Shift(-half)) | fan_out | (to_v2 & to_v3) | (Shift(v2) & Shift(v3))
    transform.inverse = (Shift(-v2) & Shift(-v3)) | fan_out | (to_x & to_y) | (Shift(half) & Shift(half))
    transform.name = "distortion"
    model = _model("DistortionRefModel", detector, (*FILTERS, *UNFILTERED))
    model["coordinate_distortion_transform"] = transform
    return {(*FILTERS, *UNFILTERED): model}


def _fit_polynomial(degree: int, u: np.ndarray, v: np.ndarray, target: np.ndarray):
    """Least-squares polynomial of two variables."""
    from astropy.modeling.models import Polynomial2D

    scale = np.abs(np.concatenate([u, v])).max()
    names = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    terms = np.stack([(u / scale) ** i * (v / scale) ** j for i, j in names], axis=1)
    solved = np.linalg.lstsq(terms, target, rcond=None)[0]
    return Polynomial2D(degree, **{f"c{i}_{j}": c / scale ** (i + j) for (i, j), c in zip(names, solved, strict=True)})


def _make_photom(detector: Detector) -> dict:
    """Make the conversion to MJy/sr of each filter; null for other optical elements."""
    model = _model("WfiImgPhotomRefModel", detector)
    table = {}
    for element in (*FILTERS, "GRISM", "GRISM_0", "PRISM", "DARK", "NOT_CONFIGURED"):
        entry = dict.fromkeys(("photmjsr", "uncertainty", "pixelareasr", "collecting_area", "wavelength", "effective_area"))
        if element not in ("DARK", "NOT_CONFIGURED"):
            wavelength = np.linspace(0.4, 2.6, 45, dtype=np.float32)
            entry |= {"collecting_area": 3.6, "wavelength": wavelength, "effective_area": np.full_like(wavelength, 2)}
        if element in FILTERS:
            area = np.radians(PIXEL_SCALE / 3600) ** 2
            photmjsr = 0.3 + 0.1 * FILTERS[element]
            entry |= {"photmjsr": photmjsr, "uncertainty": 0.005 * photmjsr, "pixelareasr": float(area)}
        table[element] = entry
    model["phot_table"] = table
    return {(): model}


EPSF_OVERSAMPLE, EPSF_HALF, EPSF_GRID = 4, 22, 3  #: samples per pixel; pixels from center to edge; positions per axis


def _make_epsf(detector: Detector) -> dict:
    """Make point-spread functions over the detector, in the format that sums to 1 over the samples.

    The width grows by 4 % from one corner of the detector to the opposite one, and by 1 % with the spectral type.
    """
    last = detector.size - 2 * BORDER - 1
    positions = [(x, y) for y in np.linspace(0, last, EPSF_GRID) for x in np.linspace(0, last, EPSF_GRID)]
    models = {}
    for element, wavelength in FILTERS.items():
        stamps = [
            [
                diffraction_psf(wavelength, EPSF_OVERSAMPLE, EPSF_HALF, 1 + 0.02 * (x + y) / last + 0.005 * spectral_type)
                for x, y in positions
            ]
            for spectral_type in range(3)
        ]
        model = _model("EpsfRefModel", detector, (element,))
        model.psf = np.array([stamps], np.float32)
        model.meta.update(
            {
                "oversample": EPSF_OVERSAMPLE,
                "defocus": [0],
                "spectral_type": ["A0V", "G2V", "M6V"],
                "pixel_x": [float(x) for x, _ in positions],
                "pixel_y": [float(y) for _, y in positions],
                "jitter_major": 8.0,
                "jitter_minor": 8.0,
                "jitter_position_angle": 0.0,
            }
        )
        models[(element,)] = model
    return models


def _make_apcorr(detector: Detector) -> dict:
    """Make the encircled energy of each filter's point-spread function at the center of the detector.

    The radii, in pixels, extend beyond the largest aperture of source_catalog, 1.6 arcsec.
    """
    model = _model("ApcorrRefModel", detector)
    radii = np.geomspace(0.25, 20, 40)
    data = {}
    for element in (*FILTERS, *UNFILTERED):
        entry = dict.fromkeys(("ap_corrections", "ee_fractions", "ee_radii", "sky_background_rin", "sky_background_rout"))
        if element in FILTERS:
            stamp = diffraction_psf(FILTERS[element], EPSF_OVERSAMPLE, EPSF_HALF, 1.02 + 0.005)  # see _make_epsf: G2V
            fractions = enclosed_fraction(stamp, EPSF_OVERSAMPLE, radii)
            entry |= {"ee_radii": radii, "ee_fractions": fractions, "ap_corrections": 1 / fractions}
            entry |= {"sky_background_rin": 2.4 / PIXEL_SCALE, "sky_background_rout": 2.8 / PIXEL_SCALE}
        data[element] = entry
    model["data"] = data
    return {(): model}


#: For each type of reference, the function that makes it: it takes a detector, and returns the models by the optical elements
#: that each is for, ``()`` for all of them.
MAKERS = {
    "mask": _make_mask,
    "saturation": _make_saturation,
    "refpix": _make_refpix,
    "darkdecaysignal": _make_darkdecaysignal,
    "linearity": _make_linearity,
    "inverselinearity": _make_inverselinearity,
    "integralnonlinearity": _make_integralnonlinearity,
    "readnoise": _make_readnoise,
    "gain": _make_gain,
    "dark": _make_dark,
    "flat": _make_flat,
    "distortion": make_distortion,
    "photom": _make_photom,
    "epsf": _make_epsf,
    "apcorr": _make_apcorr,
}
#: Dust maps: no detector selects them. The value is that of CRDS's keyword ROMAN.FIELD.
DUST_MAPS = {"dustmap_north": "north", "dustmap_south": "south"}
DUST_MAP_SIZE, DUST_MAP_SCALE = 128, 1.3  # pixels, and degrees per pixel: a hemisphere is 162 degrees wide


def make_dust_map(path: Path, hemisphere: str, seed: int) -> None:
    """Make a map of the reddening E(B-V) of a galactic hemisphere, which grows toward the equator.

    Parameters
    ----------
    path : pathlib.Path
        File to write (FITS), in a zenithal equal-area projection as the maps of Schlegel, Finkbeiner & Davis (1998).
    hemisphere : str
        ``north`` or ``south``.
    seed : int
        Seed of the random numbers.
    """
    from astropy.io import fits

    center = (DUST_MAP_SIZE + 1) / 2
    header = fits.Header({"CTYPE1": "GLON-ZEA", "CTYPE2": "GLAT-ZEA", "CRPIX1": center, "CRPIX2": center, "BUNIT": "mag"})
    header.update({"CRVAL1": 0.0, "CRVAL2": 90.0 if hemisphere == "north" else -90.0})
    header.update({"CDELT1": -DUST_MAP_SCALE, "CDELT2": DUST_MAP_SCALE})
    rows, columns = np.mgrid[1 : DUST_MAP_SIZE + 1, 1 : DUST_MAP_SIZE + 1] - center
    distance = DUST_MAP_SCALE * np.hypot(rows, columns)
    rng = np.random.default_rng([seed, zlib.crc32(hemisphere.encode())])
    clouds = smooth_field(rng, (DUST_MAP_SIZE, DUST_MAP_SIZE), modes=20)
    values = (0.02 + 0.5 * np.exp((distance - 81) / 10)) * np.exp(0.2 * clouds)
    fits.PrimaryHDU(values.astype(np.float32), header).writeto(path, overwrite=True)


# ----------------------------------------------------------------------------------------------------------------- cache
def read_mapping(path: Path) -> tuple[Any, Any]:
    """Read a CRDS mapping, which is written in Python literals.

    Parameters
    ----------
    path : pathlib.Path
        File of the mapping.

    Returns
    -------
    header : dict
        Header of the mapping.
    selection : Any
        Its selector.
    """
    names = {"Match": dict, "UseAfter": dict}
    exec(path.read_text(), names)
    return names["header"], names["selector"]


def write_mapping(path: Path, header: dict, selection: dict, *, rules: bool = False) -> None:
    """Write a CRDS mapping with the checksum of its lines, which CRDS verifies.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    header : dict
        Header of the mapping; its name and checksum are set.
    selection : dict
        Files by the values of the matching keywords; in a mapping of a type, with the time from which each is used, if any.
    rules : bool
        The mapping is one of a reference type (rmap).
    """
    header = {key: value for key, value in header.items() if key != "sha1sum"} | {"name": path.name}
    lines = ["header = {", *(f"    {key!r} : {value!r}," for key, value in sorted(header.items())), "}", ""]
    lines.append("selector = Match({" if rules else "selector = {")
    lines += [
        f"    {key!r} : {f'UseAfter({value!r})' if isinstance(value, dict) else repr(value)},"
        for key, value in selection.items()
    ]
    lines.append("})" if rules else "}")
    digest = hashlib.sha1("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    lines.insert(lines.index("}"), f"    'sha1sum' : {digest!r},")
    path.write_text("".join(f"{line}\n" for line in lines))


def _match_keys(parkeys: tuple, detector: Detector, elements: tuple) -> tuple[str, ...]:
    """Values of the matching keywords of an rmap that select a file."""
    values = {"DETECTOR": detector.name, "TYPE": "|".join(EXPOSURE_TYPES), "OPTICAL_ELEMENT": "|".join(elements)}
    return tuple(values[parkey.rpartition(".")[2]] for parkey in parkeys)


def make_cache(
    path: Path,
    detectors: tuple[str, ...],
    size: int,
    seed: int,
    *,
    context: str = "roman_0001.pmap",
    new: tuple[str, ...] = tuple(MAKERS),
) -> None:
    """Make a CRDS cache of simulated references, or add a context to one.

    The cache's operational context becomes `context`.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the cache, the value of ``CRDS_PATH``.
    detectors : tuple of str
        Detectors to make references for.
    size : int
        Rows and columns of the detectors, with the reference border; a multiple of 256, for an even number of channels.
    seed : int
        Seed of the random numbers.
    context : str
        Name of the context, ``roman_NNNN.pmap``; its number is in the names of the new files.
    new : tuple of str
        Reference types to make, by default those of a detector; `DUST_MAPS` are others. Types that are not named, and other
        detectors of these types, are those of the context before.

    Raises
    ------
    RampflowError
        The size is not a multiple of 256, or a detector or reference type is unknown.
    """
    import crds

    if size % (2 * CHANNEL_WIDTH):
        raise RampflowError(f"size is {size}; it must be a multiple of {2 * CHANNEL_WIDTH}, for an even number of channels")
    if unknown := set(new) - {*MAKERS, *DUST_MAPS}:
        known = ", ".join((*MAKERS, *DUST_MAPS))
        raise RampflowError(f"unknown reference type {', '.join(sorted(unknown))}; known are {known}")
    path, serial = Path(path), context.removeprefix("roman_").removesuffix(".pmap")
    config, mappings, references = path / "config/roman", path / "mappings/roman", path / "references/roman/wfi"
    for folder in (config, mappings, references):
        folder.mkdir(parents=True, exist_ok=True)

    rmaps = {}
    if earlier := sorted(name.name for name in mappings.glob("*.imap")):
        rmaps = read_mapping(mappings / earlier[-1])[1]

    def _mapping_before(reftype):
        if reftype in rmaps:
            header, selection = read_mapping(mappings / rmaps[reftype])
        else:  # CRDS has the keywords that select a file
            header, selection = read_mapping(Path(crds.__file__).parent / f"roman/specs/wfi_{reftype}.rmap")
            selection = {}
        return header | {"derived_from": header["name"]}, selection

    if made := [reftype for reftype in new if reftype in DUST_MAPS]:
        header, selection = _mapping_before("dustmap")
        for reftype in made:
            filename = f"roman_wfi_{reftype}_{serial}.fits"
            make_dust_map(references / filename, DUST_MAPS[reftype], seed)
            selection[(DUST_MAPS[reftype],)] = filename
        rmaps["dustmap"] = f"roman_wfi_dustmap_{serial}.rmap"
        write_mapping(mappings / rmaps["dustmap"], header, selection, rules=True)
    for reftype in new:
        if reftype in DUST_MAPS:
            continue
        header, selection = _mapping_before(reftype)
        parkeys = header["parkey"][0]
        for name in detectors[:1] if parkeys == () else detectors:
            detector, served = Detector(name, size, seed), set()
            models = MAKERS[reftype](detector)
            for elements, model in models.items():
                element = elements[0].lower() if len(models) > 1 else ""
                parts = ["roman_wfi", reftype, name.lower() if parkeys else "", element, serial]
                filename = "_".join(part for part in parts if part) + ".asdf"
                model.meta.filename = filename
                model.save(references / filename)
                selection[_match_keys(parkeys, detector, elements)] = {USEAFTER: filename}
                served.update(elements)
            if served and (without := [element for element in (*FILTERS, *UNFILTERED) if element not in served]):
                selection[_match_keys(parkeys, detector, tuple(without))] = {USEAFTER: "N/A"}
        rmaps[reftype] = f"roman_wfi_{reftype}_{serial}.rmap"
        write_mapping(mappings / rmaps[reftype], header, selection, rules=True)

    common = {"observatory": "ROMAN", "description": "Simulated references", "derived_from": "rampflow"}
    imap = f"roman_wfi_{serial}.imap"
    write_mapping(mappings / imap, common | {"mapping": "INSTRUMENT", "instrument": "WFI", "parkey": ("REFTYPE",)}, rmaps)
    pipeline = common | {"mapping": "PIPELINE", "parkey": ("ROMAN.META.INSTRUMENT.NAME",)}
    write_mapping(mappings / context, pipeline, {"WFI": imap})
    server = {
        "observatory": "roman",
        "operational_context": context,
        "default_context": context,
        "edit_context": context,
        "bad_files": "",
        "bad_files_list": [],
        "force_remote_mode": False,
        "last_synced": USEAFTER,
        "crds_version": {"str": crds.__version__},
        "reference_url": {"roman": "none"},
        "mapping_url": {"roman": "none"},
    }
    (config / "server_config").write_text(pprint.pformat(server))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder of the CRDS cache (CRDS_PATH)")
    parser.add_argument("--detectors", default="WFI01", help="comma-separated names (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns, with the border (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="equal seeds make equal references (default: %(default)s)")
    parser.add_argument("--context", default="roman_0001.pmap", help="context to make (default: %(default)s)")
    parser.add_argument(
        "--new", default=",".join((*MAKERS, *DUST_MAPS)), help="comma-separated reference types to make (default: all)"
    )
    args = parser.parse_args()
    detectors, new = tuple(args.detectors.split(",")), tuple(args.new.split(","))
    try:
        make_cache(args.cache, detectors, args.size, args.seed, context=args.context, new=new)
    except RampflowError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
