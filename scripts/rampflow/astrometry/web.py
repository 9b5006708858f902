"""Stars from the catalog web service of STScI's Guide Star group, which moves them to the epoch."""

from __future__ import annotations

import csv
import os
import time

import numpy as np

from rampflow.astrometry.region import Region, calendar_year
from rampflow.step.logs import step_logger

log = step_logger("astrometric_catalog")

CATALOGS = ("GAIADR3", "GAIADR2", "GAIADR1", "GAIAREFCAT")
URL_VARIABLE = "ASTROMETRIC_CATALOG_URL"
DEFAULT_URL = "https://gsss.stsci.edu/webservices"
PATH = "/vo/CatalogSearch.aspx"

_NOTHING_FOUND = "No data records"  # beginning of an answer without stars


class BrokenAnswer(ValueError):
    """The answer of the service is not a table of stars."""


class Refused(Exception):
    """The service refused the request, and would refuse it again."""


def query(catalog: str, region: Region, epoch: float, deadline: float) -> dict[str, np.ndarray]:
    """Query the service for stars in a region, at an epoch.

    Parameters
    ----------
    catalog : str
        One of `CATALOGS`.
    region : Region
        The region.
    epoch : float
        The epoch, Julian year.
    deadline : float
        Latest time to wait for an answer, a time of `time.monotonic`.

    Returns
    -------
    dict of numpy.ndarray
        Columns ra, dec (degrees) at the epoch, mag, pmra, pmdec (mas per year), (n,) each. Stars without a proper motion, which
        the service doesn't move, are left out.

    Raises
    ------
    OSError
        The network or the server fails (requests' exceptions are of this kind).
    BrokenAnswer
        The answer is not a table of stars.
    Refused
        The service refuses the request.
    """
    import requests

    url = os.environ.get(URL_VARIABLE, DEFAULT_URL).rstrip("/") + PATH
    answers = []
    for circle in region.grouped().circles:
        parameters: dict[str, str | float] = {
            "RA": circle.ra,
            "DEC": circle.dec,
            "EPOCH": f"{calendar_year(epoch):.6f}",
            "SR": circle.radius,
            "FORMAT": "CSV",
            "CAT": catalog,
        }
        left = max(deadline - time.monotonic(), 0.1)
        answer = requests.get(url, parameters, headers={"Accept": "text/csv"}, timeout=(min(left, 30), left))
        if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):  # timeout and too many requests: try again
            raise Refused(f"the service at {url} answered {answer.status_code} {answer.reason}")
        answer.raise_for_status()
        answers.append(parse(answer.text))
    stars = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}
    # Circles may overlap, and the service returns some stars outside the requested circle.
    _, once = np.unique(np.stack([stars["ra"], stars["dec"]]), axis=1, return_index=True)
    once = np.sort(once)[region.contains(stars["ra"], stars["dec"])[np.sort(once)]]
    return {name: values[once] for name, values in stars.items()}


def parse(text: str) -> dict[str, np.ndarray]:
    """Parse an answer of the service: a comment, the names of the columns, a line for each star.

    Parameters
    ----------
    text : str
        The answer.

    Returns
    -------
    dict of numpy.ndarray
        Columns ra, dec (degrees), mag, pmra, pmdec (mas per year) of the stars with a proper motion, (n,) each; NaN if the
        answer lacks the column.

    Raises
    ------
    BrokenAnswer
        The answer is not a table of stars.
    """
    if text.lstrip().startswith(_NOTHING_FOUND):
        return {name: np.empty(0) for name in ("ra", "dec", "mag", "pmra", "pmdec")}
    if text.lstrip().startswith("<"):
        raise BrokenAnswer("the service answered with an HTML page instead of a table")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise BrokenAnswer("the service's answer is empty")
    names, *rows = csv.reader(lines, skipinitialspace=True)
    place = {name.strip().lower(): i for i, name in enumerate(names)}
    if not {"ra", "dec"} <= set(place):
        raise BrokenAnswer(f"the service's answer has no columns ra and dec; it begins with {lines[0][:80]!r}")
    if any(len(row) != len(names) for row in rows):
        raise BrokenAnswer("the service's answer is truncated")
    try:
        stars = {
            name: np.array([float(row[place[name]] or "nan") for row in rows] if name in place else np.full(len(rows), np.nan))
            for name in ("ra", "dec", "mag", "pmra", "pmdec")
        }
    except ValueError as error:
        raise BrokenAnswer(f"the service's answer has text where numbers should be ({error})") from None
    needed = [name for name in ("ra", "dec", "pmra", "pmdec") if name in place]
    moved = np.all(np.isfinite([stars[name] for name in needed]), axis=0)
    left_out = int(np.count_nonzero(~moved))
    if left_out:
        log.info("%d of %d stars have no proper motion and are left out", left_out, len(moved))
    return {name: values[moved] for name, values in stars.items()}
