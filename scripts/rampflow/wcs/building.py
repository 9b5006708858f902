"""Build the WCS of an image with gwcs: detector → v2v3 → v2v3vacorr → world (ICRS).

The import of gwcs and astropy.modeling takes 0.6 s of CPU time. Import this module where a WCS is built, not at the top of a
program that may end without one.
"""

from __future__ import annotations

from astropy import coordinates, units
from astropy.modeling import Model
from astropy.modeling.models import Identity, RotationSequence3D, Scale, Shift
from gwcs.coordinate_frames import CelestialFrame, Frame2D
from gwcs.geometry import CartesianToSpherical, SphericalToCartesian
from gwcs.wcs import WCS

from rampflow.wcs.footprint import Box, image_box


def velocity_aberration(scale: float, v2_ref: float, v3_ref: float) -> Model:
    """Transform that removes the differential aberration caused by the telescope's velocity.

    It scales (v2, v3) about the reference point: v ↦ s·v + (1 − s)·v_ref.

    Parameters
    ----------
    scale : float
        Apparent over true plate scale, s.
    v2_ref, v3_ref : float
        Reference point, arcsec.

    Returns
    -------
    astropy.modeling.Model
        Transform from arcsec to arcsec; the identity where `scale` is 1.
    """
    if scale == 1:
        return Identity(2)
    about_origin = Scale(scale, name="dva_scale_v2") & Scale(scale, name="dva_scale_v3")
    to_reference = Shift((1 - scale) * v2_ref, name="dva_v2_shift") & Shift((1 - scale) * v3_ref, name="dva_v3_shift")
    transform = about_origin | to_reference
    transform.name = "DVA_Correction"
    return transform


def telescope_to_sky(v2_ref: float, v3_ref: float, roll_ref: float, ra_ref: float, dec_ref: float) -> Model:
    """Transform from the telescope's frame to the sky.

    The unit vector of (v2, v3) is rotated by v2_ref about z and by −v3_ref about y, which brings the reference point to the
    x axis. It is then rotated by roll_ref about x, by dec_ref about y and by −ra_ref about z, which brings the reference
    point to its position on the sky.

    Parameters
    ----------
    v2_ref, v3_ref : float
        Reference point, arcsec.
    roll_ref : float
        Position angle of V3 at the reference point, degrees.
    ra_ref, dec_ref : float
        Position of the reference point on the sky, degrees.

    Returns
    -------
    astropy.modeling.Model
        Transform from (v2, v3) in arcsec to ICRS (ra, dec) in degrees, ra from 0 to 360.
    """
    angles = [v2_ref / 3600, -v3_ref / 3600, roll_ref, dec_ref, -ra_ref]
    transform = (
        Scale(1 / 3600) & Scale(1 / 3600)
        | SphericalToCartesian(wrap_lon_at=180)
        | RotationSequence3D(angles, axes_order="zyxyz")
        | CartesianToSpherical(wrap_lon_at=360)
    )
    transform.name = "v23tosky"
    return transform


def build_wcs(distortion: Model, pointing: dict[str, float], aberration_scale: float, shape: tuple[int, int]) -> WCS:
    """Build the WCS of an image.

    Parameters
    ----------
    distortion : astropy.modeling.Model
        Transform from pixels to (v2, v3) in arcsec; it is not changed. The WCS takes its bounding box. Without a possible one
        (`rampflow.wcs.footprint.image_box`), the bounding box is that of the image, whole pixels.
    pointing : dict of float
        Values of v2_ref, v3_ref (arcsec), roll_ref, ra_ref, dec_ref (degrees): see `telescope_to_sky`.
    aberration_scale : float
        See `velocity_aberration`.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    gwcs.wcs.WCS
        From pixels (x, y), counted from 0 at the middle of the first one, to ICRS (ra, dec) in degrees.
    """
    to_telescope = distortion.copy()
    aberration = velocity_aberration(aberration_scale, pointing["v2_ref"], pointing["v3_ref"])
    to_sky = telescope_to_sky(**pointing)
    for transform, inputs, outputs in (
        (to_telescope, ("x", "y"), ("v2", "v3")),
        (aberration, ("v2", "v3"), ("v2", "v3")),
        (to_sky, ("v2", "v3"), ("ra", "dec")),
    ):
        transform.inputs, transform.outputs = inputs, outputs
    wcs = WCS(
        [
            (Frame2D(name="detector", axes_names=("x", "y"), unit=(units.pix, units.pix)), to_telescope),
            (_telescope_frame("v2v3"), aberration),
            (_telescope_frame("v2v3vacorr"), to_sky),
            (CelestialFrame(name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg)), None),
        ]
    )
    wcs.bounding_box = image_box(stated_box(distortion), shape)
    return wcs


def _telescope_frame(name: str) -> Frame2D:
    return Frame2D(name=name, axes_names=("v2", "v3"), unit=(units.arcsec, units.arcsec))


def stated_box(distortion: Model) -> Box | None:
    """Bounding box of a transform, as it has it.

    Parameters
    ----------
    distortion : astropy.modeling.Model
        Transform from pixels.

    Returns
    -------
    tuple or None
        First and last x, and first and last y; `None` if it has none.
    """
    try:
        return distortion.bounding_box.bounding_box(order="F")
    except NotImplementedError:  # it has none
        return None
