"""compare_runs.py on the products of a visit: equal folders, a changed flat, threshold and WCS, and damaged products."""

import json
import shutil
import subprocess
import sys

import asdf
import numpy as np
import pyarrow
import pytest
from demo_visit import FIRST
from pyarrow import parquet
from repository import ROOT

pytestmark = pytest.mark.workflow

ENDS = ("cal.asdf", "cat.parquet", "segm.asdf", "wcs.asdf")


def compare(old, new, out, *options):
    """Run the program; returns its exit status, its output, and the row of the first exposure."""
    command = [sys.executable, str(ROOT / "scripts" / "compare_runs.py"), str(old), str(new), str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = parquet.read_table(out / "comparison.parquet").to_pylist() if done.returncode != 2 else [None]
    return done.returncode, done.stdout + done.stderr, rows[0]


@pytest.fixture
def old(visit, tmp_path):
    """The products of one exposure."""
    folder = tmp_path / "old"
    folder.mkdir()
    for end in ENDS:
        shutil.copy(visit.results / f"{FIRST}_{end}", folder)
    return folder


@pytest.fixture
def new(old, tmp_path):
    """Their copy, to be changed."""
    return shutil.copytree(old, tmp_path / "new")


def change_image(folder, change):
    path = folder / f"{FIRST}_cal.asdf"
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        change(file.tree["roman"])
        file.write_to(folder / "changed.asdf")
    (folder / "changed.asdf").replace(path)


def test_a_folder_and_its_copy_are_equal(visit, tmp_path):
    status, text, row = compare(
        visit.results, shutil.copytree(visit.results, tmp_path / "copy"), tmp_path / "out", "--cores", "2"
    )
    assert status == 0, text
    assert "10 exposures: 10 equal" in text and row["verdict"] == "equal" and row["reasons"] == ""
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "10 equal" in page and "http" not in page.replace("http://www.w3.org", "")


def test_a_brighter_image_is_found_and_measured(old, new, tmp_path):
    def brighten(roman):
        roman["data"] = (roman["data"] + 2 * roman["err"].astype(np.float32)).astype(np.float32)

    change_image(new, brighten)
    status, text, row = compare(old, new, tmp_path / "out")
    assert status == 1 and row["verdict"] == "different" and row["arrays"] == "data", text
    assert row["image_median"] == pytest.approx(2, rel=1e-5) and row["image_rms"] == pytest.approx(2, rel=1e-5)
    assert row["flags_different"] == row["wcs_shift_max"] == row["sources_gained"] == 0
    assert "<img" in (tmp_path / "out" / "comparison.html").read_text()


def test_tolerances_decide_about_the_measures_they_name(old, new, tmp_path):
    def brighten(roman):
        roman["data"] = (roman["data"] + 0.1 * roman["err"].astype(np.float32)).astype(np.float32)

    change_image(new, brighten)
    status, text, row = compare(old, new, tmp_path / "out", "--tolerance", "image_rms=0.2", "flags_different=0")
    assert (status, row["verdict"]) == (0, "within tolerance"), text
    status, text, row = compare(old, new, tmp_path / "out", "--tolerance", "image_rms=0.05")
    assert (status, row["verdict"]) == (1, "different") and "image_rms is 0.1, beyond 0.05" in row["reasons"], text


def test_a_tolerance_of_a_catalog_counts_where_a_run_makes_one(old, new, tmp_path):
    def brighten(roman):
        roman["data"] = (roman["data"] + 0.1 * roman["err"].astype(np.float32)).astype(np.float32)

    change_image(new, brighten)
    for folder in (old, new):
        for end in ("cat.parquet", "segm.asdf"):
            (folder / f"{FIRST}_{end}").unlink()
    tolerances = ("--tolerance", "image_rms=0.2", "psf_flux_shift=0.01", "segments_different=0")
    status, text, row = compare(old, new, tmp_path / "out", *tolerances)
    assert (status, row["verdict"]) == (0, "within tolerance"), text


def test_pixels_and_a_wcs_that_are_lost_are_named(old, new, tmp_path):
    def damage(roman):
        roman["data"] = roman["data"].copy()
        good = np.argwhere(np.isfinite(roman["data"]) & (roman["dq"] == 0))[:30]
        roman["data"][tuple(good.T)] = np.nan
        roman["meta"]["wcs"] = None

    change_image(new, damage)
    status, text, row = compare(old, new, tmp_path / "out")
    assert status == 1 and "0 pixels became good, 30 bad; only one of the images has a WCS" in row["reasons"], text


def test_a_wcs_that_moved_is_found_in_mas(visit, old, new, tmp_path):
    """The image before the alignment stands for one with another WCS: the visit has a pointing error."""

    def move(roman):
        with asdf.open(visit.results / "intermediates" / f"{FIRST}_flat.asdf", memmap=False, lazy_load=False) as file:
            roman["meta"]["wcs"] = file.tree["roman"]["meta"]["wcs"]

    change_image(new, move)
    status, text, row = compare(old, new, tmp_path / "out")
    summary = json.loads(next(visit.results.glob("*_tweakreg.json")).read_text())["exposures"][FIRST]
    assert status == 1 and row["arrays"] == "" and "the WCS moved" in row["reasons"], (text, summary)
    with (
        asdf.open(old / f"{FIRST}_cal.asdf") as one,
        asdf.open(new / f"{FIRST}_cal.asdf") as other,
    ):
        middle = [file.tree["roman"]["meta"]["wcs"](256, 256) for file in (one, other)]
    distance = np.hypot((middle[1][0] - middle[0][0]) * np.cos(np.radians(middle[0][1])), middle[1][1] - middle[0][1]) * 3.6e6
    assert row["wcs_shift_median"] == pytest.approx(distance, rel=0.05)


def test_changed_references_parameters_and_flags_are_named(old, new, tmp_path):
    def change(roman):
        roman["meta"]["ref_file"]["flat"] = "my_flat.asdf"
        logs = [line.replace("rejection_threshold=", "rejection_threshold=1") for line in roman["meta"]["cal_logs"]]
        roman["meta"]["cal_logs"] = logs
        roman["dq"] = roman["dq"].copy()
        roman["dq"][100, 100:110] |= 1 << 11

    change_image(new, change)
    status, text, row = compare(old, new, tmp_path / "out")
    origins = json.loads(row["origins"])
    assert status == 1 and origins["references"]["flat"][1] == "my_flat.asdf", text
    assert [name for name in origins["parameters"] if "rejection_threshold" in name], origins
    assert json.loads(row["flags"]).keys() == {"HOT"} and row["arrays"] == "dq"


def test_missing_and_damaged_products_are_never_equal(old, new, tmp_path):
    (new / f"{FIRST}_cat.parquet").unlink()
    status, text, row = compare(old, new, tmp_path / "out")
    assert status == 1 and "cat.parquet is missing" in row["reasons"], text
    status, text, row = compare(old, new, tmp_path / "out", "--tolerance", "image_rms=1")
    assert status == 1 and row["verdict"] == "different", "a tolerance does not excuse a missing product"
    (new / f"{FIRST}_cal.asdf").write_bytes((old / f"{FIRST}_cal.asdf").read_bytes()[:100_000])
    status, text, row = compare(old, new, tmp_path / "out")
    assert (status, row["verdict"]) == (1, "unreadable") and "truncated" in row["reasons"], text


def test_a_missing_wcs_product_is_a_difference(old, new, tmp_path):
    (new / f"{FIRST}_wcs.asdf").unlink()
    status, text, row = compare(old, new, tmp_path / "out")
    assert status == 1 and row["reasons"] == "wcs.asdf is missing", text


@pytest.mark.parametrize("damage", ["twice", "text"])
def test_a_catalog_that_is_not_one_of_sources_is_unreadable(old, new, tmp_path, damage):
    path = new / f"{FIRST}_cat.parquet"
    table = parquet.read_table(path)
    name = "psf_flux"
    text = pyarrow.array(["1"] * len(table))
    damaged = table.append_column(name, table[name]) if damage == "twice" else table.drop([name]).append_column(name, text)
    parquet.write_table(damaged, path)
    status, text, row = compare(old, new, tmp_path / "out")
    assert (status, row["verdict"]) == (1, "unreadable") and f"column {name}" in row["reasons"], text


def test_a_wcs_that_cant_be_evaluated_is_unreadable(old, new, tmp_path):
    path = new / f"{FIRST}_cal.asdf"
    content = path.read_bytes()
    assert b"coefficients: " in content
    path.write_bytes(content.replace(b"coefficients: ", b"coefficientz: ", 1))
    status, text, row = compare(old, new, tmp_path / "out")
    assert (status, row["verdict"]) == (1, "unreadable") and "WCS" in row["reasons"] and "Traceback" not in text, text


def test_a_folder_is_not_compared_with_itself(old, tmp_path):
    (tmp_path / "link").symlink_to(old)
    for same in (old, tmp_path / "link"):
        status, text, _ = compare(old, same, tmp_path / "out")
        assert status == 2 and "OLD and NEW are two folders" in text


def test_segmentation_maps_of_different_shapes_are_not_compared(old, new, tmp_path):
    path = new / f"{FIRST}_segm.asdf"
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        file.tree["roman"]["data"] = file.tree["roman"]["data"][:-8].copy()
        file.write_to(new / "changed.asdf")
    (new / "changed.asdf").replace(path)
    status, text, row = compare(old, new, tmp_path / "out")
    assert (status, row["verdict"]) == (1, "unreadable") and "segm.asdf: data has shape" in row["reasons"], text


def test_folders_without_images_and_unknown_measures_are_errors(old, tmp_path):
    status, text, _ = compare(old, tmp_path / "nothing", tmp_path / "out")
    assert status == 2 and "holds no calibrated image" in text and not (tmp_path / "out").exists()
    status, text, _ = compare(old, old, tmp_path / "out", "--tolerance", "rms=1")
    assert status == 2 and "unknown measure 'rms'" in text
