"""The survey's page: what it shows of each exposure, and its contact sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from rampflow.pictures.image import corners_of
from rampflow.quality.numbers import NUMBERS, STATUSES

#: Texts of each exposure that the page shows and searches.
TEXTS = (
    *("stem", "association", "state", "failed_step", "reason", "detector", "optical_element", "exposure_type"),
    *("exposure_start_time", "ma_table_name", "crds_context", "calibration_software_version", "outliers", "outlier_text"),
)
MEASURED = tuple(name for name, number in NUMBERS.items() if not number.is_text)
THUMBNAIL_SIZE = 112  #: pixels
#: Digits after the point of a footprint's corners, degrees: 0.04 arcsec, which no screen shows.
DIGITS = 5


def order_exposures(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Order exposures by what needs a look: failed ones first, then those with outliers, outdated, missing and others.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray
        Columns of the table of exposures.

    Returns
    -------
    numpy.ndarray
        Row numbers. Exposures with more outliers are first, then those that started first.
    """
    state, outliers = columns["state"], columns["outliers"]
    found = np.array([len(names.split(",")) if names else 0 for names in outliers], dtype=int)
    rank = np.select([state == "failed", found > 0, state == "outdated", state == "missing"], [0, 1, 2, 3], 4)
    return np.lexsort((columns["stem"], columns["exposure_start_time"], -found, rank))


def text_columns(columns: Mapping[str, np.ndarray], results: Path) -> dict[str, Any]:
    """Make the columns that the page shows of each exposure besides its numbers.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray
        Columns of the table of exposures.
    results : pathlib.Path
        Results folder, with the reports of associations.

    Returns
    -------
    dict
        Columns `TEXTS`; ``steps``, those that are neither COMPLETE nor N/A; ``page``, address of the exposure in the report of
        its association, empty if there is none; ``time``, milliseconds since 1970; footprints ``xs`` and ``ys``.
    """
    data: dict[str, Any] = {name: columns[name].tolist() for name in TEXTS}
    data["steps"] = [", ".join(words) for words in _unusual_steps(columns)]
    reports = {name: f"{name}_report.html" for name in set(data["association"]) if name}
    there = {name: quote(page) for name, page in reports.items() if (results / page).exists()}
    data["page"] = [
        f"{there[name]}#{quote(stem)}" if name in there else ""
        for name, stem in zip(data["association"], data["stem"], strict=True)
    ]
    data["time"] = np.array([_milliseconds(text) for text in data["exposure_start_time"]])
    places = zip(columns["s_region"], columns["ra_ref"], columns["dec_ref"], strict=True)
    outlines = [_outline(region, ra, dec) for region, ra, dec in places]
    data["xs"], data["ys"] = [xs for xs, _ in outlines], [ys for _, ys in outlines]
    return data


def _unusual_steps(columns: Mapping[str, np.ndarray]) -> list[list[str]]:
    words: list[list[str]] = [[] for _ in columns["stem"]]
    for step in STATUSES:
        statuses = columns[step.name]
        for row in np.flatnonzero(~np.isin(statuses, ("", "COMPLETE", "N/A"))):
            words[row].append(f"{step.title} {statuses[row]}")
    return words


def _milliseconds(text: str) -> float:
    try:
        return np.datetime64(text.removesuffix("Z"), "ms").astype(float) if text else np.nan
    except ValueError:
        return np.nan


def _outline(region: str, ra: float, dec: float) -> tuple[list[float], list[float]]:
    """Corners of a footprint, without a step at right ascension 0; the reference point where there is no footprint."""
    corners = corners_of(region)
    if corners is None or not np.isfinite(corners).all():
        return [ra], [dec]
    longitudes, latitudes = corners.T
    longitudes = longitudes[0] + (longitudes - longitudes[0] + 180) % 360 - 180
    return longitudes.round(DIGITS).tolist(), latitudes.round(DIGITS).tolist()


def read_thumbnails(stems: Iterable[str], results: Path, limit: int) -> dict[int, str]:
    """Read the thumbnails of exposures for the contact sheet.

    Parameters
    ----------
    stems : iterable of str
        Names of the exposures in the order of the page.
    results : pathlib.Path
        Results folder, with ``STEM_cal_thumb.png``.
    limit : int
        Largest number of thumbnails.

    Returns
    -------
    dict of int to str
        Data URL of a small picture, by the exposure's place. Exposures without a thumbnail are left out.
    """
    pictures: dict[int, str] = {}
    for place, stem in enumerate(stems):
        if len(pictures) >= limit:
            break
        try:
            with Image.open(results / f"{stem}_cal_thumb.png") as thumbnail:
                small = thumbnail.convert("L")
        except OSError:
            continue
        small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=70)
        pictures[place] = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return pictures
