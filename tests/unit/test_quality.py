"""Numbers of exposures: measured on arrays with known values, gathered in a table, and compared with each other."""

import functools
import json
import re
import sys

import numpy as np
import pyarrow as pa
import pytest
import yaml
from astropy import units
from astropy.table import Table
from repository import ROOT
from scipy import stats
from survey_rows import FAULTS, FOUND_BY, plant, simulate_survey, write_rows

from rampflow import dq
from rampflow.errors import RampflowError
from rampflow.imports import without
from rampflow.quality import measures
from rampflow.quality.benchmarks import measure_cost
from rampflow.quality.exposure_numbers import explain_statuses, measure_sources
from rampflow.quality.limits import read_limits
from rampflow.quality.numbers import LIMITED, NUMBERS, OF_THE_RUN
from rampflow.quality.outliers import find_outliers
from rampflow.quality.table import ECSV, PARQUET, read_exposure_table, to_columns, update_table
from rampflow.step.logs import configure_logging, log_numbers, recorded_log, recorded_numbers, step_logger


# ------------------------------------------------------------------------------------------------- measured on arrays
def test_flags_are_counted_by_name():
    flags = np.zeros((4, 5), np.uint32)
    flags[0, :3], flags[1, 0] = dq.JUMP_DET, dq.JUMP_DET | dq.REFERENCE_PIXEL
    counts = {"dq_jump_det": 10}
    measures.count_flags(flags, counts)
    measures.count_flags(np.zeros_like(flags), counts)
    assert counts == {"dq_jump_det": 14, "dq_reference_pixel": 1}


def test_a_dead_channel_deviates_and_a_gradient_is_no_uniform_sky():
    rng = np.random.default_rng(1)
    sky = rng.normal(0.5, 0.1, (1016, 1016)).astype(np.float32)
    uniform = measures.measure_sky(measures.sky_cells(sky[::8], 8), 0.5, 0.1)
    # 32 rows of 128 pixels in a cell: their median is known to 1.25 σ / √4096
    assert uniform["sky_nonuniformity"] < 3 * 1.25 * 0.1 / 64 / 0.5
    assert uniform["channel_deviation"] < 0.02
    dead = sky.copy()
    dead[:, 3 * 128 - 4 : 4 * 128 - 4] = 0
    found = measures.measure_sky(measures.sky_cells(dead[::8], 8), 0.5, 0.1)
    assert found["channel_deviation"] == pytest.approx(1, abs=0.02)
    assert found["sky_nonuniformity"] < 0.01
    gradient = sky * np.linspace(0.9, 1.1, 1016, dtype=np.float32)
    found = measures.measure_sky(measures.sky_cells(gradient[::8], 8), 0.5, 0.1)
    # Channels at 0.9 … 1.1: half of them lie within 0.05 of the middle.
    assert found["sky_nonuniformity"] == pytest.approx(0.05 * 1.4826, rel=0.15)


def test_stars_hide_no_gradient_of_the_sky():
    """A tenth of the pixels of each second cell are wings of stars, which raise its median by 0.13 σ."""
    rng = np.random.default_rng(2)
    sky = rng.normal(0.25, 0.05, (504, 504)).astype(np.float32)
    for row, column in ((0, 0), (0, 252), (252, 124), (252, 380)):
        cell = sky[row : row + 252, column : column + 124]
        cell[rng.random(cell.shape) < 0.1] += 0.2
    assert measures.measure_sky(measures.sky_cells(sky, 1), 0.25, 0.05)["sky_nonuniformity"] < 0.01
    tilted = sky + 0.25 * np.linspace(-0.05, 0.05, 504, dtype=np.float32)
    # Channels at −3.75, −1.25, 1.25 and 3.75 %
    found = measures.measure_sky(measures.sky_cells(tilted, 1), 0.25, 0.05)
    assert found["sky_nonuniformity"] == pytest.approx(0.037, rel=0.2)


def test_the_sky_is_measured_on_good_pixels_alone():
    sky = np.full((32, 248), 0.5, np.float32)
    sky[:, 100:] = np.nan
    cells = measures.sky_cells(sky, 8)
    assert cells.shape == (1, 2) and cells[0, 0] == 0.5 and np.isnan(cells[0, 1])
    unknown = {"sky_nonuniformity": None, "channel_deviation": None}
    assert measures.measure_sky(cells, 0.5, 0.6).keys() == unknown.keys()
    assert all(np.isnan(value) for value in measures.measure_sky(cells, 0.5, 0.6).values()), "fainter than its noise"
    assert all(np.isnan(value) for value in measures.measure_sky(cells * np.nan, 0.5, 0.1).values())


def test_the_scatter_of_rows_is_that_of_their_offsets():
    rng = np.random.default_rng(2)
    differences = rng.normal(0, 10, (400, 2, 512)) + rng.normal(0, 5, (400, 2, 4)).repeat(128, axis=2)
    pixels = 1.09 * 10 / np.sqrt(128)  # the interquartile mean has 0.84 of the efficiency of the mean
    assert measures.measure_row_scatter(differences) == pytest.approx(np.hypot(5, pixels), rel=0.05)
    differences[:, :, 100] = 60000  # a star
    assert measures.measure_row_scatter(differences) == pytest.approx(np.hypot(5, pixels), rel=0.05)
    assert np.isnan(measures.measure_row_scatter(differences[:0]))


def test_the_offset_of_reference_pixels_does_not_change_with_the_bias_of_a_channel():
    rng = np.random.default_rng(5)
    left, right = (level + rng.normal(0, 30, 4000) for level in (5800, 6400))
    rest = rng.normal(6000, 30, 4000)
    beside = [side + 35 for side in (left, right)]
    found = measures.measure_reference_level(np.concatenate([left, right, rest]), [left, right], beside)
    assert found["reference_level"] == pytest.approx(6000, abs=10) and found["reference_offset"] == pytest.approx(-35, abs=1e-6)
    shifted = measures.measure_reference_level(
        np.concatenate([left, right, rest]) + 1000, [left + 1000, right + 1000], [beside[0] + 1000, beside[1]]
    )
    assert shifted["reference_level"] == pytest.approx(7000, abs=10)
    assert shifted["reference_offset"] == pytest.approx(-35 + 500, abs=1e-6), "one side of two"


def test_large_events_do_not_change_the_jump_rate():
    numbers = measures.summarize_jumps([10, 12, 8, 900, 10, 5], [1000] * 5 + [500], 50.0)
    assert numbers == {"jumps": 945, "jump_rate": pytest.approx(10 / (1000 * 1e-6 * 50))}


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 14, 60, 300])
def test_the_distribution_of_chi2_is_that_of_scipy(degrees):
    for chi2 in (0.3, 1.0, 7.0, 30.0, 2.0 * degrees):
        assert measures.chi2_survival(chi2, degrees) == pytest.approx(stats.chi2.sf(chi2, degrees), rel=1e-10, abs=1e-15)
    assert measures.largest_chi2(degrees)[-1] == pytest.approx(stats.chi2.ppf(0.999, degrees), rel=1e-5)


def test_fits_are_judged_by_their_degrees_of_freedom():
    rng = np.random.default_rng(3)
    unused = np.zeros((8, 200_000), np.uint8)
    unused[:3, ::2] = 4
    unused[:, :5] = 1  # nothing was fitted
    unused[:7, 5:10] = 1  # a single difference: no degree of freedom
    degrees = np.clip((unused == 0).sum(axis=0) - 1, 1, None)
    chi2 = rng.chisquare(degrees)
    limits = measures.largest_chi2(7)
    reduced, beyond = measures.judge_fits(chi2, unused, limits)
    assert reduced.size == 200_000 - 10
    numbers = measures.summarize_fits([(reduced, beyond)])
    assert abs(numbers["chi2_excess"]) < 4e-4
    assert numbers["chi2_median"] == pytest.approx(np.median(chi2[10:] / degrees[10:]))
    bad = measures.summarize_fits([measures.judge_fits(chi2 * 1.5, unused, limits)])
    assert bad["chi2_median"] == pytest.approx(1.5 * numbers["chi2_median"]) and bad["chi2_excess"] > 0.005
    assert np.isnan(measures.summarize_fits([(np.empty(0), 0)])["chi2_median"])


def catalog(number=200, seed=4, **columns):
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.2, 0.8, number)
    size[: number // 4] = 0.06
    given = {
        "psf_flux": np.full(number, 3000.0),
        "psf_flux_err": np.full(number, 20.0),
        "fluxfrac_radius_50": size,
        "fwhm": 2 * size,
        "ellipticity": np.where(size < 0.1, 0.05, 0.4),
        "warning_flags": np.zeros(number, int),
    }
    return pa.table(given | columns)


def test_psf_and_depth_follow_from_the_catalog():
    numbers = measure_sources(catalog())
    assert numbers["n_sources"] == 200 and numbers["n_stars"] == 50
    assert numbers["psf_fwhm"] == pytest.approx(0.12) and numbers["psf_ellipticity"] == pytest.approx(0.05)
    assert numbers["depth"] == pytest.approx(-2.5 * np.log10(5 * 20e-9 / 3631), abs=1e-4), "AB: 3631 Jy is 0"


def test_faint_and_flagged_sources_show_no_psf():
    flagged, faint = np.zeros(200, int), np.full(200, 3000.0)
    flagged[:25], faint[25:50] = 1, 100
    assert measure_sources(catalog(warning_flags=flagged, psf_flux=faint))["psf_fwhm"] > 0.3
    few = measure_sources(catalog().slice(0, 4))
    assert few["n_stars"] == 4 and few["psf_fwhm"] is None and few["depth"] is None
    none = measure_sources(catalog().slice(0, 0))
    assert none["n_sources"] == none["n_stars"] == 0 and none["psf_fwhm"] is None


def test_numbers_of_a_step_reach_finalize_with_the_log():
    configure_logging()
    log_numbers(step_logger("refpix"), {"row_scatter_before": np.float32(2.5), "row_scatter_after": np.nan})
    lines = ["another line", *recorded_log(), *(line.replace("2.5", "3.5") for line in recorded_log())]
    assert recorded_numbers(lines) == {"row_scatter_before": 3.5}, "that of the last run of the step"


def test_every_status_that_is_not_complete_has_a_reason():
    statuses = {"dq_init": "COMPLETE", "saturation": "COMPLETE", "refpix": "SKIPPED", "tweakreg": "FAILED"}
    start = "2026-01-01T00:00:00.000Z :: rampflow"
    lines = [
        f"{start}.refpix :: INFO :: rampflow 0.1.0, step refpix: a.asdf -> b.asdf",
        f"{start}.refpix :: WARNING :: There is no refpix reference; the step is skipped",
        f"{start}.linearity :: INFO :: rampflow 0.1.0, step linearity: a.asdf -> b.asdf",
    ]
    meta = {"cal_step": statuses, "cal_logs": lines, "exposure": {"type": "WFI_WFSC"}, "instrument": {"detector": "WFI07"}}
    reasons = explain_statuses(meta, {"reason": "too few matches"})
    assert reasons["refpix"] == "There is no refpix reference; the step is skipped"
    assert reasons["wfi18_transient"] == "does not apply to this detector"
    assert reasons["tweakreg"] == reasons["source_catalog"] == "does not apply to WFI_WFSC"
    assert reasons["linearity"] == "an earlier step has left nothing to do" and reasons["photom"] == "was left out"
    assert "dq_init" not in reasons
    image = meta | {"exposure": {"type": "WFI_IMAGE"}}
    assert explain_statuses(image, {"reason": "too few matches"})["tweakreg"] == "too few matches"


def test_the_cost_is_that_of_the_steps_that_ran(tmp_path):
    for step, seconds, memory in (("dq_init", 1.5, 300), ("refpix", 2.5, 200), ("flatfield", 9, 900)):
        (tmp_path / f"{step}.tsv").write_text(f"s\tcpu_time\tmax_rss\n{seconds}\t{2 * seconds}\t{memory}\n")
    assert measure_cost(tmp_path, ["dq_init", "refpix", "photom"]) == {"wall_time": 4, "cpu_time": 8, "peak_memory": 300}
    assert measure_cost(tmp_path, []) == dict.fromkeys(("wall_time", "cpu_time", "peak_memory"))


# ------------------------------------------------------------------------------------------------------------ the table
def test_names_of_the_archive_are_used():
    """Destinations of RAD's schemas, from which the archive's columns are made."""
    from importlib.resources import files

    schemas = [path for path in (files("rad") / "resources" / "schemas").rglob("*.yaml") if "archive" in path.read_text()]
    archive = set(re.findall(r"(?:WFICommon|WFIExposure)\.(\w+)", "".join(path.read_text() for path in schemas)))
    ours = "visit_id exposure detector optical_element exposure_type exposure_start_time exposure_time exposure_nresultants "
    ours += "ma_table_number ma_table_name ra_ref dec_ref roll_ref s_region image_median image_rms good_pixel_fraction "
    ours += "s_dq_init s_saturation s_refpix s_linearity s_ramp_fit s_dark s_assign_wcs s_photom s_flat_field s_tweakreg "
    ours += "crds_context crds_version calibration_software_name calibration_software_version filedate"
    assert set(ours.split()) <= set(NUMBERS)
    assert set(ours.split()) <= archive


def test_units_of_all_numbers_are_known_to_astropy():
    for number in NUMBERS.values():
        units.Unit(number.unit)
        assert not (number.is_text and (number.compared or number.unit))


def test_the_table_has_units_and_descriptions_in_both_files(tmp_path):
    rows = simulate_survey(40)
    write_rows(tmp_path, rows)
    update_table(tmp_path, {}, {})
    for name in (PARQUET, ECSV):
        table = Table.read(tmp_path / name)
        assert table.colnames == list(NUMBERS) and len(table) == 40
        for column, number in NUMBERS.items():
            assert str(table[column].unit or "") == str(units.Unit(number.unit)) or not number.unit
            assert table[column].description == number.meaning
        order = np.argsort([row["stem"] for row in rows])
        np.testing.assert_allclose(table["image_median"], [rows[i]["image_median"] for i in order], rtol=1e-12)
        assert list(table["detector"]) == [rows[i]["detector"] for i in order]
        assert np.isnan(table["transient"][0]) and set(table["state"]) == {"complete"}
        assert set(table.filled("")["association"]) == {""}  # ECSV has no empty text: it is masked


def test_the_example_of_the_documentation_finds_what_is_unusual(tmp_path, monkeypatch, capsys):
    """In the environment of users, which has no pandas. Without `filled`, every exposure would be unusual."""
    rows = simulate_survey(40)
    rows[7] = plant(rows[7], "background")
    (tmp_path / "results").mkdir()
    write_rows(tmp_path / "results", rows)
    findings = update_table(tmp_path / "results", {}, {})
    assert findings[rows[7]["stem"]] and sum(map(bool, findings.values())) < 5
    (example,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/how-to/survey.md").read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    with without("pandas"):
        monkeypatch.delitem(sys.modules, "pandas", raising=False)
        names = {}
        exec(example, names)
    assert set(names["unusual"]["stem"]) == {stem for stem, found in findings.items() if found}
    assert rows[7]["stem"] in capsys.readouterr().out


def test_exposures_without_products_have_rows(tmp_path):
    """Those of this run, and of other runs in the folder, until they are excluded or have products."""
    rows = simulate_survey(3)
    write_rows(tmp_path, rows)
    failed = "r0000101001001001001_0007_wfi05_f184"
    known = {
        "association": "a",
        "state": "failed",
        "failed_step": "refpix",
        "reason": "no memory",
        "exposure_type": "WFI_IMAGE",
    }
    outdated = {"association": "a", "state": "outdated", "failed_step": "photom", "reason": "no disk"}
    update_table(tmp_path, {failed: known, rows[1]["stem"]: outdated}, {})
    found = read_exposure_table(tmp_path)
    assert len(found) == 4
    assert {name: found[failed][name] for name in known} == known
    assert (found[failed]["detector"], found[failed]["optical_element"], found[failed]["exposure"]) == ("WFI05", "F184", 7)
    assert np.isnan(found[failed]["image_median"])
    assert found[rows[1]["stem"]]["state"] == "outdated" and found[rows[1]["stem"]]["image_median"] > 0
    update_table(tmp_path, {rows[0]["stem"]: {"association": "b", "state": "complete"}}, {})
    found = read_exposure_table(tmp_path)
    assert {name: found[failed][name] for name in known} == known, "another run of the folder"
    assert found[rows[0]["stem"]]["association"] == "b" and found[rows[1]["stem"]]["association"] == "a"
    assert (found[rows[1]["stem"]]["state"], found[rows[1]["stem"]]["failed_step"]) == ("outdated", "photom")
    write_rows(tmp_path, [rows[1] | {"filedate": "2027-12-31T00:00:00.000"}])
    update_table(tmp_path, {}, {})
    assert read_exposure_table(tmp_path)[rows[1]["stem"]]["state"] == "complete", "made anew by a run that was killed later"
    update_table(tmp_path, {}, {}, dropped=[failed])
    assert len(read_exposure_table(tmp_path)) == 3
    update_table(tmp_path, {failed: known}, {})
    update_table(tmp_path, {}, {}, dropped=None)
    assert failed not in read_exposure_table(tmp_path)


def test_damaged_numbers_and_a_damaged_table_hide_nothing(tmp_path):
    rows = simulate_survey(3)
    write_rows(tmp_path, rows)
    (tmp_path / f"{rows[1]['stem']}_qa.json").write_text("{")
    (tmp_path / PARQUET).write_text("no table")
    update_table(tmp_path, {}, {})
    found = read_exposure_table(tmp_path)
    assert len(found) == 3 and found[rows[1]["stem"]]["reason"] == "its numbers are damaged"


@pytest.mark.slow
def test_values_of_json_that_no_column_can_hold_are_unknown_or_replaced(tmp_path):
    numbers = f'{{"filedate": "a\\ud800b", "image_median": {10**400}, "psf_fwhm": [1], "sky_nonuniformity": Infinity}}'
    (tmp_path / "a_qa.json").write_text(f'{{"numbers": {numbers}, "reasons": {{}}}}')
    update_table(tmp_path, {}, {})
    row = read_exposure_table(tmp_path)["a"]
    assert row["filedate"] == "a?b" and row["state"] == "complete"
    assert np.isnan([row["image_median"], row["psf_fwhm"]]).all() and np.isinf(row["sky_nonuniformity"])


def test_ten_thousand_exposures_have_a_table(tmp_path):
    rows = simulate_survey(10_000)
    write_rows(tmp_path, rows)
    findings = update_table(tmp_path, {}, {})
    table = Table.read(tmp_path / PARQUET)
    assert len(findings) == len(table) == 10_000
    assert list(table["stem"]) == sorted(row["stem"] for row in rows)


# ------------------------------------------------------------------------------------------------------------- outliers
SURVEYS = {
    "large": {"number": 1000},
    "six detectors": {"number": 1000, "detectors": 6, "elements": ("F106", "F158")},
    "one element": {"number": 360, "elements": ("F129",), "exposure_times": (139.1,)},
    "one visit": {"number": 72, "elements": ("F158",)},
    "small": {"number": 24, "detectors": 3, "elements": ("F129", "F158"), "exposure_times": (139.1,)},
}


def outliers_of(rows, limits=None):
    return find_outliers(to_columns(rows), limits or {})


@functools.cache
def good_rows(survey, seed):
    """Rows of a survey of good exposures, which tests must copy before they change one."""
    return tuple(simulate_survey(seed=seed, **SURVEYS[survey]))


@pytest.mark.parametrize("survey", SURVEYS)
def test_good_exposures_are_no_outliers(survey):
    """Fewer than one in 200, by all numbers together."""
    number = flagged = 0
    for seed in range(4):
        found = outliers_of(simulate_survey(seed=seed, **SURVEYS[survey]))
        number, flagged = number + len(found), flagged + sum(map(bool, found))
    assert flagged < number / 200


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("survey", SURVEYS)
def test_planted_faults_are_found(survey, fault):
    for seed in range(3):
        rows = list(good_rows(survey, seed + 10))
        place = (7 * seed + 5) % len(rows)
        rows[place] = plant(rows[place], fault)
        found = outliers_of(rows)
        if fault == "reference pixels" and survey == "one visit":  # four exposures of a detector
            continue
        assert FOUND_BY[fault] in [finding.name for finding in found[place]]
        assert sum(map(bool, found)) < 1 + max(len(found) / 200, 1)


@pytest.mark.parametrize("fault", ["defocus", "dead channel", "wrong flat"])
@pytest.mark.parametrize("survey", ["large", "six detectors", "one element"])
def test_a_fault_of_all_exposures_of_a_detector_is_found(survey, fault):
    """Compared with each other, these exposures are alike."""
    rows = list(good_rows(survey, 20))
    chosen = [
        n for n, row in enumerate(rows) if (row["detector"], row["optical_element"]) == ("WFI03", rows[0]["optical_element"])
    ]
    for place in chosen:
        rows[place] = plant(rows[place], fault)
    found = outliers_of(rows)
    assert all(FOUND_BY[fault] in [finding.name for finding in found[place]] for place in chosen)
    assert sum(map(bool, found)) - len(chosen) < len(rows) / 200
    texts = [finding.text for finding in found[chosen[0]] if finding.name == FOUND_BY[fault]]
    assert texts[0].endswith(" detectors)")


def of_bright_field(row, sky):
    """The row of an exposure of a bright and crowded field."""
    brighter = {"image_median": sky * row["image_median"], "image_rms": sky**0.5 * row["image_rms"]}
    return row | brighter | {"depth": row["depth"] - 0.5, "saturated_fraction": row["saturated_fraction"] + 0.03}


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_exposures_of_a_brighter_field_are_no_outliers(share):
    rows = simulate_survey(1440, seed=5, elements=("F129",), exposure_times=(139.1,))
    visits = sorted({row["visit_id"] for row in rows})
    bright = visits[: round(share * len(visits))]
    rows = [of_bright_field(row, 2.6) if row["visit_id"] in bright else row for row in rows]
    assert sum(map(bool, outliers_of(rows))) < len(rows) / 200


def test_one_bright_exposure_of_a_visit_and_a_visit_with_stray_light_are_outliers():
    rows = simulate_survey(1440, seed=6, elements=("F129",), exposure_times=(139.1,))
    visits = sorted({row["visit_id"] for row in rows})
    rows[7] = of_bright_field(rows[7], 3.5)
    rows = [row | {"image_median": 8 * row["image_median"]} if row["visit_id"] == visits[-1] else row for row in rows]
    found = [[finding.name for finding in findings] for findings in outliers_of(rows)]
    assert "image_median" in found[7]
    assert all("image_median" in names for row, names in zip(rows, found, strict=True) if row["visit_id"] == visits[-1])


def same(number, **changes):
    rows = simulate_survey(number, detectors=1, elements=("F129",), exposure_times=(139.1,))
    return [{**rows[0], "stem": row["stem"], **changes} for row in rows]


def test_an_outlier_is_described_by_its_factor():
    rows = same(8, image_median=0.26)
    rows[3]["image_median"] = 3.02
    (finding,) = outliers_of(rows)[3]
    assert finding == ("image_median", "sky 3.02 DN/s, 11.6 times that of its detector and element (8 exposures)")
    for row, detector in zip(rows, (1, 1, 2, 2, 3, 3, 4, 4), strict=True):
        row["detector"] = f"WFI{detector:02d}"
    (finding,) = outliers_of(rows)[3]
    assert finding.text == "sky 3.02 DN/s, 11.6 times that of its element (8 exposures)"


def test_four_exposures_have_no_outlier():
    rows = same(4, image_median=0.26)
    rows[3]["image_median"] = 3.02
    assert outliers_of(rows) == [[]] * 4
    rows = same(5, image_median=0.26)
    rows[3]["image_median"] = 3.02
    assert [len(found) for found in outliers_of(rows)] == [0, 0, 0, 1, 0]


def test_identical_numbers_and_tiny_differences_are_no_outliers():
    rows = same(12, good_pixel_fraction=0.97)
    rows[3]["good_pixel_fraction"] = 0.9699
    assert outliers_of(rows) == [[]] * 12


def test_the_skewed_jump_rates_of_small_detectors_are_no_outliers():
    """Rates of simulated exposures of 504 pixels a side, of which a large event covers a good part."""
    rates = (17.8, 18.3, 18.7, 19.2, 19.2, 19.6, 20.1, 20.5, 20.9, 21.4, 22.3, 45.5)
    rows = same(12)
    for row, rate in zip(rows, rates, strict=True):
        row["jump_rate"] = rate
    assert outliers_of(rows) == [[]] * 12
    rows[0]["jump_rate"] *= 12
    assert [[finding.name for finding in found] for found in outliers_of(rows)] == [["jump_rate"], *[[]] * 11]


def test_exposures_are_compared_with_like_ones():
    rows = same(16, image_median=0.26)
    for row in rows[8:]:
        row |= {"exposure_time": 500.0, "image_median": 3.0}
    assert outliers_of(rows) == [[]] * 16
    for row in rows[8:]:
        row |= {"exposure_time": 139.1, "exposure_type": "WFI_FLAT"}
    assert outliers_of(rows) == [[]] * 16


def test_levels_of_reference_pixels_are_compared_with_those_of_the_same_detector():
    rows = same(18, reference_level=6000.0, image_median=0.26)
    for row in rows[:8]:
        row["optical_element"] = "F158"
    for row, level in zip(rows[12:], (5000, 5000, 5000, 7000, 7000, 7000), strict=True):
        row |= {"detector": f"WFI0{level // 1000}", "reference_level": float(level)}
    assert outliers_of(rows) == [[]] * 18
    rows[3]["reference_level"] = 6250.0
    (finding,) = outliers_of(rows)[3]
    assert finding.text == "level of the reference pixels 6250 DN, and 6000 DN is the median of its detector (12 exposures)"


def test_unknown_numbers_are_not_compared():
    rows = same(8, psf_fwhm=None)
    rows[2]["psf_fwhm"] = 0.9
    assert outliers_of(rows) == [[]] * 8


def test_an_exposure_without_stars_is_an_outlier_though_its_psf_is_unknown():
    rows = same(8, n_stars=40, psf_fwhm=0.1)
    rows[2] |= {"n_stars": 2, "psf_fwhm": None}
    assert [[finding.name for finding in found] for found in outliers_of(rows)] == [[], [], ["n_stars"], *[[]] * 5]
    rows = same(8, n_stars=9)
    rows[2]["n_stars"] = 0
    assert outliers_of(rows) == [[]] * 8, "a field with few stars"


def test_numbers_beyond_limits_are_found():
    rows = same(3, psf_fwhm=0.2, image_median=0.26)
    found = outliers_of(rows, {"psf_fwhm": {"maximum": 0.15}, "image_median": {"minimum": 0.3, "maximum": 1.0}})
    texts = [finding.text for finding in found[0]]
    assert texts == [
        "sky 0.26 DN/s, below the limit of 0.3 DN/s (qa.limits)",
        "PSF width 0.2 arcsec, above the limit of 0.15 arcsec (qa.limits)",
    ]
    assert outliers_of(rows, {"psf_fwhm": {"maximum": 0.2}}) == [[]] * 3


# --------------------------------------------------------------------------------------------------------------- limits
def test_limits_are_converted_to_the_unit_of_the_table():
    given = yaml.safe_load(
        "{psf_fwhm: {maximum: 200 mas}, image_median: {minimum: 0.1, maximum: 60 DN/min}, n_sources: {minimum: 5}}"
    )
    limits = read_limits(given)
    assert limits["psf_fwhm"]["maximum"] == pytest.approx(0.2)
    assert limits["image_median"] == {"minimum": 0.1, "maximum": pytest.approx(1.0)}
    assert limits["n_sources"] == {"minimum": 5.0}
    assert read_limits({"psf_fwhm": {"maximum": "0.2"}}) == {"psf_fwhm": {"maximum": 0.2}}, "as --config gives it"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sky": {"maximum": 1}}, "unknown number 'sky'; did you mean 'image_median'?"),
        ({"psf_fwmh": {"maximum": 1}}, "did you mean 'psf_fwhm'?"),
        ({"detector": {"maximum": 1}}, "unknown number 'detector'"),
        ({"psf_fwhm": 1}, "qa.limits.psf_fwhm is 1; it takes minimum, maximum or both, as in"),
        ({"psf_fwhm": {"max": 1}}, "it takes minimum, maximum or both"),
        ({"psf_fwhm": {}}, "it takes minimum, maximum or both"),
        ({"psf_fwhm": {"maximum": "1 DN / s"}}, "are not convertible; it takes a number in arcsec"),
        ({"psf_fwhm": {"maximum": "wide"}}, "psf_fwhm.maximum is 'wide'; it takes a number in arcsec"),
        ({"n_sources": {"minimum": "5 mag"}}, "it takes a number without a unit"),
        ({"psf_fwhm": {"maximum": True}}, "is True; it takes a number in arcsec"),
        ({"psf_fwhm": {"maximum": float("nan")}}, "is nan; it takes a number"),
        ({"psf_fwhm": {"minimum": 2, "maximum": 1}}, "its minimum is above its maximum"),
    ],
)
def test_wrong_limits_are_refused(given, message):
    with pytest.raises(RampflowError, match=re.escape(message)):
        read_limits(given)


def test_every_number_may_have_a_limit():
    assert {name for name, number in NUMBERS.items() if not number.is_text} == set(LIMITED)
    assert set(OF_THE_RUN) <= set(NUMBERS) - set(LIMITED)


def test_the_program_makes_the_table(tmp_path, capsys):
    import exposure_table

    write_rows(tmp_path, same(6, image_median=0.26))
    limits = json.dumps({"image_median": {"maximum": 0.1}})
    assert exposure_table.main([str(tmp_path), "--limits", limits]) == 0
    assert "above the limit of 0.1 DN/s" in capsys.readouterr().err
    assert all(row["outliers"] == "image_median" for row in read_exposure_table(tmp_path).values())
    assert exposure_table.main([str(tmp_path / "nothing")]) == 1
