"""Small calibrated images of the detectors of an exposure, with stars of known positions."""

import functools

import numpy as np
from astropy.modeling.models import Identity, Mapping, Polynomial2D, Scale, Shift
from simulator.optics import FOCAL_PLANE_CENTER, attitude, pointing_at
from simulator.simulate_references import Detector, detector_center, make_distortion
from small_files import write_image

from rampflow.wcs.building import build_wcs
from rampflow.wcs.conversion import tree_of_wcs, wcs_of_tree
from rampflow.wcs.footprint import s_region

FULL, BINNING = 4096, 32
SIDE = (FULL - 8) // BINNING  # pixels of an image, each as wide as `BINNING` pixels of the detector
RA, DEC, ROLL = 270.0, 66.0, 25.0
EXPOSURE = "r0000101001001001001_0001"
META = {"photometry.conversion_megajanskys": 0.5, "photometry.pixel_area": 2.8e-10}


def stem(number):
    return f"{EXPOSURE}_wfi{number:02d}_f158"


@functools.cache
def wcs_of_detector(number, *, ra=RA, dec=DEC, binning=BINNING):
    """WCS of a detector's image, and the pointing in its metadata."""
    detector = Detector(f"WFI{number:02d}", FULL, 1)
    distortion = next(iter(make_distortion(detector).values())).coordinate_distortion_transform.copy()
    distortion.bounding_box = None
    side = (FULL - 8) // binning
    coarse = Scale(binning) & Scale(binning) | Shift((binning - 1) / 2) & Shift((binning - 1) / 2)
    v2, v3 = detector_center(detector)
    ra_ref, dec_ref, roll_ref = map(float, pointing_at(attitude(*FOCAL_PLANE_CENTER, ra, dec, ROLL), v2, v3))
    pointing = {"v2_ref": float(v2), "v3_ref": float(v3), "roll_ref": roll_ref, "ra_ref": ra_ref, "dec_ref": dec_ref}
    model = distortion if binning == 1 else coarse | distortion
    return build_wcs(model | Identity(2), pointing, 1.0, (side, side)), pointing


def write_detector(folder, number, *, stars=(), dq=None, ra=RA, dec=DEC):
    """Write the image of a detector: sky of 1 DN/s with noise, and stars (ra, dec) of one bright pixel.

    Returns
    -------
    path : pathlib.Path
        The image (_cal.asdf).
    wcs : gwcs.wcs.WCS
        Its WCS.
    """
    wcs, pointing = wcs_of_detector(number, ra=ra, dec=dec)
    data = np.random.default_rng(number).normal(1, 0.1, (SIDE, SIDE))
    for position in stars:
        x, y = np.rint(wcs.invert(*position, with_bounding_box=False)).astype(int)
        if 0 <= x < SIDE and 0 <= y < SIDE:
            data[y, x] = 100
    tree = tree_of_wcs(wcs)
    meta = {f"wcsinfo.{name}": value for name, value in pointing.items()} | META
    meta |= {"instrument.detector": f"WFI{number:02d}", "wcs": tree, "wcsinfo.s_region": s_region(wcs)}
    arrays = {} if dq is None else {"dq": dq}
    return write_image(folder / f"{stem(number)}_cal.asdf", data, meta, **arrays), wcs_of_tree(tree)


def wavy_wcs(shape):
    """A WCS that polynomials of the degrees in question can't follow: a distortion of degree 15, of 2 pixels at the edges."""
    half = (shape[1] - 1) / 2
    to_middle = Polynomial2D(1, c0_0=-1, c1_0=1 / half) & Polynomial2D(1, c0_0=-1, c0_1=1 / half)
    wave = Polynomial2D(15, c1_0=0.11 * half, c15_0=2 * 0.11)
    twice = Mapping((0, 1, 0, 1))
    distortion = twice | to_middle | twice | wave & Polynomial2D(1, c0_1=0.11 * half)
    pointing = {"v2_ref": 0.0, "v3_ref": 0.0, "roll_ref": 10.0, "ra_ref": RA, "dec_ref": DEC}
    return build_wcs(distortion, pointing, 1.0, shape)
