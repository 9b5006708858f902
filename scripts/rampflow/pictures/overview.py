"""The page of many exposures: what it shows of each, its contact sheet, and the page itself."""

from __future__ import annotations

import base64
import datetime
import io
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from rampflow import SOFTWARE_NAME, __version__
from rampflow.files.atomic import replacing
from rampflow.pictures.pages import read_template
from rampflow.quality.numbers import NUMBERS, STATUSES

#: Texts of each exposure that the page shows and searches.
TEXTS = (
    *("stem", "association", "state", "failed_step", "reason", "detector", "optical_element", "exposure_type"),
    *("exposure_start_time", "ma_table_name", "crds_context", "calibration_software_version", "outliers"),
)
MEASURED = tuple(name for name, number in NUMBERS.items() if not number.is_text)
#: States of exposures whose products don't exist, or don't count.
WITHOUT_PRODUCTS = ("failed", "missing", "excluded")
THUMBNAIL_SIZE = 112  #: pixels
#: What the contact sheet tells of an exposure.
CAPTION = ("stem", "state", "note", "detector", "optical_element", "page")
MOST_LISTED = 10  #: exposures at the top of the page that need a look


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
    conditions = [state == "failed", found > 0, state == "outdated", np.isin(state, WITHOUT_PRODUCTS)]
    return np.lexsort((columns["stem"], columns["exposure_start_time"], -found, np.select(conditions, [0, 1, 2, 3], 4)))


def choose_listed(kinds: Sequence[Collection[str]], most: int) -> list[int]:
    """Choose the exposures at the top of the page: of each kind of fault at least one, as far as there is room.

    Parameters
    ----------
    kinds : sequence of collection of str
        What needs a look in each exposure: names of numbers, or the state; empty for exposures that are as they should be.
    most : int
        Largest number of exposures.

    Returns
    -------
    list of int
        Their row numbers, in the order of the rows.
    """
    seen: set[str] = set()
    first: list[int] = []
    others: list[int] = []
    for row, found in enumerate(kinds):
        if found:
            (others if seen.issuperset(found) else first).append(row)
            seen |= set(found)
    return sorted([*first, *others][:most])


def page_of_exposure(association: str, stem: str) -> str:
    """Name the page of an exposure, which the report of its association writes.

    Parameters
    ----------
    association : str
        Name of the association.
    stem : str
        Name of the exposure.

    Returns
    -------
    str
        Path in the results folder.
    """
    return f"{association}_report/{stem}.html"


def text_columns(columns: Mapping[str, np.ndarray], results: Path, folder: Path) -> dict[str, Any]:
    """Make the columns that the page shows of each exposure besides its numbers.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray
        Columns of the table of exposures.
    results : pathlib.Path
        Results folder, with the pages of exposures.
    folder : pathlib.Path
        Folder of the page.

    Returns
    -------
    dict
        Columns `TEXTS`; ``steps``, those that are neither COMPLETE nor N/A; ``note``, what needs a look; ``page``, address of
        the page of the exposure, empty if there is none; ``time``, milliseconds since 1970.
    """
    data: dict[str, Any] = {name: columns[name].tolist() for name in TEXTS}
    data["steps"] = [", ".join(words) for words in _unusual_steps(columns)]
    data["note"] = [_note({name: values[row] for name, values in columns.items()}) for row in range(len(data["stem"]))]
    pages = {path.stem: os.path.relpath(path, folder) for path in sorted(results.glob(page_of_exposure("*", "*")))}
    data["page"] = [quote(pages.get(stem, "")) for stem in data["stem"]]
    data["time"] = np.array([_milliseconds(text) for text in data["exposure_start_time"]])
    return data


def _note(row: Mapping[str, Any]) -> str:
    """What needs a look in an exposure: why it failed, its outliers, and why it is not aligned."""
    failure = ": ".join(filter(None, (row["failed_step"], row["reason"]))) if row["state"] != "complete" else ""
    unaligned = row["reason"] if row["s_tweakreg"] == "FAILED" and not failure else ""
    return "; ".join(filter(None, (failure, row["outlier_text"], unaligned)))


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


def read_thumbnail(path: Path) -> str:
    """Read a thumbnail for the contact sheet.

    Parameters
    ----------
    path : pathlib.Path
        File ``STEM_cal_thumb.png``.

    Returns
    -------
    str
        Data URL of a small picture of 3 kB; empty if the file can't be read.
    """
    try:
        with Image.open(path) as thumbnail:
            small = thumbnail.convert("L")
    except OSError:
        return ""
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def contact_sheet(texts: Mapping[str, Sequence[str]], results: Path, limit: int) -> tuple[list[dict], int]:
    """Collect the contact sheet: a thumbnail of each exposure that has one, and a blank for each without products.

    Parameters
    ----------
    texts : mapping
        From `text_columns`, in the order of the page.
    results : pathlib.Path
        Results folder, with ``STEM_cal_thumb.png``.
    limit : int
        Largest number of exposures.

    Returns
    -------
    pictures : list of dict
        ``row``, ``source`` (data URL, or empty), and `CAPTION` of each.
    possible : int
        Number of exposures that there would be without the limit.
    """
    pictures: list[dict] = []
    possible = 0
    for row, (stem, state) in enumerate(zip(texts["stem"], texts["state"], strict=True)):
        path = results / f"{stem}_cal_thumb.png"
        absent = state in WITHOUT_PRODUCTS
        if not (absent or path.exists()):
            continue
        if len(pictures) < limit:
            source = "" if absent else read_thumbnail(path)
            if not (absent or source):
                continue
            pictures.append({"row": row, "source": source, **{name: texts[name][row] for name in CAPTION}})
        possible += 1
    return pictures, possible


def write_overview(
    output: Path,
    template: Path,
    columns: Mapping[str, np.ndarray],
    results: Path,
    *,
    content: Mapping[str, Any],
    thumbnails: int,
    stars: np.ndarray | None = None,
) -> None:
    """Write a page of many exposures: table, plots and contact sheet, in one file for any browser.

    Parameters
    ----------
    output : pathlib.Path
        The page.
    template : pathlib.Path
        Its template, ``overview.html.j2`` or one that extends it. The scripts of the page are beside it.
    columns : mapping of str to numpy.ndarray
        Columns of the table of exposures, see `rampflow.quality.table.to_columns`.
    results : pathlib.Path
        Results folder, with thumbnails and the pages of exposures.
    content : mapping
        Values of the template: ``title``, ``heading``, and what the template needs besides.
    thumbnails : int
        Largest number of exposures on the contact sheet.
    stars : numpy.ndarray, optional
        Right ascension and declination of stars for the map of the sky, degrees, of shape (n, 2).
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from rampflow.pictures.overview_plots import make_document

    order = order_exposures(columns)
    columns = {name: values[order] for name, values in columns.items()}
    texts = text_columns(columns, results, output.parent)
    pictures, possible = contact_sheet(texts, results, thumbnails)
    kinds = [
        {*filter(None, names.split(",")), *([state] if state != "complete" else [])}
        for names, state in zip(texts["outliers"], texts["state"], strict=True)
    ]
    listed = choose_listed(kinds, MOST_LISTED)
    page = file_html(
        make_document(texts, columns, template.parent, stars),
        INLINE,
        title=content["title"],
        template=read_template(template),
        template_variables={
            "exposures": len(order),
            "states": {state: texts["state"].count(state) for state in ("failed", "outdated", "missing", "excluded")},
            "with_outliers": sum(bool(names) for names in texts["outliers"]),
            "unusual": [{name: texts[name][row] for name in CAPTION} for row in listed],
            "more_unusual": sum(map(bool, kinds)) - len(listed),
            "pictures": pictures,
            "possible_pictures": possible,
            "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "made_by": f"{SOFTWARE_NAME} {__version__}",
            **content,
        },
    )
    with replacing(output, shared=True) as partial:
        partial.write_text(page, encoding="utf-8")
