"""Comparison of two runs: measures with known truth, tolerances, and what products were made of."""

import compare_runs
import numpy as np
import pyarrow as pa
import pytest

from rampflow import dq
from rampflow.comparison.catalogs import column_values, compare_catalogs, match_sources
from rampflow.comparison.images import compare_images, compare_wcs, same_values
from rampflow.comparison.measures import MEASURES, exceeded, parse_tolerances
from rampflow.comparison.origins import compare_origins, parameters_in
from rampflow.errors import RampflowError
from rampflow.pictures.pages import write_page

LOG = "2026-11-29T03:02:34.166Z :: rampflow.{step} :: INFO :: Parameters: {text}"


def image(data=1.0, err=0.5, flags=0):
    shape = (20, 30)
    return {
        "data": np.full(shape, data, np.float32),
        "err": np.full(shape, err, np.float16),
        "dq": np.full(shape, flags, np.uint32),
    }


def catalog(x, y, flux=100.0, psf_flux=90.0):
    x, y = np.asarray(x, float), np.asarray(y, float)
    return {"x_centroid": x, "y_centroid": y, "segment_flux": np.full(x.shape, flux), "psf_flux": np.full(x.shape, psf_flux)}


def test_equal_images_have_no_differences():
    one = image()
    one["data"][3, 4] = np.nan
    measures, flags, significance = compare_images(one, {name: array.copy() for name, array in one.items()})
    assert measures.pop("pixels_compared") == 599
    assert set(measures.values()) == {0} and flags == {}
    assert np.isnan(significance[3, 4]) and np.nansum(np.abs(significance)) == 0


def test_a_shift_of_an_image_is_measured_in_its_errors():
    old, new = image(), image(data=1.25)
    new["data"][0, :15] = 1 + 6 * 0.5
    measures, _, significance = compare_images(old, new)
    assert measures["pixels_different"] == 600
    assert measures["image_median"] == 0.5
    assert measures["image_rms"] == pytest.approx(np.sqrt((585 * 0.5**2 + 15 * 6**2) / 600))
    assert measures["image_beyond_5"] == 15 / 600
    assert significance[0, 0] == 6 and significance[5, 5] == 0.5


def test_pixels_that_are_not_good_in_both_images_are_not_compared_but_counted():
    old, new = image(), image(data=2.0)
    old["dq"][0, :3] = dq.DO_NOT_USE
    new["data"][1, :5] = np.inf
    measures, _, significance = compare_images(old, new)
    assert (measures["pixels_compared"], measures["pixels_gained"], measures["pixels_lost"]) == (592, 3, 5)
    assert np.isnan(significance[0, :3]).all() and np.isnan(significance[1, :5]).all()


def test_pixels_without_an_error_have_no_significance():
    old, new = image(err=0), image(data=2.0)
    measures, _, _ = compare_images(old, new)
    assert measures["pixels_different"] == 600 and np.isnan(measures["image_rms"])


def test_flags_are_counted_by_name_as_set_and_cleared():
    old, new = image(), image()
    old["dq"][0, :4] = dq.HOT | dq.LOW_QE
    new["dq"][0, :4] = dq.HOT
    new["dq"][5, :7] = dq.JUMP_DET
    measures, flags, _ = compare_images(old, new)
    assert measures["flags_different"] == 11
    assert flags == {"JUMP_DET": {"set": 7, "cleared": 0}, "LOW_QE": {"set": 0, "cleared": 4}}


def test_sources_are_matched_to_the_nearest_of_each_other_within_a_pixel():
    old = np.array([[10, 10], [20, 20], [30, 30], [np.nan, 5]])
    new = np.array([[20.2, 20], [10, 10.9], [31.5, 30], [20.4, 20]])
    one, other = match_sources(old, new)
    assert dict(zip(one.tolist(), other.tolist(), strict=True)) == {0: 1, 1: 0}


def test_catalogs_differ_by_sources_positions_and_fluxes():
    old = catalog([10, 20, 30], [10, 20, 30])
    new = catalog([10.3, 20.3, 50, 60], [10.4, 20.4, 50, 60], flux=102.0)
    measures, columns = compare_catalogs(old, new)
    assert (measures["sources_matched"], measures["sources_gained"], measures["sources_lost"]) == (2, 2, 1)
    assert measures["position_shift"] == pytest.approx(0.5)
    assert measures["segment_flux_shift"] == pytest.approx(0.02) and measures["segment_flux_scatter"] == pytest.approx(0)
    assert measures["psf_flux_shift"] == 0
    assert columns == [], "catalogs of different lengths have no rows to compare"


def test_columns_that_differ_are_named():
    old, new = catalog([10, 20], [10, 20]), catalog([10, 20], [10, 20], psf_flux=91.0)
    old["fwhm"] = new["fwhm"] = np.array([np.nan, 1.0])
    new["dust_ebv"] = np.array([0.1, 0.1])
    assert compare_catalogs(old, new)[1] == ["dust_ebv", "psf_flux"]


def test_catalogs_without_sources_can_be_compared():
    measures, _ = compare_catalogs(catalog([], []), catalog([1], [2]))
    assert (measures["sources_matched"], measures["sources_gained"], measures["sources_lost"]) == (0, 1, 0)
    assert np.isnan(measures["segment_flux_shift"])


def test_two_catalogs_without_sources_do_not_differ():
    measures, columns = compare_catalogs(catalog([], []), catalog([], []))
    assert set(measures.values()) == {0} and columns == []


def test_texts_and_lists_are_compared_as_wholes():
    columns = {"name": ["a", None, "c"], "profile": [[1, 2], [1, 2], None], "number": [1.0, np.nan, 3.0]}
    values = {name: column_values(pa.chunked_array([column])) for name, column in columns.items()}
    assert values["number"].dtype == float
    for name, column in columns.items():
        assert same_values(values[name], column_values(pa.chunked_array([column]))).all(), name
    changed = column_values(pa.chunked_array([[[1, 2], [1, 3], None]]))
    assert same_values(values["profile"], changed).tolist() == [True, False, True]


def test_a_flux_that_neither_catalog_has_is_not_measured():
    old, new = catalog([1], [2]), catalog([1], [2])
    del old["psf_flux"], new["psf_flux"]
    measures, _ = compare_catalogs(old, new)
    assert "psf_flux_shift" not in measures and measures["segment_flux_shift"] == 0
    measures, _ = compare_catalogs(old, catalog([1], [2]))
    assert np.isnan(measures["psf_flux_shift"]), "only one catalog has it"


def test_images_without_a_wcs_agree_and_one_without_does_not():
    assert compare_wcs(None, None, (10, 10)) == {"wcs_shift_median": 0.0, "wcs_shift_max": 0.0}
    assert np.isnan(compare_wcs(None, {"steps": []}, (10, 10))["wcs_shift_max"])


def test_nan_equals_nan():
    assert same_values(np.array([np.nan, 1.0]), np.array([np.nan, 2.0])).tolist() == [True, False]
    assert same_values(np.array(["a"]), np.array(["a"])).all()


def test_tolerances_are_parsed_and_applied():
    tolerances = parse_tolerances(["image_rms=0.1", "wcs_shift_max=1"])
    assert tolerances == {"image_rms": 0.1, "wcs_shift_max": 1.0}
    assert exceeded({"image_rms": 0.1, "wcs_shift_max": 1.5}, tolerances) == {"wcs_shift_max": 1.5}
    assert set(exceeded({"image_rms": np.nan}, tolerances)) == {"image_rms", "wcs_shift_max"}, "nothing was measured"


@pytest.mark.parametrize("text", ["rms=1", "image_rms", "image_rms=much", "image_rms=-1", "image_rms=nan", "pixels_compared=1"])
def test_malformed_tolerances_are_refused(text):
    with pytest.raises(RampflowError, match=f"--tolerance {text}"):
        parse_tolerances([text])


def test_parameters_are_read_from_the_log():
    lines = [
        "2026-11-29T03:02:34.166Z :: rampflow.ramp_fitting :: INFO :: Recipe 0123",
        LOG.format(step="ramp_fitting", text="rejection_threshold=4.0, names=['a', 'b'], three_group=True"),
        "romancal's line",
    ]
    assert parameters_in(lines) == {
        "ramp_fitting.rejection_threshold": "4.0",
        "ramp_fitting.names": "['a', 'b']",
        "ramp_fitting.three_group": "True",
    }


def test_what_two_products_were_made_of_is_compared():
    def meta(flat, threshold, status="COMPLETE"):
        return {
            "ref_file": {"flat": flat, "dark": "crds://dark.asdf", "crds": {"context": "roman_0001.pmap", "version": "13"}},
            "cal_logs": [LOG.format(step="ramp_fitting", text=f"rejection_threshold={threshold}")] if threshold else [],
            "cal_step": {"flat_field": status},
        }

    found = compare_origins(meta("crds://one.asdf", 4.0), meta("mine.asdf", 6.0, "SKIPPED"))
    assert found == {
        "references": {"flat": ("crds://one.asdf", "mine.asdf")},
        "parameters": {"ramp_fitting.rejection_threshold": ("4.0", "6.0")},
        "versions": {},
        "statuses": {"flat_field": ("COMPLETE", "SKIPPED")},
    }
    assert compare_origins(meta("a", 4.0), meta("a", None))["parameters"] == {}, "romancal's log is not understood"


def test_names_of_measures_are_unique():
    assert len({m.name for m in MEASURES}) == len(MEASURES)


def test_the_page_has_all_digits_of_counts(tmp_path):
    measured = {measure.name: None for measure in MEASURES} | {"pixels_compared": 253_781, "image_rms": 0.0660312}
    row = {"exposure": "r1", "verdict": "different", "reasons": [], "flags": {}, "origins": {}, "picture": None, **measured}
    content = {"old": "a", "new": "b", "rows": [row], "counts": {"different": 1}, "measures": MEASURES, "tolerances": {}}
    write_page(tmp_path / "page.html", compare_runs.TEMPLATE, content | {"made_by": "rampflow"})
    page = (tmp_path / "page.html").read_text()
    assert "<b>1 exposure:</b>" in page and ">253781 <" in page and ">0.06603 <" in page
