"""Previews, the report, and its pictures; the page is opened in a browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import image_pictures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import report as report_script
import roman_datamodels
import show_products
import small_files
from demo_visit import ALIGNED, ASSOCIATION, CATALOGED, FIRST, SATURATED, STEMS
from overview_pages import errors_of, follow, open_overview
from PIL import Image
from products import write_products
from roman_datamodels.dqflags import pixel
from scipy.stats import chi2

from rampflow import dq
from rampflow.astrometry.star_table import Origin, write_star_table
from rampflow.chain import STATUSES
from rampflow.errors import RampflowError
from rampflow.pictures import alignment, exposure_page, image, maps, ramps, refpix

OF_ALL = {"Calibrated image", "Data quality", "χ² of the ramp fits", "Jumps", "Ramps", "Reference-pixel correction"}
SQUARE = "POLYGON ICRS  10.0 60.0 10.0 60.1 9.8 60.1 9.8 60.0"


# ---------------------------------------------------------------------------------------------------------------- images
def test_binning_averages_the_good_pixels():
    values = np.arange(30, dtype=np.float32).reshape(5, 6)
    good = np.ones((5, 6), bool)
    good[0, 0] = good[2:4, 2:4] = False
    binned = image.bin_down(np.where(good, values, np.nan), good, 2)
    assert binned.shape == (2, 3)
    assert binned[0, 0] == pytest.approx((1 + 6 + 7) / 3)
    assert np.isnan(binned[1, 1])
    assert binned[1, 2] == pytest.approx(np.mean([16, 17, 22, 23]))


@pytest.mark.parametrize("size, factor", [(4088, 4), (504, 1), (1080, 1), (1081, 2)])
def test_a_preview_is_no_larger_than_the_archives(size, factor):
    assert image.binning((size, size), 1080) == factor


def test_stretch_does_not_depend_on_the_unit():
    values = np.random.default_rng(1).normal(100, 3, (64, 64))
    values[10, 10] = 1e4
    shades = image.stretch(values)
    assert shades.max() == shades[10, 10] == 1
    assert 0.05 < np.median(shades) < 0.4
    np.testing.assert_allclose(image.stretch(7 * values - 3), shades, atol=1e-9)
    assert not image.stretch(np.full((4, 4), np.nan)).any()
    assert np.isfinite(image.stretch(np.zeros((4, 4)))).all()


@pytest.mark.parametrize("angle", [0, 60, 200])
@pytest.mark.parametrize("center", [(0.0, 0.0), (359.99, 80.0), (120.0, -89.9)])
def test_north_and_east(center, angle):
    """Corners of an image whose y axis is `angle` east of north, drawn on the tangent plane and deprojected."""
    size, scale = 100, 0.11
    pixels = np.array([(0, 0), (0, size), (size, size), (size, 0)]) - size / 2
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    # x grows to the west of a north-up image.
    east, north = np.radians(scale / 3600) * np.array([[-cos, sin], [sin, cos]]) @ pixels.T
    ra0, dec0 = np.radians(center)
    toward = np.array([np.cos(dec0) * np.cos(ra0), np.cos(dec0) * np.sin(ra0), np.sin(dec0)])
    along_ra = [-np.sin(ra0), np.cos(ra0), 0]
    vectors = toward + np.outer(east, along_ra) + np.outer(north, np.cross(toward, along_ra))
    x, y, z = vectors.T
    corners = np.degrees([np.arctan2(y, x) % (2 * np.pi), np.arctan2(z, np.hypot(x, y))]).T
    to_north, to_east, found = image.compass_directions(corners, (size, size))
    np.testing.assert_allclose(to_north, [sin, cos], atol=1e-6)
    np.testing.assert_allclose(to_east, [-cos, sin], atol=1e-6)
    assert found == pytest.approx(scale, rel=1e-6)


def test_a_picture_has_its_first_row_at_the_bottom_and_arrows_where_the_sky_is_known():
    shades = np.zeros((200, 200))
    shades[0] = 1
    plain = np.asarray(image.draw(shades))
    assert (plain[-1] == 255).all() and not plain[:-1].any()
    drawn = np.asarray(image.draw(shades, image.corners_of(SQUARE)))
    assert (drawn[:-1] == 255).sum() > 50
    assert image.corners_of(None) is None
    assert image.corners_of("CIRCLE ICRS 1 2 3") is None


def test_a_picture_names_the_software_that_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "__version__", "1.2.3")
    drawn = image.draw(image.stretch(np.ones((400, 400), np.float32)), image.corners_of(SQUARE))
    for size, expected in ((1080, 400), (300, 300)):
        image.save_picture(drawn, size, tmp_path / "x_cal.png")
        with Image.open(tmp_path / "x_cal.png") as picture:
            assert picture.text == {"Software": "rampflow 1.2.3"}
            assert picture.size == (expected, expected)


def test_an_image_without_a_good_pixel_is_black():
    assert not np.asarray(image.draw(image.stretch(np.full((8, 8), np.nan, np.float32)))).any()


@pytest.mark.parametrize("stem", STEMS)
def test_every_exposure_has_a_preview(visit, stem):
    with Image.open(visit.results / f"{stem}_cal.png") as preview, Image.open(visit.results / f"{stem}_cal_thumb.png") as small:
        assert preview.format == small.format == "PNG"
        assert preview.size == (504, 504)
        assert max(small.size) == 300
        shades = np.asarray(preview)
    if not stem.endswith(SATURATED):
        assert shades.std() > 5


def test_the_preview_shows_the_sources(visit):
    from pyarrow import parquet

    table = parquet.read_table(visit.results / f"{FIRST}_cat.parquet", columns=["x_centroid", "y_centroid", "segment_flux"])
    with Image.open(visit.results / f"{FIRST}_cal.png") as preview:
        shades = np.asarray(preview)[::-1]
    brightest = np.argsort(table["segment_flux"].to_numpy())[-10:]
    x, y = (table[name].to_numpy()[brightest].round().astype(int) for name in ("x_centroid", "y_centroid"))
    assert np.median(shades[y, x]) > np.percentile(shades, 99)


# ---------------------------------------------------------------------------------------------------------------- pictures
def test_every_flag_has_its_name():
    assert {f.name for f in pixel if f.value and not f.name.startswith("RESERVED")} == set(dq.pixel_flags())
    flags = np.zeros((10, 10), np.uint32)
    flags[:3] |= dq.HOT
    flags[0, 0] |= dq.REFERENCE_PIXEL | dq.DO_NOT_USE
    assert maps.flag_counts(flags) == {"HOT": 30, "DO_NOT_USE": 1, "REFERENCE_PIXEL": 1}
    assert maps.flag_maps(np.zeros((10, 10), np.uint32), {}) is None


def test_the_expected_density_of_chi_squared():
    """Drawn by its formula, since scipy.stats takes long to import."""
    values = np.linspace(0.1, 30, 50)
    for freedom in (2, 6, 14):
        np.testing.assert_allclose(maps.chisq_density(values, freedom), chi2.pdf(values, freedom), rtol=1e-12)


def test_pixels_of_each_kind_are_chosen():
    rng = np.random.default_rng(2)
    rate, flags, dumo = rng.normal(10, 1, (100, 100)), np.zeros((100, 100), np.uint32), np.zeros((100, 100))
    rate[3, 4], flags[3, 4] = 900, dq.SATURATED
    flags[5, 6:9], dumo[5, 6:9] = dq.JUMP_DET, (1, -30, 2)
    flags[7, 7], rate[7, 7] = dq.DO_NOT_USE | dq.SATURATED, 5000
    rate[8, 8:12] = 500
    chosen = ramps.choose_pixels(rate, flags, dumo)
    assert chosen["saturated"] == (3, 4)
    assert chosen["jump"] == (5, 7)
    assert rate[chosen["bright"]] == 500
    assert rate[chosen["sky"]] == pytest.approx(10, abs=0.1)
    assert ramps.choose_pixels(rate, np.full_like(flags, dq.DO_NOT_USE), dumo) == {}


def test_the_drawn_fit_restarts_after_a_jump():
    times = np.arange(6.0)
    counts = 100 + 2 * times + [0, 0, 0, 50, 50, 900]
    ramp = ramps.Ramp("jump", 0, 0, counts, np.array([0, 0, 0, 0, 0, dq.SATURATED], np.uint8), np.array([3]), 2.0)
    (t1, first), (t2, second) = ramps.segments(ramp, times)
    np.testing.assert_allclose(first, counts[:3])
    np.testing.assert_allclose(second, counts[3:5])
    assert (list(t1), list(t2)) == ([0, 1, 2], [3, 4])


def test_levels_of_rows_are_free_of_sources_and_channels():
    rng = np.random.default_rng(3)
    common = rng.normal(0, 5, 136)
    counts = rng.normal(0, 1, (136, 256)) + common[:, None]
    counts[:, 128:] += 70
    counts[50:60, 50:60] += 1e4
    levels = refpix.row_levels(counts)
    assert levels.shape == (128, 2)
    np.testing.assert_allclose(levels[:, 1], common[4:-4] - np.median(common[4:-4]), atol=0.6)
    assert refpix.row_scatter(levels) == pytest.approx(5, rel=0.2)


def test_residuals_are_those_of_the_same_stars():
    rng = np.random.default_rng(4)
    stars = np.column_stack([10 + rng.uniform(-0.02, 0.02, 50), 60 + rng.uniform(-0.01, 0.01, 50)])
    shift = np.array([0.3 / np.cos(np.radians(60)), -0.4]) / 3600
    after = stars + rng.normal(0, 1e-3 / 3600, stars.shape)
    after[:10] += 1 / 3600  # no stars of the catalog
    after[10] = np.nan
    found = alignment.measure_residuals(np.arange(50.0), np.arange(50.0), after + shift, after, stars)
    assert set(found.x) == set(range(11, 50))
    assert np.median(found.before, axis=0) == pytest.approx([300, -400], abs=1)
    assert alignment.rms(found.after) < 3
    assert alignment.rms(found.before) == pytest.approx(500, abs=1)
    assert alignment.measure_residuals(np.arange(50.0), np.arange(50.0), after, after, stars[:0]) is None


# ------------------------------------------------------------------------------------------------------------------ report
@pytest.fixture(scope="module")
def report(visit):
    """The report of the visit."""
    expected = {"ramp_pictures": 10, "image_pictures": 10, "association_report": 1, "report": 1}
    assert visit.jobs("report", *visit.arguments) == expected, "no step is repeated where the files between them were kept"
    run = visit.snakemake("report", *visit.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return visit.results / f"{ASSOCIATION}_report.html"


def page_of(report, stem):
    """The page of an exposure."""
    return report.with_suffix("") / f"{stem}.html"


def pictures_of(visit, stem):
    """Titles of the pictures of an exposure, and its other entries in the report."""
    folder = visit.results / "intermediates"
    images, ramp = (json.loads((folder / f"{stem}_{kind}_pictures.json").read_text()) for kind in ("image", "ramp"))
    pictures = [*images["pictures"], *ramp["pictures"]]
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture["source"].partition(",")[2]))) as opened:
            opened.load()
    return [picture["title"] for picture in pictures], images["facts"], ramp


def test_every_exposure_has_the_pictures_that_it_can_have(visit, report):
    for stem in STEMS:
        titles, facts, ramp = pictures_of(visit, stem)
        if stem.endswith(SATURATED):
            assert titles == ["Calibrated image", "Data quality"]
            continue
        assert set(titles) >= OF_ALL
        assert ("Sources" in titles) == (stem in CATALOGED)
        assert ("Alignment residuals" in titles) == (stem in ALIGNED)
        assert ("Transient of WFI18" in titles) == ("wfi18" in stem)
        improvement = 1 if "0007" in stem else 0.7  # of a flat, the lamp's own noise is not the amplifier's
        assert ramp["refpix"]["after"] < improvement * ramp["refpix"]["before"]
        if stem in ALIGNED:
            residuals = {name: np.array(values) for name, values in facts["residuals"].items()}
            assert alignment.rms(residuals["before"]) == pytest.approx(500, abs=10), "the simulated pointing error, mas"
            assert alignment.rms(residuals["after"]) < 3


def test_a_page_of_an_exposure_without_catalog_alignment_or_benchmarks(visit, report, tmp_path):
    """As where steps are skipped: nothing but its own pictures."""
    spectrum = visit.results / "intermediates" / STEMS[5]
    options = [f"--images={spectrum}_image_pictures.json", f"--ramps={spectrum}_ramp_pictures.json", f"--benchmarks={tmp_path}"]
    page = tmp_path / "alone_report.html"
    assert report_script.main([str(page), *options]) == 0
    text = page.read_text()
    assert "<h1>alone</h1>" in text and "Alignment</h2>" not in text
    assert page_of(page, STEMS[5]).read_text().count("<figure") == len(pictures_of(visit, STEMS[5])[0])


def test_it_is_known_why_an_exposure_has_no_products(tmp_path):
    line = "2026-11-28T22:00:00.000Z :: rampflow :: {} :: saturation: {}\n"
    logs, benchmarks = tmp_path / "logs", tmp_path / "benchmarks"
    for stem in ("lost", "killed"):
        (logs / stem).mkdir(parents=True)
    (logs / "lost" / "dq_init.log").write_text(line.format("INFO", "begins"))
    (logs / "lost" / "saturation.log").write_text(line.format("ERROR", "lost.asdf: data is <not> an array"))
    # Killed without an error message, while another step had ended.
    (benchmarks / "killed").mkdir(parents=True)
    for step in ("dq_init", "refpix"):
        (logs / "killed" / f"{step}.log").write_text(line.format("INFO", "begins"))
    (logs / "killed" / "photom.log").touch()
    (benchmarks / "killed" / "dq_init.tsv").touch()
    found = report_script.find_missing(["lost", "killed", "waiting"], logs, benchmarks)
    assert found["lost"] == {"state": "failed", "failed_step": "saturation", "reason": "lost.asdf: data is <not> an array"}
    assert (found["killed"]["state"], found["killed"]["failed_step"]) == ("failed", "refpix")
    assert found["killed"]["reason"].startswith("ended without an error message, probably killed")
    assert found["waiting"] == {"state": "missing", "failed_step": "", "reason": "it has not been processed"}


def test_the_head_names_every_version_and_context():
    assert report_script.tally(["roman_0001.pmap"] * 3) == "roman_0001.pmap"
    assert report_script.tally(["a", "b", "a"]) == "a (2), b (1)"


def test_a_forced_catalog_shows_columns_of_its_own_image(tmp_path):
    path = tmp_path / "x_cat.parquet"
    columns = {"x_centroid": [1.0], "forced_x_centroid": [2.0], "forced_is_extended": [True]}
    pq.write_table(pa.table(columns), path)
    found = image_pictures.catalog_columns(path, ("x_psf", "is_extended"))
    assert {name: values.tolist() for name, values in found.items()} == {"x_psf": [2.0], "is_extended": [True]}
    pq.write_table(pa.table({"x_centroid": [1.0]}), path)
    assert image_pictures.catalog_columns(path, ("x_psf",))["x_psf"].tolist() == [1.0]
    with pytest.raises(RampflowError, match=r"x_cat\.parquet: has none of the columns is_extended"):
        image_pictures.catalog_columns(path, ("is_extended",))


def test_stars_of_a_catalog_without_an_epoch_are_not_moved(tmp_path):
    stars = {"ra": [10.0, 10.5], "dec": [-1.0, 1.0], "pmra": [5000.0, np.nan], "pmdec": [5000.0, np.nan]}
    write_star_table(tmp_path / "stars.parquet", stars, Origin("mine.ecsv", None, [], 2, "SUCCESS", ""))
    found = image_pictures.star_positions(tmp_path / "stars.parquet", image=None)
    np.testing.assert_allclose(found, np.transpose([stars["ra"], stars["dec"]]), rtol=0, atol=1e-12)


def test_time_and_memory_are_of_the_steps_of_the_image(tmp_path):
    (tmp_path / "r1").mkdir()
    for name in ("refpix", "linearity"):
        (tmp_path / "r1" / f"{name}.tsv").write_text("s\tcpu_time\tmax_rss\n1.5\t2.5\t300\n")
    line = "2026-01-01T00:00:00.000Z :: rampflow.linearity :: INFO :: rampflow 0.1.0, step linearity: a.asdf -> b.asdf"
    statuses = {"refpix": "SKIPPED", "linearity": "COMPLETE"}
    facts = {"stem": "r1", "statuses": statuses, "ran": image_pictures.steps_in_log([line, "no line of a log"])}
    assert facts["ran"] == ["linearity"]
    jobs = exposure_page.jobs_of(facts, {"refpix": "was left out"}, tmp_path)
    assert {job["name"]: job["cpu"] for job in jobs if job["cpu"] is not None} == {"linearity": 2.5}
    assert {job["name"]: job["reason"] for job in jobs if job["reason"]} == {"refpix": "was left out"}
    assert (exposure_page.total(jobs, "cpu"), exposure_page.total(jobs, "memory", max)) == (2.5, 300)


def test_the_list_of_products_shows_every_status_that_is_not_complete(tmp_path, capsys):
    states = dict.fromkeys(STATUSES, "COMPLETE") | {"wfi18_transient": "N/A", "refpix": "SKIPPED", "tweakreg": "FAILED"}
    states |= {"dark_decay": "SKIPPED", "flux": "INCOMPLETE"}
    statistics = {"image_median": 1.0, "good_pixel_fraction": 0.5}
    small_files.write_image(tmp_path / "r1_cal.asdf", small_files.image(), {"cal_step": states, "statistics": statistics})
    assert show_products.main([str(tmp_path)]) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.endswith("steps not COMPLETE")
    assert row.endswith("50.0 %  _wcs.asdf, _qa.json, _cat.parquet, _segm.asdf  FAILED: tweakreg; SKIPPED: refpix, dark_decay")


def test_the_list_of_products_names_what_is_missing_or_damaged(tmp_path, capsys):
    """One image that can't be read does not hide the others."""
    states = {"complete": {}, "image": {"source_catalog": "SKIPPED"}, "partial": {}, "cut": {}, "empty": {}, "foreign": {}}
    for name, changed in states.items():
        meta = {"cal_step": dict.fromkeys(STATUSES, "COMPLETE") | changed, "file_date": "2026-11-29T03:02:34.166"}
        meta["statistics"] = {"image_median": 1.0, "good_pixel_fraction": 0.5}
        small_files.write_image(tmp_path / f"{name}_cal.asdf", small_files.image(), meta)
        write_products(
            tmp_path, name, ends=("wcs.asdf", "qa.json", *(("cat.parquet", "segm.asdf") if name == "complete" else ()))
        )
    write_products(tmp_path, "deleted", ends=("wcs.asdf", "qa.json"))
    cut = tmp_path / "cut_cal.asdf"
    cut.write_bytes(cut.read_bytes()[:-1000])
    (tmp_path / "empty_cal.asdf").write_text("")
    (tmp_path / "foreign_cal.asdf").write_text("notes")
    (tmp_path / "r_tweakreg.json").write_text(json.dumps({"exposures": {"complete": {}, "failed": {}}}))
    assert show_products.main([str(tmp_path)]) == 1
    shown = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in shown.out.split("\n\n")[0].splitlines()[1:])
    assert rows.keys() == {*states, "deleted", "failed"}
    found = {name: re.split("  +", row)[-2:] for name, row in rows.items()}
    assert found["complete"] == ["-", "-"] and found["image"] == ["-", "SKIPPED: source_catalog"]
    assert found["partial"] == ["_cat.parquet, _segm.asdf", "-"]
    assert found["deleted"] == ["_cal.asdf", "?"] and found["failed"] == ["_cal.asdf, _wcs.asdf, _qa.json", "?"]
    assert all(found[name] == ["_cal.asdf is damaged", "?"] for name in ("cut", "empty", "foreign"))
    assert "3 of 8 exposures have an image that can't be read; delete it" in shown.err and "Traceback" not in shown.err
    assert all(f"{name}_cal.asdf: " in shown.err for name in ("cut", "empty", "foreign"))


def test_warnings_are_those_of_the_exposure():
    from report import own_warnings

    lines = ["time :: rampflow.tweakreg :: WARNING :: b: FAILED, few", "time :: rampflow.photom :: WARNING :: no :: element"]
    assert own_warnings(lines, "a", ["a", "b"]) == ["photom: no :: element"]
    assert own_warnings(lines, "b", ["a", "b"]) == ["tweakreg: b: FAILED, few", "photom: no :: element"]


class _Reader(HTMLParser):
    """Addresses that a page names, and its text."""

    def __init__(self):
        super().__init__()
        self.addresses, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())

    def after(self, words):
        return self.text[self.text.index(words) + 1]


@pytest.mark.parametrize("stem", STEMS)
def test_the_page_of_an_exposure_matches_its_product(visit, report, stem):
    reader = _Reader()
    reader.feed(page_of(report, stem).read_text())
    neighbors = {STEMS[place] for place in (STEMS.index(stem) - 1, STEMS.index(stem) + 1) if 0 <= place < len(STEMS)}
    pages = {f"../{ASSOCIATION}_report.html", *(f"{name}.html" for name in neighbors)}
    assert {address for address in reader.addresses if not address.startswith("data:")} == pages
    with roman_datamodels.open(visit.results / f"{stem}_cal.asdf") as product:
        statistics = product.meta.statistics
        assert reader.after("good pixels") == format(statistics.good_pixel_fraction, ".5g")
        assert reader.after("sky") == ("–" if np.isnan(statistics.image_median) else format(statistics.image_median, ".5g"))
    entry = json.loads((visit.results / f"{ASSOCIATION}_tweakreg.json").read_text())["exposures"].get(stem, {})
    if stem in ALIGNED:
        assert reader.after("matches") == str(entry["n_matches"])
        assert reader.after("stars shared with other exposures") == str(entry["n_shared"])
    # The benchmarks of its steps, and of no other exposure.
    if not stem.endswith(SATURATED):
        with (visit.folder / "benchmarks" / stem / "refpix.tsv").open() as file:
            names, values = (line.split("\t") for line in file.read().splitlines())
        measured = dict(zip(names, values, strict=True))
        row = reader.text[reader.text.index("refpix") :][:8]
        assert format(float(measured["s"]), ".1f") in row
        assert format(float(measured["max_rss"]), ".0f") in row


def test_snakemakes_own_report_has_the_page_and_the_previews(visit, report):
    run = visit.snakemake("report", *visit.arguments, "--report", "snakemake_report.html")
    assert run.returncode == 0, run.stderr
    content = (visit.folder / "snakemake_report.html").read_text()
    assert f"{ASSOCIATION}_report.html" in content and f"{ASSOCIATION}_report/{FIRST}.html" in content
    assert all(f"{stem}_cal.png" in content for stem in STEMS)
    assert "asinh stretch" in content, "the caption"


@pytest.mark.parametrize("width", [1400, 390])
def test_the_report_in_a_browser(visit, report, chromium, width):
    open_overview(chromium, report, width)
    assert errors_of(chromium) == []
    assert chromium.requests == [report.as_uri()], "it asks the network for nothing"
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    names, states = (chromium.evaluate(f"model('exposures').data.{name}") for name in ("stem", "state"))
    assert sorted(names) == sorted(STEMS) and set(states) == {"complete"}
    numbers = {stem: json.loads((visit.results / f"{stem}_qa.json").read_text())["numbers"] for stem in STEMS}
    assert chromium.evaluate("Array.from(model('details').data.n_matches, n => n || null)") == [
        numbers[stem]["n_matches"] or None for stem in names
    ]
    assert chromium.evaluate("model('stars').data.ra.length") == len(read_stars(visit)), "all stars of a small catalog"
    assert chromium.evaluate("document.querySelectorAll('.picture').length") == 1
    text = chromium.evaluate("document.body.innerText")
    for words in (ASSOCIATION, "Footprints on the sky, with stars of the catalog", "Residuals before and after"):
        assert words in text


def read_stars(visit):
    return pq.read_table(visit.results / "intermediates" / f"{ASSOCIATION}_astrometric.parquet")


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_of_an_exposure_in_a_browser(visit, report, chromium, width):
    chromium.open(page_of(report, FIRST), width)
    chromium.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    chromium.evaluate("Promise.all([...document.images].map(i => i.decode().catch(e => e)))")
    assert chromium.errors == [] and len(chromium.requests) == 1
    assert chromium.evaluate("document.images.length") == len(pictures_of(visit, FIRST)[0])
    assert chromium.evaluate("[...document.images].filter(i => !i.naturalWidth || i.width < 200).map(i => i.alt)") == []
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    blocks = "[...document.querySelectorAll('figure, h1, nav, p, summary, .wide')]"
    assert chromium.evaluate(f"Math.max(...{blocks}.map(e => e.getBoundingClientRect().right))") <= width
    assert "Reference-pixel correction" in chromium.evaluate("document.body.innerText")


def test_a_link_opens_its_exposure(report, chromium):
    open_overview(chromium, report)
    chromium.evaluate("drawn()")
    follow(chromium, ".slick-row a", page_of(report, chromium.evaluate("cells(0)[0]")).as_uri())
