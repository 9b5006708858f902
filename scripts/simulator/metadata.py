"""The header of a simulated exposure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rampflow.detector import mean_reads
from simulator.optics import FOCAL_PLANE_CENTER, V3_YANGLE, VPARITY, attitude, great_circle_rotation, pointing_at

# For about 6 km/s toward the source; the orbital velocity of 30 km/s gives at most 1e-4.
ABERRATION_SCALE = 1.00002


def _average(*counts: int) -> list[list[int]]:
    """Read pattern of resultants that average these numbers of reads, with none left out."""
    ends = np.cumsum(counts)
    return [list(range(int(end) - count + 1, int(end) + 1)) for count, end in zip(counts, ends, strict=True)]


#: Multi-accumulation tables by name: a number (assumed), and the 1-based reads averaged into each resultant.
MA_TABLES = {
    "one": (9006, _average(1)),
    "two": (9007, _average(1, 2)),
    "three": (9003, _average(1, 2, 4)),
    "four": (9004, _average(1, 2, 4, 4)),
    "short": (9001, _average(1, 1, 2, 4, 4, 4, 4, 1)),
    "imaging": (1007, _average(1, 1, 2, 5, 8, 8, 8, 10, 1)),
    "long": (9002, _average(1, 1, 2, 4, *11 * (8,), 1)),
    "uneven": (9005, [[1], [2, 3, 4], [6], [8, 10, 12], list(range(15, 23)), [25, 26], list(range(29, 41)), [44]]),
}
#: Data models of a raw exposure: of the sky, and of two ground tests.
MODELS = {"science": "ScienceRawModel", "fps": "FpsModel", "tvac": "TvacModel"}
#: Older versions of the data model of the sky.
OLDER_VERSIONS = (*(f"1.{minor}.0" for minor in range(9)), "2.0.0")
GROUND_TEST_TYPES = ("WFI_IMAGE", "WFI_FLAT", "WFI_WFSC")  #: exposure types that both kinds of model know


@dataclass(frozen=True)
class Settings:
    """Settings of one simulated exposure.

    Attributes
    ----------
    detector, exposure_type, optical_element : str
        Values of ``meta.instrument`` and ``meta.exposure``.
    ra, dec : float
        Pointing of the aperture before the dither, degrees.
    roll : float
        Position angle of V3 there, degrees.
    focal_plane : bool
        The aperture is the center of the focal plane, not that of the detector.
    dither : tuple of float
        Offset of the telescope to the east and north, arcsec, along a great circle (see `simulator.optics.displacement`).
    pointing_error : tuple of float
        Error of the header's pointing to the east and north, arcsec, likewise.
    ma_table : str
        Key of `MA_TABLES`.
    frame_time : float
        Seconds per read.
    guide_window : tuple of int or None
        First column and row of the guide window; `None` if it is on another detector.
    saturated : bool
        Saturate all pixels from the first resultant on.
    background : float or None
        Background, DN/s; `None` for the default of the exposure type.
    cosmic_ray_flux : float
        Particles per second and cm².
    snowballs : int
        Number of snowballs.
    defocus : float
        Standard deviation of a Gaussian that widens the images of the sources, pixels.
    dead_channel : int or None
        Channel, from 1, that sees no light; `None` if there is none.
    reference_offset : float
        Added to the counts of the reference pixels, DN.
    gradient : tuple of float or None
        Light in place of the sky: electrons per second in the first and last column, rising logarithmically.
    jumps : bool
        A grid of single hits of known charge in place of random particles.
    reference_read, reference_amp33 : bool
        Subtract a read before the exposure from data (amp33), and keep it in the file.
    data_encoding_offset : int
        Offset added to data and amp33, DN.
    resultantdq : bool
        Add flags of single resultants to the file.
    model : str
        Key of `MODELS`.
    model_version : str or None
        One of `OLDER_VERSIONS`; `None` for the newest.
    program, observation, visit, exposure : int
        Numbers in the name of the exposure.
    start_time : str
        Start of the exposure, ISO format, UTC.
    seed : int
        Seed of the random numbers.
    """

    detector: str = "WFI01"
    exposure_type: str = "WFI_IMAGE"
    optical_element: str = "F158"
    ra: float = 270.0
    dec: float = 66.0
    roll: float = 0.0
    focal_plane: bool = False
    dither: tuple[float, float] = (0.0, 0.0)
    pointing_error: tuple[float, float] = (0.0, 0.0)
    ma_table: str = "imaging"
    frame_time: float = 3.16247
    guide_window: tuple[int, int] | None = None
    saturated: bool = False
    background: float | None = None
    cosmic_ray_flux: float = 5.0
    snowballs: int = 1
    defocus: float = 0.0
    dead_channel: int | None = None
    reference_offset: float = 0.0
    gradient: tuple[float, float] | None = None
    jumps: bool = False
    reference_read: bool = False
    reference_amp33: bool = False
    data_encoding_offset: int = 0
    resultantdq: bool = False
    model: str = "science"
    model_version: str | None = None
    program: int = 1
    observation: int = 1
    visit: int = 1
    exposure: int = 1
    start_time: str = "2027-01-01T00:00:00"
    seed: int = 1

    @property
    def read_pattern(self) -> list[list[int]]:
        """Read pattern of the exposure.

        Returns
        -------
        list of list of int
            1-based reads averaged into each resultant.
        """
        return MA_TABLES[self.ma_table][1]

    def attitude(self, v2_ref: float, v3_ref: float) -> np.ndarray:
        """Compute the true attitude of the telescope.

        Parameters
        ----------
        v2_ref, v3_ref : float
            Reference point of the detector, arcsec.

        Returns
        -------
        numpy.ndarray
            Rotation matrix from the V frame to the sky, (3, 3).
        """
        aperture = FOCAL_PLANE_CENTER if self.focal_plane else (v2_ref, v3_ref)
        before = attitude(*aperture, self.ra, self.dec, self.roll)
        return great_circle_rotation(self.ra, self.dec, self.dither) @ before


def fill_metadata(meta: Any, settings: Settings, filename: str, v2_ref: float, v3_ref: float, references: dict) -> None:
    """Fill the header of a Level 1 exposure.

    Parameters
    ----------
    meta : dict
        Header (``meta``) of a ``ScienceRawModel``, changed in place.
    settings : Settings
        Settings of the exposure.
    filename : str
        Name of the file.
    v2_ref, v3_ref : float
        Reference point of the detector, arcsec.
    references : dict
        File names of the references used, by reference type.
    """
    from astropy.coordinates import get_body_barycentric_posvel
    from astropy.time import Time, TimeDelta

    pattern, frame_time = settings.read_pattern, settings.frame_time
    duration = pattern[-1][-1] * frame_time
    start = Time(settings.start_time, format="isot", scale="utc")
    end, middle = (start + TimeDelta(seconds, format="sec") for seconds in (duration, duration / 2))
    mean_times = mean_reads(pattern) * frame_time
    true = settings.attitude(v2_ref, v3_ref)
    matrix = great_circle_rotation(*pointing_at(true, v2_ref, v3_ref)[:2], settings.pointing_error) @ true
    ra_ref, dec_ref, roll_ref = pointing_at(matrix, v2_ref, v3_ref)
    ra_v1, dec_v1, pa_v3 = pointing_at(matrix, 0, 0)
    position, velocity = get_body_barycentric_posvel("earth", middle)
    visit_id = f"{settings.program:05d}01001001{settings.observation:03d}{settings.visit:03d}"
    window = settings.guide_window
    corner = (-999999, -999999) if window is None else window

    meta.filename, meta.file_date = filename, start
    meta.calibration_software_name, meta.calibration_software_version = "rampflow", "simulation"
    meta.product_type, meta.model_type = "l1", "ScienceRawModel"
    meta.prd_version, meta.sdf_software_version = "simulated", "simulated"
    meta.instrument.update({"detector": settings.detector, "optical_element": settings.optical_element})
    if settings.data_encoding_offset:
        meta.instrument["data_encoding_offset"] = settings.data_encoding_offset
    meta.exposure.update(
        {
            "type": settings.exposure_type,
            "start_time": start,
            "mid_time": middle,
            "end_time": end,
            "engineering_quality": "OK",
            "data_problem": None,
            "nresultants": len(pattern),
            "read_pattern": pattern,
            "frame_time": frame_time,
            "exposure_time": duration,
            "effective_exposure_time": float(mean_times[-1] - mean_times[0]),
            "ma_table_name": settings.ma_table.upper(),
            "ma_table_number": MA_TABLES[settings.ma_table][0],
            "ma_table_id": f"SCI{MA_TABLES[settings.ma_table][0]:04d}",
            "truncated": False,
            "hga_move": False,
        }
    )
    meta.observation.update(
        {
            "observation_id": f"{visit_id}{settings.exposure:04d}",
            "visit_id": visit_id,
            "program": settings.program,
            "execution_plan": 1,
            "pass": 1,
            "segment": 1,
            "observation": settings.observation,
            "visit": settings.visit,
            "visit_file_group": 1,
            "visit_file_sequence": 1,
            "visit_file_activity": "01",
            "exposure": settings.exposure,
            "wfi_parallel": False,
        }
    )
    meta.visit.update({"type": "GENERIC", "start_time": start, "nexposures": 1, "internal_target": False})
    meta.visit.dither.update({"primary_name": None, "subpixel_name": None, "executed_pattern": list(settings.dither)})
    meta.program.update(
        {
            "title": "Simulated exposures",
            "investigator_name": "rampflow",
            "category": "CAL",
            "subcategory": "None",
            "science_category": "None",
        }
    )
    meta.guide_star.update(
        {
            "guide_window_id": visit_id,
            "guide_mode": "WIM-ACQ",
            "guide_star_id": "simulated",
            "epoch": "2016.0",
            "window_xstart": corner[0],
            "window_ystart": corner[1],
            "window_xstop": corner[0] if window is None else corner[0] + 16,
            "window_ystop": corner[1] if window is None else corner[1] + 16,
        }
    )
    meta.pointing.update(
        {
            "pa_aperture": (roll_ref + V3_YANGLE) % 360,
            "pa_v3": pa_v3,
            "ra_v1": ra_v1,
            "dec_v1": dec_v1,
            "target_aperture": "WFI_CEN" if settings.focal_plane else f"{settings.detector}_FULL",
            "target_ra": settings.ra % 360,
            "target_dec": settings.dec,
        }
    )
    meta.velocity_aberration.update({"ra_reference": ra_ref, "dec_reference": dec_ref, "scale_factor": ABERRATION_SCALE})
    meta.wcsinfo.update(
        {
            "aperture_name": f"{settings.detector}_FULL",
            "v2_ref": v2_ref,
            "v3_ref": v3_ref,
            "vparity": VPARITY,
            "v3yangle": V3_YANGLE,
            "ra_ref": ra_ref,
            "dec_ref": dec_ref,
            "roll_ref": roll_ref,
        }
    )
    # The observatory's distance from the Sun is the Earth's to 1 %, so the position and velocity of the Earth are used.
    place, speed = position.xyz.to_value("km"), velocity.xyz.to_value("km/s")
    meta.ephemeris.update({f"spatial_{axis}": float(value) for axis, value in zip("xyz", place, strict=True)})
    meta.ephemeris.update({f"velocity_{axis}": float(value) for axis, value in zip("xyz", speed, strict=True)})
    meta.ephemeris.update({"time": float(middle.mjd), "type": "PREDICTED", "ephemeris_reference_frame": "EME"})
    meta.ref_file.update(references)


def fill_older_version(meta: Any, newest: Any) -> None:
    """Fill the header of an older version of the data model with the entries that it shares with the newest one.

    Parameters
    ----------
    meta : roman_datamodels.stnode.DNode
        Header of the older version, changed in place.
    newest : roman_datamodels.stnode.DNode
        Header of the newest version.
    """
    from astropy.time import Time

    for name in set(meta) & set(newest) - {"model_type", "data_problem"}:  # data_problem was a boolean in older versions
        if hasattr(meta[name], "items"):
            fill_older_version(meta[name], newest[name])
        elif newest[name] != "?":  # "?" is a placeholder; strings and times had their own tags
            meta[name] = type(meta[name])(newest[name]) if isinstance(meta[name], str | Time) else newest[name]


def fill_ground_test(meta: Any, science: Any) -> None:
    """Fill the header of a raw exposure of a ground test with the entries that it shares with a science exposure.

    A ground test has neither a pointing nor a guide star.

    Parameters
    ----------
    meta : roman_datamodels.stnode.DNode
        Header of the ground test, changed in place.
    science : roman_datamodels.stnode.DNode
        Header of the science exposure.
    """
    meta.filename = type(meta.filename)(science.filename)  # a string type with its own tag
    for section in ("exposure", "instrument"):
        shared = set(meta[section]) & set(science[section]) - {"data_problem"}  # a boolean in ground tests
        meta[section].update({name: science[section][name] for name in shared})
    if offset := science.instrument.get("data_encoding_offset"):
        meta.instrument["data_encoding_offset"] = offset
