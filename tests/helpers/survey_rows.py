"""Numbers of a synthetic survey of good exposures, as finalize writes them, and faults to plant in them."""

import json

import numpy as np

from rampflow.chain import STATUSES
from rampflow.quality.numbers import NUMBERS, OF_THE_RUN

ELEMENTS = {"F106": 0.32, "F129": 0.31, "F158": 0.29, "F184": 0.21}  #: sky in a dark field, DN/s
EXPOSURE_TIMES = (139.1, 306.8)
PER_VISIT = 4  #: dithers

#: Planted faults by name: the numbers that change, as functions of the value.
FAULTS = {
    "background": {"image_median": lambda v: 10 * v, "image_rms": lambda v: 3 * v, "depth": lambda v: v - 1.2},
    "cosmic rays": {"jumps": lambda v: 12 * v, "jump_rate": lambda v: 12 * v},
    "defocus": {"psf_fwhm": lambda v: 1.8 * v, "depth": lambda v: v - 0.6},
    "lost pointing": {"s_tweakreg": lambda v: "FAILED", "n_matches": lambda v: 0},
    "dead channel": {"channel_deviation": lambda v: 1.0},
    "reference pixels": {"reference_level": lambda v: v + 1000, "reference_offset": lambda v: v + 1000},
    "wrong flat": {"sky_nonuniformity": lambda v: v + 0.05, "image_rms": lambda v: 1.1 * v},
}
#: Number by which each fault is to be found.
FOUND_BY = {
    "background": "image_median",
    "cosmic rays": "jump_rate",
    "defocus": "psf_fwhm",
    "lost pointing": "s_tweakreg",
    "dead channel": "channel_deviation",
    "reference pixels": "reference_offset",
    "wrong flat": "sky_nonuniformity",
}


def simulate_survey(number, seed=1, detectors=18, elements=tuple(ELEMENTS), exposure_times=EXPOSURE_TIMES, per_visit=PER_VISIT):
    """Rows of good exposures: visits of `per_visit` dithers with all detectors, each with one element, in fields of their own.

    Detectors differ by their bad pixels, noise and PSF, fields by their sky, stars and galaxies, and all numbers scatter; the
    sky, jumps and shifts have the tails of real ones (log-normal, Student).
    """
    rng = np.random.default_rng(seed)
    chips = {
        name: {
            "bad": rng.uniform(0.004, 0.05),
            "noise": rng.normal(1, 0.1),
            "fwhm": rng.normal(1, 0.02),
            "flat": rng.uniform(0.004, 0.012),
            "rows": rng.uniform(0.8, 1.4),
            "chi2": rng.normal(0.93, 0.015),
            "channel": rng.uniform(0.004, 0.02),
            "throughput": rng.normal(1, 0.03),
            "level": rng.normal(6000, 500),
            "offset": rng.normal(0, 100),
        }
        for name in (f"WFI{i:02d}" for i in range(1, detectors + 1))
    }
    rows, visit = [], 0
    while len(rows) < number:
        visit += 1
        element = elements[visit % len(elements)]
        seconds = exposure_times[(visit // len(elements)) % len(exposure_times)]
        zodiacal, density, cosmic = rng.lognormal(0, 0.2), rng.lognormal(0, 0.4), rng.lognormal(0, 0.08)
        ra, dec, pointing = rng.uniform(0, 360), rng.uniform(-60, 60), rng.normal(0, 300, 2)
        for dither in range(1, per_visit + 1):
            for name, chip in chips.items():
                rows.append(
                    _row(rng, visit, dither, name, chip, element, seconds, zodiacal, density, cosmic, (ra, dec), pointing)
                )
    return rows[:number]


def _row(rng, visit, dither, detector, chip, element, seconds, zodiacal, density, cosmic, place, pointing):
    visit_id = f"{visit:05d}01001001001{visit % 1000:03d}"[:19].ljust(19, "0")
    stem = f"r{visit_id}_{dither:04d}_{detector.lower()}_{element.lower()}"
    sky = ELEMENTS[element] * zodiacal * chip["throughput"] * rng.normal(1, 0.01)
    rms = chip["noise"] * np.sqrt(sky / 1.8 / seconds + (20 / seconds) ** 2) * rng.normal(1, 0.01)
    row = {name: 0 for name in NUMBERS if name.startswith("dq_")}
    row |= {f"s_{status}": "COMPLETE" for status in STATUSES}
    row["s_wfi18_transient"] = "COMPLETE" if detector == "WFI18" else "N/A"
    bad = chip["bad"] + abs(rng.normal(0, 0.0005))
    pixels = 4088**2
    row |= {"dq_do_not_use": round(bad * pixels), "dq_hot": round(0.3 * bad * pixels), "dq_dead": round(0.2 * bad * pixels)}
    rate = 2.5 * cosmic * rng.lognormal(0, 0.04)
    saturated = 2e-4 * density * rng.lognormal(0, 0.2)
    shift = pointing + 20 * rng.standard_t(4, 2)
    fwhm = (0.09 + 0.02 * list(ELEMENTS).index(element)) * chip["fwhm"] * rng.normal(1, 0.015)
    start = f"2027-{1 + visit % 12:02d}-{1 + visit % 28:02d}T{dither:02d}:00:00.000"
    row |= {
        "stem": stem,
        "visit_id": visit_id,
        "exposure": dither,
        "detector": detector,
        "optical_element": element,
        "exposure_type": "WFI_IMAGE",
        "exposure_start_time": start,
        "exposure_time": seconds,
        "exposure_nresultants": 9,
        "ma_table_number": 1001,
        "ma_table_name": "IM_107_8",
        "ra_ref": (place[0] + 0.1 * int(detector[3:])) % 360,
        "dec_ref": place[1],
        "roll_ref": 60.0,
        "s_region": f"POLYGON ICRS {place[0]} {place[1]} {place[0] + 0.12} {place[1]} {place[0]} {place[1] + 0.12}",
        "image_median": sky,
        "image_rms": rms,
        "good_pixel_fraction": 1 - bad,
        "saturated_fraction": saturated,
        "dq_saturated": round(saturated * pixels),
        "sky_nonuniformity": chip["flat"] * rng.normal(1, 0.05),
        "channel_deviation": chip["channel"] * rng.lognormal(0, 0.1),
        "jumps": round(rate * seconds * pixels * 1e-6),
        "jump_rate": rate,
        "chi2_median": chip["chi2"] * rng.normal(1, 0.003),
        "chi2_excess": 0.002 * rng.lognormal(0, 0.2),
        "reference_level": chip["level"] + rng.normal(0, 25),
        "reference_offset": chip["offset"] + rng.normal(0, 10),
        "row_scatter_before": 3 * chip["rows"] * rng.normal(1, 0.03),
        "row_scatter_after": 0.9 * chip["rows"] * rng.normal(1, 0.02),
        "transient": rng.normal(300, 10) if detector == "WFI18" else None,
        "n_sources": rng.poisson(4000 * density),
        "n_stars": rng.poisson(150 * density),
        "psf_fwhm": fwhm,
        "psf_ellipticity": abs(rng.normal(0.06, 0.01)),
        "depth": 26.2 + 1.25 * np.log10(seconds / 139.1) - 2.5 * np.log10(rms / 0.15) + rng.normal(0, 0.02),
        "n_matches": rng.poisson(80 * density),
        "shift_x": shift[0],
        "shift_y": shift[1],
        "shift": np.hypot(*shift),
        "rotation": 1e-3 * rng.standard_t(4),
        "scale": 1 + 1e-6 * rng.standard_t(4),
        "rmse_before": np.hypot(*shift),
        "rmse_after": 4 * rng.lognormal(0, 0.15),
        "cpu_time": rng.normal(30, 2),
        "wall_time": rng.normal(28, 3),
        "peak_memory": rng.normal(750, 10),
        "crds_context": "roman_0099.pmap",
        "crds_version": "13.0.0",
        "calibration_software_name": "rampflow",
        "calibration_software_version": "0.1.0",
        "filedate": start,
        "n_warnings": int(rng.random() < 0.05),
    }
    return row


def plant(row, fault):
    """The same row with a fault of `FAULTS`."""
    return row | {name: change(row[name]) for name, change in FAULTS[fault].items()}


def write_rows(folder, rows):
    """Write ``STEM_qa.json`` of each row."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = set(NUMBERS) - set(OF_THE_RUN)
    for row in rows:
        assert set(row) == expected, set(row) ^ expected
        numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
        failed = {"tweakreg": "too few matches"} if row["s_tweakreg"] == "FAILED" else {}
        content = {"filename": f"{row['stem']}_qa.json", "format": 1, "numbers": numbers, "reasons": failed, "warnings": []}
        (folder / content["filename"]).write_text(json.dumps(content))
