"""Calibrated images as input: aligned together and written anew, without their ramps."""

import json
import shutil

import numpy as np
import pytest
import roman_datamodels
from demo_visit import ALIGNED, ASSOCIATION
from pyarrow import parquet

from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.exposure import Exposure
from rampflow.wcs.wcs_tree import Wcs

pytestmark = pytest.mark.workflow

MAS = 3.6e6  # per degree
ARRAYS = ("data", "err", "dq")
JOBS = {"astrometric_catalog": 1, "tweakreg": 1, "finalize": len(ALIGNED)}


@pytest.fixture(scope="module")
def given(visit):
    """The images and catalogs of the visit before its alignment, under the names of products, and the arguments of a run."""
    folder, before = visit.folder / "given", visit.results / "intermediates"
    folder.mkdir()
    for stem in ALIGNED:
        for ending, name in (("flat.asdf", "cal.asdf"), ("cat.parquet",) * 2, ("segm.asdf",) * 2):
            shutil.copy(before / f"{stem}_{ending}", folder / f"{stem}_{name}")
    return folder


def arguments(given, results):
    return ["--config", f"input={given}", f"results={results}", "astrometric_catalog=demo/astrometric.ecsv"]


def directions(path):
    """Positions on a grid of pixels by the WCS of an image, degrees."""
    with AsdfFile(path) as file:
        x, y = (axis.ravel() for axis in np.meshgrid(*2 * [np.linspace(0, 503, 9)]))
        return np.array(Wcs(Exposure(file).meta["wcs"])(x, y))


def test_calibrated_images_get_the_alignment_of_a_run_from_raw_files(visit, given):
    bytes_before = {path.name: path.read_bytes() for path in given.iterdir()}
    run = visit.snakemake(*arguments("given/*_cal.asdf", "anew"))
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((visit.folder / "anew" / f"{ASSOCIATION}_tweakreg.json").read_text())
    assert {stem: entry["status"] for stem, entry in summary["exposures"].items()} == dict.fromkeys(ALIGNED, "COMPLETE")
    for stem in ALIGNED:
        new, old = (folder / f"{stem}_cal.asdf" for folder in (visit.folder / "anew", visit.results))
        assert np.abs(directions(new) - directions(old)).max() * MAS < 1e-3
        assert np.abs(directions(given / new.name) - directions(old)).max() * MAS > 100, "it was not aligned before"
        with roman_datamodels.open(new) as ours, roman_datamodels.open(old) as theirs:
            ours.validate()
            for name in ARRAYS:
                np.testing.assert_array_equal(np.array(ours[name]), np.array(theirs[name]))
            assert ours.meta.cal_step == theirs.meta.cal_step
            assert ours.meta.wcs_fit_results["nmatches"] == theirs.meta.wcs_fit_results["nmatches"]
        tables = [parquet.read_table(path.with_name(f"{stem}_cat.parquet")) for path in (new, old)]
        for column in ("ra", "dec", "psf_flux"):
            np.testing.assert_allclose(*(table[column].to_numpy() for table in tables), rtol=1e-12, equal_nan=True)
        for ending in ("wcs.asdf", "segm.asdf"):
            with roman_datamodels.open(new.with_name(f"{stem}_{ending}")) as product:
                product.validate()
    assert {path.name: path.read_bytes() for path in given.iterdir()} == bytes_before
    assert visit.jobs(*arguments("given/*_cal.asdf", "anew")) == {}


def test_products_record_the_products_that_they_were_made_from(visit, given):
    images = visit.folder / "products"
    images.mkdir()
    for path in visit.results.glob(f"{ALIGNED[0]}_*"):
        shutil.copy(path, images)
    run = visit.snakemake(*arguments("products", "again"))
    assert run.returncode == 0, run.stdout + run.stderr
    with roman_datamodels.open(visit.folder / "again" / f"{ALIGNED[0]}_cal.asdf") as image:
        (line,) = [line for line in image.meta.cal_logs if "Written anew" in line]
        assert f"{ALIGNED[0]}_cal.asdf, {ALIGNED[0]}_cat.parquet" in line and "its tweakreg was COMPLETE" in line
    # Moved elsewhere, it is recognized; another content of the input is not.
    moved = visit.folder / "moved"
    moved.mkdir()
    shutil.copytree(visit.folder / "again", moved / "again")
    shutil.copytree(images, moved / "products")
    stars = visit.folder / "demo" / "astrometric.ecsv"
    here = ["--directory", str(moved), "--config", "input=products", "results=again", f"astrometric_catalog={stars}"]
    assert visit.jobs(*here) == {}
    shutil.copy(given / f"{ALIGNED[0]}_cal.asdf", moved / "products")
    assert visit.jobs(*here) == dict.fromkeys(("tweakreg", "finalize", "astrometric_catalog"), 1)


def test_sources_are_found_again_without_a_catalog(visit, given):
    few = visit.folder / "few"
    few.mkdir()
    for stem in ALIGNED:
        shutil.copy(given / f"{stem}_cal.asdf", few)
    assert visit.jobs(*arguments("few", "found")) == JOBS | {"source_catalog": len(ALIGNED)}


def test_raw_exposures_and_calibrated_images_of_one_association_are_aligned_together(visit, given):
    names = [f"demo/{ALIGNED[0]}_uncal.asdf", *(f"given/{stem}_cal.asdf" for stem in ALIGNED[1:])]
    members = [{"expname": name, "exptype": "science"} for name in names]
    (visit.folder / "mixed.json").write_text(json.dumps({"products": [{"name": "mixed", "members": members}]}))
    jobs = visit.jobs(*arguments("mixed.json", "together"))
    assert jobs | JOBS == jobs and (jobs["dq_init"], jobs["source_catalog"]) == (1, 1)
