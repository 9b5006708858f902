"""Stale files of a results folder, and files that do not belong to the workflow."""

import json

import remove_stale
from small_files import image, write_image

from rampflow.workflow import inventory, leftovers
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
    page, own = (tmp_path / "visit_report" / f"{name}.html" for name in (STEM, "notes"))
    page.parent.mkdir()
    for path in (page, own):
        path.touch()
    assert find_stale_files(Inventory({STEM: entry}, None, {}), tmp_path, tmp_path) == []
    assert find_stale_files(NOTHING, tmp_path, tmp_path) == [tmp_path / f"{STEM}_cal.asdf", page]


def test_a_folder_of_pages_goes_with_its_last_page(tmp_path):
    inventories = tmp_path / ".rampflow"
    inventory.save(inventories / "exposures-0.json", {"context": None, "exposures": [], "links": {}})
    meta = {"filename": f"{STEM}_cal.asdf", "calibration_software_name": "rampflow"}
    for name in ("left", "kept"):
        page = tmp_path / "results" / f"{name}_report" / f"{STEM}.html"
        page.parent.mkdir(parents=True)
        page.touch()
    (page.parent / "notes.html").touch()
    write_image(tmp_path / "results" / f"{STEM}_cal.asdf", image(), meta)
    assert remove_stale.main([str(tmp_path / "results"), str(inventories / "exposures-0.json")]) == 0
    assert [path.name for path in (tmp_path / "results").rglob("*")] == ["kept_report", "notes.html"]


def test_the_message_names_the_command_of_the_package(monkeypatch, tmp_path):
    """Where only the package is installed, as by pipx, there is no snakemake on the PATH."""
    stale = [tmp_path / "x_cal.asdf"]
    assert "To list them: snakemake remove_stale --dry-run" in leftovers.describe_stale(stale)
    monkeypatch.setattr(leftovers, "SHARE", leftovers.HOME)
    assert "To list them: rampflow run INPUT --cores 1 remove_stale --dry-run" in leftovers.describe_stale(stale)
