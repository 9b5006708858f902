"""Assign an image its world coordinate system, from detector pixels to the sky."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rampflow.errors import RampflowError
from rampflow.step.consistency import APERTURE
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.logs import step_logger
from rampflow.step.program import run_step
from rampflow.step.reference_checks import metadata_value
from rampflow.wcs.conversion import tree_of_wcs, wcs_of_tree
from rampflow.wcs.footprint import image_box, middle_of, pixel_width, s_region

if TYPE_CHECKING:
    from astropy.modeling import Model

STEP = Step(
    name="assign_wcs",
    summary="Assign an image its world coordinate system, from detector pixels to the sky.",
    references=(
        Reference(
            "distortion",
            "transform from detector pixels to the telescope's (v2, v3) in arcsec",
            skip_without=True,
            plausible={
                "coordinate_distortion_transform": Range(
                    0.08,
                    0.14,
                    "arcsec",
                    "pixels are 0.11 arcsec wide, within a few per cent over the focal plane",
                    quantity="width of a pixel in the middle of the detector",
                )
            },
            made_for=("detector", "optical_element"),
        ),
    ),
)

log = step_logger(STEP.name)

#: Largest absolute value of each entry of ``meta.wcsinfo`` that the WCS is built from. The reference points of all detectors
#: are within a degree of the telescope's axis; twice that is allowed. RAD's placeholder, −999999, is beyond all of them.
POINTING_LIMITS = {"v2_ref": 7200.0, "v3_ref": 7200.0, "roll_ref": 360.0, "ra_ref": 360.0, "dec_ref": 90.0}
#: Largest deviation of the aberration's scale from 1: the telescope moves with the Earth, at 10⁻⁴ of the speed of light.
LARGEST_ABERRATION = 2e-4
LARGEST_SCALE = 10.0  #: largest scale that is applied, and the inverse of the smallest: a value beyond is not a scale
#: Largest distance of a detector's reference point from its middle by the distortion, arcsec: less than one in sound
#: files; a detector is 450 arcsec wide.
LARGEST_OFFSET = 60.0


def pointing_faults(pointing: dict[str, float]) -> list[str]:
    """Find entries of a pointing that are placeholders or impossible.

    Parameters
    ----------
    pointing : dict of float
        Values of v2_ref, v3_ref (arcsec), roll_ref, ra_ref, dec_ref (degrees).

    Returns
    -------
    list of str
        A phrase for each entry that is not finite or beyond `POINTING_LIMITS`, as ``ra_ref is -999999.0``; one phrase if all
        entries are 0.
    """
    if not any(pointing.values()):  # no detector is on the telescope's axis
        return ["all of " + ", ".join(POINTING_LIMITS) + " are 0"]
    return [f"{name} is {pointing[name]}" for name, limit in POINTING_LIMITS.items() if not abs(pointing[name]) <= limit]


def has_own_reference_point(meta: dict) -> bool:
    """Tell whether ``meta.wcsinfo`` has the reference point of the exposure's own detector.

    Parameters
    ----------
    meta : dict
        ``meta`` of the exposure.

    Returns
    -------
    bool
        Whether ``wcsinfo.aperture_name`` names the detector in ``instrument.detector``.
    """
    aperture, detector = metadata_value(meta, "wcsinfo.aperture_name"), metadata_value(meta, "instrument.detector")
    found = APERTURE.match(aperture) if isinstance(aperture, str) else None
    return found is not None and isinstance(detector, str) and detector.upper() == f"WFI{found[1]}"


def usable_aberration_scale(scale: float | None) -> float:
    """Plate scale by which the velocity aberration is corrected; warns of one that is impossible.

    Parameters
    ----------
    scale : float or None
        Apparent over true plate scale, ``meta.velocity_aberration.scale_factor``; `None` where the file has none.

    Returns
    -------
    float
        `scale`; 1 where it is absent, not finite or beyond `LARGEST_SCALE`.
    """
    if scale is None:
        return 1.0
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        log.warning("meta.velocity_aberration.scale_factor is %s, which is not a scale: 1 is used", scale)
        return 1.0
    if abs(scale - 1) > LARGEST_ABERRATION:
        log.warning(
            "meta.velocity_aberration.scale_factor is %s, but the telescope's velocity allows 1 ± %g at most: positions on the "
            "sky may be wrong; check the raw file",
            scale,
            LARGEST_ABERRATION,
        )
    return scale


def read_distortion(reference: Exposure) -> Model:
    """Read the transform of a distortion reference.

    Parameters
    ----------
    reference : Exposure
        The open reference.

    Returns
    -------
    astropy.modeling.Model
        Transform from pixels to (v2, v3) in arcsec.

    Raises
    ------
    RampflowError
        The reference has no transform of two coordinates to two.
    """
    from astropy.modeling import Model

    field = "coordinate_distortion_transform"
    node = reference.get(field, dict)
    try:
        distortion = wcs_of_tree(node)
        if not isinstance(distortion, Model):
            raise TypeError(f"it is a {type(distortion).__name__} and not a transform")
        if (distortion.n_inputs, distortion.n_outputs) != (2, 2):
            raise TypeError(f"it has {distortion.n_inputs} inputs and {distortion.n_outputs} outputs, and needs 2 and 2")
        distortion(0.0, 0.0)  # fails for a transform with units, for example
    except RampflowError:
        raise
    except Exception as error:  # a damaged tree raises errors of any type
        message = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RampflowError(f"{reference.path}: {field} can't be read ({message}); give a sound reference") from None
    return distortion


def warn_of_offset(path: str, distortion: Callable, shape: tuple[int, int], v2_ref: float, v3_ref: float) -> None:
    """Warn of a distortion that puts the middle of the detector far from its reference point.

    Parameters
    ----------
    path : str
        Name of the distortion reference, for the message.
    distortion : callable
        Transform from pixels to (v2, v3) in arcsec.
    shape : tuple of int
        Rows and columns.
    v2_ref, v3_ref : float
        Reference point, arcsec.
    """
    v2, v3 = middle_of(distortion, shape)
    offset = math.hypot(v2 - v2_ref, v3 - v3_ref)
    if not offset <= LARGEST_OFFSET:
        log.warning(
            "%s: coordinate_distortion_transform puts the middle of the detector at v2, v3 = %.1f, %.1f arcsec, "
            "%.0f arcsec from its reference point (meta.wcsinfo.v2_ref, v3_ref = %.1f, %.1f): positions on the sky may be "
            "wrong; check whether the reference is for this detector and its axes are V2 and V3",
            path,
            v2,
            v3,
            offset,
            v2_ref,
            v3_ref,
        )


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The exposure, the references and the output.
    """
    image = job.exposure
    pointing = {name: float(image.get(f"meta.wcsinfo.{name}", (int, float))) for name in POINTING_LIMITS}
    if faults := pointing_faults(pointing):
        image.meta["wcs"] = None
        job.skip(
            f"The pointing in meta.wcsinfo is a placeholder or impossible ({', '.join(faults)}): the image gets no WCS and its "
            "sources get no positions on the sky; run romancal's roman_set_telescope_pointing on the raw file"
        )
        return
    field = "meta.velocity_aberration.scale_factor"
    known = image.meta.get("velocity_aberration", {}).get("scale_factor") is not None
    scale = usable_aberration_scale(image.get(field, (int, float)) if known else None)
    shape = image.array("data", 2).plane_shape
    with job.open_reference("distortion") as reference:
        distortion = read_distortion(reference)
    job.refuse_implausible("distortion", "coordinate_distortion_transform", pixel_width(distortion, shape))
    if has_own_reference_point(image.meta):
        warn_of_offset(reference.path.name, distortion, shape, pointing["v2_ref"], pointing["v3_ref"])

    from rampflow.wcs.building import build_wcs, stated_box

    box = stated_box(distortion)
    wcs = build_wcs(distortion, pointing, scale, shape)
    if box is not None and box != image_box(box, shape):
        log.warning(
            "%s: the bounding box of coordinate_distortion_transform is %s: the WCS has that of the image, %s",
            reference.path.name,
            box,
            image_box(box, shape),
        )
    image.meta["wcs"] = tree_of_wcs(wcs)
    with job.create() as product:
        region = s_region(wcs)
        if region is None:
            log.warning("The corners of the image are not finite on the sky: meta.wcsinfo.s_region stays as it is")
        else:
            product.meta["wcsinfo"]["s_region"] = region
            log.info("S_REGION: %s", region)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
