"""The survey's page, of 10,000 synthetic exposures with planted faults, in a browser."""

import numpy as np
import pytest
import survey
from overview_pages import change, click, errors_of, open_overview
from PIL import Image
from survey_rows import FAULTS, FOUND_BY, plant, simulate_survey, write_rows

from rampflow.errors import RampflowError
from rampflow.pictures.footprints import SIDE, outline_exposures
from rampflow.pictures.image import sky_center, tangent_plane
from rampflow.pictures.overview import MEASURED, choose_listed, contact_sheet, order_exposures, text_columns
from rampflow.quality.numbers import NUMBERS
from rampflow.quality.table import read_exposure_table, to_columns, update_table

SIZE, THUMBNAILS = 10_000, 30
#: A text that would end a script, or become an element, if it were not escaped.
REASON = "x.asdf: no </script><b id='injected'>data</b>"
FAILED = "r0009901001001001999_0001_wfi05_f129"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder; the fault of each planted exposure by its name."""
    folder = tmp_path_factory.mktemp("survey")
    rows, planted = simulate_survey(SIZE), {}
    for place, fault in enumerate(FAULTS):
        row = 997 * (place + 1)
        rows[row] = plant(rows[row], fault)
        planted[rows[row]["stem"]] = fault
    write_rows(folder, rows)
    run = {
        FAILED: {"state": "failed", "failed_step": "linearity", "reason": REASON, "association": "lost"},
        rows[0]["stem"]: {"state": "complete", "association": "first visit"},
    }
    update_table(folder, run, {})
    (folder / "first visit_report").mkdir()
    (folder / "first visit_report" / f"{rows[0]['stem']}.html").touch()
    shades = np.arange(300, dtype=np.uint8)[:, None].repeat(300, axis=1)
    for row in rows[: THUMBNAILS + 10]:
        Image.fromarray(shades).save(folder / f"{row['stem']}_cal_thumb.png")
    survey.write_survey(folder, folder / "survey.html", thumbnails=THUMBNAILS)
    return folder, planted, rows[0]["stem"]


@pytest.fixture(scope="module")
def table(results):
    return read_exposure_table(results[0])


@pytest.fixture
def page(chromium, results):
    open_overview(chromium, results[0] / "survey.html")
    yield chromium
    assert errors_of(chromium) == []


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_fits_the_screen_and_asks_the_network_for_nothing(chromium, results, width):
    path = results[0] / "survey.html"
    open_overview(chromium, path, width)
    assert chromium.errors == []
    assert chromium.requests == [path.as_uri()]
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("find('canvas').length") >= 4, "four plots"
    assert chromium.evaluate("kept()") == SIZE + 1
    addresses = "[...document.querySelectorAll('[src], link[href]')].map(e => e.getAttribute('src') ?? e.getAttribute('href'))"
    assert chromium.evaluate(f"{addresses}.filter(a => !a.startsWith('data:'))") == []


def test_numbers_of_the_page_are_those_of_the_table(page, table):
    stems = page.evaluate("model('exposures').data.stem")
    assert sorted(stems) == sorted(table)
    for name in MEASURED:
        shown = page.evaluate(f"Array.from(model('details').data['{name}'], v => Number.isFinite(v) ? v : null)")
        known = np.array([table[stem][name] for stem in stems], float)
        np.testing.assert_array_equal(np.array(shown, float), known, err_msg=name)
    assert page.evaluate("model('details').data.detector") == [table[stem]["detector"] for stem in stems]


def test_failed_exposures_and_outliers_are_first_and_marked(page, results):
    names, states, texts = (page.evaluate(f"cells({place})") for place in range(3))
    planted = results[1]
    assert names[0] == FAILED and states[0] == "failed"
    assert set(names[1 : 1 + len(planted)]) == set(planted)
    assert all(texts[1 : 1 + len(planted)]) and not any(texts[1 + len(planted) :])
    assert page.evaluate("find('.outlier').length") > 0, "in the table's cells"
    assert page.evaluate("document.getElementById('injected')") is None, "texts are escaped"
    for stem, fault in planted.items():
        number = FOUND_BY[fault]
        if number in MEASURED:
            change(page, "number", f"value = '{number}'")
            assert page.evaluate("model('marks').data.stem") == [stem]


def test_a_click_sorts(page, table):
    place = page.evaluate("find('.slick-header-column').findIndex(e => e.innerText.includes('sky rms'))")
    assert place > 0
    known = sorted(row["image_rms"] for row in table.values() if np.isfinite(row["image_rms"]))
    click(page, ".slick-header-column", "sky rms")
    page.evaluate("pause()")
    assert [float(text) for text in page.evaluate(f"cells({place})")[:10]] == pytest.approx(known[:10], rel=1e-3)
    click(page, ".slick-header-column", "sky rms")
    page.evaluate("pause()")
    shown = [float(text) for text in page.evaluate(f"cells({place})")[:10] if text != "–"]
    assert shown == pytest.approx(known[::-1][: len(shown)], rel=1e-3)


def test_a_sorted_table_stays_sorted_when_it_is_filtered(page, table):
    place = page.evaluate("find('.slick-header-column').findIndex(e => e.innerText.includes('sky rms'))")
    click(page, ".slick-header-column", "sky rms")
    for detector in ("'WFI07'", ""):
        change(page, "detector", f"value = [{detector}]")
        rows = [
            row for row in table.values() if np.isfinite(row["image_rms"]) and (row["detector"] in detector or not detector)
        ]
        known = sorted(row["image_rms"] for row in rows)
        assert [float(text) for text in page.evaluate(f"cells({place})")[:10]] == pytest.approx(known[:10], rel=1e-3)


def test_a_filter_copies_no_row_of_the_table(page):
    """It took a third of the time of a filter."""
    page.evaluate("""(() => {
      const rows = Bokeh.index.find_one(model('table')).grid.getData()
      const copy = rows.getItem
      window.copied = 0
      rows.getItem = (place) => { window.copied += 1; return copy.call(rows, place) }
    })()""")
    change(page, "detector", "value = ['WFI07']")
    assert change(page, "detector", "value = []") == SIZE + 1
    assert page.evaluate("copied") < 1000
    names = page.evaluate("cells(0)")
    assert names[0] == FAILED, "the order of the page"
    click(page, ".slick-header-column", "sky rms")
    page.evaluate("pause()")
    page.evaluate("window.copied = 0")
    change(page, "detector", "value = ['WFI07']")
    assert change(page, "detector", "value = []") == SIZE + 1
    assert page.evaluate("copied") < 1000


@pytest.mark.parametrize("heading", ["exposure", "matches", "note", "transient"])
@pytest.mark.parametrize("clicks", [1, 2])
def test_a_filter_leaves_the_order_that_a_heading_gives(page, heading, clicks):
    """Of texts, of numbers with equal and unknown ones, upwards and downwards, as the table sorts them itself."""
    change(page, "columns", "value = [...model('columns').value, 'transient']")
    page.evaluate("pause()")
    for _ in range(clicks):
        click(page, ".slick-header-column", heading)
        page.evaluate("pause()")
    order = "Array.from(Bokeh.index.find_one(model('table')).grid.getData().index)"
    before = page.evaluate(order)
    assert before != sorted(before) and len(before) == SIZE + 1
    change(page, "detector", "value = ['WFI07', 'WFI18']")
    detectors = page.evaluate("model('details').data.detector")
    assert page.evaluate(order) == [row for row in before if detectors[row] in ("WFI07", "WFI18")]
    change(page, "detector", "value = []")
    assert page.evaluate(order) == before


def test_the_selection_stays_when_a_sorted_table_is_filtered(page):
    click(page, ".slick-header-column", "sky rms")
    page.evaluate("pause()")
    row = page.evaluate("Bokeh.index.find_one(model('table')).grid.getData().index[5]")
    page.evaluate(f"model('exposures').selected.indices = [{row}]")
    change(page, "state", "value = ['complete']")
    marked = page.evaluate("""(() => { const {grid} = Bokeh.index.find_one(model('table'))
      return grid.getSelectedRows().map(place => grid.getData().index[place]) })()""")
    assert marked == [row] == page.evaluate("Array.from(model('exposures').selected.indices)")


def test_filters_choose_exposures(page, table):
    of_detector = [row for row in table.values() if row["detector"] == "WFI07"]
    assert change(page, "detector", "value = ['WFI07']") == len(of_detector)
    assert page.evaluate("model('focal').data.count") == [len(of_detector) if i == 6 else 0 for i in range(18)]
    median = np.median([row["image_median"] for row in of_detector])
    assert page.evaluate("model('focal').data.value[6]") == pytest.approx(median, rel=1e-12)
    assert page.evaluate("model('bars').data.top.reduce((a, b) => a + b)") == len(of_detector)
    shown = set(page.evaluate("cells(3)"))
    assert shown == {"WFI07"}
    both = [row for row in of_detector if row["optical_element"] == "F158"]
    assert change(page, "optical_element", "value = ['F158']") == len(both)
    limit = float(np.median([row["image_median"] for row in both]))
    assert change(page, "minimum", f"value = {limit!r}") == sum(row["image_median"] >= limit for row in both)


def test_the_footprints_of_few_exposures_are_drawn(page, table):
    assert page.evaluate("model('outlines').data.stem.length") == 0
    assert change(page, "detector", "value = ['WFI07']") == page.evaluate("model('outlines').data.stem.length")


def test_a_search_finds_words_in_any_text(page, results):
    click(page, "label", "Search")
    page.evaluate("find('input[type=text]')[0].focus()")
    page.call("Input.insertText", text="FWHM 184")
    page.evaluate("drawn()")
    assert page.evaluate("kept()") == 0
    page.evaluate("find('input[type=text]')[0].select()")
    page.call("Input.insertText", text="jump rate wfi")
    page.evaluate("drawn()")
    expected = [stem for stem, fault in results[1].items() if fault == "cosmic rays"]
    assert page.evaluate("kept()") == 1
    assert page.evaluate("cells(0)") == expected


def test_only_unusual_exposures(page, results):
    assert change(page, "unusual", "active = [0]") == len(results[1]) + 1


def test_a_selected_row_is_selected_in_the_plots_and_explained(page, results):
    click(page, ".slick-row .failed", "failed")
    page.evaluate("pause()")
    assert page.evaluate("model('exposures').selected.indices") == [0]
    text = page.evaluate("document.getElementById('chosen').innerText")
    assert FAILED in text and REASON in text and "linearity" in text
    for plot in ("trend", "sky"):
        sizes = page.evaluate(f"""model('{plot}').renderers.filter(r => r.data_source.name == 'exposures')
          .map(r => [r.selection_glyph.size.value, r.glyph.size.value])""")
        assert len(sizes) == 1 and sizes[0][0] > 2 * sizes[0][1], "a selected point is seen among others"


def test_another_column_of_the_table(page, table):
    change(page, "columns", "value = ['stem', 'chi2_median']")
    headings = page.evaluate("find('.slick-header-column').map(e => e.innerText)")
    assert headings == ["exposure", "median of the reduced χ²"]
    stem, text = page.evaluate("[cells(0)[1], cells(1)[1]]")
    assert float(text) == pytest.approx(table[stem]["chi2_median"], rel=1e-3)


def test_an_exposure_links_to_its_report(page, results, table):
    with_report = [stem for stem, row in table.items() if row["association"] == "first visit"]
    assert with_report == [results[2]]
    change(page, "search", f"value_input = '{results[2]}'")
    assert page.evaluate("find('.slick-row a').map(e => e.getAttribute('href'))") == [f"first%20visit_report/{results[2]}.html"]


def test_the_contact_sheet_follows_the_filters(page, results):
    assert page.evaluate("document.querySelectorAll('#contact figure').length") == THUMBNAILS
    assert f"of the first {THUMBNAILS} of {THUMBNAILS + 11} in the order of the table" in page.evaluate(
        "document.body.innerText"
    )
    assert page.evaluate("document.querySelector('#contact .marked .blank').textContent.trim()") == "failed"
    page.evaluate("document.querySelector('#contact img').scrollIntoView()")
    page.evaluate("document.querySelector('#contact img').decode()")
    assert page.evaluate("document.querySelector('#contact img').naturalWidth") == 112
    change(page, "detector", "value = ['WFI01']")
    shown = page.evaluate("[...document.querySelectorAll('#contact figure:not([hidden]) img')].map(e => e.alt)")
    assert shown and all("_wfi01_" in stem for stem in shown)
    assert page.evaluate("+document.getElementById('pictures').textContent") == len(shown)


# ------------------------------------------------------------------------------------------------------------ without a browser
def test_the_order_of_exposures():
    rows = [
        {"stem": "good", "state": "complete"},
        {"stem": "missing", "state": "missing"},
        {"stem": "one", "state": "complete", "outliers": "depth"},
        {"stem": "outdated", "state": "outdated"},
        {"stem": "two", "state": "complete", "outliers": "depth,jump_rate"},
        {"stem": "failed", "state": "failed"},
    ]
    columns = to_columns(rows)
    ordered = columns["stem"][order_exposures(columns)].tolist()
    assert ordered == ["failed", "two", "one", "outdated", "missing", "good"]


def test_the_top_of_the_page_has_each_kind_of_fault():
    """A lost pointing is one fault of an exposure; an exposure in stray light has several, and comes before it."""
    kinds = [["image_median", "image_rms"]] * 30 + [["s_tweakreg"], [], ["image_rms"], ["psf_fwhm"]]
    assert choose_listed(kinds, 5) == [0, 1, 2, 30, 33]
    assert choose_listed(kinds, 100) == [*range(31), 32, 33]
    assert choose_listed([["a"], ["b"], ["c"]], 2) == [0, 1]
    assert choose_listed([[]], 5) == []


def test_texts_of_an_exposure(tmp_path):
    rows = [
        {"stem": "a", "state": "complete", "s_tweakreg": "FAILED", "s_flat_field": "SKIPPED", "s_photom": "COMPLETE"},
        {"stem": "b", "state": "failed", "failed_step": "refpix", "exposure_start_time": "2027-01-01T00:00:01.500"},
        {"stem": "c", "state": "complete", "exposure_start_time": "yesterday", "association": "none", "outlier_text": "sky"},
    ]
    texts = text_columns(to_columns([row | {"reason": "too few"} for row in rows]), tmp_path, tmp_path)
    assert set(texts["steps"][0].split(", ")) == {"tweakreg FAILED", "flatfield SKIPPED"}
    assert texts["note"] == ["too few", "refpix: too few", "sky"]
    assert texts["time"][1] == 1798761601500
    assert np.isnan(texts["time"][[0, 2]]).all()
    assert texts["page"] == ["", "", ""]
    assert set(MEASURED) == {name for name, number in NUMBERS.items() if not number.is_text}


def test_links_are_relative_to_the_folder_of_the_page(tmp_path):
    (tmp_path / "results" / "visit_report").mkdir(parents=True)
    (tmp_path / "results" / "visit_report" / "a#1.html").touch()
    columns = to_columns([{"stem": "a#1", "association": "visit"}])
    for folder, expected in (("results", "visit_report/a%231.html"), ("pages", "../results/visit_report/a%231.html")):
        assert text_columns(columns, tmp_path / "results", tmp_path / folder)["page"] == [expected]


def test_a_map_has_no_step_at_right_ascension_0():
    region = "POLYGON ICRS 359.95 10.0 359.95 10.1 0.05 10.1 0.05 10.0"
    rows = [{"s_region": region, "ra_ref": 0.0, "dec_ref": 10.05}, {"ra_ref": 359.8, "dec_ref": 10.0}]
    corners, centers = outline_exposures(to_columns(rows))
    assert centers[:, 0] == pytest.approx([360.0, 359.8])
    assert corners[0, :, 0] == pytest.approx([359.95, 359.95, 360.05, 360.05])
    assert np.isnan(corners[1]).all(), "without a roll angle"
    assert outline_exposures(to_columns([{"ra_ref": 359.8}, {"ra_ref": 100.0}, {"ra_ref": 200.0}]))[1][:, 0].tolist() == [
        *(359.8, 100.0, 200.0)
    ], "an all-sky survey begins at 0"


def test_an_exposure_without_an_image_is_drawn_at_its_pointing():
    lost = {"ra_ref": 30.0, "dec_ref": 80.0, "roll_ref": 80.0}
    alone, _ = outline_exposures(to_columns([lost]))
    plane = tangent_plane(alone[0], np.array([30.0, 80.0]))
    # Roll angle less 60 degrees: the columns point 20 degrees east of north.
    along = plane[1] - plane[0]
    assert np.hypot(*along) == pytest.approx(SIDE, rel=1e-6)
    assert np.degrees(np.arctan2(*along)) == pytest.approx(20, abs=1e-6)
    np.testing.assert_allclose(sky_center(alone[0]), [30, 80], atol=1e-6)
    region = "POLYGON ICRS 10.0 0.0 10.0 0.01 10.01 0.01 10.01 0.0"
    corners, _ = outline_exposures(to_columns([lost, {"s_region": region, "ra_ref": 10.0, "dec_ref": 0.0}]))
    plane = tangent_plane(corners[0], np.array([30.0, 80.0]))
    assert np.hypot(*(plane[1] - plane[0])) == pytest.approx(0.01, rel=1e-3), "as large as the others"


def test_a_damaged_thumbnail_is_left_out(tmp_path):
    (tmp_path / "a_cal_thumb.png").write_bytes(b"no picture")
    Image.new("L", (300, 150)).save(tmp_path / "b_cal_thumb.png")
    rows = [{"stem": stem, "state": "complete"} for stem in "abc"] + [{"stem": "d", "state": "excluded"}]
    texts = text_columns(to_columns(rows), tmp_path, tmp_path)
    shown, possible = contact_sheet(texts, tmp_path, 5)
    assert [(picture["row"], bool(picture["source"])) for picture in shown] == [(1, True), (3, False)]
    assert possible == 2 and contact_sheet(texts, tmp_path, 1)[0][0]["row"] == 1


def test_a_folder_without_exposures_has_no_page(tmp_path, capsys):
    assert survey.main([str(tmp_path), str(tmp_path / "survey.html")]) == 1
    assert "has no exposures; run the workflow first" in capsys.readouterr().err
    assert not (tmp_path / "survey.html").exists()
    with pytest.raises(RampflowError, match="has no exposures"):
        survey.write_survey(tmp_path, tmp_path / "survey.html")
