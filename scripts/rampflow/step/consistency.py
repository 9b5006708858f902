"""Entries of an exposure's metadata that contradict each other, its data or its name."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator

from rampflow.errors import counted
from rampflow.step.reference_checks import UNSET, metadata_value, parse_time

#: Detector and optical element in the name of a file: r0000101001001001001_0001_wfi01_f158_uncal.asdf.
FILE_NAME = re.compile(r"_(wfi\d\d)_([a-z0-9]+)_[a-z0-9]+\.asdf$", re.IGNORECASE)
#: Program, execution plan, pass, segment, observation, visit and exposure in the same name.
VISIT = re.compile(r"^r(\d{5})(\d{2})(\d{3})(\d{3})(\d{3})(\d{3})_(\d{4})_")
VISIT_FIELDS = ("program", "execution_plan", "pass", "segment", "observation", "visit", "exposure")

#: The time that `roman_datamodels` records where none is given.
EMPTY_TIME = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)

#: Tolerated difference between the exposure time and that of all reads, in frames: some files count the reset frame.
FRAME_TOLERANCE = 2.5
#: Tolerated difference between the exposure time and that from start to end, seconds: commands before the first read and after
#: the last.
OVERHEAD_TOLERANCE = 10.0
TIME_TOLERANCE = 0.05  #: tolerated relative difference of times

#: First letters of the optical elements of an exposure type; other types take any.
ELEMENTS = {"WFI_IMAGE": ("F",), "WFI_SPECTRAL": ("GRISM", "PRISM")}

#: Detector in the name of an aperture: WFI01_FULL, WFI_01_FULL.
APERTURE = re.compile(r"WFI_?(\d\d)_", re.IGNORECASE)

#: Largest plausible distance of a reference point from the telescope's axis, degrees: all detectors lie within one.
FARTHEST_FROM_AXIS = 2.0

#: Name of an exposure in the archive, within a file name.
ARCHIVE_NAME = re.compile(r"r\d{19}_\d{4}_wfi\d{2}(?=_)", re.IGNORECASE)


def contradictions(meta: dict, resultants: int, name: str) -> list[str]:
    """List entries of an exposure's metadata that contradict each other, its data or its file name, or report a problem.

    Placeholders (not a number, not positive, "?") are ignored.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure.
    resultants : int
        Number of resultants in its data.
    name : str
        Name of its file.

    Returns
    -------
    list of str
        A sentence for each, with fields and values; empty for a sound file.
    """
    return [
        *_check_times(meta, resultants),
        *_check_mid_time(meta),
        *_check_file_name(meta, name),
        *_check_visit(meta, name),
        *_check_detector_and_element(meta),
        *_check_pointing(meta),
        *_check_quality(meta),
    ]


def _positive(meta: dict, field: str) -> float | None:
    """Positive number in an entry of the metadata; `None` for anything else."""
    value = metadata_value(meta, field)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _check_times(meta: dict, resultants: int) -> Iterator[str]:
    number = _positive(meta, "exposure.nresultants")
    if number is not None and number != resultants:
        yield f"meta.exposure.nresultants is {number:g}, and data has {counted(resultants, 'resultant')}"
    frame = _positive(meta, "exposure.frame_time")
    exposure_time = _positive(meta, "exposure.exposure_time")
    pattern = metadata_value(meta, "exposure.read_pattern")
    if frame is None or not pattern:
        return
    reads = frame * pattern[-1][-1]
    slack = max(FRAME_TOLERANCE * frame, TIME_TOLERANCE * reads)
    if exposure_time is not None and abs(exposure_time - reads) > slack:
        yield (
            f"meta.exposure.exposure_time is {exposure_time:g} s, and {pattern[-1][-1]} reads (read_pattern) of {frame:g} s "
            f"(frame_time) last {reads:g} s: count rates follow frame_time"
        )
    effective = _positive(meta, "exposure.effective_exposure_time")
    if effective is not None and effective > reads + slack:
        field = "meta.exposure.effective_exposure_time"
        yield f"{field} is {effective:g} s, and all reads (read_pattern, frame_time) last {reads:g} s"
    start, end = (parse_time(metadata_value(meta, f"exposure.{which}_time")) for which in ("start", "end"))
    if start and end:
        lasted = (end - start).total_seconds()
        known = reads if exposure_time is None else exposure_time
        if lasted and abs(lasted - known) > max(OVERHEAD_TOLERANCE, slack):  # start and end of an empty data model are equal
            stated = f"{pattern[-1][-1]} reads (read_pattern) of {frame:g} s (frame_time) last {reads:g} s"
            yield (
                f"{stated if exposure_time is None else f'meta.exposure.exposure_time is {exposure_time:g} s'}, and it is "
                f"{lasted:g} s from start_time ({start:%Y-%m-%d %H:%M:%S}) to end_time ({end:%Y-%m-%d %H:%M:%S})"
            )


def _check_mid_time(meta: dict) -> Iterator[str]:
    start, middle, end = (parse_time(metadata_value(meta, f"exposure.{which}_time")) for which in ("start", "mid", "end"))
    if start and middle and end and middle != EMPTY_TIME and start < end and not start <= middle <= end:
        yield (
            f"meta.exposure.mid_time is {middle:%Y-%m-%d %H:%M:%S}, which does not lie between start_time "
            f"({start:%Y-%m-%d %H:%M:%S}) and end_time ({end:%Y-%m-%d %H:%M:%S})"
        )


def _check_file_name(meta: dict, name: str) -> Iterator[str]:
    found = FILE_NAME.search(name)
    for field, named in zip(("detector", "optical_element"), found.groups(), strict=True) if found else ():
        value = metadata_value(meta, f"instrument.{field}")
        if isinstance(value, str) and value.upper() not in UNSET and value.upper() != named.upper():
            yield f"meta.instrument.{field} is {value}, and the name of the file says {named.upper()}"


def _check_visit(meta: dict, name: str) -> Iterator[str]:
    found = VISIT.match(name)
    differences = []
    for field, digits in zip(VISIT_FIELDS, found.groups(), strict=True) if found else ():
        number = _positive(meta, f"observation.{field}")
        if number is not None and number != int(digits):
            differences.append(f"{field} is {number:g} (in the name: {int(digits)})")
    identifier = metadata_value(meta, "observation.visit_id")
    named = "".join(found.groups()[:-1]) if found else ""
    if named and not differences and isinstance(identifier, str) and identifier.isdecimal() and identifier != named:
        differences.append(f"visit_id is {identifier} (in the name: {named})")
    if differences:
        yield f"meta.observation and the name of the file belong to different exposures: {', '.join(differences)}"


def _check_detector_and_element(meta: dict) -> Iterator[str]:
    kind = metadata_value(meta, "exposure.type")
    element = metadata_value(meta, "instrument.optical_element")
    if isinstance(element, str) and element.upper() not in UNSET and kind in ELEMENTS:
        if not element.upper().startswith(ELEMENTS[kind]):
            yield f"meta.exposure.type is {kind}, and meta.instrument.optical_element {element}"
    aperture = metadata_value(meta, "wcsinfo.aperture_name")
    detector = metadata_value(meta, "instrument.detector")
    found = APERTURE.match(aperture) if isinstance(aperture, str) else None
    # WFI01_FULL contradicts nothing: it is the value in an empty data model.
    if found and found[1] != "01" and isinstance(detector, str) and detector.upper() != f"WFI{found[1]}":
        yield f"meta.wcsinfo.aperture_name is {aperture}, and meta.instrument.detector {detector}"


def _check_pointing(meta: dict) -> Iterator[str]:
    fields = "wcsinfo.ra_ref", "wcsinfo.dec_ref", "pointing.ra_v1", "pointing.dec_v1"
    values = [metadata_value(meta, field) for field in fields]
    if not all(isinstance(v, int | float) and abs(v) <= limit for v, limit in zip(values, (360, 90, 360, 90), strict=True)):
        return
    if values[2] == values[3] == 0:  # a placeholder
        return
    ra, dec, ra_v1, dec_v1 = map(math.radians, values)
    haversine = math.sin((dec - dec_v1) / 2) ** 2 + math.cos(dec) * math.cos(dec_v1) * math.sin((ra - ra_v1) / 2) ** 2
    distance = math.degrees(2 * math.asin(min(math.sqrt(haversine), 1)))
    if distance > FARTHEST_FROM_AXIS:
        yield (
            f"meta.wcsinfo.ra_ref and dec_ref ({values[0]:g}, {values[1]:g}) are {distance:.3g} degrees from the telescope's "
            f"axis (meta.pointing.ra_v1 and dec_v1: {values[2]:g}, {values[3]:g})"
        )


def _check_quality(meta: dict) -> Iterator[str]:
    problem = metadata_value(meta, "exposure.data_problem")
    if problem is True or (isinstance(problem, str) and problem.strip().upper() not in UNSET | {"FALSE", "OK"}):
        yield f"meta.exposure.data_problem is {problem!r}: a problem with this exposure is known"
    if metadata_value(meta, "exposure.truncated") is True:
        yield "meta.exposure.truncated is true: the exposure ended early, and its last resultants are missing"
    quality = metadata_value(meta, "exposure.engineering_quality")
    if isinstance(quality, str) and quality.strip().upper() not in UNSET | {"OK"}:
        yield f"meta.exposure.engineering_quality is {quality!r}: some of its metadata may be missing or wrong"


def archive_names(text: str) -> set[str]:
    """Find the names of exposures in the archive's style in a text, in lower case.

    Parameters
    ----------
    text : str
        A file name, for example ``r0000101001001001001_0001_wfi01_f158_cal.asdf``.

    Returns
    -------
    set of str
        Visit, number and detector of each: ``r0000101001001001001_0001_wfi01``.
    """
    return {name.lower() for name in ARCHIVE_NAME.findall(text)}


def other_exposure(given: dict[str, str], stem: str, image: dict[str, str]) -> str:
    """Find out whether a file belongs to another exposure than an image, by their metadata.

    Parameters
    ----------
    given : dict of str
        ``filename`` and ``detector`` of the file; empty text where it has none. Only names of the archive are compared.
    stem : str
        Name of the exposure, which counts more than the name in the metadata of the image.
    image : dict of str
        The same of the image.

    Returns
    -------
    str
        Which exposures they are of; empty if they agree or if nothing is known.
    """
    ours = {
        "filename": archive_names(f"{stem}_") or archive_names(image["filename"]),
        "detector": {image["detector"]} - {""},
    }
    theirs = {"filename": archive_names(given["filename"]), "detector": {given["detector"]} - {""}}
    for name, values in theirs.items():
        if values and ours[name] and not values & ours[name]:
            return f"of {', '.join(sorted(values))} by its metadata ({name}), and not of {', '.join(sorted(ours[name]))}"
    return ""
