"""The numbers of an exposure: name, unit and definition of each, and which difference makes an exposure an outlier.

``STEM_qa.json`` holds them for one exposure, ``exposures.parquet`` and ``exposures.ecsv`` for all exposures of a results
folder. Columns of these tables, the documentation and the key ``qa.limits`` of the configuration follow from `NUMBERS`. Names
of the archive (the destinations ``archive_catalog`` in RAD's schemas) are used where it has the same quantity.
"""

from __future__ import annotations

import dataclasses

from rampflow import dq
from rampflow.chain import STEPS


@dataclasses.dataclass(frozen=True)
class Number:
    """A number, or a text that identifies an exposure.

    Attributes
    ----------
    name : str
        Name in ``STEM_qa.json``, and of the column.
    meaning : str
        Definition, a noun phrase.
    unit : str
        Unit as astropy spells it; empty without one.
    is_text : bool
        Whether the value is a text. All other values are numbers.
    section : str
        Heading in the documentation.
    label : str
        Name in messages; `name` if it is empty.
    compared : bool
        Whether exposures are compared with others by this number.
    factor : float
        Factor between the number and the median of like exposures above which it may be an outlier; 1 for any.
    difference : float
        The same as a difference, in the unit of the number.
    varies_by_detector : bool
        Whether sound detectors differ by this number. The differences that count are then twice as large where an exposure is
        compared with those of other detectors.
    same_detector : bool
        Whether exposures are compared by this number with those of the same detector, of all optical elements and exposure
        times: sound detectors differ by much, and nothing else changes the number.
    varies_by_field : bool
        Whether sound exposures of different fields differ by this number. The differences that count are then three times as
        large where the exposures of the same visit share the number.
    """

    name: str
    meaning: str
    unit: str = ""
    is_text: bool = False
    section: str = ""
    label: str = ""
    compared: bool = False
    factor: float = 1.0
    difference: float = 0.0
    varies_by_detector: bool = False
    same_detector: bool = False
    varies_by_field: bool = False

    @property
    def title(self) -> str:
        """Name in messages.

        Returns
        -------
        str
            The label, or the name.
        """
        return self.label or self.name


def _section(title: str, *numbers: Number) -> tuple[Number, ...]:
    return tuple(dataclasses.replace(number, section=title) for number in numbers)


#: What is known of an exposure without its products.
IDENTIFICATION = _section(
    "Identification",
    Number("stem", "name of the exposure: the name of its raw file without `_uncal.asdf`", is_text=True),
    Number("association", "name of its association; empty where no run of this folder has named it", is_text=True),
    Number(
        "state",
        "`complete`: the products are those of the last run; `outdated`: they are of an earlier run; `failed`: a step failed, "
        "and there are no products; `missing`: the products have not been made",
        is_text=True,
    ),
    Number("failed_step", "step that failed in the last run; empty if none did", is_text=True),
    Number("reason", "reason of the failure, or of an alignment that isn't COMPLETE", is_text=True),
    Number("visit_id", "visit", is_text=True),
    Number("exposure", "number of the exposure in its visit"),
    Number("detector", "detector", is_text=True),
    Number("optical_element", "optical element", is_text=True),
    Number("exposure_type", "type of the exposure", is_text=True),
    Number("exposure_start_time", "start of the exposure, UTC", is_text=True),
    Number("exposure_time", "exposure time", "s"),
    Number("exposure_nresultants", "number of resultants"),
    Number("ma_table_number", "number of the multi-accumulation table"),
    Number("ma_table_name", "name of the multi-accumulation table", is_text=True),
    Number("ra_ref", "right ascension of the reference point", "deg"),
    Number("dec_ref", "declination of the reference point", "deg"),
    Number("roll_ref", "roll angle at the reference point", "deg"),
    Number("s_region", "footprint of the aligned image", is_text=True),
)

STATUSES = _section(
    "Statuses",
    *(Number(f"s_{step.status}", f"status of {name}", is_text=True, label=name) for name, step in STEPS.items()),
)

IMAGE = _section(
    "Image",
    Number(
        "image_median",
        "sky level: median of the good pixels (finite, not DO_NOT_USE, with an error)",
        "DN / s",
        label="sky",
        compared=True,
        factor=2.0,
        difference=0.05,
        varies_by_field=True,
    ),
    Number(
        "image_rms",
        "noise of the sky: 1.4826 × the median absolute deviation of the good pixels",
        "DN / s",
        label="sky rms",
        compared=True,
        factor=1.5,
        difference=0.01,
        varies_by_detector=True,
        varies_by_field=True,
    ),
    Number(
        "good_pixel_fraction",
        "share of good pixels",
        label="good pixels",
        compared=True,
        difference=0.02,
        varies_by_detector=True,
    ),
    Number(
        "saturated_fraction",
        "share of SATURATED pixels",
        label="saturated pixels",
        compared=True,
        factor=2.0,
        difference=0.02,
        varies_by_field=True,
    ),
    Number(
        "sky_nonuniformity",
        "scatter of the sky over the detector, as a fraction of the sky level: 1.4826 × the median absolute deviation of the "
        "medians of cells of one channel (128 columns) by 256 rows, without pixels beyond 2 σ from the median of their cell; "
        "unknown where the sky is fainter than its noise in a pixel",
        label="non-uniformity of the sky",
        compared=True,
        factor=1.5,
        difference=0.015,
        varies_by_detector=True,
    ),
    Number(
        "channel_deviation",
        "largest difference between the sky in a channel and the median of all channels, as a fraction of the sky level; "
        "unknown where the sky is fainter than its noise in a pixel",
        label="deviation of a channel",
        compared=True,
        factor=1.5,
        difference=0.05,
        varies_by_detector=True,
    ),
)

FLAGS = _section(
    "Pixels by flag",
    *(Number(f"dq_{name.lower()}", f"number of pixels with the flag {name}") for name in dq.pixel_flags()),
)

RAMPS = _section(
    "Ramps",
    Number("jumps", "number of jumps found by ramp_fitting, each in one resultant of one pixel"),
    Number(
        "jump_rate",
        "jumps per time and area of the detector (10 µm per pixel): median of blocks of 16 rows, so that single large events "
        "don't count",
        "1 / (cm2 s)",
        label="jump rate",
        compared=True,
        factor=2.5,
    ),
    Number(
        "chi2_median",
        "median of the reduced χ² of the fits of every 16th row",
        label="median of the reduced χ²",
        compared=True,
        factor=1.15,
        varies_by_detector=True,
    ),
    Number(
        "chi2_excess",
        "share of these fits whose χ² is beyond 99.9 % of its distribution, less the expected 0.001",
        label="share of bad fits",
        compared=True,
        factor=2.0,
        difference=0.005,
        varies_by_detector=True,
    ),
    Number(
        "reference_level",
        "median of the reference pixels in the first resultant",
        "DN",
        label="level of the reference pixels",
        compared=True,
        difference=200.0,
        same_detector=True,
    ),
    Number(
        "reference_offset",
        "median of the reference pixels of a side in the first resultant, less that of the 4 columns of light-sensitive pixels "
        "beside it, on average over the left and the right side",
        "DN",
        label="offset of the reference pixels",
        compared=True,
        difference=100.0,
        same_detector=True,
    ),
    Number(
        "row_scatter_before",
        "scatter of the rows of a channel before refpix: robust standard deviation of the interquartile means of rows, from "
        "neighboring rows in the difference of the last two resultants",
        "DN",
        label="scatter of rows before refpix",
        compared=True,
        factor=1.5,
        difference=0.5,
        varies_by_detector=True,
    ),
    Number(
        "row_scatter_after",
        "the same after refpix",
        "DN",
        label="scatter of rows after refpix",
        compared=True,
        factor=1.5,
        difference=0.5,
        varies_by_detector=True,
    ),
    Number(
        "transient",
        "transient of WFI18 in the first read: its two amplitudes together",
        "DN",
        compared=True,
        factor=2.0,
        difference=20.0,
    ),
)

SOURCES = _section(
    "Sources",
    Number(
        "n_sources",
        "number of sources in the catalog",
        label="sources",
        compared=True,
        factor=10.0,
        difference=10.0,
        varies_by_field=True,
    ),
    Number(
        "n_stars",
        "number of sources from which PSF width and ellipticity are measured",
        label="stars that show the PSF",
        compared=True,
        factor=10.0,
        difference=10.0,
        varies_by_field=True,
    ),
    Number(
        "psf_fwhm",
        "PSF width: median FWHM of the most compact quarter of the sources with a signal-to-noise ratio above 20 and without "
        "warning flags; unknown with fewer than 5",
        "arcsec",
        label="PSF width",
        compared=True,
        factor=1.2,
    ),
    Number(
        "psf_ellipticity",
        "median ellipticity of the same sources",
        label="PSF ellipticity",
        compared=True,
        difference=0.15,
    ),
    Number(
        "depth",
        "AB magnitude of a point source of 5 σ: from the lower quartile of the errors of PSF fluxes (fluxes within 0.2 arcsec "
        "where there are none)",
        "mag",
        compared=True,
        difference=0.4,
        varies_by_field=True,
    ),
)

ALIGNMENT = _section(
    "Alignment",
    Number("n_matches", "number of stars of the catalog that determined the alignment", label="matches"),
    Number("shift_x", "shift in the tangent plane, first axis", "mas"),
    Number("shift_y", "shift in the tangent plane, second axis", "mas"),
    Number("shift", "length of the shift", "mas", compared=True, factor=2.0, difference=1000.0),
    Number("rotation", "rotation of the correction", "deg", compared=True, difference=0.02),
    Number("scale", "scale of the correction", compared=True, difference=2e-4),
    Number("rmse_before", "root mean square distance of the matches before the alignment", "mas"),
    Number(
        "rmse_after",
        "root mean square distance of the matches after the alignment",
        "mas",
        label="rmse",
        compared=True,
        factor=2.0,
        difference=5.0,
        varies_by_field=True,
    ),
)

COST = _section(
    "Cost",
    Number("cpu_time", "processor time of the steps; with job_per: step, up to 0.5 s of each are missing", "s"),
    Number("wall_time", "time of the clock of the steps", "s"),
    Number("peak_memory", "largest memory of a step", "Mbyte"),
)

PROVENANCE = _section(
    "Provenance",
    Number("crds_context", "CRDS context that selected the references", is_text=True),
    Number("crds_version", "version of the package crds", is_text=True),
    Number("calibration_software_name", "name of the software", is_text=True),
    Number("calibration_software_version", "version of the software", is_text=True),
    Number("filedate", "when the calibrated image was written, UTC", is_text=True),
    Number("n_warnings", "number of warnings in the log of the product"),
)

#: What a comparison of the exposures adds.
COMPARISON = _section(
    "Comparison",
    Number("outliers", "names of the numbers that are outliers or beyond a limit, with commas", is_text=True),
    Number("outlier_text", "text on each of them in the summary of a run", is_text=True),
)

NUMBERS = {
    number.name: number
    for group in (IDENTIFICATION, STATUSES, IMAGE, FLAGS, RAMPS, SOURCES, ALIGNMENT, COST, PROVENANCE, COMPARISON)
    for number in group
}

#: Columns of the tables that ``STEM_qa.json`` doesn't have: only a run knows them.
OF_THE_RUN = ("association", "state", "failed_step", "reason", *(number.name for number in COMPARISON))

#: Numbers that may have a limit in the configuration.
LIMITED = {name: number for name, number in NUMBERS.items() if not number.is_text}


def as_markdown() -> str:
    """Write the table of all numbers for the documentation.

    Returns
    -------
    str
        A section with a table for each group.
    """
    lines: list[str] = []
    section = ""
    for number in NUMBERS.values():
        if number.section != section:
            section = number.section
            lines += ["", f"## {section}", "", "| name | unit | definition | outlier |", "|---|---|---|---|"]
        lines.append(f"| `{number.name}` | {number.unit} | {number.meaning} | {_outlier_rule(number)} |")
    return "\n".join(lines) + "\n"


def _outlier_rule(number: Number) -> str:
    if not number.compared:
        return ""
    parts = []
    if number.factor > 1:
        parts.append(f"factor {number.factor:g}")
    if number.difference:
        parts.append(f"difference {number.difference:g}{f' {number.unit}' if number.unit else ''}")
    text = " and ".join(parts)
    text += "; twice that across detectors" if number.varies_by_detector else ""
    text += "; any element of the same detector" if number.same_detector else ""
    return f"{text}; three times that if its visit shares it" if number.varies_by_field else text
