"""Reddening by dust: coordinates, windows of the maps, hemispheres and damaged maps, against whole maps read by astropy."""

import gzip
import importlib.metadata
import re

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import map_coordinates

from rampflow.catalog import dust
from rampflow.errors import RampflowError

SIZE, SCALE = 96, 1.75
POLE = np.array([0.0]), np.array([90.0])
#: Headers of maps: as CRDS's, and as the files of Schlegel, Finkbeiner & Davis have it (another zero of longitude).
KINDS = {
    "cdelt": {"CDELT1": -SCALE, "CDELT2": SCALE, "CRVAL1": 0.0, "CUNIT1": "deg", "CUNIT2": "deg"},
    "cd": {"CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE, "CRVAL1": 90.0, "LONPOLE": 180.0},
    "pc": {"PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8, "CDELT1": SCALE, "CDELT2": SCALE, "CRVAL1": 12.0},
}


def write_map(path, kind="cdelt", latitude=90.0, dtype=np.float32, **changes):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    values = 0.1 + 0.05 * np.sin(columns / 3.7) * np.cos(rows / 5.3) + 0.01 * np.sign(latitude)
    header = fits.Header(
        {
            "CTYPE1": "GLON-ZEA",
            "CTYPE2": "GLAT-ZEA",
            "CRPIX1": 48.5,
            "CRPIX2": 47.5,
            "CRVAL2": latitude,
            **KINDS[kind],
            **changes,
        }
    )
    image = fits.PrimaryHDU(values.astype(dtype), header=header)
    image.writeto(path, overwrite=True)
    return path


@pytest.fixture
def maps(tmp_path):
    return {"north": write_map(tmp_path / "n.fits"), "south": write_map(tmp_path / "s.fits", latitude=-90.0)}


def positions(number, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, number), np.degrees(np.arcsin(rng.uniform(-1, 1, number)))


def expected(path, ra, dec):
    """The whole map, read and interpolated by astropy and scipy."""
    sky = SkyCoord(ra * units.deg, dec * units.deg).galactic
    with fits.open(path) as file:
        x, y = WCS(file[0].header).wcs_world2pix(sky.l.deg, sky.b.deg, 0)
        return map_coordinates(file[0].data.astype(float), [y, x], order=3, mode="nearest")


def test_the_module_names_the_installed_version_and_its_tests():
    version = re.search(r"Stands for\n    astropy (\d[\d.]*),", dust.__doc__)[1]
    assert version == importlib.metadata.version("astropy"), "measure dust anew with astropy, and say so"
    assert all(callable(globals()[test]) for test in re.search(r"Tests\n    (.*)", dust.__doc__)[1].split(", "))


def test_galactic_coordinates_agree_with_astropy():
    ra, dec = positions(2000)
    ra, dec = np.append(ra, [0, 0, *dust.POLE[:1], np.nan]), np.append(dec, [90, -90, *dust.POLE[1:], np.nan])
    sky = SkyCoord(ra * units.deg, dec * units.deg).galactic
    longitude, latitude = dust.galactic(ra, dec)
    found = SkyCoord(longitude, latitude, unit="deg", frame="galactic")
    assert sky[:-1].separation(found[:-1]).arcsec.max() < 1e-6
    assert np.isnan(longitude[-1]) and np.isnan(latitude[-1])
    assert (longitude[:-1] >= 0).all() and (longitude[:-1] < 360).all()


@pytest.mark.parametrize("latitude", [90.0, -90.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "cdelt"},
        {"kind": "cd"},
        {"kind": "cd", "CD1_2": 0.3, "CD2_1": -0.2},
        {"CRVAL1": 33.0},
        {"LONPOLE": 25.0},
        {"LONPOLE": 180.0, "LATPOLE": 90.0, "WCSAXES": 2, "BUNIT": "mag", "LAM_NSGP": 1, "COMMENT": "a map of END = 1"},
    ],
)
def test_plain_maps_agree_with_astropy(latitude, changes, tmp_path):
    path = write_map(tmp_path / "map.fits", latitude=latitude, **changes)
    longitude, sky = positions(500)[0], np.sign(latitude) * (90 - np.geomspace(1e-6, 90, 500))
    plain = dust.read_plain_map(path)
    with fits.open(path) as file:
        theirs = WCS(file[0].header).wcs_world2pix(longitude, sky, 0)
        np.testing.assert_array_equal(plain.pixels, file[0].data)
    np.testing.assert_allclose(plain.locate(longitude, sky), theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [{"kind": "pc"}, {"CROTA2": 3.0}, {"CUNIT1": "arcmin"}, {"PV2_1": 0.2}, {"CRVAL2": 89.0}, {"A_ORDER": 2}, {"BLANK": 3}],
)
def test_other_maps_are_left_to_astropy(changes, tmp_path):
    assert dust.read_plain_map(write_map(tmp_path / "map.fits", **changes)) is None
    assert dust.read_plain_map(write_map(tmp_path / "plain.fits")) is not None


@pytest.mark.parametrize("latitude", [90.0, -90.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_projection_is_that_of_the_header(kind, latitude, tmp_path):
    path = write_map(tmp_path / "map.fits", kind, latitude)
    longitude, distance = positions(500)[0], np.geomspace(1e-6, 90, 500)
    sky = SkyCoord(longitude * units.deg, np.sign(latitude) * (90 - distance) * units.deg, frame="galactic").icrs
    found = dust.interpolate_map(path, longitude, np.sign(latitude) * (90 - distance))
    np.testing.assert_allclose(found, expected(path, sky.ra.deg, sky.dec.deg), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spread", [0.05, 20.0])
@pytest.mark.slow
def test_a_window_of_the_map_has_the_values_of_the_whole_map(maps, spread):
    """At places all over the sky, those where the window ends at the edge of the map among them."""
    rng = np.random.default_rng(2)
    for ra, dec in zip(*positions(40), strict=True):
        ra = (ra + rng.uniform(-spread, spread, 30)) % 360
        dec = np.clip(dec + rng.uniform(-spread, spread, 30), -90, 90)
        found = dust.reddening(ra, dec, maps)
        inside = dust.hemispheres(ra, dec)
        wanted = np.where(inside["north"], expected(maps["north"], ra, dec), expected(maps["south"], ra, dec))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_each_side_of_the_galactic_equator_has_its_map(maps, monkeypatch):
    """At the equator itself, the northern one: as in romancal, whose condition is b >= 0."""
    sky = SkyCoord([30, 30] * units.deg, [1e-4, -1e-4] * units.deg, frame="galactic").icrs
    north, south = dust.reddening(sky.ra.deg, sky.dec.deg, maps)
    assert north == pytest.approx(expected(maps["north"], sky.ra.deg, sky.dec.deg)[0], abs=1e-6)
    assert south == pytest.approx(expected(maps["south"], sky.ra.deg, sky.dec.deg)[1], abs=1e-6)
    assert abs(north - south) > 1e-3
    monkeypatch.setattr(dust, "galactic", lambda longitude, latitude: (longitude, latitude))
    equator = dust.hemispheres(np.zeros(1), np.zeros(1))
    assert equator["north"].all() and not equator["south"].any()


@pytest.mark.parametrize("latitude", [90.0, -90.0])
def test_the_pole_is_the_reference_pixel(maps, latitude):
    pole = SkyCoord(0 * units.deg, latitude * units.deg, frame="galactic").icrs
    path = maps["north" if latitude > 0 else "south"]
    with fits.open(path) as file:
        wanted = map_coordinates(file[0].data.astype(float), [[46.5], [47.5]], order=3, mode="nearest")
    assert dust.reddening(np.array([pole.ra.deg]), np.array([pole.dec.deg]), maps) == pytest.approx(wanted, abs=1e-6)


def test_positions_without_a_map_are_nan(maps):
    ra, dec = np.array([np.nan, 192.86, 12.86]), np.array([10.0, 27.1, -27.1])
    assert np.isnan(dust.reddening(ra, dec, {})).all()
    assert np.isnan(dust.reddening(ra, dec, maps)).tolist() == [True, False, False]
    assert np.isnan(dust.reddening(ra, dec, {"south": maps["south"]})).tolist() == [True, True, False]
    assert dust.reddening(ra[:0], dec[:0], maps).shape == (0,)


def test_integers_are_scaled(tmp_path):
    path = write_map(tmp_path / "map.fits", dtype=np.float64)
    with fits.open(path) as file:
        values, header = file[0].data, file[0].header
    stored = fits.PrimaryHDU(values, header=header)
    stored.scale("int32", bscale=1e-8, bzero=0.5)
    stored.writeto(tmp_path / "scaled.fits")
    ra, dec = positions(50)
    found, wanted = (dust.reddening(ra, dec, {"north": tmp_path / name}) for name in ("scaled.fits", "map.fits"))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"CTYPE1": "RA---TAN"}, "CTYPE1 is RA---TAN; it takes GLON-ZEA"),
        ({"CTYPE2": "LAMBERT--Y"}, "CTYPE2 is LAMBERT--Y; it takes GLAT-ZEA"),
        ({"CDELT1": 0.0}, "can't be read as a dust map"),
        ({"CUNIT1": "spam"}, "can't be read as a dust map"),
    ],
)
def test_another_projection_is_refused(tmp_path, changes, said):
    path = write_map(tmp_path / "map.fits", **changes)
    with pytest.raises(RampflowError, match=f"map.fits: {said}"):
        dust.interpolate_map(path, *POLE)


def test_the_map_of_the_other_hemisphere_is_refused(maps):
    """All positions would have the value of its edge."""
    ra, dec = np.array([192.86, 12.86]), np.array([27.1, -27.1])
    swapped = {"north": maps["south"], "south": maps["north"]}
    with pytest.raises(RampflowError, match=r"s\.fits: is a dust map of the south \(CRVAL2 is -90\); give that of the north"):
        dust.reddening(ra[:1], dec[:1], swapped)
    with pytest.raises(RampflowError, match=r"n\.fits: is a dust map of the north \(CRVAL2 is 90\); give that of the south"):
        dust.reddening(ra[1:], dec[1:], swapped)


def test_a_compressed_map_has_the_values_of_the_plain_one(maps, tmp_path):
    ra, dec = POLE[0] + np.linspace(-0.5, 0.5, 5), POLE[1] + np.linspace(-0.5, 0.5, 5)
    packed = gzip.compress(maps["north"].read_bytes())
    path = tmp_path / "n.fits.gz"
    path.write_bytes(packed)
    found = dust.reddening(ra, dec, {"north": path})
    np.testing.assert_allclose(found, dust.reddening(ra, dec, maps), rtol=1e-6)
    assert np.isfinite(found).all() and found.std() > 0
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(RampflowError, match=r"n\.fits\.gz: can't be read as a dust map"):
        dust.reddening(ra, dec, {"north": path})


def test_a_damaged_map_is_refused(tmp_path):
    path = write_map(tmp_path / "map.fits")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RampflowError, match=r"map\.fits: is truncated"):
        dust.interpolate_map(path, *POLE)
    for content in (b"", whole[:2000], b"#ASDF 1.0.0\n" + whole, whole.replace(b"END     ", b"ENDE    ", 1)):
        path.write_bytes(content)
        with pytest.raises(RampflowError, match=r"map\.fits: can't be read as a dust map"):
            dust.interpolate_map(path, *POLE)
    path.write_bytes(whole[:30] + bytes(30) + whole[60:])
    with pytest.raises(RampflowError, match=r"map\.fits: the header is damaged"):
        dust.interpolate_map(path, *POLE)
    cube = fits.PrimaryHDU(np.zeros((2, 3, 4), np.float32))
    cube.writeto(path, overwrite=True)
    with pytest.raises(RampflowError, match="NAXIS is 3; it takes 2"):
        dust.interpolate_map(path, *POLE)
