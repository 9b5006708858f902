"""assign_wcs: give an image its world coordinate system, from detector pixels to the sky."""

from __future__ import annotations

import sys

from wfi.errors import RampflowError
from wfi.step import Job, Reference, Step, step_logger
from wfi.wcs_tree import s_region, tree_of_wcs

STEP = Step(
    name="assign_wcs",
    status="assign_wcs",
    suffix="assignwcs",
    takes="wfi_image",
    summary="Give an image its world coordinate system, from detector pixels to the sky.",
    references=(Reference("distortion", "transform from detector pixels to the telescope's (v2, v3) in arcsec"),),
)

log = step_logger(STEP.name)

POINTING = ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref")


def velocity_aberration(scale: float | None, v2_ref: float, v3_ref: float):
    """Transform that takes out the differential aberration of light by the telescope's velocity.

    (v2, v3) are scaled about the reference point: v ↦ s·v + (1 − s)·v_ref.

    Parameters
    ----------
    scale : float or None
        Apparent over true plate scale, ``meta.velocity_aberration.scale_factor``. Absent or 1: nothing to do. Not positive: a
        warning, and 1.
    v2_ref, v3_ref : float
        Reference point, arcsec.

    Returns
    -------
    astropy.modeling.Model
        arcsec to arcsec.
    """
    from astropy.modeling.models import Identity, Scale, Shift

    if scale is None or scale == 1:
        return Identity(2)
    if scale <= 0:
        log.warning("meta.velocity_aberration.scale_factor is %s and must be positive: taken as 1", scale)
        scale = 1.0
    about_origin = Scale(scale, name="dva_scale_v2") & Scale(scale, name="dva_scale_v3")
    to_reference = Shift((1 - scale) * v2_ref, name="dva_v2_shift") & Shift((1 - scale) * v3_ref, name="dva_v3_shift")
    model = about_origin | to_reference
    model.name = "DVA_Correction"
    return model


def telescope_to_sky(v2_ref: float, v3_ref: float, roll_ref: float, ra_ref: float, dec_ref: float):
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
    astropy.modeling.Model
        (v2, v3) in arcsec to ICRS (ra, dec) in degrees, ra from 0 to 360.
    """
    from astropy.modeling.models import RotationSequence3D, Scale
    from gwcs.geometry import CartesianToSpherical, SphericalToCartesian

    rotation = RotationSequence3D([v2_ref / 3600, -v3_ref / 3600, roll_ref, dec_ref, -ra_ref], axes_order="zyxyz")
    model = (
        Scale(1 / 3600) & Scale(1 / 3600)
        | SphericalToCartesian(wrap_lon_at=180)
        | rotation
        | CartesianToSpherical(wrap_lon_at=360)
    )
    model.name = "v23tosky"
    return model


def make_wcs(distortion, pointing: dict, aberration_scale: float | None, shape: tuple[int, int]):
    """Build the WCS: detector → v2v3 → v2v3vacorr → world (ICRS).

    Parameters
    ----------
    distortion : astropy.modeling.Model
        Pixels to (v2, v3) in arcsec. Its bounding box is used; without one, that of the image, whole pixels.
    pointing : dict
        v2_ref, v3_ref (arcsec), roll_ref, ra_ref, dec_ref (degrees).
    aberration_scale : float or None
        See `velocity_aberration`.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    gwcs.wcs.WCS
    """
    from astropy import coordinates, units
    from astropy.modeling import bind_bounding_box
    from gwcs import coordinate_frames
    from gwcs.wcs import WCS, Step

    def telescope_frame(name):
        return coordinate_frames.Frame2D(
            name=name, axes_order=(0, 1), axes_names=("v2", "v3"), unit=(units.arcsec, units.arcsec)
        )

    detector = coordinate_frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    world = coordinate_frames.CelestialFrame(reference_frame=coordinates.ICRS(), name="world")
    rows, columns = shape
    try:
        box = distortion.bounding_box.bounding_box(order="F")
    except NotImplementedError:
        box = ((-0.5, columns - 0.5), (-0.5, rows - 0.5))
    bind_bounding_box(distortion, box, order="F")
    aberration = velocity_aberration(aberration_scale, pointing["v2_ref"], pointing["v3_ref"])
    to_sky = telescope_to_sky(**pointing)
    for model, inputs, outputs in (
        (distortion, ("x", "y"), ("v2", "v3")),
        (aberration, ("v2", "v3"), ("v2", "v3")),
        (to_sky, ("v2", "v3"), ("ra", "dec")),
    ):
        model.inputs, model.outputs = inputs, outputs
    return WCS(
        [
            Step(detector, distortion),
            Step(telescope_frame("v2v3"), aberration),
            Step(telescope_frame("v2v3vacorr"), to_sky),
            Step(world, None),
        ]
    )


def read_distortion(path):
    """The transform of a distortion reference.

    Raises
    ------
    RampflowError
        It has none.
    """
    import asdf
    from astropy.modeling import Model

    try:
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            transform = file["roman"]["coordinate_distortion_transform"]
        if not isinstance(transform, Model):
            raise TypeError(f"it is of type {type(transform).__name__}")
        return transform
    except Exception as error:  # what asdf and its converters say of a damaged file has no common name
        message = " ".join(str(error).split())[:200]
        raise RampflowError(
            f"{path}: coordinate_distortion_transform can't be read ({message}); give a whole reference"
        ) from None


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["distortion"] is None:
        return job.skip("There is no distortion reference")
    image = job.exposure
    pointing = {name: image.number(f"meta.wcsinfo.{name}") for name in POINTING}
    known = image.meta.get("velocity_aberration", {}).get("scale_factor") is not None
    scale = image.number("meta.velocity_aberration.scale_factor") if known else None
    with job.open_reference("distortion") as reference:
        wcs = make_wcs(read_distortion(reference.path), pointing, scale, image.array("data", 2).shape)
    with job.create() as product:
        product.meta["wcs"] = tree_of_wcs(wcs)
        region = s_region(wcs)
        if region is None:
            log.warning("The corners of the image are not finite on the sky: meta.wcsinfo.s_region stays as it is")
        else:
            product.meta["wcsinfo"]["s_region"] = region
            log.info("S_REGION: %s", region)


if __name__ == "__main__":
    sys.exit(STEP.main(run))
