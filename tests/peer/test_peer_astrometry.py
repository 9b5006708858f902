"""Compare the stars of the astrometric catalog with those of stcal, which romancal uses."""

import numpy as np
import pytest

from rampflow.astrometry.motion import at_epoch
from rampflow.astrometry.region import calendar_year, separation, unit_vectors

stcal_catalog = pytest.importorskip("stcal.tweakreg._s3_catalog")

pytestmark = pytest.mark.peer


def stars():
    """Stars over the whole sky, near ones among them; some without a motion."""
    rng = np.random.default_rng(8)
    n = 2000
    columns = {
        "ra": np.r_[rng.uniform(0, 360, n - 4), 0.0, 359.99999999, 10.0, 190.0],
        "dec": np.r_[np.degrees(np.arcsin(rng.uniform(-1, 1, n - 4))), 0.0, 20.0, 89.9999, -89.9999],
        "pmra": rng.normal(0, 300, n),
        "pmdec": rng.normal(0, 300, n),
        "parallax": rng.normal(5, 50, n),
        "ref_epoch": rng.choice([2015.5, 2016.0], n),
        "mag": rng.uniform(10, 21, n),
    }
    for name in ("pmra", "pmdec", "parallax"):
        columns[name][rng.random(n) < 0.05] = np.nan
    return columns


def stcal_positions(columns, epoch):
    """Positions by stcal, as unit vectors."""
    from astropy.table import Table

    table = Table(columns, masked=True)
    for name in table.colnames:
        table[name].mask = np.isnan(columns[name])
    moved = stcal_catalog._correct_for_proper_motion(table, epoch)
    return unit_vectors(np.array(moved["ra"]), np.array(moved["dec"]))


def test_same_positions_where_both_calendars_agree():
    # stcal takes the Earth's place at the calendar year, the proper motion since Gaia's Julian year: here they are the same.
    epochs = np.linspace(2026, 2029, 100_001)
    epoch = float(epochs[np.argmin([abs(calendar_year(t) - t) for t in epochs])])
    assert abs(calendar_year(epoch) - epoch) < 1e-5
    ours = at_epoch(stars(), epoch)
    theirs = stcal_positions(stars(), epoch)
    assert len(theirs) == len(ours["ra"]) < 2000
    apart = separation(unit_vectors(ours["ra"], ours["dec"]), theirs) * 3.6e6
    # A parallax of 200 mas, and 1e-5 of a year of the Earth's way round.
    assert apart.max() < 0.015 and np.median(apart) < 0.002


def test_same_proper_motion_at_any_epoch():
    columns = stars() | {"parallax": np.zeros(2000)}
    for epoch in (2016.0, 2026.7474, 2031.2):
        ours = at_epoch(columns, epoch)
        assert separation(unit_vectors(ours["ra"], ours["dec"]), stcal_positions(columns, epoch)).max() * 3.6e6 < 1e-6


def test_parallax_differs_by_the_motion_of_the_earth_in_one_day_at_most():
    columns = stars() | {"pmra": np.zeros(2000), "pmdec": np.zeros(2000)}
    ours = at_epoch(columns, 2026.7474)
    apart = separation(unit_vectors(ours["ra"], ours["dec"]), stcal_positions(columns, 2026.7474)) * 3.6e6
    parallax = columns["parallax"][np.isfinite(columns["parallax"])]
    assert (apart <= 2 * np.pi / 365.25 * abs(parallax) + 1e-6).all()
