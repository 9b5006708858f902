"""The report of a visit of 180 exposures, with planted faults, failed and excluded exposures, in a browser."""

import numpy as np
import pytest
import report
from overview_pages import change, click, errors_of, follow, open_overview
from simulated_reports import EXCLUDED, FAILED, KILLED, REASON, SIZE, write_visit
from survey_rows import FOUND_BY

from rampflow.pictures.footprints import SIDE
from rampflow.pictures.overview import MEASURED


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page, numbers of each exposure, and fault of each planted one."""
    folder = tmp_path_factory.mktemp("visit of 180")
    rows, planted, options = write_visit(folder)
    page = folder / "visit_report.html"
    assert report.main([str(page), *options]) == 0
    return page, {row["stem"]: row for row in rows}, planted


@pytest.fixture
def lost(made):
    """Names of the failed, the killed and the excluded exposure."""
    stems = list(made[1])
    return [stems[place] for place in (FAILED, KILLED, EXCLUDED)]


@pytest.fixture
def page(chromium, made):
    open_overview(chromium, made[0])
    yield chromium
    assert errors_of(chromium) == []


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_fits_the_screen_and_is_small(chromium, made, width):
    open_overview(chromium, made[0], width)
    assert errors_of(chromium) == []
    assert chromium.requests == [made[0].as_uri()]
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("kept()") == SIZE
    assert chromium.evaluate("document.getElementById('filters').open") is (width > 600)
    assert made[0].stat().st_size < 5e6
    assert len(list(made[0].with_suffix("").iterdir())) == SIZE - 3


def test_failed_and_excluded_exposures_and_outliers_are_marked_in_the_table(page, made, lost):
    _, _, planted = made
    names, states, notes = (page.evaluate(f"cells({place})") for place in range(3))
    assert dict(zip(names, states, strict=True)) | dict.fromkeys(planted, "complete") == dict(zip(names, states, strict=True))
    assert set(names[:2]) == set(lost[:2]) and states[:2] == ["failed", "failed"]
    assert set(names[2 : 2 + len(planted)]) == set(planted) and all(notes[2 : 2 + len(planted)])
    assert (names[2 + len(planted)], states[2 + len(planted)]) == (lost[2], "excluded")
    assert not any(notes[3 + len(planted) :])
    told = dict(zip(names, notes, strict=True))
    assert (
        told[lost[0]] == f"saturation: {REASON}" and "refpix: ended without an error message, probably killed" in told[lost[1]]
    )
    for stem, fault in planted.items():
        number = FOUND_BY[fault]
        if number in MEASURED:
            change(page, "columns", f"value = ['stem', '{number}']")
            place = page.evaluate("cells(0)").index(stem)
            hovered = page.evaluate("find('.slick-row .outlier').map(e => e.title)")
            assert page.evaluate("find('.slick-row .outlier').length") == 1
            assert hovered == [told[stem]] and place < 2 + len(planted)


def test_the_top_of_the_page_says_what_needs_a_look(page, made, lost):
    lines = page.evaluate("[...document.querySelectorAll('#unusual li')].map(e => e.innerText)")
    assert len(lines) == 3 + len(made[2])
    assert lines[0].startswith(f"{lost[0]} failed: saturation: {REASON}") or lines[1].startswith(
        f"{lost[0]} failed: saturation"
    )
    assert f"2 failed, {len(made[2])} with outliers, 1 excluded" in page.evaluate("document.body.innerText").replace("\n", " ")
    linked = page.evaluate("[...document.querySelectorAll('#unusual a')].map(e => e.innerText)")
    assert set(linked) == set(made[2]), "exposures without products have no page"


def test_a_click_on_a_heading_sorts(page, made):
    place = page.evaluate("find('.slick-header-column').findIndex(e => e.innerText.includes('sky (DN/s)'))")
    for _ in range(2):
        click(page, ".slick-header-column", "sky (DN/s)")
        page.evaluate("pause()")
    shown = [float(text) for text in page.evaluate(f"cells({place})") if text != "–"]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(max(row["image_median"] for row in made[1].values()), rel=1e-3)


def test_a_click_on_a_thumbnail_opens_the_page_of_the_exposure(page, made, lost):
    figures = page.evaluate("[...document.querySelectorAll('#contact figure')].map(e => [e.className, e.textContent])")
    assert len(figures) == SIZE
    marked = [text for name, text in figures if name == "marked"]
    assert len(marked) == 3 + len(made[2])
    blanks = page.evaluate("[...document.querySelectorAll('#contact .blank')].map(e => e.textContent.trim())")
    assert blanks == ["failed", "failed", "excluded"]
    stem = page.evaluate("document.querySelector('#contact img').alt")
    follow(page, "#contact img", (made[0].with_suffix("") / f"{stem}.html").as_uri())
    assert page.evaluate("document.querySelector('h1').innerText") == stem
    follow(page, "nav a", made[0].as_uri())
    assert page.evaluate("document.querySelector('h1').innerText") == "visit"


@pytest.mark.parametrize(("width", "names"), [(1400, "WFI07"), (390, "07")])
def test_footprints_have_the_names_of_their_detectors(chromium, made, width, names):
    open_overview(chromium, made[0], width)
    chromium.evaluate("drawn()")
    shown = chromium.evaluate("model('names').data")
    assert len(set(shown["text"])) == len(shown["text"]) == 18 and names in shown["text"], "one name for ten dithers"
    per_degree = chromium.evaluate(
        "(({sky}) => [sky.inner_width / Math.abs(sky.x_range.end - sky.x_range.start),"
        " sky.inner_height / Math.abs(sky.y_range.end - sky.y_range.start)])({sky: model('sky')})"
    )
    places = np.column_stack([shown["x"], shown["y"]]) * per_degree
    wide = 7 * len(names)
    for place, other in ((i, j) for i in range(18) for j in range(i)):
        apart = np.abs(places[place] - places[other])
        assert apart[0] > wide or apart[1] > 13, "no name is on another"


def test_the_map_shows_where_exposures_without_products_point(page, made, lost):
    shown = page.evaluate("model('lost').data")
    assert set(shown["stem"]) == set(lost) and set(shown["state"]) == {"failed", "excluded"}
    regions = {stem: np.array(row["s_region"].split()[2:], float).reshape(4, 2) for stem, row in made[1].items()}
    for stem, xs, ys in zip(shown["stem"], shown["xs"], shown["ys"], strict=True):
        apart = regions[stem][:, None] - np.column_stack([xs, ys])
        apart[..., 0] = (apart[..., 0] + 180) % 360 - 180
        assert np.hypot(*apart.T).min(axis=0).max() < SIDE / 50
    assert page.evaluate("model('outlines').data.stem.length") == SIZE - 3
    ra = page.evaluate("Array.from(model('exposures').data.ra)")
    assert max(ra) - min(ra) < 1.5, "no step at right ascension 0"
    change(page, "state", "value = ['complete']")
    assert page.evaluate("model('lost').data.stem") == []


def test_the_page_of_an_exposure_has_its_numbers(chromium, made):
    _, rows, planted = made
    stem = next(stem for stem, fault in planted.items() if fault == "background")
    path = made[0].with_suffix("") / f"{stem}.html"
    for width in (1400, 390):
        chromium.open(path, width)
        assert chromium.errors == [] and chromium.requests == [path.as_uri()]
        assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    marked = chromium.evaluate("[...document.querySelectorAll('.outlier')].map(e => [e.innerText, e.title])")
    assert [value for value, text in marked if text.startswith("sky ")] == [
        format(rows[stem][name], ".5g") for name in ("image_median", "image_rms")
    ]
    assert all(text in chromium.evaluate("document.querySelector('.warnings').innerText") for _, text in marked)
    assert chromium.evaluate("document.querySelector('[rel=next]').getAttribute('href')").endswith(".html")


def test_absent_exposures_are_names_or_objects(capsys, tmp_path):
    (tmp_path / "list").write_text('{"stem": "b", "ra_ref": 1.5, "unknown": 2}\nc\n')
    assert report.read_absent(["a", f"@{tmp_path / 'list'}"]) == {
        "a": {"stem": "a"},
        "b": {"stem": "b", "ra_ref": 1.5},
        "c": {"stem": "c"},
    }
    done = report.main([str(tmp_path / "x_report.html"), *("--images", "x"), *("--ramps", "x"), "--missing", "{stem: a}"])
    assert done == 1
