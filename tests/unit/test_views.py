"""FITS keywords of a WCS, regions of DS9, notebooks for Imviz and the picture of the focal plane."""

import sys
import types

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from focal_plane_images import SIDE, wavy_wcs, wcs_of_detector
from regions import PixCoord, PointPixelRegion, Regions
from scipy.ndimage import binary_fill_holes, label
from scipy.spatial import KDTree

from rampflow import dq
from rampflow.errors import RampflowError
from rampflow.pictures import focal_plane
from rampflow.pictures.image import corners_of, sky_center, tangent_plane
from rampflow.views.notebooks import make_notebook, write_notebook, write_sources
from rampflow.views.region_files import COLUMNS, flag_regions, source_regions, write_regions
from rampflow.views.sip import fit_sip
from rampflow.wcs.footprint import s_region

FRAME = (4088, 4088)


# ------------------------------------------------------------------------------------------------------------- FITS WCS
def errors_at_random(found, wcs, shape, points=5000):
    """Largest error on the sky (mas) and of the inverse (pixels), each by the definition of the SIP convention."""
    rng, header = np.random.default_rng(8), found.header
    x, y = rng.uniform(-0.5, shape[1] - 0.5, points), rng.uniform(-0.5, shape[0] - 0.5, points)
    ra, dec = wcs(x, y)
    sky = SkyCoord(ra, dec, unit="deg")
    error = WCS(header).pixel_to_world(x, y).separation(sky).mas.max()
    linear = header.copy()
    linear["CTYPE1"], linear["CTYPE2"] = "RA---TAN", "DEC--TAN"
    for name in [name for name in linear if name[:2] in ("A_", "B_", "AP", "BP")]:
        del linear[name]
    u, v = (position - header[f"CRPIX{i}"] + 1 for i, position in enumerate(WCS(linear).world_to_pixel(sky), start=1))
    inverse = []
    for name, offset in (("AP", u), ("BP", v)):
        order = header.get(f"{name}_ORDER", 0)
        terms = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
        inverse.append(offset + sum(header.get(f"{name}_{i}_{j}", 0) * u**i * v**j for i, j in terms))
    found_x, found_y = (position + header[f"CRPIX{i}"] - 1 for i, position in enumerate(inverse, start=1))
    return error, np.hypot(found_x - x, found_y - y).max()


@pytest.mark.parametrize(("number", "dec"), [(1, 66.0), (11, -89.9)])
def test_fits_keywords_of_a_full_frame_are_within_a_hundredth_of_a_mas(number, dec):
    wcs, _ = wcs_of_detector(number, dec=dec, binning=1)
    found = fit_sip(wcs, FRAME)
    assert found.header["CTYPE1"] == "RA---TAN-SIP" and found.header["RADESYS"] == "ICRS"
    error, inverse = errors_at_random(found, wcs, FRAME)
    assert error < 0.01 and inverse < 1e-3
    assert found.error < 0.01 and found.inverse_error < 1e-3 and found.largest < 1e-3


@pytest.mark.slow
def test_the_error_of_a_poor_fit_is_the_largest_one_on_the_image():
    wcs = wavy_wcs(FRAME)
    found = fit_sip(wcs, FRAME)
    error, inverse = errors_at_random(found, wcs, FRAME)
    assert found.largest > 0.05
    assert found.error == pytest.approx(error, rel=0.05)
    assert found.inverse_error == pytest.approx(inverse, rel=0.05)
    assert found.header["SIPERMAS"] == pytest.approx(found.error, rel=0.01)
    assert found.header["SIPIVPIX"] == pytest.approx(found.inverse_error, rel=0.01)
    assert found.pixel_error == pytest.approx(found.error / 110, rel=0.01)


# -------------------------------------------------------------------------------------------------------------- regions
def catalog(wcs):
    """Three extended sources and two stars, one of them without a position."""
    x, y = np.array([20.0, 60.5, 100.25, 40.0, np.nan]), np.array([30.0, 99.75, 12.0, 70.0, 5.0])
    ra, dec = wcs(x, y)
    columns = {
        "label": np.array([3, 5, 7, 9, 11]),
        "x_centroid": x,
        "y_centroid": y,
        "ra_centroid": ra,
        "dec_centroid": dec,
        "semimajor": np.array([9.0, 12.0, 8.0, 4.0, 4.0]),
        "semiminor": np.array([3.0, 4.0, 5.0, 3.0, 3.0]),
        "fwhm": np.array([9.0, 9.0, 9.0, 7.0, 7.0]),
        "orientation_pix": np.array([0.0, 40.0, 300.0, 0.0, 0.0]),
        "is_extended": np.array([True, True, True, False, False]),
    }
    assert columns.keys() == set(COLUMNS)
    return columns


def read_back(path, made):
    write_regions(path, made)
    return list(Regions.read(path, format="ds9"))


def test_sources_in_pixels_come_back_from_the_file(tmp_path):
    columns = catalog(wcs_of_detector(1)[0])
    read = read_back(tmp_path / "x.reg", source_regions(columns, 3.5))
    assert [str(region.meta["text"]) for region in read] == ["3", "5", "7", "9"]
    for region, x, y in zip(read, columns["x_centroid"], columns["y_centroid"], strict=False):
        assert (region.center.x, region.center.y) == pytest.approx((x, y), abs=1e-6)
    ellipses = [(r.width, r.height, r.angle.to_value("deg")) for r in read[:3]]
    assert np.allclose(ellipses, [(54 / 3.5, 18 / 3.5, 0), (72 / 3.5, 24 / 3.5, 40), (48 / 3.5, 30 / 3.5, 300)], atol=1e-6)
    assert read[3].radius == pytest.approx(2.0, abs=1e-6)
    assert [region.meta["tag"] for region in read] == [["extended"]] * 3 + [["point"]]


def test_sources_on_the_sky_are_those_in_pixels(tmp_path):
    """Read by regions, and brought to pixels by the FITS keywords: the same places, and the same ellipses there."""
    wcs, _ = wcs_of_detector(1)
    columns = catalog(wcs)
    read = read_back(tmp_path / "x.reg", source_regions(columns, 3.5, wcs))
    fits_wcs = WCS(fit_sip(wcs, (SIDE, SIDE)).header)
    for row, region in enumerate(read):
        sky = SkyCoord(columns["ra_centroid"][row], columns["dec_centroid"][row], unit="deg")
        assert region.center.separation(sky).mas < 0.05
        pixels = region.to_pixel(fits_wcs)
        assert (pixels.center.x, pixels.center.y) == pytest.approx(
            (columns["x_centroid"][row], columns["y_centroid"][row]), abs=1e-3
        )
        if row < 3:
            assert region.width.to_value("arcsec") == pytest.approx(6 * columns["semimajor"][row], rel=1e-4)
            turned = (pixels.angle.to_value("deg") - columns["orientation_pix"][row]) % 180
            assert min(turned, 180 - turned) < 0.5  # the axes of the sky are not quite at right angles there
        else:
            assert region.radius.to_value("arcsec") == pytest.approx(7, rel=1e-4)


def inside(region, shape):
    """Pixels whose middle lies in a region."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    if isinstance(region, PointPixelRegion):
        return (x == region.center.x) & (y == region.center.y)
    return region.contains(PixCoord(x, y))


def test_regions_of_a_flag_hold_the_pixels_that_have_it_and_no_others(tmp_path):
    rng = np.random.default_rng(4)
    mask = rng.random((50, 70)) < 0.12
    mask[10:18, 20:33] = True
    flags = np.where(mask, dq.JUMP_DET | dq.HOT, 0).astype(np.uint32)
    flags[0, 0] = dq.SATURATED
    made, counts = flag_regions(flags, ["SATURATED", "JUMP_DET", "DEAD"], 10_000)
    read = read_back(tmp_path / "x.reg", made)
    jumps = [region for region in read if region.meta["tag"] == ["JUMP_DET"]]
    assert counts["SATURATED"] == (1, 1, 1) and counts["DEAD"] == (0, 0, 0)
    assert counts["JUMP_DET"] == (len(jumps), len(jumps), np.count_nonzero(flags & dq.JUMP_DET))
    assert len(read) == len(jumps) + 1
    covered = sum(inside(region, mask.shape).astype(int) for region in jumps)
    groups, number = label(flags & dq.JUMP_DET, np.ones((3, 3)))
    assert number == len(jumps)
    filled = [binary_fill_holes(groups == n) for n in range(1, number + 1)]
    np.testing.assert_array_equal(covered, sum(part.astype(int) for part in filled))


def test_regions_of_the_largest_groups_are_kept(tmp_path):
    flags = np.zeros((100, 100), np.uint32)
    flags[::4, ::4] = dq.DO_NOT_USE  # 625 single pixels
    flags[51:54, 50:54] = dq.DO_NOT_USE  # and a group, which takes two of them in
    made, counts = flag_regions(flags, ["DO_NOT_USE"], 41)
    assert counts["DO_NOT_USE"].written == 41 and counts["DO_NOT_USE"].found > 600
    read = read_back(tmp_path / "x.reg", made)
    assert type(read[0]).__name__ == "PolygonPixelRegion" and inside(read[0], flags.shape)[51:54, 50:54].all()
    points = np.array([(region.center.x, region.center.y) for region in read[1:]])
    assert points.min() < 25 and (points.max(axis=0) > 75).all(), "not the first ones alone"


def test_flags_on_the_sky_are_those_in_pixels(tmp_path):
    wcs, _ = wcs_of_detector(18)
    flags = np.zeros((SIDE, SIDE), np.uint32)
    flags[30:34, 50:58] = flags[100, 7] = dq.SATURATED
    polygon, point = read_back(tmp_path / "x.reg", flag_regions(flags, ["SATURATED"], 10, wcs)[0])
    np.testing.assert_allclose(wcs.invert(point.center.ra.deg, point.center.dec.deg), (7, 100), atol=1e-3)
    x, y = wcs.invert(polygon.vertices.ra.deg, polygon.vertices.dec.deg)
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((49.5, 57.5, 29.5, 33.5), abs=1e-3)


def test_without_the_package_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "regions", None)
    monkeypatch.setitem(sys.modules, "nbformat", None)
    with pytest.raises(RampflowError, match=r"pip install regions; in a clone: make view"):
        flag_regions(np.zeros((4, 4), np.uint32), ["DEAD"], 1)
    with pytest.raises(RampflowError, match=r"pip install nbformat; in a clone: make view"):
        make_notebook({}, {})


# ------------------------------------------------------------------------------------------------------------- notebook
class StandIn:
    """What the notebook uses of jdaviz."""

    def __init__(self):
        self.calls = []
        self.plugins = {"Orientation": types.SimpleNamespace(align_by="Pixels")}
        self.viewers = {"Image": types.SimpleNamespace(add_markers=self.add_markers)}

    def load(self, path, *, format, extension, data_label):
        self.calls.append((data_label, path, format, extension))

    def add_markers(self, table, *, use_skycoord, marker_name):
        self.calls.append((marker_name, table, use_skycoord))

    def show(self):
        self.calls.append("shown")


def run_notebook(path, monkeypatch):
    """Run the cells of a notebook as Jupyter would, with a stand-in of jdaviz; what it was called with."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    app = StandIn()
    monkeypatch.setitem(sys.modules, "jdaviz", types.SimpleNamespace(App=lambda: app))
    names = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    return app


def test_the_notebook_opens_the_images_and_marks_their_sources(tmp_path, monkeypatch):
    columns = catalog(wcs_of_detector(1)[0])
    write_sources(tmp_path / "one.ecsv", columns, sky=True)
    write_sources(tmp_path / "two.ecsv", columns, sky=False)
    images = {"one": tmp_path / "it's one_cal.asdf", "two": tmp_path / "two_cal.asdf"}
    catalogs = {"one": tmp_path / "one.ecsv", "two": tmp_path / "two.ecsv"}
    write_notebook(tmp_path / "x.ipynb", make_notebook(images, catalogs))
    app = run_notebook(tmp_path / "x.ipynb", monkeypatch)
    assert app.calls[:3] == [
        ("one", str(images["one"]), "Image", "data"),
        ("two", str(images["two"]), "Image", "data"),
        "shown",
    ]
    assert app.plugins["Orientation"].align_by == "WCS"
    (first, sky, use_sky), (second, pixels, use_pixels) = app.calls[3:]
    assert (first, use_sky, second, use_pixels) == ("sources of one", True, "sources of two", False)
    expected = SkyCoord(columns["ra_centroid"], columns["dec_centroid"], unit="deg")[:4]
    assert sky["coord"].separation(expected).mas.max() < 1e-3
    assert list(pixels["label"]) == [3, 5, 7, 9] and list(pixels["x"]) == [20, 60.5, 100.25, 40]
    assert "coord" not in Table.read(tmp_path / "two.ecsv").colnames


# ---------------------------------------------------------------------------------------------------------- focal plane
@pytest.mark.slow
def test_stars_of_all_detectors_are_where_the_sky_has_them():
    """Each star of one bright pixel is found in the mosaic where the tangent plane has it."""
    rng, tiles, stars, regions = np.random.default_rng(6), [], [], []
    for number in range(1, 19):
        wcs, _ = wcs_of_detector(number)
        data = np.ones((SIDE, SIDE), np.float32)
        for x, y in rng.integers(1, SIDE - 1, (4, 2)):
            data[y, x] = 50
            stars.append(wcs(x, y))
        regions.append(corners_of(s_region(wcs)))
        tiles.append(focal_plane.make_tile(f"WFI{number:02d}", data, data > 0, regions[-1], 1600))
    mosaic = focal_plane.compose(tiles, 1600)
    assert max(mosaic.image.shape) in (1600, 1601)
    places = tangent_plane(np.array(stars), sky_center(np.concatenate(regions))) * 3600 / mosaic.scale
    rows, columns = np.nonzero(mosaic.image == 50)
    found = KDTree(np.column_stack([-columns, rows]))
    # Where the picture begins is its own matter, and the same for all stars.
    expected = places + np.mean(found.data, axis=0) - places.mean(axis=0)
    expected += np.median(found.data[found.query(expected)[1]] - expected, axis=0)
    assert found.query(expected)[0].max() < 1 + 3.52 / mosaic.scale / 2, "half of a pixel of the images, and one of the mosaic"
    assert set(mosaic.names) == {f"WFI{n:02d}" for n in range(1, 19)}


def test_all_detectors_have_one_stretch_and_their_names():
    tiles = []
    for number, level in ((4, 1.0), (5, 2.0)):
        wcs, _ = wcs_of_detector(number)
        data = np.random.default_rng(number).normal(level, 0.1, (SIDE, SIDE)).astype(np.float32)
        tiles.append(focal_plane.make_tile(f"WFI{number:02d}", data, np.isfinite(data), corners_of(s_region(wcs)), 400))
    mosaic = focal_plane.compose(tiles, 400)
    picture = np.asarray(focal_plane.draw_mosaic(mosaic)).astype(float)
    assert picture.shape == mosaic.image.shape
    shades = []
    for column, row in (mosaic.names["WFI04"], mosaic.names["WFI05"]):
        row = picture.shape[0] - 1 - round(row)
        part = picture[row + 20 : row + 40, round(column) - 20 : round(column) + 20]  # below the name
        shades.append(np.median(part))
    assert shades[1] - shades[0] > 20, "the brighter detector is brighter in the picture"
    assert picture.max() == 255
