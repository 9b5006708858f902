"""assign_wcs: give an image its world coordinate system, from detector pixels to the sky."""

from __future__ import annotations

import math
import sys

from rampflow.errors import RampflowError
from rampflow.files.yaml_tree import tagged
from rampflow.step.consistency import APERTURE
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.logs import step_logger
from rampflow.step.program import run_step
from rampflow.step.reference_checks import metadata_value
from rampflow.wcs.wcs_tree import (
    Wcs,
    bounding_box,
    box_of,
    check_transform,
    compose,
    concatenate,
    in_memory,
    middle_of,
    pixel_width,
    plane_frame,
    s_region,
    sky_frame,
    transform,
    wcs_of_steps,
)

STEP = Step(
    name="assign_wcs",
    summary="Give an image its world coordinate system, from detector pixels to the sky.",
    references=(
        Reference(
            "distortion",
            "transform from detector pixels to the telescope's (v2, v3) in arcsec",
            plausible={
                "coordinate_distortion_transform": Range(
                    0.08,
                    0.14,
                    "arcsec",
                    "pixels are 0.11 arcsec wide, within some per cent over the focal plane",
                    quantity="width of a pixel in the middle of the detector",
                )
            },
            made_for=("detector", "optical_element"),
        ),
    ),
)

log = step_logger(STEP.name)

#: Largest absolute value of each entry of ``meta.wcsinfo`` that the WCS is made of. The reference points of all detectors
#: lie within a degree of the telescope's axis; twice that is allowed. RAD's placeholder, −999999, is beyond all of them.
POINTING_LIMITS = {"v2_ref": 7200.0, "v3_ref": 7200.0, "roll_ref": 360.0, "ra_ref": 360.0, "dec_ref": 90.0}
#: Largest deviation of the aberration's scale from 1: the telescope moves with the Earth, at 10⁻⁴ of the speed of light.
LARGEST_ABERRATION = 2e-4
#: Largest distance of a detector's reference point from its middle by the distortion, arcsec: less than one in sound
#: files; a detector is 450 arcsec wide.
LARGEST_OFFSET = 60.0


def pointing_faults(pointing: dict) -> list[str]:
    """What of a pointing can't be one.

    Parameters
    ----------
    pointing : dict
        v2_ref, v3_ref (arcsec), roll_ref, ra_ref, dec_ref (degrees).

    Returns
    -------
    list of str
        A phrase for each entry that is not finite or beyond `POINTING_LIMITS`, as ``ra_ref is -999999.0``, or one for all if
        they are 0.
    """
    if not any(pointing.values()):  # no detector is on the telescope's axis
        return ["all of " + ", ".join(POINTING_LIMITS) + " are 0"]
    return [f"{name} is {pointing[name]}" for name, limit in POINTING_LIMITS.items() if not abs(pointing[name]) <= limit]


def own_aperture(meta: dict) -> bool:
    """Whether the reference point in ``meta.wcsinfo`` is that of the exposure's own detector, by the name of its aperture."""
    aperture, detector = metadata_value(meta, "wcsinfo.aperture_name"), metadata_value(meta, "instrument.detector")
    found = APERTURE.match(aperture) if isinstance(aperture, str) else None
    return found is not None and isinstance(detector, str) and detector.upper() == f"WFI{found[1]}"


def offset_of_middle(distortion: dict, shape: tuple[int, int], v2_ref: float, v3_ref: float) -> tuple[float, float, float]:
    """Where a distortion puts the middle of a detector, and how far that is from its reference point.

    Parameters
    ----------
    distortion : dict
        Tree of a transform, pixels to (v2, v3) in arcsec.
    shape : tuple of int
        Rows and columns.
    v2_ref, v3_ref : float
        arcsec.

    Returns
    -------
    v2, v3, distance : float
        arcsec.
    """
    v2, v3 = middle_of(distortion, shape)
    return v2, v3, math.hypot(v2 - v2_ref, v3 - v3_ref)


def velocity_aberration(scale: float | None, v2_ref: float, v3_ref: float) -> dict:
    """Transform that takes out the differential aberration of light by the telescope's velocity.

    (v2, v3) are scaled about the reference point: v ↦ s·v + (1 − s)·v_ref.

    Parameters
    ----------
    scale : float or None
        Apparent over true plate scale, ``meta.velocity_aberration.scale_factor``. Absent or 1: nothing to do. Not positive: a
        warning, and 1. Farther from 1 than the telescope's velocity allows: a warning.
    v2_ref, v3_ref : float
        Reference point, arcsec.

    Returns
    -------
    dict
        Tree of the transform, arcsec to arcsec.
    """
    if scale is None or scale == 1:
        return transform("identity", ["x0", "x1"], ["x0", "x1"], n_dims=2)
    if scale <= 0:
        log.warning("meta.velocity_aberration.scale_factor is %s and must be positive: taken as 1", scale)
        scale = 1.0
    if abs(scale - 1) > LARGEST_ABERRATION:
        log.warning(
            "meta.velocity_aberration.scale_factor is %s, and the telescope's velocity allows no more than 1 ± %g: positions "
            "on the sky may be wrong; check the raw file",
            scale,
            LARGEST_ABERRATION,
        )
    about_origin = concatenate("scale", factor=[scale, scale], name=["dva_scale_v2", "dva_scale_v3"])
    offsets = [(1 - scale) * v2_ref, (1 - scale) * v3_ref]
    to_reference = concatenate("shift", offset=offsets, name=["dva_v2_shift", "dva_v3_shift"])
    return compose(about_origin, to_reference, name="DVA_Correction")


def telescope_to_sky(v2_ref: float, v3_ref: float, roll_ref: float, ra_ref: float, dec_ref: float) -> dict:
    """Transform from the telescope's frame to the sky.

    The unit vector of (v2, v3) is turned by v2_ref about z and −v3_ref about y, which brings the reference point to the
    x axis, by roll_ref about x, and by dec_ref about y and −ra_ref about z to the reference point's place on the sky.

    Parameters
    ----------
    v2_ref, v3_ref : float
        Reference point, arcsec.
    roll_ref, ra_ref, dec_ref : float
        Position angle there, and where it lies on the sky, degrees.

    Returns
    -------
    dict
        Tree of the transform, (v2, v3) in arcsec to ICRS (ra, dec) in degrees, ra from 0 to 360.
    """
    sphere, space = ["lon", "lat"], ["x", "y", "z"]
    angles = [v2_ref / 3600, -v3_ref / 3600, float(roll_ref), float(dec_ref), float(-ra_ref)]
    return compose(
        concatenate("scale", factor=[1 / 3600, 1 / 3600]),
        transform("spherical_cartesian", sphere, space, transform_type="spherical_to_cartesian", wrap_lon_at=180),
        transform("rotate_sequence_3d", space, space, angles=angles, axes_order="zyxyz", rotation_type="cartesian"),
        transform("spherical_cartesian", space, sphere, transform_type="cartesian_to_spherical", wrap_lon_at=360),
        name="v23tosky",
    )


def make_wcs(distortion: dict, pointing: dict, aberration_scale: float | None, shape: tuple[int, int]) -> dict:
    """Build the WCS: detector → v2v3 → v2v3vacorr → world (ICRS).

    Parameters
    ----------
    distortion : dict
        Tree of a transform, pixels to (v2, v3) in arcsec. Its bounding box is used; without one, that of the image, whole
        pixels.
    pointing : dict
        v2_ref, v3_ref (arcsec), roll_ref, ra_ref, dec_ref (degrees).
    aberration_scale : float or None
        See `velocity_aberration`.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    dict
        Its tree.
    """
    rows, columns = shape
    x, y = box_of(distortion) or ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    distortion = tagged({**distortion, "bounding_box": bounding_box(x=list(x), y=list(y))}, distortion.tag)
    aberration = velocity_aberration(aberration_scale, pointing["v2_ref"], pointing["v3_ref"])
    to_sky = telescope_to_sky(**pointing)
    for node, inputs, outputs in (
        (distortion, ["x", "y"], ["v2", "v3"]),
        (aberration, ["v2", "v3"], ["v2", "v3"]),
        (to_sky, ["v2", "v3"], ["ra", "dec"]),
    ):
        node.update(inputs=inputs, outputs=outputs)
    return wcs_of_steps(
        (plane_frame("detector", ["x", "y"], "pixel"), distortion),
        (plane_frame("v2v3", ["v2", "v3"], "arcsec"), aberration),
        (plane_frame("v2v3vacorr", ["v2", "v3"], "arcsec"), to_sky),
        (sky_frame("world"), None),
    )


def read_distortion(reference: Exposure) -> dict:
    """The tree of the transform of a distortion reference.

    Raises
    ------
    RampflowError
        It has none.
    """
    try:
        distortion = in_memory(reference.get("coordinate_distortion_transform", dict))
        check_transform(distortion)
        return distortion
    except RampflowError:
        raise
    except Exception as error:  # what comes of a damaged tree has no common name
        message = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RampflowError(
            f"{reference.path}: coordinate_distortion_transform can't be read ({message}); give a whole reference"
        ) from None


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["distortion"] is None:
        return job.skip("There is no distortion reference")
    image = job.exposure
    pointing = {name: image.get(f"meta.wcsinfo.{name}", (int, float)) for name in POINTING_LIMITS}
    if faults := pointing_faults(pointing):
        image.meta["wcs"] = None
        return job.skip(
            f"The pointing in meta.wcsinfo is a placeholder or impossible ({', '.join(faults)}), so that the image gets no WCS "
            "and its sources no positions on the sky: run romancal's roman_set_telescope_pointing on the raw file"
        )
    known = image.meta.get("velocity_aberration", {}).get("scale_factor") is not None
    scale = image.number("meta.velocity_aberration.scale_factor") if known else None
    shape = image.array("data", 2).shape
    with job.open_reference("distortion") as reference:
        distortion = read_distortion(reference)
        job.refuse_implausible("distortion", "coordinate_distortion_transform", pixel_width(distortion, shape))
        v2, v3, offset = offset_of_middle(distortion, shape, pointing["v2_ref"], pointing["v3_ref"])
        if own_aperture(image.meta) and not offset <= LARGEST_OFFSET:
            log.warning(
                "%s: coordinate_distortion_transform puts the middle of the detector at v2, v3 = %.1f, %.1f arcsec, "
                "%.0f arcsec from its reference point (meta.wcsinfo.v2_ref, v3_ref = %.1f, %.1f): positions on the sky may be "
                "wrong; check whether the reference is of this detector, and its axes are V2 and V3",
                reference.path.name,
                v2,
                v3,
                offset,
                pointing["v2_ref"],
                pointing["v3_ref"],
            )
    image.meta["wcs"] = make_wcs(distortion, pointing, scale, shape)
    with job.create() as product:
        region = s_region(Wcs(product.meta["wcs"]))
        if region is None:
            log.warning("The corners of the image are not finite on the sky: meta.wcsinfo.s_region stays as it is")
        else:
            product.meta["wcsinfo"]["s_region"] = region
            log.info("S_REGION: %s", region)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
