"""Numbers of the demonstration's exposures and their table: they agree with the products."""

import json

import numpy as np
import pytest
import roman_datamodels
from astropy.table import Table
from demo_visit import ALIGNED, ASSOCIATION, CATALOGED, SATURATED, STEMS
from pyarrow import parquet
from scipy import stats

from rampflow import dq
from rampflow.chain import STATUSES, STEPS
from rampflow.detector import BORDER
from rampflow.quality.measures import PIXEL_AREA
from rampflow.quality.numbers import NUMBERS, OF_THE_RUN
from rampflow.quality.table import ECSV, PARQUET

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def contents(visit):
    return {stem: json.loads((visit.results / f"{stem}_qa.json").read_text()) for stem in STEMS}


@pytest.mark.parametrize("stem", STEMS)
def test_numbers_agree_with_the_image(visit, contents, stem):
    numbers = contents[stem]["numbers"]
    assert set(numbers) == set(NUMBERS) - set(OF_THE_RUN)
    with roman_datamodels.open(visit.results / f"{stem}_cal.asdf") as image:
        meta, flags = image.meta, np.asarray(image.dq)
        statistics = {name: meta.statistics[name] for name in ("image_median", "image_rms", "good_pixel_fraction")}
        assert {name: numbers[name] for name in statistics} == {n: v if np.isfinite(v) else None for n, v in statistics.items()}
        assert {name: numbers[f"s_{name}"] for name in STATUSES} == {name: meta.cal_step[name] for name in STATUSES}
        for name, value in dq.pixel_flags().items():
            assert numbers[f"dq_{name.lower()}"] == np.count_nonzero(flags & np.uint32(value)), name
        assert numbers["saturated_fraction"] == numbers["dq_saturated"] / flags.size
        assert (numbers["detector"], numbers["optical_element"]) == (meta.instrument.detector, meta.instrument.optical_element)
        assert (numbers["exposure_type"], numbers["exposure_time"]) == (meta.exposure.type, meta.exposure.exposure_time)
        assert numbers["s_region"] == meta.wcsinfo.get("s_region") and numbers["ra_ref"] == meta.wcsinfo.ra_ref
        assert numbers["crds_context"] == meta.ref_file.crds.context
        assert numbers["calibration_software_version"] == meta.calibration_software_version
        assert numbers["n_warnings"] == len([line for line in meta.cal_logs if " :: WARNING :: " in line])
    assert len(contents[stem]["warnings"]) == numbers["n_warnings"]
    assert set(contents[stem]["reasons"]) == {name for name, s in STEPS.items() if numbers[f"s_{s.status}"] != "COMPLETE"}
    # Snakemake looks at a job twice a second: it may see no processor time in the short ones of a saturated exposure.
    assert numbers["peak_memory"] > 0 and numbers["cpu_time"] >= 0 and (numbers["cpu_time"] > 0 or stem.endswith(SATURATED))


@pytest.mark.parametrize("stem", [stem for stem in STEMS if not stem.endswith(SATURATED)])
def test_numbers_of_the_ramps_agree_with_the_image(visit, contents, stem):
    numbers = contents[stem]["numbers"]
    with roman_datamodels.open(visit.results / f"{stem}_cal.asdf") as image:
        degrees = len(image.meta.exposure.read_pattern) - 2
        flags, chisq = np.asarray(image.dq), np.asarray(image.chisq).astype(float)
        whole = chisq[(flags & (dq.JUMP_DET | dq.SATURATED | dq.DO_NOT_USE)) == 0]
        # From a sixteenth of the rows, with the ramps that have jumps.
        assert numbers["chi2_median"] == pytest.approx(np.median(whole) / degrees, rel=0.1)
        beyond = np.mean(whole > stats.chi2.ppf(0.999, degrees))
        assert numbers["chi2_excess"] == pytest.approx(beyond - 0.001, abs=0.01)
        seconds = image.meta.exposure.exposure_time
        # The median of blocks, in which large events don't count. A jump is counted once or twice: it flags one difference, or
        # the two beside a resultant.
        blocks = [
            np.mean(rows)
            for rows in np.array_split(np.pad(flags & dq.JUMP_DET != 0, BORDER), (flags.shape[0] + 2 * BORDER) // 16)
        ]
        assert 1 <= numbers["jump_rate"] / (np.median(blocks) / PIXEL_AREA / seconds) <= 2
        assert numbers["jumps"] >= np.count_nonzero(flags & dq.JUMP_DET) > 0
    assert 0 < numbers["row_scatter_after"] < 1.5 * numbers["row_scatter_before"]
    assert (numbers["transient"] is not None) == (numbers["detector"] == "WFI18")


@pytest.mark.parametrize("stem", CATALOGED)
def test_numbers_of_the_sources_agree_with_the_catalog_and_the_alignment(visit, contents, stem):
    numbers = contents[stem]["numbers"]
    assert numbers["n_sources"] == parquet.read_metadata(visit.results / f"{stem}_cat.parquet").num_rows
    entry = json.loads((visit.results / f"{ASSOCIATION}_tweakreg.json").read_text())["exposures"][stem]
    assert (numbers["n_matches"], numbers["rotation"], numbers["scale"]) == tuple(
        entry[name] for name in ("n_matches", "rotation_deg", "scale")
    )
    if stem in ALIGNED:
        assert [numbers["shift_x"], numbers["shift_y"]] == entry["shift_mas"]
        assert numbers["shift"] == pytest.approx(500, abs=20), "the pointing error of the simulation, 0.3 and 0.4 arcsec"
        assert (numbers["rmse_before"], numbers["rmse_after"]) == (entry["rmse_before_mas"], entry["rmse_after_mas"])
        assert 0.05 < numbers["psf_fwhm"] < 0.4 and 20 < numbers["depth"] < 30
    else:
        assert numbers["shift"] is None and contents[stem]["reasons"]["tweakreg"] == entry["reason"]


def test_the_table_has_the_numbers_of_all_exposures(visit, contents):
    for name in (PARQUET, ECSV):
        table = Table.read(visit.results / name).filled("") if name == PARQUET else Table.read(visit.results / name)
        assert list(table["stem"]) == sorted(STEMS)
        assert set(table["state"]) == {"complete"} and set(table["association"]) == {ASSOCIATION}
        for row in table:
            numbers = contents[row["stem"]]["numbers"]
            for column, number in NUMBERS.items():
                if column not in OF_THE_RUN and not number.is_text:
                    known = np.nan if numbers[column] is None else numbers[column]
                    np.testing.assert_allclose(row[column], known, rtol=1e-12, err_msg=column)


def test_a_limit_is_a_warning_of_the_summary(visit):
    """The target `exposures` makes the table where nothing else is to be done."""
    limits = "qa={limits: {image_median: {maximum: 0.001}}}"
    run = visit.snakemake("exposures", *visit.arguments, limits)
    assert run.returncode == 0, run.stderr
    lines = (visit.folder / "logs" / "summary.txt").read_text().splitlines()
    beyond = [line for line in lines if "above the limit of 0.001 DN/s (qa.limits)" in line]
    assert any(line.startswith(f"warning: {STEMS[0]}: sky ") for line in beyond)
    assert "image_median" in set(Table.read(visit.results / PARQUET)["outliers"])
    assert visit.snakemake("exposures", *visit.arguments).returncode == 0
    refused = visit.snakemake(*visit.arguments, "qa={limits: {sky: {maximum: 1}}}", "--dry-run")
    assert refused.returncode != 0 and "did you mean 'image_median'?" in refused.stdout + refused.stderr
