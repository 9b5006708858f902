"""Stale files of a results folder, and files that do not belong to the workflow."""

import json

from small_files import image, write_image

from rampflow.workflow.inventory import ExposureEntry, Inventory
from rampflow.workflow.leftovers import find_stale_files

STEM = "r0000101001001001001_0001_wfi01_f158"
NOTHING = Inventory({}, None, {})


def test_only_files_named_as_products_are_stale(tmp_path):
    """In a results folder of another place, the metadata say which files are products."""
    results, own = tmp_path / "results", "my_copy_cal.asdf finder_cat.parquet old_report.html other_tweakreg.json".split()
    results.mkdir()
    meta = {"filename": f"{STEM}_cal.asdf", "calibration_software_name": "rampflow"}
    for name in (f"{STEM}_cal.asdf", "my_copy_cal.asdf"):
        write_image(results / name, image(), meta)
    for name in own[1:]:
        (results / name).write_text("mine")
    (results / f"{STEM}_segm.asdf").mkdir()
    (results / f"{STEM}_cal.png").write_text("")
    (results / "visit_tweakreg.json").write_text(json.dumps({"exposures": {STEM: {}}}))
    stale = find_stale_files(NOTHING, results, tmp_path / ".rampflow")
    assert [path.name for path in stale] == [f"{STEM}_cal.asdf", f"{STEM}_cal.png", "visit_tweakreg.json"]


def test_products_of_the_run_are_not_stale(tmp_path):
    chain = ("dq_init", "ramp_fitting", "flatfield")
    entry = ExposureEntry(STEM, "raw", "visit", "WFI_IMAGE", "WFI01", (8, 64, 64), chain, {}, None)
    meta = {"filename": f"{STEM}_cal.asdf", "calibration_software_name": "rampflow"}
    write_image(tmp_path / f"{STEM}_cal.asdf", image(), meta)
    assert find_stale_files(Inventory({STEM: entry}, None, {}), tmp_path, tmp_path) == []
    assert find_stale_files(NOTHING, tmp_path, tmp_path) == [tmp_path / f"{STEM}_cal.asdf"]
