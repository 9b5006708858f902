"""photom: record the photometric calibration of the exposure's optical element in its metadata."""

import math
import sys

from rampflow.errors import RampflowError
from rampflow.step.declaration import Reference, Step
from rampflow.step.job import Job
from rampflow.step.program import run_step

STEP = Step(
    name="photom",
    status="photom",
    suffix="photom",
    takes="wfi_image",
    summary="Record the photometric calibration of the exposure's optical element; the pixels don't change.",
    references=(Reference("photom", "photometric calibration of each optical element (phot_table)"),),
)

#: Entry of the reference for each entry of ``meta.photometry``.
ENTRIES = {
    "conversion_megajanskys": "photmjsr",
    "conversion_megajanskys_uncertainty": "uncertainty",
    "pixel_area": "pixelareasr",
}


def photometry_of(phot_table: dict, optical_element: str) -> dict | None:
    """Photometric calibration of an optical element.

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
        ``meta.photometry``; values are `None` for an element without calibration. `None` for an element that the table
        doesn't know.

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


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["photom"] is None:
        return job.skip("There is no photom reference")
    element = job.exposure.get("meta.instrument.optical_element", str)
    with job.open_reference("photom") as reference:
        try:
            found = photometry_of(reference.get("phot_table", dict), element)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RampflowError(
                f"{reference.path}: phot_table.{element} is damaged ({error}); give a whole reference"
            ) from None
    if found is None:
        job.log.warning("The photom reference doesn't know the optical element %s: meta.photometry stays as it is", element)
    else:
        job.log.info("Photometry of %s: %s", element, found)
    with job.create() as product:
        product.meta["photometry"] = found or product.meta.get("photometry")


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
