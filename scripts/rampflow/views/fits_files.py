"""Write a calibrated image as a FITS file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from rampflow import SOFTWARE_NAME, __version__
from rampflow.files.atomic import replacing
from rampflow.step.exposure import Exposure
from rampflow.views.sip import SipHeader

#: Extension of each array. Half-precision numbers, which FITS does not have, become single-precision ones.
EXTENSIONS = {
    "data": "SCI",
    "dq": "DQ",
    "err": "ERR",
    "var_poisson": "VAR_POISSON",
    "var_rnoise": "VAR_RNOISE",
    "var_flat": "VAR_FLAT",
}
UNIT = "DN/s"  #: of ``data`` and ``err`` in RAD's wfi_image, which has no field for it
#: Keyword, field of the metadata, comment.
KEYWORDS = (
    ("TELESCOP", "telescope", "telescope"),
    ("INSTRUME", "instrument.name", "instrument"),
    ("DETECTOR", "instrument.detector", "detector"),
    ("FILTER", "instrument.optical_element", "optical element"),
    ("EXP_TYPE", "exposure.type", "type of the exposure"),
    ("OBS_ID", "observation.observation_id", "observation"),
    ("VISIT_ID", "observation.visit_id", "visit"),
    ("EXPOSURE", "observation.exposure", "number of the exposure in its visit"),
    ("DATE-OBS", "exposure.start_time", "start of the exposure"),
    ("DATE-BEG", "exposure.start_time", "start of the exposure"),
    ("DATE-AVG", "exposure.mid_time", "middle of the exposure"),
    ("DATE-END", "exposure.end_time", "end of the exposure"),
    ("EXPTIME", "exposure.exposure_time", "[s] exposure time"),
    ("EFFEXPTM", "exposure.effective_exposure_time", "[s] effective exposure time"),
    ("NRESULT", "exposure.nresultants", "number of resultants"),
    ("MATABLE", "exposure.ma_table_name", "read pattern"),
    ("PHOTMJSR", "photometry.conversion_megajanskys", "[MJy/sr] of 1 DN/s"),
    ("PHOTMJER", "photometry.conversion_megajanskys_uncertainty", "[MJy/sr] uncertainty of PHOTMJSR"),
    ("PIXAR_SR", "photometry.pixel_area", "[sr] area of a pixel"),
    ("S_REGION", "wcsinfo.s_region", "footprint"),
    ("CAL_SW", "calibration_software_name", "calibration software"),
    ("CAL_VER", "calibration_software_version", "its version"),
    ("CRDS_CTX", "ref_file.crds.context", "CRDS context"),
    ("ALIGNED", "cal_step.tweakreg", "status of tweakreg"),
)
PLACEHOLDERS = (None, "?", -999999)


def make_header(meta: dict) -> fits.Header:
    """Describe an exposure by FITS keywords.

    Parameters
    ----------
    meta : dict
        Its metadata.

    Returns
    -------
    astropy.io.fits.Header
        The keywords, without those that the metadata has no value for.
    """
    header = fits.Header()
    for keyword, field, comment in KEYWORDS:
        value: Any = meta
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str | int | float) and value not in PLACEHOLDERS:
            # A header takes printable ASCII, and no NaN.
            text = "".join(c if " " <= c <= "~" else "?" for c in value) if isinstance(value, str) else value
            header[keyword] = (text if isinstance(value, str) or np.isfinite(value) else None, comment)
    header["TIMESYS"] = ("UTC", "time scale of the dates")
    return header


def make_fits(exposure: Exposure, approximation: SipHeader | None) -> fits.HDUList:
    """Make the FITS extensions of a calibrated image.

    Parameters
    ----------
    exposure : Exposure
        The image.
    approximation : SipHeader or None
        Its WCS as FITS keywords, which every extension gets.

    Returns
    -------
    astropy.io.fits.HDUList
        A primary header without data, then SCI, DQ, ERR and the variances that the image has.

    Raises
    ------
    RampflowError
        An array is missing or has another shape or type.
    """
    header = make_header(exposure.meta)
    primary = header.copy()
    primary["FILENAME"] = (exposure.path.name, "image of this file")
    primary["ORIGIN"] = (f"{SOFTWARE_NAME} {__version__}", "software")
    extensions: list[Any] = [fits.PrimaryHDU(header=primary)]
    shape = exposure.array("data", 2).shape
    for name, extension in EXTENSIONS.items():
        if name not in exposure.roman and name not in ("data", "dq", "err"):
            continue
        array = exposure.array(name, shape=shape).read()
        own = header.copy()
        if name != "dq":
            array = array.astype(np.float32, copy=False)
            own["BUNIT"] = UNIT if name in ("data", "err") else f"({UNIT})**2"
        if approximation is not None:
            own.update(approximation.header)
        extensions.append(fits.ImageHDU(array, own, extension))
    return fits.HDUList(extensions)


def write_fits(path: Path, exposure: Exposure, approximation: SipHeader | None) -> None:
    """Write a calibrated image as a FITS file, with checksums.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    exposure : Exposure
        The image.
    approximation : SipHeader or None
        Its WCS as FITS keywords.

    Raises
    ------
    RampflowError
        An array is missing or has another shape or type, or the file can't be written.
    """
    with replacing(path) as partial:
        make_fits(exposure, approximation).writeto(partial, checksum=True)
