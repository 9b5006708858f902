"""astrometric_catalog: region and epoch of an association, motions of the stars, every source of stars, network failures."""

import contextlib
import csv
import http.server
import io
import json
import os
import re
import shutil
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import astrometric_catalog
import gwcs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astrometric_catalog import get_catalog
from astropy import units as u
from astropy.coordinates import Galactic, SkyCoord, get_body_barycentric
from astropy.modeling import models
from astropy.table import QTable, Table
from astropy.time import Time
from astropy_healpix import HEALPix
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_sky import SIZE as SKY_SIZE
from simulated_sky import Sky
from small_files import run, set_entries, succeed

from rampflow.astrometry import check_astrometric_catalog, hats, read_star_table, star_catalogs
from rampflow.astrometry.duplicates import close_pairs, merge_duplicates
from rampflow.astrometry.motion import MAS, at_epoch, displacement, propagate, propagate_error
from rampflow.astrometry.region import Circle, Region, calendar_year, julian_year, separation, survey_images, unit_vectors
from rampflow.astrometry.star_table import Origin, next_attempt, write_star_table
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.data_models import data_model
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure
from rampflow.wcs.conversion import tree_of_wcs, wcs_of_tree
from rampflow.wcs.footprint import s_region
from rampflow.wcs.wcs_tree import Wcs

pytestmark = pytest.mark.slow

EPOCH = 2000 + (9769.5 + 84 / 86400) / 365.25  # Julian year of the images' mid_time
SIZE = 1200  # pixels: 2.2 arcmin
MARGIN = 15.0
COLUMNS = ["ra", "dec", "mag", "ra_error", "dec_error", "pmra", "pmdec", "parallax"]
#: Where the stars are dense: an ordinary place, right ascension 0, the poles.
PLACES = {"field": (150.0, 2.0), "wrap": (0.0, 10.0), "north": (200.0, 89.99), "south": (33.0, -90.0)}


# -------------------------------------------------------------------------------------------------------------- helpers
def offset(ra, dec, distance, angle=0.0):
    """A position some degrees away from another."""
    moved = SkyCoord(ra * u.deg, dec * u.deg).directional_offset_by(angle * u.deg, distance * u.deg)
    return moved.ra.deg, moved.dec.deg


def write_exposure(path, ra=150.0, dec=2.0, **entries):
    """An image as flatfield writes it, with the header entries that the catalog reads."""
    corners = [offset(ra, dec, SIZE / 2 * 0.11 / 3600 * 2**0.5, angle) for angle in (45, 135, 225, 315)]
    times = {
        "start_time": "2026-10-01T00:00:00.000",
        "mid_time": "2026-10-01T00:01:24.000",
        "end_time": "2026-10-01T00:02:48.000",
    }
    meta = {
        "cal_step": {"tweakreg": "INCOMPLETE"},
        "exposure": {name: tagged(time, "tag:stsci.edu:asdf/time/time-1.4.0") for name, time in times.items()},
        "wcs": tagged({"name": ""}, "tag:stsci.edu:gwcs/wcs-1.4.0"),
        "wcsinfo": {
            "ra_ref": float(ra),
            "dec_ref": float(dec),
            "s_region": "POLYGON ICRS  " + " ".join(f"{value:.9f}" for corner in corners for value in corner),
        },
    }
    set_entries(meta, entries)
    roman = tagged({"meta": meta, "data": np.zeros((SIZE, SIZE), np.uint8)}, data_model().image)
    with create_asdf(path, {"roman": roman}):
        pass
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_exposure(tmp_path_factory.mktemp("image") / "a_flat.asdf")


def make_stars(seed=3):
    """Columns of Gaia: few stars over the whole sky, many at `PLACES`, some without a motion."""
    rng = np.random.default_rng(seed)
    ra, dec = [rng.uniform(0, 360, 3000)], [np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))]
    for place in PLACES.values():
        near = offset(*place, 0.2 * np.sqrt(rng.random(900)), rng.uniform(0, 360, 900))
        ra.append(near[0])
        dec.append(near[1])
    ra, dec = np.concatenate(ra) % 360, np.concatenate(dec)
    n = len(ra)
    stars = {
        "source_id": np.arange(n),
        "ra": ra,
        "dec": dec,
        "pmra": rng.normal(0, 20, n),
        "pmdec": rng.normal(0, 20, n),
        "parallax": rng.normal(1, 1, n),
        "ref_epoch": np.full(n, 2016.0),
        "phot_g_mean_mag": rng.uniform(14, 21, n),
        "ra_error": np.full(n, 0.3),
        "dec_error": np.full(n, 0.4),
        "pmra_error": np.full(n, 0.2),
        "pmdec_error": np.full(n, 0.1),
    }
    without = rng.random(n) < 0.1
    for name in ("pmra", "pmdec", "parallax"):
        stars[name][without] = np.nan
    stars["phot_g_mean_mag"][rng.random(n) < 0.02] = np.nan
    return stars


def write_hats(folder, stars, most=300):
    """A HATS catalog: a partition with more stars than `most` is divided into four of the next order."""
    index = HEALPix(2**29, order="nested").lonlat_to_healpix(stars["ra"] * u.deg, stars["dec"] * u.deg)
    order_of_rows = np.argsort(index)
    columns = {"_healpix_29": index[order_of_rows]} | {n: v[order_of_rows] for n, v in stars.items()}
    # Where Gaia knows no value, there is a null.
    table = pa.table({n: pa.array(v, mask=np.isnan(v) if v.dtype.kind == "f" else None) for n, v in columns.items()})
    partitions = []

    def divide(order, pixel):
        shift = 2 * (29 - order)
        start, stop = np.searchsorted(columns["_healpix_29"], [pixel << shift, (pixel + 1) << shift])
        if stop - start > most:
            for child in range(4):
                divide(order + 1, 4 * pixel + child)
        elif stop > start:
            path = folder / f"dataset/Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table[start:stop], path, row_group_size=100)
            partitions.append((order, pixel))

    for pixel in range(12):
        divide(0, pixel)
    (folder / "partition_info.csv").write_text("Norder,Npix\n" + "".join(f"{k},{n}\n" for k, n in partitions))
    return folder


STARS = make_stars()


@pytest.fixture(scope="module")
def hats_folder(tmp_path_factory):
    return write_hats(tmp_path_factory.mktemp("hats") / "gaia", STARS)


def expected_ids(circles):
    """Which of `STARS` have a motion and lie in circles, by astropy's separations."""
    sky = SkyCoord(STARS["ra"] * u.deg, STARS["dec"] * u.deg)
    inside = np.zeros(len(sky), bool)
    for circle in circles:
        inside |= sky.separation(SkyCoord(circle[0] * u.deg, circle[1] * u.deg)).deg <= circle[2]
    return np.flatnonzero(inside & np.isfinite(STARS["pmra"]))


def assert_holds(path, ids, source):
    """Check that a written catalog holds these of `STARS`, at the epoch."""
    stars, origin = read_star_table(path)
    assert (origin.status, origin.rows, origin.reason) == ("SUCCESS", len(ids), "")
    assert origin.source == source and origin.epoch == pytest.approx(EPOCH, abs=1e-9)
    motion = (STARS[name][ids] for name in ("ra", "dec", "pmra", "pmdec", "parallax", "ref_epoch"))
    ra, dec = propagate(*motion, origin.epoch)
    got, want = np.argsort(stars["ra"]), np.argsort(ra)
    np.testing.assert_allclose(np.array(stars["ra"])[got], ra[want], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.array(stars["dec"])[got], dec[want], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.array(stars["mag"])[got], STARS["phot_g_mean_mag"][ids][want])
    np.testing.assert_allclose(stars["ra_error"], np.hypot(0.3, 0.2 * (origin.epoch - 2016)))


def call(output, image, catalog, *options):
    """Run the program in this process."""
    images = image if isinstance(image, list) else [image]
    arguments = [output, "--images", *images, "--astrometric_catalog", catalog, *options]
    return astrometric_catalog.main([str(a) for a in arguments])


# ---------------------------------------------------------------------------------------------------------------- motion
def test_proper_motion_agrees_with_astropy():
    rng = np.random.default_rng(1)
    ra, dec = np.r_[rng.uniform(0, 360, 50), 12.0, 359.9999, 80.0], np.r_[rng.uniform(-89, 89, 50), 0.0, -30.0, 89.999]
    pmra, pmdec = rng.normal(0, 1000, (2, len(ra)))
    stars = SkyCoord(
        ra * u.deg,
        dec * u.deg,
        distance=10 * u.pc,
        pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr,
        radial_velocity=0 * u.km / u.s,
        obstime=Time(2016.0, format="jyear", scale="tdb"),
    )
    moved = stars.apply_space_motion(Time(EPOCH, format="jyear", scale="tdb"))
    there = unit_vectors(*propagate(ra, dec, pmra, pmdec, np.zeros(len(ra)), 2016.0, EPOCH))
    assert separation(unit_vectors(ra, dec), there).max() * 3.6e6 > 10000
    # They differ in the light's travel: by parts of v/c (1e-4) of the second order.
    assert separation(there, unit_vectors(moved.ra.deg, moved.dec.deg)).max() * 3.6e6 < 0.01


@pytest.mark.parametrize(("ra", "dec"), [(270.0, 66.56), (83.0, -70.0), (0.0, 0.0), (17.0, 90.0), (359.99999999, -5.0)])
def test_parallax_agrees_with_the_direction_seen_from_the_earth(ra, dec):
    epochs = np.linspace(2026, 2027, 25)
    still = np.zeros(1)
    seen = np.array([propagate(np.array([ra]), np.array([dec]), still, still, np.array([100.0]), 2016.0, t) for t in epochs])
    earth = get_body_barycentric("earth", Time(epochs, format="jyear", scale="tdb")).xyz.to_value(u.au).T
    distance = 206264.80625 / 0.1  # au
    true = unit_vectors(ra, dec) * distance - earth
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    displacement = separation(unit_vectors(*seen[:, :, 0].T), unit_vectors(ra, dec)) * 3.6e6
    assert 80 < displacement.max() < 103
    assert separation(unit_vectors(*seen[:, :, 0].T), true).max() * 3.6e6 < 2e-4


def test_parallax_ellipse_has_the_expected_axes():
    epochs = np.linspace(2026, 2027, 100, endpoint=False)
    pole, plane = (SkyCoord(lon=0 * u.deg, lat=b * u.deg, frame="barycentrictrueecliptic").icrs for b in (90, 0))

    def radii(star):
        track = [propagate(star.ra.deg, star.dec.deg, 0.0, 0.0, 100.0, 2016.0, t) for t in epochs]
        return separation(unit_vectors(*np.array(track).T), unit_vectors(star.ra.deg, star.dec.deg)) * 3.6e6

    assert 97 < radii(pole).min() and radii(pole).max() < 103
    assert radii(plane).min() < 4 and 97 < radii(plane).max() < 103


def test_right_ascension_stays_from_0_to_360():
    ra, dec = propagate(np.array([359.9999999, 1e-8]), np.zeros(2), np.array([1000.0, -1000.0]), 0.0, 0.0, 2016.0, EPOCH)
    assert ra[0] < 0.01 and ra[1] > 359.99 and abs(dec).max() < 1e-9


def test_stars_without_a_motion_are_left_out_of_a_catalog_with_motions():
    stars = {"ra": np.array([1.0, 2.0]), "dec": np.zeros(2), "mag": np.array([15.0, 16.0])}
    motion = {name: np.array([1.0, np.nan]) for name in ("pmra", "pmdec", "parallax")}
    assert list(at_epoch({**stars, **motion, "ref_epoch": np.full(2, 2016.0)}, EPOCH)["mag"]) == [15.0]
    # Without its epoch a motion can't be applied: the positions stay (star_catalogs.fetch_stars refuses such a file).
    assert list(at_epoch({**stars, **motion}, EPOCH)["ra"]) == [1.0, 2.0]


def test_errors_grow_with_the_error_of_the_proper_motion():
    np.testing.assert_allclose(propagate_error(np.array([0.3, 0.3]), np.array([0.4, np.nan]), 1.0), [0.5, 0.3])


# ---------------------------------------------------------------------------------------------------------------- region
def test_julian_and_calendar_years():
    import datetime

    noon = datetime.datetime(2026, 10, 1, 12)
    assert julian_year(noon) == pytest.approx(Time(noon).jyear, abs=1e-9)
    assert calendar_year(julian_year(noon)) == pytest.approx(Time(noon).decimalyear, abs=1e-7)


def test_region_holds_every_image_with_its_margin(tmp_path):
    places = [(150.0, 2.0), (0.0, 10.0), (40.0, 89.995), (359.99, -45.0)]
    paths = [write_exposure(tmp_path / f"{i}.asdf", *place) for i, place in enumerate(places)]
    region, epochs = survey_images(paths, MARGIN)
    assert epochs == pytest.approx([EPOCH] * 4, abs=1e-9)
    reach = SIZE / 2 * 0.11 / 3600 * 2**0.5
    for place in places:
        for angle in range(0, 360, 45):
            assert region.contains(*offset(*place, reach + 0.99 * MARGIN / 3600, angle))
            assert not region.contains(*offset(*place, reach + 1.01 * MARGIN / 3600, angle))


def test_epoch_is_the_mean_of_the_exposures(tmp_path):
    late = write_exposure(tmp_path / "b.asdf", **{"exposure.mid_time": {"value": "2026-10-03T00:01:24.000"}})
    ends = {"exposure.mid_time": ..., "exposure.start_time": "2026-10-02T00:00:24", "exposure.end_time": "2026-10-02T00:02:24"}
    between = write_exposure(tmp_path / "c.asdf", **ends)
    images = [write_exposure(tmp_path / "a.asdf"), late, between]
    _, epochs = survey_images(images, MARGIN)
    assert epochs == pytest.approx([EPOCH, EPOCH + 2 / 365.25, EPOCH + 1 / 365.25], abs=1e-9)
    _, origin = get_catalog(images, str(write_stars(tmp_path / "stars.ecsv")), margin=MARGIN, timeout=1)
    assert origin.epoch == pytest.approx(EPOCH + 1 / 365.25, abs=1e-9)
    with pytest.raises(RampflowError, match="no_time.asdf: meta.exposure must have a mid_time"):
        survey_images([write_exposure(tmp_path / "no_time.asdf", **{"exposure": {"mid_time": "?"}})], MARGIN)


@pytest.mark.parametrize(
    "s_region", [None, "?", "POLYGON ICRS  nan nan nan nan nan nan", "POLYGON ICRS 1 2 3", "CIRCLE ICRS 1 2 3"]
)
def test_without_a_footprint_the_pointing_is_used(tmp_path, s_region):
    region, _ = survey_images([write_exposure(tmp_path / "a.asdf", **{"wcsinfo.s_region": s_region})], 0.0)
    (circle,) = region.circles
    assert (circle.ra, circle.dec) == (150.0, 2.0)
    assert 1.0 <= circle.radius / (SIZE / 2 * 0.11 / 3600 * 2**0.5) <= 1.2


def corners_of_sky(sky, stem):
    x, y = np.meshgrid(*2 * [np.array([0.0, SKY_SIZE - 1])])
    return sky.truth[stem].to_sky(x.ravel(), y.ravel())


@pytest.mark.parametrize("footprint", [None, "?", "where it was pointed", "turned", "POLYGON ICRS  0 0 1 0 1 1"])
@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -30.0), (359.97, 60.0), (77.0, 89.99), (200.0, -90.0)])
def test_stars_are_retrieved_around_the_wcs(tmp_path, ra, dec, footprint, caplog):
    """Whatever the header says of the footprint: at right ascension 0, at the poles, and where the pointing was turned."""
    sky = Sky(tmp_path, density=20, in_catalog=10, ra=ra, dec=dec)
    header = {"wcsinfo.s_region": footprint}
    if footprint in ("where it was pointed", "turned"):
        pointed = Sky(tmp_path, density=20, in_catalog=10, ra=ra, dec=dec - np.sign(dec) * 0.3 * (footprint != "turned"))
        other = pointed.expose("other", roll_error=45 * (footprint == "turned"))
        with AsdfFile(other) as file:
            header["wcsinfo.s_region"] = s_region(Wcs(Exposure(file).meta["wcs"]))
    path = sky.expose("moved", header=header)
    region, _ = survey_images([path], MARGIN)
    (circle,) = region.circles
    ras, decs = corners_of_sky(sky, "moved")
    for angle in range(0, 360, 30):
        assert region.contains(*offset(ras, decs, 0.95 * MARGIN / 3600, angle)).all()
    from_center = separation(unit_vectors(ras, decs), circle.center)
    assert circle.radius == pytest.approx(from_center.max() + MARGIN / 3600, abs=0.2 / 3600)
    said = "lies" in caplog.text and "from that of its WCS" in caplog.text
    assert said == (footprint not in (None, "?")), caplog.text


def test_a_footprint_of_the_wcs_gives_no_warning(tmp_path, caplog):
    sky = Sky(tmp_path, density=20, in_catalog=10, ra=0.0)
    with AsdfFile(sky.expose("first")) as file:
        stated = s_region(Wcs(Exposure(file).meta["wcs"]))
    survey_images([sky.expose("again", header={"wcsinfo.s_region": stated})], MARGIN)
    assert not caplog.text


def expose_with_wcs(sky, change):
    """An exposure with a changed WCS and the footprint of the unchanged one."""
    with AsdfFile(sky.expose("unchanged")) as file:
        tree = Exposure(file).meta["wcs"]
        stated = s_region(Wcs(tree))
        wcs = change(wcs_of_tree(tree))
    return sky.expose("changed", header={"wcsinfo.s_region": stated, "wcs": tree_of_wcs(wcs)})


@pytest.mark.parametrize("end", [np.inf, 1e7, 1e4])
def test_an_impossible_bounding_box_is_that_of_the_image(tmp_path, end):
    def unlimited(wcs):
        wcs.bounding_box = ((-end, end), (-end, end))
        return wcs

    sky = Sky(tmp_path, density=20, in_catalog=10)
    path = expose_with_wcs(sky, unlimited)
    (circle,) = survey_images([path], MARGIN)[0].circles
    with AsdfFile(path) as file:
        rows, columns = Exposure(file).array("data").shape
    assert circle.radius * 3600 == pytest.approx(MARGIN + 0.11 * np.hypot(rows, columns) / 2, abs=0.1)
    (corner,) = separation(unit_vectors(*sky.truth["changed"].to_sky(np.zeros(1), np.zeros(1))), circle.center)
    assert corner < circle.radius - 0.9 * MARGIN / 3600


def test_a_wcs_that_can_not_be_evaluated_leaves_the_footprint(tmp_path, caplog):
    """The other images of the association are aligned; tweakreg says what is wrong with this one."""

    def with_units(wcs):
        frames = [step.frame for step in wcs.pipeline]
        shift = models.Shift(1 * u.pix) & models.Shift(1 * u.pix)
        turn = models.RotateNative2Celestial(10 * u.deg, 20 * u.deg, 180 * u.deg)
        return gwcs.WCS([(frames[0], shift | models.Pix2Sky_TAN() | turn), (frames[-1], None)])

    sky = Sky(tmp_path, density=20, in_catalog=10)
    path = expose_with_wcs(sky, with_units)
    (circle,), (expected,) = (survey_images([p], MARGIN)[0].circles for p in (path, sky.images[0]))
    assert "its WCS (meta.wcs) has no positions: " in caplog.text
    assert circle.radius == pytest.approx(expected.radius, abs=0.2 / 3600)
    assert separation(circle.center, expected.center) < 0.2 / 3600


def test_an_image_with_another_frame_of_the_sky_is_left_out(tmp_path, caplog):
    def in_galactic_coordinates(wcs):
        frame = gwcs.coordinate_frames.CelestialFrame(name="world", reference_frame=Galactic(), unit=(u.deg, u.deg))
        return gwcs.WCS([*((step.frame, step.transform) for step in wcs.pipeline[:-1]), (frame, None)])

    sky = Sky(tmp_path, density=20, in_catalog=10)
    path = expose_with_wcs(sky, in_galactic_coordinates)
    assert len(survey_images([path, sky.images[0]], MARGIN)[0].circles) == 1
    assert "changed_flat.asdf: can't be aligned: the frame world of its WCS (meta.wcs) is galactic" in caplog.text


def test_images_that_will_not_be_aligned_are_left_out(tmp_path, image):
    others = [
        write_exposure(tmp_path / "saturated.asdf", 10.0, 0.0, **{"cal_step.ramp_fit": "SKIPPED"}),
        write_exposure(tmp_path / "no_wcs.asdf", 20.0, 0.0, wcs=None),
        write_exposure(tmp_path / "no_place.asdf", **{"wcsinfo.s_region": "?", "wcsinfo.ra_ref": -999999.0}),
    ]
    region, _ = survey_images([image, *others], MARGIN)
    assert len(region.circles) == 1 and region.contains(150.0, 2.0)
    assert call(tmp_path / "stars.parquet", others, "GAIADR3_S3") == 0
    stars, origin = read_star_table(tmp_path / "stars.parquet")
    assert (len(stars), origin.status, origin.reason, origin.epoch) == (0, "FAILED", "no image can be aligned", None)


def test_images_of_one_pointing_are_one_query():
    visit = [Circle(ra, dec, 0.1) for ra in np.linspace(149.7, 150.3, 6) for dec in (1.9, 2.0, 2.1)]
    far = [Circle(359.95, 10, 0.1), Circle(0.05, 10, 0.1)]
    grouped = Region((*visit, *far, visit[0])).grouped()
    assert len(grouped.circles) <= 3
    rng = np.random.default_rng(2)
    for circle in (*visit, *far):
        edge = offset(circle.ra, circle.dec, circle.radius * 0.9999, rng.uniform(0, 360, 20))
        assert grouped.contains(*edge).all()
    assert any(circle.radius < 0.16 and (circle.ra < 1e-6 or circle.ra > 359.999) for circle in grouped.circles)


# ------------------------------------------------------------------------------------------------------------------ HATS
@given(
    ra=st.floats(0, 360),
    z=st.floats(-1, 1),
    radius=st.floats(-3.5, 1.3).map(lambda exponent: 10**exponent),
    other=st.tuples(st.floats(0, 360), st.floats(-1, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_healpix_ranges_contain_their_circles(ra, z, radius, other, seed):
    circles = (Circle(ra, float(np.degrees(np.arcsin(z))), radius), Circle(other[0], np.degrees(np.arcsin(other[1])), other[2]))
    ranges = hats.covering_ranges(Region(circles))
    assert len(ranges) <= 64 and (ranges[:, 0] < ranges[:, 1]).all() and (ranges[1:, 0] > ranges[:-1, 1]).all()
    rng = np.random.default_rng(seed)
    for circle in circles:
        points = offset(
            circle.ra, circle.dec, circle.radius * np.r_[np.sqrt(rng.random(50)), np.ones(100)], rng.uniform(0, 360, 150)
        )
        index = HEALPix(2**29, order="nested").lonlat_to_healpix(*(p * u.deg for p in points))
        assert ((index[:, None] >= ranges[:, 0]) & (index[:, None] < ranges[:, 1])).any(axis=1).all()


def test_the_number_of_healpix_ranges_is_limited():
    region = Region(tuple(Circle(ra, dec, 0.01) for ra in np.linspace(0, 350, 20) for dec in (-60, 0, 60)))
    ranges = hats.covering_ranges(region)
    assert len(ranges) == 64
    index = HEALPix(2**29, order="nested").lonlat_to_healpix(
        *([getattr(c, x) for c in region.circles] * u.deg for x in ("ra", "dec"))
    )
    assert ((index[:, None] >= ranges[:, 0]) & (index[:, None] < ranges[:, 1])).any(axis=1).all()


def test_partitions_that_overlap_the_ranges_are_found():
    ranges = np.array([[5 << 58, 5 << 58 | 10], [(9 << 58) - 1, 9 << 58]])
    orders, pixels = np.array([0, 0, 0, 1, 1, 1, 29, 29]), np.array([5, 9, 8, 20, 21, 35, 5 << 58 | 9, 5 << 58 | 10])
    assert hats.overlapping(orders, pixels, ranges) == [(0, 5), (0, 8), (1, 20), (1, 35), (29, 5 << 58 | 9)]


@pytest.mark.parametrize("places", [["field"], ["wrap"], ["north"], ["south"], list(PLACES)], ids="-".join)
def test_stars_are_read_from_a_hats_folder(tmp_path, hats_folder, places):
    images = [write_exposure(tmp_path / f"{name}.asdf", *PLACES[name]) for name in places]
    assert call(tmp_path / "stars.parquet", images, hats_folder) == 0
    _, origin = read_star_table(tmp_path / "stars.parquet")
    ids = expected_ids(origin.region)
    assert len(ids) > 5 * len(places)
    assert_holds(tmp_path / "stars.parquet", ids, str(hats_folder))


def test_only_the_partitions_of_the_region_are_read(tmp_path, image, hats_folder):
    copy = shutil.copytree(hats_folder, tmp_path / "gaia")
    partitions = {
        tuple(map(int, re.search(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)", str(path)).groups())): path
        for path in copy.rglob("*.parquet")
    }
    orders, pixels = np.array(list(partitions)).T
    assert len(set(orders)) >= 4
    region, _ = survey_images([image], MARGIN)
    needed = hats.overlapping(orders, pixels, hats.covering_ranges(region))
    assert 1 <= len(needed) <= 6 < len(partitions) / 10
    for partition in set(partitions) - set(needed):
        partitions[partition].unlink()
    assert call(tmp_path / "stars.parquet", image, copy) == 0
    assert_holds(tmp_path / "stars.parquet", expected_ids(read_star_table(tmp_path / "stars.parquet")[1].region), str(copy))


def test_a_region_without_stars_gives_an_empty_catalog(tmp_path, hats_folder, capsys):
    nowhere = write_exposure(tmp_path / "a.asdf", 90.0, -40.0)
    assert call(tmp_path / "stars.parquet", nowhere, hats_folder) == 0
    stars, origin = read_star_table(tmp_path / "stars.parquet")
    assert (len(stars), origin.status, origin.reason) == (0, "SUCCESS", "the catalog has no stars there")
    assert "WARNING" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: shutil.rmtree(folder / "dataset"), "can't be read .*Npix="),
        (lambda folder: (folder / "partition_info.csv").write_text("a,b\n1,2\n"), "no columns Norder and Npix"),
        (lambda folder: [p.write_bytes(b"PAR1 nothing") for p in folder.rglob("*.parquet")], "can't be read"),
        (
            lambda folder: [pq.write_table(pq.read_table(p).drop(["_healpix_29"]), p) for p in folder.rglob("*.parquet")],
            "no column _healpix_29",
        ),
    ],
)
def test_a_damaged_hats_folder_is_an_error(tmp_path, image, hats_folder, capsys, break_it, says):
    shutil.copytree(hats_folder, tmp_path / "gaia")
    break_it(tmp_path / "gaia")
    assert call(tmp_path / "stars.parquet", image, tmp_path / "gaia") == 1
    errors = capsys.readouterr().err
    assert "this HATS catalog can't be read" in errors
    assert re.search(says, errors)
    assert not (tmp_path / "stars.parquet").exists()


# -------------------------------------------------------------------------------------------------------------------- S3
@pytest.fixture(scope="module")
def s3(hats_folder):
    """Address of a public S3 server that has the HATS catalog in the place where STScI has it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    bucket, prefix = hats.GAIA_DR3.split("/", 1)
    client.create_bucket(Bucket=bucket, ACL="public-read")
    for path in hats_folder.rglob("*.*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(hats_folder)}", {"ACL": "public-read"})
    yield address
    server.stop()


def without_aws():
    """The environment variables without those of AWS."""
    return {name: "" for name in os.environ if name.startswith("AWS_")}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_gaia_is_read_from_s3(tmp_path, s3, variable):
    images = [write_exposure(tmp_path / f"{name}.asdf", *PLACES[name]) for name in ("field", "wrap")]
    output = tmp_path / "stars.parquet"
    # GAIADR3_S3 is the default.
    done = succeed("astrometric_catalog", output, "--images", *images, **without_aws() | {variable: s3})
    assert "stars from GAIADR3_S3 in" in done.stderr and "WARNING" not in done.stderr
    assert_holds(output, expected_ids(read_star_table(output)[1].region), "GAIADR3_S3")


def test_a_missing_catalog_on_s3_is_a_reason(tmp_path, image, s3, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3)
    monkeypatch.setattr(hats, "GAIA_DR3", "stpubdata/elsewhere")
    assert call(tmp_path / "stars.parquet", image, "GAIADR3_S3") == 0
    log = assert_failed(tmp_path / "stars.parquet", "GAIADR3_S3", "elsewhere/partition_info.csv", capsys)
    assert "Attempt 1 failed" not in log, "there is nothing to wait for"


# ------------------------------------------------------------------------------------------------------------------ troubles
def assert_failed(path, source, reason, capsys):
    """Check that an empty catalog says why, and that the log warns of it with a remedy; return the log."""
    stars, origin = read_star_table(path)
    assert len(stars) == 0 and stars.colnames == COLUMNS
    assert (origin.source, origin.status, origin.rows) == (source, "FAILED", 0)
    assert reason in origin.reason and "\n" not in origin.reason
    log = capsys.readouterr().err
    (warning,) = [line for line in log.splitlines() if "WARNING" in line]
    assert source in warning and reason in warning and "unaligned" in warning and "next run" in warning
    return log


class Service:
    """A web service of a catalog, whose answers a test chooses.

    Attributes
    ----------
    answers : list of callable
        Functions of the handler and the query, one for each request in turn; the last one answers all that follow.
    requests : list of dict
        The queries received.
    """

    def __init__(self):
        service, self.answers, self.requests = self, [], []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                address = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(address.query).items()} | {"path": address.path}
                service.requests.append(query)
                answer = service.answers[min(len(service.requests), len(service.answers)) - 1]
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answer(self, query)

            do_HEAD = do_GET  # S3's client asks so

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def service(monkeypatch):
    result = Service()
    monkeypatch.setenv("ASTROMETRIC_CATALOG_URL", result.address + "/webservices/")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", result.address)
    monkeypatch.setattr(star_catalogs, "FIRST_PAUSE", 0.01)
    yield result
    result.server.shutdown()
    result.server.server_close()


def send(handler, body, status=200, kind="text/csv", length=None):
    body = body.encode() if isinstance(body, str) else body
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def csv_answer(query):
    """The stars around a place and some beyond, in the service's form: moved to the epoch where they have a motion."""
    circle = Circle(float(query["RA"]), float(query["DEC"]), 1.2 * float(query["SR"]))
    inside = Region((circle,)).contains(STARS["ra"], STARS["dec"])
    stars = {name: values[inside] for name, values in STARS.items()}
    # Within a day of the Julian year: what that does to a parallax of 4 mas is seen below.
    ra, dec = propagate(*(stars[n] for n in ("ra", "dec", "pmra", "pmdec", "parallax", "ref_epoch")), float(query["EPOCH"]))
    still = np.isnan(ra)
    text = io.StringIO()
    text.write(f"#Number of sources : {inside.sum()}\n")
    writer = csv.writer(text)
    writer.writerow(["objID", "RA", "Dec", "pmra", "pmdec", "mag", "epoch"])
    for i in range(inside.sum()):
        position = (
            (stars["ra"][i], stars["dec"][i], "", "") if still[i] else (ra[i], dec[i], stars["pmra"][i], stars["pmdec"][i])
        )
        mag = stars["phot_g_mean_mag"][i]
        writer.writerow([stars["source_id"][i], *position, "" if np.isnan(mag) else mag, query["EPOCH"]])
    return text.getvalue()


def answer_well(handler, query):
    send(handler, csv_answer(query))


def test_stars_come_from_the_web_service(tmp_path, service):
    service.answers = [answer_well]
    names = ("field", "wrap", "north")
    images = [write_exposure(tmp_path / f"{name}.asdf", *PLACES[name]) for name in names]
    images += [write_exposure(tmp_path / "dither.asdf", *offset(*PLACES["field"], 0.02))]  # overlaps the first
    assert call(tmp_path / "stars.parquet", images, "gaiadr3") == 0
    assert len(service.requests) == 3
    for query in service.requests:
        assert query["path"] == "/webservices/vo/CatalogSearch.aspx"
        assert (query["FORMAT"], query["CAT"]) == ("CSV", "GAIADR3")
        assert float(query["EPOCH"]) == pytest.approx(Time("2026-10-01T00:01:24").decimalyear, abs=1e-5)
    stars, origin = read_star_table(tmp_path / "stars.parquet")
    assert (origin.source, origin.status) == ("GAIADR3", "SUCCESS")
    assert np.isnan(stars["ra_error"]).all() and np.isnan(stars["mag"]).sum() < 0.1 * len(stars)
    # The cut is at the exposures' epoch here: stars at its edge may be in or out.
    ids = expected_ids(origin.region)
    assert abs(len(ids) - len(stars)) <= 2
    sky = SkyCoord(STARS["ra"] * u.deg, STARS["dec"] * u.deg)
    order, away, _ = SkyCoord(stars["ra"] * u.deg, stars["dec"] * u.deg).match_to_catalog_sky(sky)
    assert len(set(order)) == len(stars) and away.arcsec.max() < 1.5
    assert np.isfinite(STARS["pmra"][order]).all()
    motion = (STARS[name][order] for name in ("ra", "dec", "pmra", "pmdec", "parallax", "ref_epoch"))
    there = unit_vectors(*propagate(*motion, origin.epoch))
    assert separation(there, unit_vectors(stars["ra"], stars["dec"])).max() * 3.6e6 < 0.1


def test_an_empty_answer_of_the_web_service_is_an_empty_catalog(tmp_path, image, service):
    service.answers = [lambda handler, query: send(handler, "No data records found.")]
    assert call(tmp_path / "stars.parquet", image, "GAIADR2") == 0
    stars, origin = read_star_table(tmp_path / "stars.parquet")
    assert (len(stars), origin.status, origin.reason) == (0, "SUCCESS", "the catalog has no stars there")
    assert service.requests[0]["CAT"] == "GAIADR2"


def break_off(handler, query):
    body = csv_answer(query)
    send(handler, body[: len(body) // 2], length=len(body))
    handler.close_connection = True


def cut_line(handler, query):
    body = csv_answer(query)
    send(handler, body[: body.rindex(",", 0, body.rindex(","))])


PASSING = {
    "server error": (lambda handler, query: send(handler, "sorry", 500), "500"),
    "too many requests": (lambda handler, query: send(handler, "later", 429), "429"),
    "page": (lambda handler, query: send(handler, "<!DOCTYPE html><html>maintenance</html>", kind="text/html"), "HTML page"),
    "empty": (lambda handler, query: send(handler, ""), "answer is empty"),
    "no columns": (lambda handler, query: send(handler, "error: database is down\n"), "no columns ra and dec"),
    "words": (lambda handler, query: send(handler, "ra,dec,mag\n1,2,none\n"), "text where numbers should be"),
    "broken off": (break_off, "IncompleteRead"),
    "cut off": (cut_line, "truncated"),
    "hung up": (lambda handler, query: handler.connection.shutdown(socket.SHUT_RDWR), "Connection"),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_temporary_failures_are_tried_again(tmp_path, image, service, trouble):
    service.answers = [PASSING[trouble][0]] * 2 + [answer_well]
    assert call(tmp_path / "stars.parquet", image, "GAIADR3") == 0
    stars, origin = read_star_table(tmp_path / "stars.parquet")
    assert origin.status == "SUCCESS" and len(stars) > 5
    assert len(service.requests) == 3


@pytest.mark.parametrize("trouble", PASSING)
def test_permanent_failures_are_recorded_with_the_reason(tmp_path, image, service, capsys, trouble):
    answer, reason = PASSING[trouble]
    service.answers = [answer]
    assert call(tmp_path / "stars.parquet", image, "GAIADR3") == 0
    assert len(service.requests) == star_catalogs.ATTEMPTS
    assert_failed(tmp_path / "stars.parquet", "GAIADR3", reason, capsys)


def test_a_refused_request_is_not_repeated(tmp_path, image, service, capsys):
    service.answers = [lambda handler, query: send(handler, "", 404)]
    assert call(tmp_path / "stars.parquet", image, "GAIAREFCAT") == 0
    assert len(service.requests) == 1
    assert_failed(tmp_path / "stars.parquet", "GAIAREFCAT", "404", capsys)


@pytest.mark.parametrize("source", ["GAIADR3", "GAIADR3_S3"])
def test_an_unreachable_server_is_a_reason(tmp_path, image, monkeypatch, capsys, source):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("ASTROMETRIC_CATALOG_URL", address)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    monkeypatch.setattr(star_catalogs, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(star_catalogs, "ATTEMPTS", 2)
    assert call(tmp_path / "stars.parquet", image, source) == 0
    assert_failed(tmp_path / "stars.parquet", source, "onnect", capsys)


def test_a_server_error_of_s3_is_tried_again(tmp_path, image, service, capsys, monkeypatch):
    monkeypatch.setattr(star_catalogs, "ATTEMPTS", 2)
    service.answers = [lambda handler, query: send(handler, "", 503)]
    assert call(tmp_path / "stars.parquet", image, "GAIADR3_S3") == 0
    assert len(service.requests) > 1
    assert_failed(tmp_path / "stars.parquet", "GAIADR3_S3", "503", capsys)


def trickle(handler, ended):
    """An answer of 2 minutes, a byte every 50 ms."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(2400):
        handler.wfile.write(b"#")
        handler.wfile.flush()
        if ended.wait(0.05):
            return


def stall(handler, ended):
    """No answer for 2 minutes."""
    ended.wait(120)


@pytest.mark.parametrize("source", ["GAIADR3", "GAIADR3_S3"])
@pytest.mark.parametrize("slowness", [trickle, stall])
def test_a_slow_service_ends_at_the_timeout(tmp_path, image, service, source, slowness):
    """As a program, whose exit must not wait for the server either."""
    ended, answered = threading.Event(), []

    def answer(handler, query):
        slowness(handler, ended)
        answered.append(ended.is_set())

    service.answers = [answer]
    output = tmp_path / "stars.parquet"
    timeout = 1 if source == "GAIADR3" else 4  # the import of S3's client takes one second of it, and more on a busy machine
    arguments = ("--images", image, "--astrometric_catalog", source, "--vo_timeout", timeout)
    done = succeed("astrometric_catalog", output, *arguments)
    ended.set()
    assert service.requests and False not in answered, "the program has waited for the whole answer"
    assert "WARNING" in done.stderr and source in done.stderr
    _, origin = read_star_table(output)
    assert origin.status == "FAILED" and re.search("vo_timeout|timed out", origin.reason)


def test_programming_errors_are_not_taken_for_network_failures():
    def defect(deadline):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        star_catalogs.query_with_retries(defect, 5)


# ----------------------------------------------------------------------------------------------------------------- files
def in_region(image):
    """`STARS` as a table: those of the densest part, with many outside of the image."""
    keep = separation(unit_vectors(STARS["ra"], STARS["dec"]), unit_vectors(*PLACES["field"])) < 0.3
    return Table({name: values[keep] for name, values in STARS.items()})


@pytest.mark.parametrize("name", ["stars.ecsv", "stars.parquet", "stars.csv", "stars.fits", "STARS.ECSV"])
def test_catalogs_are_read_from_files_of_every_format(tmp_path, image, monkeypatch, name):
    table = in_region(image)
    table.write(tmp_path / name, format={"ecsv": "ascii.ecsv", "csv": "ascii.csv"}.get(name.lower().split(".")[1]))
    monkeypatch.chdir(tmp_path)
    assert call("out/catalog.parquet", image, name) == 0  # a relative path; the folder is made
    assert_holds("out/catalog.parquet", expected_ids(read_star_table("out/catalog.parquet")[1].region), str(tmp_path / name))


@pytest.mark.parametrize("suffix", ["ecsv", "parquet", "csv", "fits"])
def test_a_catalog_may_have_positions_alone(tmp_path, image, suffix):
    table = in_region(image)["ra", "dec", "phot_g_mean_mag"]
    table.rename_columns(table.colnames, ["RA", "Dec", "MAG"])
    table.write(tmp_path / f"stars.{suffix}")
    assert call(tmp_path / "catalog.parquet", image, tmp_path / f"stars.{suffix}") == 0
    stars, origin = read_star_table(tmp_path / "catalog.parquet")
    circle = origin.region[0]
    inside = Region((Circle(*circle),)).contains(table["RA"], table["Dec"])
    np.testing.assert_allclose(stars["ra"], table["RA"][inside], rtol=0, atol=1e-12)
    np.testing.assert_allclose(stars["dec"], table["Dec"][inside], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(stars["mag"], table["MAG"][inside])
    assert np.isnan(stars["ra_error"]).all()


@pytest.mark.parametrize("suffix", ["ecsv", "parquet"])
def test_a_sky_centroid_column_gives_the_positions(tmp_path, image, suffix):
    table = in_region(image)
    sky = SkyCoord(table["ra"] * u.deg, table["dec"] * u.deg)
    QTable({"label": np.arange(len(table)), "sky_centroid": sky}).write(tmp_path / f"cat.{suffix}")
    assert call(tmp_path / "catalog.parquet", image, tmp_path / f"cat.{suffix}") == 0
    stars, origin = read_star_table(tmp_path / "catalog.parquet")
    assert len(stars) > 10 and np.isnan(stars["mag"]).all()
    assert len(stars) == Region((Circle(*origin.region[0]),)).contains(table["ra"], table["dec"]).sum()


def test_units_of_the_columns_are_converted(tmp_path, image):
    table = QTable(in_region(image))
    for name, unit, other in (("ra", "deg", "rad"), ("pmra", "mas/yr", "arcsec/yr"), ("ref_epoch", "yr", "d")):
        table[name] = (table[name] * u.Unit(unit)).to(other)
    table.write(tmp_path / "stars.ecsv")
    assert call(tmp_path / "catalog.parquet", image, tmp_path / "stars.ecsv") == 0
    assert_holds(
        tmp_path / "catalog.parquet",
        expected_ids(read_star_table(tmp_path / "catalog.parquet")[1].region),
        str(tmp_path / "stars.ecsv"),
    )


def test_rows_without_a_position_are_left_out(tmp_path, image):
    (tmp_path / "stars.csv").write_text("# made by hand\nra,dec,mag\n150,2,17\n,2,17\n150.001,nan,18\n150.001,2,\n")
    assert call(tmp_path / "catalog.parquet", image, tmp_path / "stars.csv") == 0
    stars, _ = read_star_table(tmp_path / "catalog.parquet")
    np.testing.assert_array_equal(stars["ra"], [150, 150.001])
    np.testing.assert_array_equal(stars["mag"], [17, np.nan])


# ------------------------------------------------------------------------------------------------------- stars listed twice
def write_stars(path, count=12, **columns):
    """Stars on a grid around `PLACES`' field, a few arcseconds apart, as a table with other columns too."""
    steps = np.arange(count)
    table = Table({"ra": 150 + 0.002 * (steps % 4), "dec": 2 + 0.002 * (steps // 4)} | columns)
    table.write(path, overwrite=True)
    return path


@pytest.mark.parametrize("apart", [0.0, 3.0, 40.0])
def test_stars_listed_twice_are_merged(tmp_path, image, capsys, apart):
    once = Table.read(write_stars(tmp_path / "once.ecsv", mag=np.arange(12.0)))
    twice = Table({name: np.r_[once[name], once[name]] for name in once.colnames})
    twice["dec"][12:] += apart / 3.6e6
    twice.write(tmp_path / "twice.ecsv")
    assert call(tmp_path / "stars.parquet", image, tmp_path / "twice.ecsv") == 0
    stars, origin = read_star_table(tmp_path / "stars.parquet")
    assert origin.rows == 12
    np.testing.assert_allclose(stars["dec"], once["dec"] + apart / 2 / 3.6e6, rtol=0, atol=1e-11)
    np.testing.assert_allclose(stars["ra"], once["ra"], rtol=0, atol=1e-11)
    np.testing.assert_array_equal(stars["mag"], once["mag"])
    log = capsys.readouterr().err
    assert "12 of 24 entries lie within 50 mas of another and are merged with it" in log


def test_only_duplicates_of_one_star_are_merged():
    mas = 1 / 3.6e6
    stars = {
        "ra": np.array([10.0, 360 - 1e-7, 40.0, 10.0, 1e-7]),
        "dec": np.array([20.0, 0.0, -30.0, 20 + 120 * mas, 0.0]),
        "ra_error": np.array([0.1, 0.3, np.nan, 0.1, 0.4]),
        "dec_error": np.array([0.1, 0.3, np.nan, 0.1, 0.4]),
    }
    merged, count = merge_duplicates(stars)
    assert count == 1  # the pair on both sides of 0; two stars 120 mas apart stay two
    np.testing.assert_array_equal(merged["ra"][[0, 2, 3]], stars["ra"][[0, 2, 3]])
    np.testing.assert_array_equal(merged["ra_error"][[0, 2, 3]], [0.1, np.nan, 0.1])
    # 0.72 mas apart, the mean with the weights 1/0.09 and 1/0.16; errors: the smaller, and the scatter.
    east = (merged["ra"][1] + 180) % 360 - 180
    assert east / mas == pytest.approx(-0.36 + 0.72 * (1 / 0.16) / (1 / 0.09 + 1 / 0.16), abs=1e-6)
    assert 0.3 < merged["ra_error"][1] < 0.5
    alone, none = merge_duplicates({name: values[:1] for name, values in stars.items()})
    assert none == 0 and alone["ra"][0] == 10.0


@pytest.mark.parametrize("center", [(150.0, 2.0), (0.0, 89.9999), (359.9999, -45.0)])
def test_close_pairs_agree_with_a_kd_tree(center):
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(6)
    places = offset(*center, 0.003 * np.sqrt(rng.random(3000)), rng.uniform(0, 360, 3000))
    directions = unit_vectors(*(np.r_[values, values[:20]] for values in places))
    expected = cKDTree(directions).query_pairs(60 * MAS, output_type="ndarray")
    found = close_pairs(directions, 60 * MAS)
    assert len(expected) > 100
    assert {frozenset(pair) for pair in found.tolist()} == {frozenset(pair) for pair in expected.tolist()}
    assert not len(close_pairs(directions[:1], 60 * MAS))


# ----------------------------------------------------------------------------------------------------------- motions of files
def moving(count=12):
    """Motions of a file's stars, ten years before the exposures; and where the stars are then, without parallax."""
    rng = np.random.default_rng(4)
    pmra, pmdec = rng.normal(0, 20, (2, count))
    return {"pmra": pmra, "pmdec": pmdec, "parallax": np.zeros(count), "ref_epoch": np.full(count, EPOCH - 10)}


def where_they_are(path):
    stars, origin = read_star_table(path)
    return unit_vectors(stars["ra"], stars["dec"]), origin


@pytest.mark.parametrize("left_out", ["parallax", "some parallaxes", "all parallaxes"])
def test_without_a_parallax_only_the_proper_motion_is_applied(tmp_path, image, capsys, left_out):
    motions = moving()
    assert call(tmp_path / "all.parquet", image, write_stars(tmp_path / "all.ecsv", **motions)) == 0
    if left_out == "parallax":
        motions.pop("parallax")
    else:
        motions["parallax"][: 5 if left_out.startswith("some") else None] = np.nan
    assert call(tmp_path / "some.parquet", image, write_stars(tmp_path / "some.ecsv", **motions)) == 0
    expected, got = where_they_are(tmp_path / "all.parquet"), where_they_are(tmp_path / "some.parquet")
    np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=1e-15)
    assert (
        np.abs(expected[0] - unit_vectors(*Table.read(tmp_path / "all.ecsv")["ra", "dec"].columns.values())).max() > 100 * MAS
    )
    warnings = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    words = {"parallax": "no column parallax: its 12", "some parallaxes": "5 of 12", "all parallaxes": "12 of 12"}
    assert len(warnings) == 1 and words[left_out] in warnings[0] and "proper motions alone" in warnings[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pmra": "pm_ra"}, "missing: pmra; if 'pm_ra' is that, rename it$"),
        ({"pmdec": None}, "missing: pmdec$"),
        ({"ref_epoch": None}, "missing: ref_epoch$"),
        ({"ref_epoch": "Epoch"}, "missing: ref_epoch; if 'Epoch' is that, rename it$"),
        ({"pmra": "pmRA*", "pmdec": "pmDE"}, r"missing: pmra, pmdec; if 'pmRA\*' is that, rename it; if 'pmDE' is that"),
        ({"pmra": "mu_alpha_star", "pmdec": "mu_delta", "ref_epoch": None}, "missing: pmra, pmdec, ref_epoch; if"),
    ],
)
@pytest.mark.parametrize("suffix", ["ecsv", "parquet"])
def test_incomplete_motions_are_refused(tmp_path, image, capsys, change, says, suffix):
    columns = {change.get(name, name): values for name, values in moving().items()}
    columns.pop(None, None)
    path = write_stars(tmp_path / f"stars.{suffix}", **columns)
    assert call(tmp_path / "out.parquet", image, path) == 1
    assert re.search(f"{path}: .*{says}", capsys.readouterr().err, re.MULTILINE)
    assert not (tmp_path / "out.parquet").exists()


def test_other_columns_of_gaia_are_not_taken_for_motions(tmp_path, image):
    """The total motion, the errors and the correlations of Gaia's table are not taken for components."""
    others = dict.fromkeys(("pm", "pmra_error", "pmdec_error", "pmra_pmdec_corr", "ra_pmra_corr", "parallax_over_error"), 0.1)
    path = write_stars(tmp_path / "stars.ecsv", **{name: np.full(12, value) for name, value in others.items()})
    assert call(tmp_path / "out.parquet", image, path) == 0
    assert read_star_table(tmp_path / "out.parquet")[1].rows == 12


@pytest.mark.parametrize(("value", "refused"), [(57388.0, True), (2457388.5, True), (0.0, True), (2016.0, False)])
def test_an_epoch_is_a_julian_year(tmp_path, image, capsys, value, refused):
    path = write_stars(tmp_path / "stars.ecsv", **moving() | {"ref_epoch": np.full(12, value)})
    assert call(tmp_path / "out.parquet", image, path) == int(refused)
    assert ("ref_epoch is" in capsys.readouterr().err) == refused


def test_placeholder_values_are_not_taken_for_motions(tmp_path, image, capsys):
    motions = moving()
    motions["pmra"][:2], motions["parallax"][3], motions["ref_epoch"][5] = (1e20, -999999.0), -9999.0, -1.0
    assert call(tmp_path / "out.parquet", image, write_stars(tmp_path / "stars.ecsv", **motions)) == 0
    assert read_star_table(tmp_path / "out.parquet")[1].rows == 9
    log = capsys.readouterr().err
    assert "3 of 12 stars have no proper motion or ref_epoch and are left out" in log
    assert "1 of 12 stars have no parallax and are moved by their proper motions alone" in log


def test_a_file_in_which_no_motion_is_known_gives_a_warning(tmp_path, image):
    motions = moving() | {"pmra": np.full(12, np.nan)}
    assert call(tmp_path / "out.parquet", image, write_stars(tmp_path / "stars.ecsv", **motions)) == 0
    stars, origin = read_star_table(tmp_path / "out.parquet")
    assert len(stars) == 0 and origin.status == "SUCCESS"
    assert origin.reason == "all 12 stars there have no proper motion or ref_epoch, and are left out"


def test_old_positions_without_motions_give_a_warning(tmp_path, image, capsys):
    assert call(tmp_path / "o.parquet", image, write_stars(tmp_path / "s.ecsv", ref_epoch=np.full(12, 2016.0))) == 0
    assert "no proper motions: its positions of 2016.0 are taken as they are, 10.7 years" in capsys.readouterr().err


def test_gaia_stars_that_are_left_out_are_counted(tmp_path, image, hats_folder, capsys):
    assert call(tmp_path / "stars.parquet", image, hats_folder, "--margin", "600") == 0
    _, origin = read_star_table(tmp_path / "stars.parquet")
    inside = Region((Circle(*origin.region[0]),)).contains(STARS["ra"], STARS["dec"])
    without = np.isnan(STARS["pmra"][inside]).sum()
    assert without > 0
    assert f"{without} of {inside.sum()} stars have no proper motion or no parallax" in capsys.readouterr().err


def test_displacements_between_epochs_agree_with_the_positions_at_each():
    rng = np.random.default_rng(5)
    stars = {"ra": rng.uniform(0, 360, 50), "dec": rng.uniform(-60, 60, 50), "pmra": rng.normal(0, 50, 50)}
    stars |= {"pmdec": rng.normal(0, 50, 50), "parallax": rng.normal(3, 3, 50), "ref_epoch": np.full(50, 2016.0)}
    first, last = at_epoch(stars, 2026.8), at_epoch(stars, 2030.9)
    start, end = (unit_vectors(s["ra"], s["dec"]) for s in (first, last))
    moved = start + displacement(first, 2026.8, 2030.9)
    assert separation(start, end).max() * 3.6e6 > 200
    assert separation(moved / np.linalg.norm(moved, axis=1, keepdims=True), end).max() * 3.6e6 < 0.01  # (0.5 arcsec)²
    assert not displacement(first, 2026.8, 2026.8).any()
    unknown = {name: np.full(50, np.nan) for name in ("pmra", "pmdec", "parallax")}
    assert not displacement(first | unknown, 2026.8, 2030.9).any()


def test_exposures_years_apart_without_motions_give_a_warning(tmp_path, image, capsys):
    late = write_exposure(tmp_path / "late.asdf", **{"exposure.mid_time": {"value": "2030-10-01T00:01:24.000"}})
    assert call(tmp_path / "o.parquet", [image, late], write_stars(tmp_path / "s.ecsv")) == 0
    assert "up to 4.0 years apart and the stars of" in capsys.readouterr().err
    assert call(tmp_path / "o.parquet", [image, late], write_stars(tmp_path / "m.ecsv", **moving())) == 0
    assert "years apart" not in capsys.readouterr().err
    stars, origin = read_star_table(tmp_path / "o.parquet")
    np.testing.assert_allclose(stars["pmdec"], moving()["pmdec"])
    assert origin.epoch == pytest.approx(EPOCH + 2, abs=0.01)


# ---------------------------------------------------------------------------------------------------------- another attempt
def test_a_failed_catalog_query_is_repeated(tmp_path):
    path = tmp_path / "stars.parquet"
    assert next_attempt(path) == 1
    region = [[150.0, 2.0, 0.1]] * 300
    for origin, expected in (
        (Origin("GAIADR3", EPOCH, region, 0, "FAILED", 'no "network" {here}', 1), 2),
        (Origin("GAIADR3", EPOCH, region, 0, "FAILED", "still none", 2), 3),
        (Origin("GAIADR3", EPOCH, region, 0, "SUCCESS", "the catalog has no stars there", 3), 3),
        (Origin("GAIADR3", None, [], 0, "FAILED", "no image can be aligned", 3), 3),
    ):
        write_star_table(path, {}, origin)
        assert next_attempt(path) == expected
        assert read_star_table(path)[1] == origin
    for content in (b"", b"PAR1", b"other" * 10, path.read_bytes()[:-20]):
        path.write_bytes(content)
        assert next_attempt(path) == 1


# ------------------------------------------------------------------------------------------------------- mistakes of the user
@pytest.mark.parametrize("name", ["equinox", "RADESYS", "coord_frame"])
@pytest.mark.parametrize("where", ["meta", "column"])
@pytest.mark.parametrize("suffix", ["ecsv", "parquet", "fits"])
def test_other_frames_are_refused(tmp_path, image, capsys, name, where, suffix):
    path, value = tmp_path / f"stars.{suffix}", {"equinox": 1950.0, "RADESYS": "FK5", "coord_frame": "galactic"}[name]
    table = Table.read(write_stars(tmp_path / "plain.ecsv"))
    if where == "meta":
        table.meta[name] = value
    else:
        table[name] = [value] * len(table)
    if suffix == "parquet":
        arrow = pa.table({n: np.asarray(table[n]) for n in table.colnames})
        arrow = arrow.replace_schema_metadata({k: str(v) for k, v in table.meta.items() if k == name})
        pq.write_table(arrow, path)
    else:
        table.write(path)
    assert call(tmp_path / "out.parquet", image, path) == 1
    errors = capsys.readouterr().err
    assert f"its {name}" in errors.replace(name.upper()[:8], name) and str(value) in errors and "must be ICRS" in errors


def test_icrs_and_j2000_are_accepted(tmp_path, image):
    table = Table.read(write_stars(tmp_path / "plain.ecsv"))
    table.meta |= {"RADESYS": "ICRS", "EQUINOX": 2000.0, "frame": "detector"}
    table["equinox"] = "J2000.0"
    table.write(tmp_path / "stars.ecsv")
    assert call(tmp_path / "out.parquet", image, tmp_path / "stars.ecsv") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ra, dec: (dec, ra), "ra and dec must be in degrees; 12 of 12.*changed places"),
        (lambda ra, dec: (ra / 15, dec), "its ra seems to be in hours: none of its stars .* 12 would be"),
        (lambda ra, dec: tuple(np.radians([ra, dec])), "its ra and dec seem to be in radians"),
        (lambda ra, dec: (ra, np.r_[-999.0, dec[1:]]), r"1 of 12 rows are beyond 360 and 90 \(row 1: ra 150, dec -999\)"),
    ],
)
def test_positions_not_in_degrees_are_refused(tmp_path, image, capsys, change, says):
    table = Table.read(write_stars(tmp_path / "plain.ecsv"))
    Table(dict(zip(("ra", "dec"), change(*(np.array(table[n]) for n in ("ra", "dec"))), strict=True))).write(tmp_path / "s.csv")
    assert call(tmp_path / "out.parquet", image, tmp_path / "s.csv") == 1
    assert re.search(says, capsys.readouterr().err)


def test_swapped_ra_and_dec_are_noticed(tmp_path, capsys):
    image = write_exposure(tmp_path / "a.asdf", 40.0, 10.0)
    ra, dec = 40 + 0.002 * np.arange(6), np.full(6, 10.0)
    Table({"ra": dec, "dec": ra}).write(tmp_path / "s.csv")
    assert call(tmp_path / "out.parquet", image, tmp_path / "s.csv") == 1
    assert "ra and dec seem to have changed places: none of its stars is where the images are" in capsys.readouterr().err


def test_positions_in_hours_with_a_unit_are_converted(tmp_path, image):
    table = QTable.read(write_stars(tmp_path / "plain.ecsv"))
    table["ra"], table["dec"] = (np.asarray(table["ra"]) / 15) * u.hourangle, np.asarray(table["dec"]) * 3600 * u.arcsec
    table.write(tmp_path / "s.ecsv")
    assert call(tmp_path / "out.parquet", image, tmp_path / "s.ecsv") == 0
    plain = Table.read(tmp_path / "plain.ecsv")
    np.testing.assert_allclose(read_star_table(tmp_path / "out.parquet")[0]["ra"], plain["ra"], rtol=0, atol=1e-12)


def test_without_stars_on_the_images_the_message_says_where_they_are(tmp_path, image):
    Table({"ra": [10.0, 20.0], "dec": [-5.0, 5.0]}).write(tmp_path / "s.csv")
    assert call(tmp_path / "out.parquet", image, tmp_path / "s.csv") == 0
    _, origin = read_star_table(tmp_path / "out.parquet")
    assert origin.reason == ("the catalog has no stars there: its 2 rows are at ra 10.0000 to 20.0000, dec -5.0000 to +5.0000")


def test_masked_rows_are_left_out_and_counted(tmp_path, image, capsys):
    table = Table(Table.read(write_stars(tmp_path / "plain.ecsv")), masked=True)
    table["ra"].mask[:3], table["dec"][4] = True, np.nan
    table.write(tmp_path / "s.ecsv")
    assert call(tmp_path / "out.parquet", image, tmp_path / "s.ecsv") == 0
    assert read_star_table(tmp_path / "out.parquet")[1].rows == 8
    assert "4 of 12 rows have no position and are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "x,y\n1,2\n", "has columns ra and dec (in any case), or sky_centroid; this file has x, y"),
        ("a.csv", "ra,RA,dec\n1,1,2\n", "several columns ra (ra, RA)"),
        ("a.csv", "ra,dec\n10:20:30,-1:2:3\n", "can't be used as numbers in deg"),
        ("a.csv", "ra,dec\n150,200\n", "must be in degrees"),
        ("a.ecsv", "this is none\n", "can't be read"),
        ("a.csv", "", "this file has none"),
        ("a.parquet", "this is none\n", "can't be read"),
        ("a.fits", "this is none\n", "can't be read"),
        ("a.txt", "ra dec\n1 2\n", "is a file of no known kind; it takes GAIADR3_S3,"),
    ],
)
def test_a_file_that_is_not_a_catalog_is_refused(tmp_path, image, capsys, name, text, says):
    (tmp_path / name).write_text(text)
    assert call(tmp_path / "catalog.parquet", image, tmp_path / name) == 1
    errors = capsys.readouterr().err
    assert says in errors and str(tmp_path / name) in errors
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_parquet_file_without_positions_is_refused(tmp_path, image, capsys):
    pq.write_table(pa.table({"x": [1.0], "y": [2.0]}), tmp_path / "a.parquet")
    assert call(tmp_path / "catalog.parquet", image, tmp_path / "a.parquet") == 1
    assert "this file has x, y" in capsys.readouterr().err


def test_names_are_checked_without_opening_files(tmp_path):
    (tmp_path / "stars.ecsv").touch()
    (tmp_path / "gaia").mkdir()
    (tmp_path / "gaia" / "partition_info.csv").touch()
    for name in ("GAIADR3_S3", "GAIADR3", "GAIADR2", "GAIADR1", "GAIAREFCAT"):
        assert check_astrometric_catalog(name, tmp_path) == check_astrometric_catalog(name.lower(), tmp_path) == name
    for name in ("stars.ecsv", "gaia"):
        assert (
            check_astrometric_catalog(name, tmp_path)
            == check_astrometric_catalog(str(tmp_path / name), "/")
            == str(tmp_path / name)
        )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("GAIADR4", "did you mean GAIADR"),
        ("missing.ecsv", "missing.ecsv does not exist"),
        ("", "holds no HATS catalog"),
        (".", "holds no HATS catalog"),
        ("~nobody/x", "does not exist"),
        (None, "does not exist"),
    ],
)
def test_invalid_catalog_names_are_refused(tmp_path, name, says):
    with pytest.raises(RampflowError, match=says) as error:
        check_astrometric_catalog(name, tmp_path)
    assert "it takes GAIADR3_S3, GAIADR3, GAIADR2, GAIADR1, GAIAREFCAT, a file (.ecsv, .parquet, .csv, .fits)" in str(
        error.value
    )


def test_the_program_refuses_invalid_arguments(tmp_path, image):
    output = tmp_path / "out.parquet"
    for arguments, status in (
        (["--astrometric_catalog", "GAIADR4"], 1),
        (["--astrometric_catalog", "GAIADR3", "--vo_timeout", "-1"], 2),
        (["--astrometric_catalog", "GAIADR3", "--margin", "wide"], 2),
    ):
        done = run("astrometric_catalog", output, "--images", image, *arguments)
        assert done.returncode == status and "Traceback" not in done.stderr
    assert not output.exists()
    assert call(output, tmp_path / "missing.asdf", "GAIADR3") == 1


# ------------------------------------------------------------------------------------------------------------------ the file
def test_the_catalog_file_records_its_origin(tmp_path, image, hats_folder):
    assert call(tmp_path / "stars.parquet", image, hats_folder) == 0
    table = pq.read_table(tmp_path / "stars.parquet")
    assert table.column_names == COLUMNS
    assert {field.type for field in table.schema} == {pa.float64()}
    origin = json.loads(table.schema.metadata[b"astrometric_catalog"])
    known = ["source", "epoch", "region", "rows", "status", "reason", "attempt", "title", "version", "ref_epoch"]
    assert list(origin) == known and (origin["title"], origin["ref_epoch"]) == ("gaia", 2016.0)
    assert origin["rows"] == table.num_rows


def test_the_reader_refuses_other_files(tmp_path):
    with pytest.raises(RampflowError, match="does not exist"):
        read_star_table(tmp_path / "missing.parquet")
    pq.write_table(pa.table({"ra": [1.0]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text")
    for name in ("other.parquet", "text.parquet"):
        with pytest.raises(RampflowError, match=f"{name}: is not a catalog that astrometric_catalog.py wrote"):
            read_star_table(tmp_path / name)
