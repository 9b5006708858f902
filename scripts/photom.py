"""Step photom: record the photometric calibration of the exposure's optical element in its metadata."""

import math
import sys
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.step.declaration import Range, Reference, Step
from rampflow.step.job import Job
from rampflow.step.program import run_step
from rampflow.step.reference_checks import refuse_implausible

STEP = Step(
    name="photom",
    summary="Record the photometric calibration of the exposure's optical element; the pixels don't change.",
    references=(
        Reference(
            "photom",
            "photometric calibration of each optical element (phot_table)",
            skip_without=True,
            plausible={
                "phot_table.{optical_element}.photmjsr": Range(
                    0.005, 50, "MJy/sr for 1 DN/s", "0.3 to 0.9 in the filters; the limits are four magnitudes away"
                ),
                "phot_table.{optical_element}.uncertainty": Range(0, 50, "MJy/sr for 1 DN/s", "less than photmjsr"),
                "phot_table.{optical_element}.pixelareasr": Range(
                    1.5e-13, 4.6e-13, "sr", "2.84e-13: a pixel is 0.11 arcsec wide; the limits are 0.08 and 0.14"
                ),
            },
        ),
    ),
)

#: By how much the reference's pixel area may differ from the WCS's, which changes by some per cent over the focal plane.
AREA_TOLERANCE = 0.06

#: Entry of the reference for each entry of ``meta.photometry``.
ENTRIES = {
    "conversion_megajanskys": "photmjsr",
    "conversion_megajanskys_uncertainty": "uncertainty",
    "pixel_area": "pixelareasr",
}


def photometry_of(phot_table: dict, optical_element: str) -> dict | None:
    """Get the photometric calibration of an optical element.

    Parameters
    ----------
    phot_table : dict
        The reference's table: for each optical element ``photmjsr`` and ``uncertainty`` (MJy/sr for 1 DN/s) and
        ``pixelareasr`` (sr). Spectral elements have none: null.
    optical_element : str
        ``meta.instrument.optical_element``.

    Returns
    -------
    dict or None
        Entries of ``meta.photometry``, `None` for an element without calibration; `None` for an element that is not in the
        table.

    Raises
    ------
    KeyError, TypeError, ValueError
        An entry is missing or not a finite number.
    """
    row = phot_table.get(optical_element.upper())
    if row is None:
        return None
    result = {name: row[entry] if row[entry] is None else float(row[entry]) for name, entry in ENTRIES.items()}
    if any(value is not None and not math.isfinite(value) for value in result.values()):
        raise ValueError("a value is not finite")
    return result


def check_uncertainty(path: Path, optical_element: str, found: dict) -> None:
    """Refuse a calibration whose uncertainty is larger than itself: their units differ.

    Parameters
    ----------
    path : Path
        The reference, for the message.
    optical_element : str
        Name of the optical element.
    found : dict
        From `photometry_of`.

    Raises
    ------
    RampflowError
    """
    conversion, uncertainty = found["conversion_megajanskys"], found["conversion_megajanskys_uncertainty"]
    if conversion is not None and uncertainty is not None:
        field = f"phot_table.{optical_element}.uncertainty"
        refuse_implausible(path, field, uncertainty, (0.0, conversion), "MJy/sr for 1 DN/s (photmjsr)", "photom")


def wcs_pixel_area(job: Job) -> float | None:
    """Compute the area of a pixel in the middle of the image from its WCS.

    Parameters
    ----------
    job : Job
        The run of the step.

    Returns
    -------
    float or None
        Solid angle, sr; `None` without a usable WCS.
    """
    if job.exposure.meta.get("wcs") is None:
        return None
    from rampflow.wcs.footprint import pixel_solid_angle
    from rampflow.wcs.wcs_tree import Wcs

    try:
        area = pixel_solid_angle(Wcs(job.exposure.meta["wcs"]), job.exposure.array("data", 2).plane_shape)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # of a damaged tree
        reason = " ".join(str(error).split())[:200]
        job.log.warning("meta.wcs can't be evaluated (%s): the pixel area of the reference is not checked", reason)
        return None
    return area if math.isfinite(area) else None


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.

    Raises
    ------
    RampflowError
        The entry of the optical element in the reference is damaged or not plausible.
    """
    element = job.exposure.get("meta.instrument.optical_element", str)
    with job.open_reference("photom") as reference:
        try:
            found = photometry_of(reference.get("phot_table", dict), element)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RampflowError(
                f"{reference.path}: phot_table.{element} is damaged ({error}); give a whole reference"
            ) from None
        if found is not None:
            check_uncertainty(reference.path, element, found)
    if found is None:
        job.log.warning("The photom reference has no entry for the optical element %s: meta.photometry is not changed", element)
    else:
        job.log.info("Photometry of %s: %s", element, found)
        area, of_wcs = found["pixel_area"], wcs_pixel_area(job)
        if area is not None and of_wcs is not None and abs(area / of_wcs - 1) > AREA_TOLERANCE:
            job.log.warning(
                "%s: phot_table.%s.pixelareasr is %.4g sr, but a pixel in the middle of the image has %.4g sr in its WCS "
                "(meta.wcs); the source catalog uses the former: check the reference",
                job.reference_file("photom").name,
                element,
                area,
                of_wcs,
            )
    with job.create() as product:
        product.meta["photometry"] = found or product.meta.get("photometry")


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
