"""The numbers of one exposure, ``STEM_qa.json``: collected from its products, logs and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rampflow.chain import STATUSES, STEPS
from rampflow.detector import detector_number
from rampflow.quality.benchmarks import measure_cost
from rampflow.quality.numbers import IDENTIFICATION
from rampflow.step.logs import recorded_numbers, steps_in_log

FORMAT = 1  #: version of the file's format
BRIGHT = 20.0  #: signal-to-noise ratio of the sources that show the PSF
FEWEST_STARS = 5
NANOJANSKY_ZERO = 31.4  #: AB magnitude of 1 nJy

#: Metadata of an exposure by the name of the number.
METADATA = {
    "visit_id": "observation.visit_id",
    "exposure": "observation.exposure",
    "detector": "instrument.detector",
    "optical_element": "instrument.optical_element",
    "exposure_type": "exposure.type",
    "exposure_start_time": "exposure.start_time",
    "exposure_time": "exposure.exposure_time",
    "exposure_nresultants": "exposure.nresultants",
    "ma_table_number": "exposure.ma_table_number",
    "ma_table_name": "exposure.ma_table_name",
    "ra_ref": "wcsinfo.ra_ref",
    "dec_ref": "wcsinfo.dec_ref",
    "roll_ref": "wcsinfo.roll_ref",
    "s_region": "wcsinfo.s_region",
    "crds_context": "ref_file.crds.context",
    "crds_version": "ref_file.crds.version",
    "calibration_software_name": "calibration_software_name",
    "calibration_software_version": "calibration_software_version",
    "filedate": "file_date",
    "image_median": "statistics.image_median",
    "image_rms": "statistics.image_rms",
    "good_pixel_fraction": "statistics.good_pixel_fraction",
}
#: Entries of the summary of the alignment by the name of the number.
SOLUTION = {
    "n_matches": "n_matches",
    "rotation": "rotation_deg",
    "scale": "scale",
    "rmse_before": "rmse_before_mas",
    "rmse_after": "rmse_after_mas",
}

#: Numbers that steps have logged.
RECORDED = (
    *("jumps", "jump_rate", "chi2_median", "chi2_excess", "transient"),
    *("reference_level", "reference_offset", "row_scatter_before", "row_scatter_after"),
)

_LINE = re.compile(r":: rampflow\.(?P<step>\w+) :: (?P<level>WARNING|ERROR) :: (?P<text>.*)")


def read_metadata(meta: dict) -> dict[str, Any]:
    """Read the numbers that are metadata.

    Parameters
    ----------
    meta : dict
        Metadata of the image.

    Returns
    -------
    dict
        Values by name; `None` where there is no entry.
    """
    values: dict[str, Any] = {}
    for name, field in METADATA.items():
        node: Any = meta
        for part in field.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict):  # a time
            node = node.get("value")
        values[name] = node if isinstance(node, int | float | str) or node is None else str(node)
    return values


def identify_exposure(meta: dict) -> dict[str, Any]:
    """Read what identifies an exposure, without its footprint: a raw exposure has none.

    Parameters
    ----------
    meta : dict
        Metadata of a raw exposure or an image.

    Returns
    -------
    dict
        Values by the names of `rampflow.quality.numbers.IDENTIFICATION`; those without an entry are left out.
    """
    names = {number.name for number in IDENTIFICATION} - {"s_region"}
    return {name: value for name, value in read_metadata(meta).items() if name in names and value is not None}


def log_warnings(lines: Iterable[str]) -> list[tuple[str, str]]:
    """List the warnings in the log of an exposure.

    Parameters
    ----------
    lines : iterable of str
        ``meta.cal_logs``.

    Returns
    -------
    list of tuple of str
        Step and text of each.
    """
    found = (_LINE.search(line) for line in lines)
    return [(match["step"], match["text"]) for match in found if match]


def explain_statuses(meta: dict, solution: dict) -> dict[str, str]:
    """Say why steps are not COMPLETE.

    Parameters
    ----------
    meta : dict
        Metadata of the image.
    solution : dict
        Alignment of the exposure, of `rampflow.alignment.product.read_solution`; empty without one.

    Returns
    -------
    dict of str
        Reason by the name of the step.
    """
    lines = meta.get("cal_logs", [])
    ran, warned = steps_in_log(lines), dict(log_warnings(lines))
    exposure_type = str(meta.get("exposure", {}).get("type"))
    reasons = {}
    for name, step in STEPS.items():
        if meta["cal_step"].get(step.status) == "COMPLETE":
            continue
        if exposure_type not in step.exposure_types:
            reasons[name] = f"does not apply to {exposure_type}"
        elif step.detectors and detector_number(meta["instrument"]["detector"]) not in step.detectors:
            reasons[name] = "does not apply to this detector"
        elif name == "tweakreg" and solution.get("reason"):
            reasons[name] = str(solution["reason"])
        elif name in warned:
            reasons[name] = warned[name]
        elif name in ran:
            reasons[name] = "an earlier step has left nothing to do"
        else:
            reasons[name] = "was left out"
    return reasons


def measure_sources(catalog) -> dict[str, float | None]:
    """Measure the PSF and the depth from a source catalog.

    Parameters
    ----------
    catalog : pyarrow.Table
        Source catalog of the exposure.

    Returns
    -------
    dict
        ``n_sources``, ``n_stars``, ``psf_fwhm``, ``psf_ellipticity`` and ``depth``; `None` where the catalog does not tell.
    """
    known = set(catalog.column_names)

    def _column(*names):
        # In a catalog of forced sources, those of this image.
        found = next((name for plain in names for name in (f"forced_{plain}", plain) if name in known), None)
        return None if found is None else catalog[found].to_numpy().astype(float)

    numbers: dict[str, float | None] = dict.fromkeys(("n_stars", "psf_fwhm", "psf_ellipticity", "depth"))
    numbers["n_sources"] = catalog.num_rows
    flux, error = _column("psf_flux", "aper02_flux"), _column("psf_flux_err", "aper02_flux_err")
    radius, fwhm, ellipticity, flags = (
        _column(name) for name in ("fluxfrac_radius_50", "fwhm", "ellipticity", "warning_flags")
    )
    if flux is None or error is None:
        return numbers
    valid = np.isfinite(error) & (error > 0)
    if valid.sum() >= FEWEST_STARS:
        numbers["depth"] = NANOJANSKY_ZERO - 2.5 * float(np.log10(5 * np.quantile(error[valid], 0.25)))
    if radius is None or fwhm is None or ellipticity is None or flags is None:
        return numbers
    bright = valid & (flux > BRIGHT * error) & (flags == 0) & np.isfinite(radius) & np.isfinite(fwhm)
    chosen = np.flatnonzero(bright)[np.argsort(radius[bright], kind="stable")][: max(bright.sum() // 4, FEWEST_STARS)]
    numbers["n_stars"] = chosen.size
    if chosen.size >= FEWEST_STARS:
        numbers["psf_fwhm"] = float(np.median(fwhm[chosen]))
        numbers["psf_ellipticity"] = float(np.nanmedian(ellipticity[chosen]))
    return numbers


def numbers_of_exposure(
    stem: str, meta: dict, measured: dict, *, catalog=None, solution: dict, benchmarks: Path | None
) -> dict:
    """Collect the content of ``STEM_qa.json``.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    meta : dict
        Metadata of the final image.
    measured : dict
        Numbers that finalize has measured on pixels.
    catalog : pyarrow.Table, optional
        Source catalog.
    solution : dict
        Alignment of the exposure; empty without one.
    benchmarks : pathlib.Path or None
        Folder with the benchmark of each step.

    Returns
    -------
    dict
        ``filename``, ``format``, ``numbers`` by the names of `rampflow.quality.numbers`, ``reasons`` of steps that are not
        COMPLETE, and ``warnings``, step and text of each.
    """
    lines = meta.get("cal_logs", [])
    recorded = recorded_numbers(lines)
    warnings = log_warnings(lines)
    numbers: dict[str, Any] = {"stem": stem, **read_metadata(meta)}
    numbers |= {f"s_{status}": meta["cal_step"].get(status, "INCOMPLETE") for status in STATUSES}
    numbers |= measured
    numbers |= {name: recorded.get(name) for name in RECORDED}
    sources = dict.fromkeys(("n_sources", "n_stars", "psf_fwhm", "psf_ellipticity", "depth"))
    numbers |= sources if catalog is None else measure_sources(catalog)
    numbers |= {name: solution.get(entry) for name, entry in SOLUTION.items()}
    shift = solution.get("shift_mas") or (None, None)
    numbers |= {"shift_x": shift[0], "shift_y": shift[1]}
    numbers["shift"] = None if shift[0] is None else float(np.hypot(*shift))
    cost = dict.fromkeys(("cpu_time", "wall_time", "peak_memory"))
    numbers |= measure_cost(benchmarks, steps_in_log(lines)) if benchmarks else cost
    numbers["n_warnings"] = len(warnings)
    return {
        "filename": f"{stem}_qa.json",
        "format": FORMAT,
        "numbers": {name: _plain(value) for name, value in numbers.items()},
        "reasons": explain_statuses(meta, solution),
        "warnings": [f"{step}: {text}" for step, text in warnings],
    }


def _plain(value):
    """A value as JSON can have it: null for what is not finite, plain types for NumPy's."""
    if isinstance(value, str) or value is None:
        return None if value is None else str(value)
    number = value.item() if isinstance(value, np.generic) else value
    return number if isinstance(number, int) or np.isfinite(number) else None
