"""The workflow on a simulated visit: products, statuses, provenance, minimal reruns, options."""

import json
import os
import re
import shutil
import subprocess
import sys

import asdf
import numpy as np
import pytest
import roman_datamodels
from astropy.table import Table
from demo_visit import ALIGNED, ASSOCIATION, CATALOGED, CHAIN, FIRST, SATURATED, STEMS, TYPES
from pyarrow import parquet
from repository import ROOT
from roman_datamodels.datamodels import ImageModel, RampModel, SegmentationMapModel, WfiWcsModel
from shared_folders import copy_folder
from snakemake_runs import Workflow

from rampflow import __version__
from rampflow.astrometry.region import epoch_of
from rampflow.chain import STATUSES, STEPS, chain_of, image_chain
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure
from rampflow.workflow.summary import report_begin

pytestmark = pytest.mark.workflow

# What follows from a changed image of every exposure: the astrometric catalog is not asked for again.
PRODUCTS = {"source_catalog": 5, "tweakreg": 1, "finalize": 5, "finalize_image": 5}

# For a run of which only the alignment is of interest: a process for each exposure in place of twelve.
IN_ONE_JOB = ["--config", "job_per=exposure"]


def product(visit, stem, suffix="cal"):
    return roman_datamodels.open(visit.results / f"{stem}_{suffix}.asdf")


@pytest.fixture(scope="module")
def single(visit):
    """Arguments of a run of the first exposure alone, in the visit's folder."""
    return ["--config", f"input=demo/{FIRST}_uncal.asdf", "astrometric_catalog=demo/astrometric.ecsv"]


def test_the_simulated_visit_has_an_association_and_stars(visit):
    association = json.loads((visit.inputs / "visit_asn.json").read_text())
    (product_of_visit,) = association["products"]
    assert product_of_visit["members"] == [{"expname": f"{stem}_uncal.asdf", "exptype": "science"} for stem in STEMS]
    assert all((visit.inputs / member["expname"]).is_file() for member in product_of_visit["members"])
    assert (visit.inputs / "astrometric.ecsv").is_file()


# ------------------------------------------------------------------------------------------------------------- products
@pytest.mark.parametrize("stem", STEMS)
def test_every_exposure_has_valid_products(visit, stem):
    with product(visit, stem) as image:
        assert isinstance(image, ImageModel)
        image.validate()
        assert image.data.shape == (504, 504)
        assert image.meta.filename == f"{stem}_cal.asdf"
        assert (image.meta.model_type, image.meta.product_type) == ("ImageModel", "l2")
    with product(visit, stem, "wcs") as wcs:
        assert isinstance(wcs, WfiWcsModel)
        wcs.validate()
        assert (wcs.meta.filename, wcs.meta.model_type) == (f"{stem}_wcs.asdf", "WfiWcsModel")
        assert ("wcs_l2" in wcs) == (not stem.endswith(SATURATED))


@pytest.mark.parametrize("name", TYPES)
def test_statuses_follow_the_table_of_steps(visit, name):
    with product(visit, f"r0000101001001001001_{name}") as image:
        assert image.meta.exposure.type == TYPES[name]
        statuses = dict(image.meta.cal_step)
    if name == SATURATED:
        expected = dict.fromkeys(STATUSES, "SKIPPED") | {"dq_init": "COMPLETE", "saturation": "COMPLETE"}
    else:
        detector = name.split("_")[1].upper()
        chain = chain_of(TYPES[name], detector)
        expected = {step.status: "COMPLETE" if step.name in chain else "SKIPPED" for step in STEPS.values()}
        of_others = [step for step in STEPS.values() if step.detectors and int(detector[3:]) not in step.detectors]
        expected |= {step.status: "N/A" for step in of_others}
        assert ("wfi18_transient" in [step.name for step in of_others]) == (detector != "WFI18")
    expected |= {"flux": "INCOMPLETE", "outlier_detection": "INCOMPLETE", "skymatch": "INCOMPLETE"}
    assert statuses == expected


@pytest.mark.parametrize("stem", STEMS)
def test_imaging_exposures_have_a_catalog_and_a_segmentation_map(visit, stem):
    catalog, segmentation = (visit.results / f"{stem}_{suffix}" for suffix in ("cat.parquet", "segm.asdf"))
    assert catalog.exists() == segmentation.exists() == (stem in CATALOGED)
    if stem not in CATALOGED:
        return
    with roman_datamodels.open(segmentation) as model:
        assert isinstance(model, SegmentationMapModel)
        model.validate()
        assert model.meta.filename == segmentation.name
        labels = np.unique(model.data)
    table = parquet.read_table(catalog)
    sources = {name: table[name].to_numpy() for name in table.column_names}
    recorded = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    assert recorded["roman.meta.filename"] == catalog.name
    assert recorded["roman.meta.model_type"] == "ImageSourceCatalogModel"
    assert recorded["roman.meta.calibration_software_name"] == "rampflow"
    assert "rampflow.cal_logs" not in recorded
    assert set(sources["label"]) == set(labels) - {0}
    assert (len(sources["label"]) > 10) == (stem in ALIGNED)
    with product(visit, stem) as image:
        assert image.meta.source_catalog.tweakreg_catalog_name == catalog.name
        if stem in ALIGNED:
            ra, dec = image.meta.wcs(sources["x_centroid"], sources["y_centroid"])
            np.testing.assert_allclose(sources["ra"], ra, rtol=0, atol=1e-9)
            np.testing.assert_allclose(sources["dec"], dec, rtol=0, atol=1e-9)


def test_the_alignment_is_summarized(visit):
    summary = json.loads((visit.results / f"{ASSOCIATION}_tweakreg.json").read_text())
    assert {stem: e["status"] for stem, e in summary["exposures"].items()} == {
        stem: "COMPLETE" if stem in ALIGNED else "SKIPPED" for stem in CATALOGED
    }
    for stem in ALIGNED:
        exposure = summary["exposures"][stem]
        assert np.hypot(*exposure["shift_mas"]) == pytest.approx(500, abs=5), "the pointing error"
        assert exposure["rmse_after_mas"] < 20 < exposure["rmse_before_mas"]
        with product(visit, stem) as image, product(visit, stem, "wcs") as wcs:
            assert image.meta.wcs_fit_results.status == "SUCCESS"
            assert wcs.meta.wcs_fit_results.status == "SUCCESS"
            assert image.meta.wcs.name == wcs.wcs_l2.name == "FIT-LVL2-astrometric.ecsv"
            sky = image.meta.wcs(100.0, 200.0)
            np.testing.assert_allclose(wcs.wcs_l2(100.0, 200.0), sky, rtol=0, atol=1e-12)
            np.testing.assert_allclose(wcs.wcs_l1(104.0, 204.0), sky, rtol=0, atol=1e-12)


def test_intermediates_are_valid_models_under_their_own_names(visit):
    found = sorted((visit.results / "intermediates").glob(f"{FIRST}_*.asdf"))
    suffixes = [path.stem.removeprefix(f"{FIRST}_") for path in found]
    takes = {STEPS[name].suffix: STEPS[name].takes for name in image_chain(CHAIN[:-1])}
    assert sorted(suffixes) == sorted([*takes, "segm"])
    for path, suffix in zip(found, suffixes, strict=True):
        if suffix == "segm":
            continue
        with roman_datamodels.open(path) as model:
            ramp = takes[suffix] != "wfi_image" and suffix != "rampfit"
            assert isinstance(model, RampModel if ramp else ImageModel), suffix
            model.validate()
            assert model.meta.filename == path.name


def test_a_fully_saturated_exposure_gives_a_zeroed_image(visit):
    with product(visit, f"r0000101001001001001_{SATURATED}") as image:
        for plane in ("data", "err", "var_poisson", "chisq", "dumo"):
            assert not np.any(image[plane]), plane
        assert np.all(image.dq & 2)
        assert image.meta.statistics.good_pixel_fraction == 0
        assert image.meta.wcs is None


def test_products_record_their_provenance(visit):
    with product(visit, FIRST) as image:
        meta = image.meta
        assert meta.calibration_software_name == "rampflow"
        assert meta.calibration_software_version == __version__
        assert meta.ref_file.crds.context == "roman_0001.pmap"
        assert re.fullmatch(r"\d+\.\d+\.\d+", meta.ref_file.crds.version)
        for reftype in "mask saturation refpix darkdecaysignal linearity gain readnoise dark distortion photom flat".split():
            assert meta.ref_file[reftype].startswith(f"crds://roman_wfi_{reftype}_"), reftype
        line = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z :: rampflow\.(\w+) :: (INFO|WARNING) :: .+")
        logged = [line.match(entry)[1] for entry in meta.cal_logs if "py.warnings" not in entry]
        assert list(dict.fromkeys(logged)) == CHAIN
        assert any("rejection_threshold=4.5" in entry for entry in meta.cal_logs)
        good = (np.asarray(image.dq) & 1 == 0) & np.isfinite(image.data) & (np.asarray(image.err) > 0)
        assert meta.statistics.image_median == pytest.approx(np.median(image.data[good]))
        assert meta.statistics.good_pixel_fraction == pytest.approx(good.mean())
        assert meta.statistics.zodiacal_light == -1


def test_every_job_leaves_a_log_and_a_benchmark(visit):
    for step in CHAIN:
        of = ASSOCIATION if step == "tweakreg" else FIRST
        assert (visit.folder / "logs" / of / f"{step}.log").is_file()
        assert (visit.folder / "benchmarks" / of / f"{step}.tsv").read_text().startswith("s\t")


# ---------------------------------------------------------------------------------------------------------------- truth
def truth(visit, stem):
    with asdf.open(visit.inputs / f"{stem}_truth.asdf", memmap=False, lazy_load=False) as file:
        return file["truth"]


@pytest.mark.parametrize("stem", STEMS[:5])
def test_count_rates_are_unbiased_within_the_noise(visit, stem):
    """Of flat-fielded exposures, against the scene."""
    with product(visit, stem) as image:
        good = np.asarray(image.dq) == 0
        pull = (image.data - truth(visit, stem)["scene"])[good] / np.asarray(image.err, np.float32)[good]
        error = np.median(np.asarray(image.err, np.float32)[good])
    assert abs(np.median(pull)) < 0.15, f"bias of {np.median(pull) * error:.3g} DN/s"
    assert 1.4826 * np.median(np.abs(pull - np.median(pull))) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("stem", STEMS[:2])
def test_cosmic_rays_are_found_and_clean_pixels_are_not(visit, stem):
    hits = truth(visit, stem)["cosmic_rays"]
    with product(visit, stem) as image:
        dq, indices = np.asarray(image.dq), np.asarray(image.jump_indices)
    with roman_datamodels.open(visit.results / "intermediates" / f"{stem}_linearity.asdf") as ramp:
        noise = np.hypot(np.sqrt(2) * 7 * 1.8, np.sqrt(np.abs(np.median(np.diff(ramp.data, axis=0), axis=(1, 2)))))[0]
    charge = np.zeros((len(ramp_reads(visit, stem)), *dq.shape))
    np.add.at(charge, (hits["resultant"], hits["row"], hits["column"]), hits["charge"])
    struck = charge.sum(axis=0) > 0
    usable = dq & ~np.uint32(4) == 0
    # A hit in the first resultant is part of the pedestal: no difference shows it.
    strong = (charge[1:].max(axis=0) > 10 * noise) & usable
    flagged = dq & 4 != 0
    assert strong.sum() > 100
    assert flagged[strong].mean() >= 0.95
    neighbors = np.zeros_like(struck)
    for shift in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
        neighbors |= np.roll(struck, shift, (0, 1))
    clean = usable & ~neighbors
    assert flagged[clean].mean() < 0.01
    assert set(map(tuple, indices[:, 1:])) == set(zip(*np.nonzero(flagged), strict=True))


def ramp_reads(visit, stem):
    with product(visit, stem) as image:
        return [list(reads) for reads in image.meta.exposure.read_pattern]


@pytest.mark.parametrize("stem", [*ALIGNED, STEMS[4]])
def test_positions_on_the_sky_match_the_simulated_truth(visit, stem):
    """Sources of the truth have sky and pixel positions; alignment removes the pointing error."""
    sources = Table.read(visit.inputs / f"{stem}_truth.ecsv")
    with product(visit, stem) as image:
        ra, dec = image.meta.wcs(np.array(sources["x"]), np.array(sources["y"]))
        region = [float(v) for v in image.meta.wcsinfo.s_region.split()[2:]]
        corners = np.array(image.meta.wcs([-0.5, -0.5, 503.5, 503.5], [-0.5, 503.5, 503.5, -0.5], with_bounding_box=False)).T
    along_ra = (ra - sources["ra"]) * np.cos(np.radians(sources["dec"])) * 3600e3
    along_dec = (dec - sources["dec"]) * 3600e3
    error, tolerance = ((0, 0), 3) if stem in ALIGNED else ((300, -400), 1)
    assert np.median(along_ra) == pytest.approx(error[0], abs=tolerance), "mas"
    assert np.median(along_dec) == pytest.approx(error[1], abs=tolerance), "mas"
    assert max(np.ptp(along_ra), np.ptp(along_dec)) < 10
    np.testing.assert_allclose(np.reshape(region, (4, 2)), corners, atol=1e-8)


# --------------------------------------------------------------------------------------------------------------- reruns
def test_a_second_run_has_no_jobs(visit):
    assert visit.jobs(*visit.arguments) == {}


def test_a_killed_run_whose_jobs_have_made_all_products_gets_its_summary(visit):
    """Those of a cluster go on without Snakemake, which then has nothing to do."""
    summary = visit.folder / "logs" / "summary.txt"
    made = [visit.results / name for name in ("exposures.ecsv", "exposures.parquet", "run.json")]
    report_begin(summary)
    for path in made:
        path.unlink()
    for options in (["steps={ramp_fitting: {rejection_threshold: 6.5}}", "--dry-run"], ["--dry-run"]):
        assert visit.snakemake(*visit.arguments, *options).returncode == 0
        assert "not ended" in summary.read_text() and not any(path.exists() for path in made)
    run = visit.snakemake(*visit.arguments)
    assert run.returncode == 0 and "Nothing to be done" in run.stderr
    assert re.match(r"rampflow: nothing failed, .*10 of 10 exposures have their products", summary.read_text())
    assert all(path.exists() for path in made)
    before = summary.stat().st_mtime_ns
    assert visit.snakemake(*visit.arguments).returncode == 0
    assert summary.stat().st_mtime_ns == before, "once"


def test_another_parameter_reruns_its_step_and_what_follows(visit):
    """The chain of the fully saturated exposure runs too: only its pixels show that it needs no fit."""
    jobs = visit.jobs(*visit.arguments, "steps={ramp_fitting: {rejection_threshold: 6.5}}")
    assert jobs == {
        **dict.fromkeys("ramp_fitting dark_current assign_wcs photom".split(), len(STEMS)),
        "flatfield": 6,
        **PRODUCTS,
    }


def test_another_alignment_reruns_tweakreg_and_finalize_alone(visit):
    """Also where intermediates are not kept: what these read stays."""
    assert visit.jobs(*visit.arguments, "steps={tweakreg: {abs_sigma: 2.5}}") == {"tweakreg": 1, "finalize": 5}


def test_another_flat_reruns_flatfield_and_what_follows(visit):
    flat = next((visit.inputs / "crds_cache" / "references" / "roman" / "wfi").glob("roman_wfi_flat_wfi01*"))
    own = visit.folder / "my_flat.asdf"
    shutil.copy(flat, own)
    # A flat of WFI01 for all detectors is refused before any job, unless allow_mismatch is true.
    jobs = visit.jobs(*visit.arguments, f"references={{allow_mismatch: true, override: {{flat: {own}}}}}")
    assert jobs == {"flatfield": 6, **PRODUCTS, "finalize_image": 1}
    refused = visit.snakemake(*visit.arguments, f"references={{override: {{flat: {own}}}}}", "--dry-run")
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1 and "references.override.flat" in said and "detector is WFI01" in said


def test_the_same_inputs_elsewhere_rerun_nothing(visit, tmp_path):
    """A cache that was copied, raw files named from another folder: the same names and contents."""
    cache = tmp_path / "cache"
    shutil.copytree(visit.inputs / "crds_cache", cache)
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in [*visit.inputs.glob("*_uncal.asdf"), visit.inputs / "visit_asn.json"]:
        shutil.copyfile(path, raw / path.name)
    there = Workflow(visit.folder, cache)
    assert there.jobs(*visit.arguments, f"input={raw / 'visit_asn.json'}") == {}
    assert there.jobs(*visit.arguments, f"input={os.path.relpath(raw, visit.folder)}/visit_asn.json") == {}
    stars = shutil.copyfile(visit.inputs / "astrometric.ecsv", tmp_path / "astrometric.ecsv")
    elsewhere = f"astrometric_catalog={stars}"
    assert there.jobs(*visit.arguments, f"input={raw / 'visit_asn.json'}", elsewhere) == {}
    stars.write_text("".join(stars.read_text().splitlines(keepends=True)[:-1]))
    jobs = there.jobs(*visit.arguments, f"input={raw / 'visit_asn.json'}", elsewhere)
    assert jobs == {"astrometric_catalog": 1, "tweakreg": 1, "finalize": 5}


def test_a_forced_step_reads_the_cache_that_is_set_now(visit, single, tmp_path):
    """Not the cache of the previous run."""
    options = [*single, "results=forced", "--until", "dq_init"]
    assert visit.snakemake(*options).returncode == 0
    cache = tmp_path / "cache"
    shutil.copytree(visit.inputs / "crds_cache", cache)
    run = Workflow(visit.folder, cache).snakemake(*options, "--forcerun", "dq_init")
    assert run.returncode == 0, run.stderr
    log = (visit.folder / "logs" / FIRST / "dq_init.log").read_text()
    assert f"Using MASK reference file: {cache}/references/roman/wfi/roman_wfi_mask_wfi01" in log


@pytest.fixture(scope="module")
def default_run(visit, single):
    """Arguments of a run of the first exposure with intermediates kept as by default; its results folder."""
    options = [*single, "results=default"]
    assert visit.snakemake(*options).returncode == 0
    return options, visit.folder / "default"


def test_by_default_a_new_flat_repeats_the_short_steps(visit, default_run):
    """The image of ramp_fitting stays: the steps on the ramp, which take most of the time, are not repeated."""
    options, _ = default_run
    flat = next((visit.inputs / "crds_cache" / "references" / "roman" / "wfi").glob("roman_wfi_flat_wfi01*"))
    shutil.copy(flat, visit.folder / "another_flat.asdf")
    jobs = visit.jobs(*options, "references={override: {flat: another_flat.asdf}}")
    steps = "dark_current assign_wcs photom flatfield source_catalog tweakreg finalize"
    assert jobs == dict.fromkeys(steps.split(), 1)


def test_a_renamed_results_folder_is_checked_by_its_recipes(visit, single, default_run):
    """Or a copied one: Snakemake has no record of its files, and their metadata say how they were made."""
    copy_folder(default_run[1], visit.folder / "after")
    renamed = [*single, "results=after"]
    assert visit.jobs(*renamed, "steps={tweakreg: {abs_sigma: 2.5}}") == dict.fromkeys(
        ("astrometric_catalog", "tweakreg", "finalize"), 1
    )
    changed = [*renamed, "steps={flatfield: {include_var_flat: true}}"]
    run = visit.snakemake(*changed, "--dry-run")
    assert f"after/intermediates/{FIRST}_flat.asdf and 1 other: was not made by a run" in run.stderr + run.stdout
    # From the image of ramp_fitting on, which is kept.
    steps = "dark_current assign_wcs photom flatfield source_catalog astrometric_catalog tweakreg finalize"
    assert visit.jobs(*changed) == dict.fromkeys(steps.split(), 1)
    changed_catalog = [*renamed, "steps={source_catalog: {snr_threshold: 4}}"]
    assert visit.jobs(*changed_catalog) == dict.fromkeys(("source_catalog", "tweakreg", "finalize"), 1)
    assert visit.jobs(*renamed) == {}, "asked for what it is"
    assert visit.snakemake(*changed).returncode == 0
    with roman_datamodels.open(visit.folder / "after" / f"{FIRST}_cal.asdf") as image:
        assert "var_flat" in image
    assert visit.jobs(*changed) == {}


def test_damaged_products_are_made_again(visit, tmp_path):
    """Snakemake has records of them, and sees only that they exist and are new. Each exposure has another damaged product."""
    assert visit.jobs(*visit.arguments) == {}
    of_catalog = ("_cal.asdf", "_wcs.asdf", "_segm.asdf", "_cat.parquet", "_qa.json")
    others = [stem for stem in STEMS if stem not in CATALOGED]
    damaged = [*zip(CATALOGED, of_catalog, strict=True), *zip(others[:2], ("_cal.png", "_cal_thumb.png"), strict=True)]
    paths = [visit.results / f"{stem}{end}" for stem, end in damaged]
    whole = {path: shutil.copy2(path, tmp_path) for path in paths}
    for path in paths:
        content = path.read_bytes()
        path.unlink()  # ASDF files are links to those of other modules' visits
        path.write_bytes(content[: len(content) // 2])
    try:
        command = [sys.executable, ROOT / "scripts" / "show_products.py", visit.results]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for stem, end in damaged:
            (line,) = (line for line in listed.splitlines() if line.startswith(stem))
            assert ("damaged" in line) == (not end.endswith(".png")), line
        jobs = visit.jobs(*visit.arguments)
        assert (jobs["finalize"], jobs["finalize_image"]) == (len(of_catalog), len(damaged) - len(of_catalog))
    finally:
        for path, copy in whole.items():
            shutil.copy2(copy, path)
    assert visit.jobs(*visit.arguments) == {}


def test_files_that_the_run_makes_are_no_input(visit, default_run):
    options, results = default_run
    segmentation, catalog = results / "intermediates" / f"{FIRST}_segm.asdf", results / f"{FIRST}_cat.parquet"
    for setting in (f"steps={{source_catalog: {{forced_segmentation: {segmentation}}}}}", f"astrometric_catalog={catalog}"):
        kept = [word for word in options if not word.startswith(setting.partition("=")[0])]
        run = visit.snakemake(*kept, setting, "--dry-run")
        assert run.returncode != 0 and "this run makes this file anew" in run.stderr + run.stdout
    assert segmentation.exists() and catalog.exists()


def test_a_partial_run_does_not_count_the_products_of_other_parameters(visit, single, default_run):
    copy_folder(default_run[1], visit.folder / "partial")
    changed = [*single, "results=partial", "steps={flatfield: {include_var_flat: true}}"]
    assert visit.snakemake(*changed, "--until", "flatfield").returncode == 0
    head = (visit.folder / "logs" / "summary.txt").read_text().splitlines()[0]
    assert "nothing failed" in head and "0 of 1 exposures have their products, 1 has outdated ones" in head
    assert visit.snakemake(*changed).returncode == 0
    assert "1 of 1 exposures have their products" in (visit.folder / "logs" / "summary.txt").read_text()


def test_stale_files_are_listed_and_removed(visit, single):
    pair = f"input=[demo/{FIRST}_uncal.asdf, demo/{STEMS[5]}_uncal.asdf]"
    options = ["astrometric_catalog=demo/astrometric.ecsv", "results=mixed"]
    assert visit.snakemake("--config", pair, *options).returncode == 0
    results = visit.folder / "mixed"
    own = {"notes.txt", "my_copy_cal.asdf", "colors_report.html", "finder_cat.parquet"}
    for name in own - {"my_copy_cal.asdf"}:
        (results / name).write_text("mine")
    shutil.copyfile(results / f"{STEMS[5]}_cal.asdf", results / "my_copy_cal.asdf")
    (results / "folder_cal.asdf").mkdir()
    skipping = [*options, "steps={source_catalog: {skip: true}, tweakreg: {skip: true}}"]
    left = {f"{STEMS[5]}_{end}" for end in ("cal.asdf", "wcs.asdf", "qa.json", "cal.png", "cal_thumb.png", "rampfit.asdf")}
    left |= {f"{FIRST}_{end}" for end in ("cat.parquet", "segm.asdf", "tweakreg.json", "tweakreg.asdf", "astrometric.parquet")}

    def here():
        return {path.name for path in results.rglob("*") if path.is_file()}

    listed = visit.snakemake("remove_stale", "--dry-run", "--config", f"input=demo/{FIRST}_uncal.asdf", *skipping)
    assert listed.returncode == 0 and all(name in listed.stdout + listed.stderr for name in left)
    run = visit.snakemake("--config", f"input=demo/{FIRST}_uncal.asdf", *skipping)
    assert run.returncode == 0 and "13 files in mixed are of exposures or steps" in run.stdout + run.stderr
    summary = (visit.folder / "logs" / "summary.txt").read_text()
    assert all(f"/{name}\n" in summary for name in left)
    before = here()
    run = visit.snakemake("remove_stale", "--config", f"input=demo/{FIRST}_uncal.asdf", *skipping)
    assert run.returncode == 0, run.stderr
    assert before - here() == left and own <= here()


def test_a_new_context_reruns_what_reads_its_new_reference(visit):
    command = [sys.executable, ROOT / "scripts" / "simulator" / "simulate_references.py", visit.inputs / "crds_cache"]
    new = ["--detectors", "WFI01", "--size", "512", "--seed", "2", "--context", "roman_0002.pmap", "--new", "flat"]
    subprocess.run([*map(str, command), *new], check=True, env=visit.environment, capture_output=True)
    jobs = visit.jobs(*visit.arguments, "references={crds_context: roman_0002.pmap}")
    images_of_wfi01 = 4  # two dithers, the wavefront exposure, the saturated one
    assert jobs == {
        "flatfield": images_of_wfi01,
        "source_catalog": 3,
        "tweakreg": 1,
        "finalize": 5,
        "finalize_image": 1,
    }


def test_an_edited_script_reruns_its_step(visit, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "demo", "results"))
    there = Workflow(visit.folder, visit.inputs / "crds_cache", clone)
    assert there.jobs(*visit.arguments) == {}, "a clone elsewhere, with the same scripts"
    script = clone / "scripts" / "photom.py"
    script.write_text(script.read_text() + "\n# edited\n")
    words = clone / "scripts" / "rampflow" / "dq.py"
    words.write_text(words.read_text().replace('"""', '"""Other words. ', 1))
    assert there.jobs(*visit.arguments) == {}, "words"
    script.write_text(script.read_text() + "\nEDITED = True\n")
    assert there.jobs(*visit.arguments) == {"photom": 10, "flatfield": 6, **PRODUCTS}


# -------------------------------------------------------------------------------------------------------------- options
def test_intermediates_are_removed_by_default_and_steps_can_be_skipped(visit, single):
    options = ["results=few", "keep_intermediates=[linearity]", "steps={refpix: {skip: true}}"]
    run = visit.snakemake(*single, *options)
    assert run.returncode == 0, run.stderr
    kept = {p.name.removeprefix(FIRST) for p in (visit.folder / "few" / "intermediates").iterdir()}
    read_again = {"_flat.asdf", "_cat.parquet", "_segm.asdf", "_astrometric.parquet", "_tweakreg.asdf"}
    assert kept == {"_linearity.asdf", *read_again}
    assert visit.jobs(*single, *options, "steps={refpix: {skip: true}, tweakreg: {abs_sigma: 2.5}}") == {
        "tweakreg": 1,
        "finalize": 1,
    }
    with roman_datamodels.open(visit.folder / "few" / f"{FIRST}_cal.asdf") as image:
        image.validate()
        assert image.meta.cal_step.refpix == "SKIPPED"
        assert image.meta.cal_step.linearity == "COMPLETE"
        with product(visit, FIRST) as corrected:
            assert np.nanstd(image.data - corrected.data) > 0


def test_one_step_can_be_forced(visit):
    jobs = visit.jobs(*visit.arguments, "--forcerun", "assign_wcs")
    assert jobs == {"assign_wcs": 10, "photom": 10, "flatfield": 6, **PRODUCTS}


def test_exposures_of_a_folder_are_their_own_associations(visit):
    jobs = visit.jobs("--config", "input=demo", "results=elsewhere")
    assert jobs["dq_init"] == len(STEMS)
    assert jobs["wfi18_transient"] == 3


@pytest.fixture
def without_network(visit):
    """Arguments of a run of the first exposure, with an unreachable server of stars."""
    visit.environment["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:1"
    yield [*IN_ONE_JOB, f"input=demo/{FIRST}_uncal.asdf", "results=unaligned", "steps={tweakreg: {vo_timeout: 3}}"]
    del visit.environment["AWS_ENDPOINT_URL_S3"]


def test_without_an_astrometric_catalog_products_are_delivered_unaligned(visit, without_network):
    """The failure is in the product, the summary and the log, and the next run tries again."""
    run = visit.snakemake(*without_network)
    assert run.returncode == 0, run.stderr
    with roman_datamodels.open(visit.folder / "unaligned" / f"{FIRST}_cal.asdf") as image:
        image.validate()
        assert image.meta.cal_step.tweakreg == "FAILED"
        assert image.meta.wcs_fit_results.status == "FAILED"
        assert not (image.meta.wcs.name or "").startswith("FIT")
    summary = json.loads((visit.folder / "unaligned" / f"{FIRST}_tweakreg.json").read_text())
    assert summary["exposures"][FIRST]["status"] == "FAILED"
    assert summary["astrometric_catalog"]["status"] == "FAILED" and summary["astrometric_catalog"]["reason"]
    log = (visit.folder / "logs" / FIRST / "astrometric_catalog.log").read_text()
    assert "WARNING :: The astrometric catalog GAIADR3_S3 couldn't be retrieved" in log
    assert "rampflow: nothing failed, 1 not aligned, " in run.stdout + run.stderr
    again = {"astrometric_catalog": 1, "tweakreg": 1, "finalize": 1}
    assert visit.jobs(*without_network) == again
    assert visit.snakemake(*without_network).returncode == 0
    assert visit.jobs(*without_network) == again, "each run tries again"


def test_an_alignment_that_is_required_is_a_failure_without_stars(visit, without_network):
    options = [*without_network, "require_alignment=true"]
    run = visit.snakemake(*options)
    text = run.stdout + run.stderr
    assert run.returncode != 0
    assert f"failed: {FIRST} finalize: {FIRST}: require_alignment is true and the alignment is FAILED (no astrometric" in text
    assert not list((visit.folder / "unaligned").glob("*_cal.asdf"))
    # With stars it succeeds, and stars retrieved at a later attempt are not requested again.
    options.append("astrometric_catalog=demo/astrometric.ecsv")
    assert visit.snakemake(*options).returncode == 0
    with roman_datamodels.open(visit.folder / "unaligned" / f"{FIRST}_cal.asdf") as image:
        assert image.meta.cal_step.tweakreg == "COMPLETE"
    assert visit.jobs(*options) == {}


@pytest.fixture(scope="module")
def mapped(visit, single):
    """Arguments of a run of the first exposure with a given segmentation map, its own, and the map's file."""
    segments = visit.folder / "map.asdf"
    shutil.copy(visit.results / f"{FIRST}_segm.asdf", segments)
    arguments = [*single, "results=mapped", "steps={source_catalog: {forced_segmentation: map.asdf}}"]
    run = visit.snakemake(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return arguments, segments


def test_all_positions_of_given_sources_are_aligned(visit, mapped):
    summary = json.loads((visit.folder / "mapped" / f"{FIRST}_tweakreg.json").read_text())["exposures"][FIRST]
    assert summary["status"] == "COMPLETE" and np.hypot(*summary["shift_mas"]) == pytest.approx(500, abs=5)
    table = parquet.read_table(visit.folder / "mapped" / f"{FIRST}_cat.parquet")
    with roman_datamodels.open(visit.folder / "mapped" / f"{FIRST}_cal.asdf") as image:
        for prefix, pixels, sky in (
            *(("", "centroid", suffix) for suffix in ("", "_centroid")),
            *(("forced_", "centroid", suffix) for suffix in ("", "_centroid")),
            *(("", "centroid_win", "_centroid_win"), ("forced_", "psf", "_psf")),
        ):
            expected = image.meta.wcs(*(table[f"{prefix}{axis}_{pixels}"].to_numpy() for axis in "xy"))
            for name, values in zip((f"{prefix}ra{sky}", f"{prefix}dec{sky}"), expected, strict=True):
                np.testing.assert_allclose(table[name].to_numpy(), values, rtol=0, atol=1e-9, err_msg=name)


def test_the_files_that_the_configuration_names_are_inputs(visit, mapped, tmp_path):
    arguments, segments = mapped
    assert visit.jobs(*arguments) == {}
    elsewhere = [*arguments, f"steps={{source_catalog: {{forced_segmentation: {tmp_path / segments.name}}}}}"]
    shutil.copyfile(segments, tmp_path / segments.name)
    assert visit.jobs(*elsewhere) == {}, "the same map in another folder"
    shutil.copyfile(visit.results / f"{STEMS[1]}_segm.asdf", tmp_path / segments.name)
    assert visit.jobs(*elsewhere)["source_catalog"] == 1, "another map"
    with asdf.open(segments, memmap=False, lazy_load=False) as file:
        labels = file["roman"]["data"].copy()
        labels[labels == labels.max()] = 0
        file["roman"]["data"] = labels
        file.write_to(visit.folder / "changed.asdf")
    (visit.folder / "changed.asdf").replace(segments)
    assert visit.jobs(*arguments) == {"source_catalog": 1, "tweakreg": 1, "finalize": 1}
    segments.unlink()
    run = visit.snakemake(*arguments, "--dry-run")
    assert run.returncode != 0
    assert "steps.source_catalog.forced_segmentation: map.asdf does not exist" in run.stdout + run.stderr


def test_the_map_of_a_dither_is_refused(visit):
    """The second exposure with the map of the first, 3.9 arcsec away, by which its sources would be shifted."""
    segments = visit.results / f"{FIRST}_segm.asdf"
    steps = f"steps={{source_catalog: {{forced_segmentation: {segments}}}}}"
    run = visit.snakemake(*IN_ONE_JOB, f"input=demo/{STEMS[1]}_uncal.asdf", "results=dither", steps)
    assert run.returncode != 0
    assert "lies 3.91 arcsec (35.6 pixels) from the image" in run.stdout + run.stderr
    assert not list((visit.folder / "dither").glob("*_cal.asdf"))


def test_a_member_is_aligned_with_the_catalog_that_the_association_names(visit, tmp_path):
    """A catalog with columns x and y, half as many sources as the exposure's own."""
    own = parquet.read_table(visit.results / "intermediates" / f"{FIRST}_cat.parquet")
    brightest = np.argsort(-own["psf_flux"].to_numpy())[:15]
    columns = {name: own[f"{name}_psf"].to_numpy()[brightest].astype(float) for name in ("x", "y")}
    Table(columns).write(visit.inputs / "own.ecsv")
    member = {"expname": f"{FIRST}_uncal.asdf", "exptype": "science", "tweakreg_catalog": "own.ecsv"}
    (visit.inputs / "own_asn.json").write_text(json.dumps({"products": [{"name": "own", "members": [member]}]}))
    options = ["astrometric_catalog=demo/astrometric.ecsv", "results=own"]
    run = visit.snakemake(*IN_ONE_JOB, "input=demo/own_asn.json", *options)
    assert run.returncode == 0, run.stderr
    summary = json.loads((visit.folder / "own" / "own_tweakreg.json").read_text())["exposures"][FIRST]
    assert summary["status"] == "COMPLETE"
    assert summary["n_sources"] == 15 and summary["catalog"] == "own.ecsv"
    with roman_datamodels.open(visit.folder / "own" / f"{FIRST}_cal.asdf") as image:
        image.validate()
        assert image.meta.source_catalog.tweakreg_catalog_name == "own.ecsv"
        assert any("15 of 15 sources from" in line and "own.ecsv (x, y)" in line for line in image.meta.cal_logs)
    # The association and the catalog in another folder are the same input.
    member["expname"] = str(visit.inputs / f"{FIRST}_uncal.asdf")
    (tmp_path / "own_asn.json").write_text(json.dumps({"products": [{"name": "own", "members": [member]}]}))
    shutil.copyfile(visit.inputs / "own.ecsv", tmp_path / "own.ecsv")
    assert visit.jobs(*IN_ONE_JOB, f"input={tmp_path}/own_asn.json", *options) == {}


def test_swapped_member_catalogs_are_refused(visit):
    """Two dithers with each other's catalogs: the metadata of a catalog name its exposure."""
    stems = STEMS[:2]
    for stem in stems:
        shutil.copy(visit.results / f"{stem}_cat.parquet", visit.inputs / f"{stem}_cat.parquet")
    members = [
        {"expname": f"{stem}_uncal.asdf", "exptype": "science", "tweakreg_catalog": f"{other}_cat.parquet"}
        for stem, other in zip(stems, reversed(stems), strict=True)
    ]
    (visit.inputs / "swapped_asn.json").write_text(json.dumps({"products": [{"name": "swapped", "members": members}]}))
    options = [*IN_ONE_JOB, "input=demo/swapped_asn.json", "astrometric_catalog=demo/astrometric.ecsv", "results=swapped"]
    run = visit.snakemake(*options)
    assert run.returncode == 0, run.stderr
    summary = json.loads((visit.folder / "swapped" / "swapped_tweakreg.json").read_text())["exposures"]
    assert {entry["status"] for entry in summary.values()} == {"FAILED"}
    assert f"it is of {STEMS[1][:30]}" in summary[FIRST]["reason"]
    with roman_datamodels.open(visit.folder / "swapped" / f"{FIRST}_cal.asdf") as image:
        image.validate()
        assert image.meta.cal_step.tweakreg == "FAILED"
    # Positions alone, without metadata: the sources found on each image contradict them.
    for member, stem in zip(members, reversed(stems), strict=True):
        table = parquet.read_table(visit.results / f"{stem}_cat.parquet")
        columns = {name: table[f"{name}_psf"].to_numpy().astype(float) for name in ("x", "y")}
        member["tweakreg_catalog"] = f"{stem}.csv"
        Table(columns).write(visit.inputs / member["tweakreg_catalog"])
    (visit.inputs / "swapped_asn.json").write_text(json.dumps({"products": [{"name": "swapped", "members": members}]}))
    run = visit.snakemake(*options)
    assert run.returncode == 0, run.stderr
    summary = json.loads((visit.folder / "swapped" / "swapped_tweakreg.json").read_text())["exposures"]
    assert {entry["status"] for entry in summary.values()} == {"FAILED"}
    assert re.search(r"contradicts the image: \d+ of its \d+ positions lie within 2 pixels", summary[FIRST]["reason"])


def test_exposures_years_apart_are_aligned_at_their_own_epochs(visit):
    """The second of two dithers says that it is ten years later, and all stars move by 10 and -6 mas per year.

    Its pixels are those of the first epoch, so that its WCS follows the stars: by 100 mas to the east and 60 to the south.
    """
    first, later = STEMS[:2]
    with AsdfFile(visit.inputs / f"{first}_uncal.asdf") as file:
        epoch = epoch_of(Exposure(file))
    (visit.inputs / "later").mkdir()
    with AsdfFile(visit.inputs / f"{later}_uncal.asdf") as file:
        times = file.tree["roman"]["meta"]["exposure"]
        for name in ("start_time", "mid_time", "end_time"):
            times[name] = tagged(f"{int(times[name][:4]) + 10}{times[name][4:]}", times[name].tag)
        with create_asdf(visit.inputs / "later" / f"{later}_uncal.asdf", file.tree) as writer:
            for array in file.tree["roman"].values():
                if hasattr(array, "read"):
                    writer.write(array, array.read())
    stars = Table.read(visit.inputs / "astrometric.ecsv")["ra", "dec"]
    stars["pmra"], stars["pmdec"], stars["ref_epoch"] = 10.0, -6.0, epoch
    stars.write(visit.inputs / "moving.ecsv")
    members = [{"expname": f"{name}_uncal.asdf", "exptype": "science"} for name in (first, f"later/{later}")]
    (visit.inputs / "epochs_asn.json").write_text(json.dumps({"products": [{"name": "epochs", "members": members}]}))
    options = ["input=demo/epochs_asn.json", "astrometric_catalog=demo/moving.ecsv", "results=epochs"]
    run = visit.snakemake(*IN_ONE_JOB, *options)
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((visit.folder / "epochs" / "epochs_tweakreg.json").read_text())["exposures"]
    assert {entry["status"] for entry in summary.values()} == {"COMPLETE"}
    x, y = (axis.ravel() for axis in np.meshgrid(*2 * [np.linspace(0, 503, 5)]))
    for stem, (east, north) in ((first, (0, 0)), (later, (100, -60))):
        positions = []
        for folder in (visit.folder / "epochs", visit.results):
            with roman_datamodels.open(folder / f"{stem}_cal.asdf") as image:
                positions.append(image.meta.wcs(x, y))
        (ra, dec), (ra_before, dec_before) = positions
        moved = 3.6e6 * np.median([(ra - ra_before) * np.cos(np.radians(dec)), dec - dec_before], axis=1)
        # The association of the visit has more exposures: its solution differs by some hundredths of a mas.
        np.testing.assert_allclose(moved, [east, north], atol=0.2)


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.fixture
def faults(visit, tmp_path):
    """A folder with a raw exposure that can be damaged, and a function that runs it and expects a refusal."""
    raw = tmp_path / f"{FIRST}_uncal.asdf"
    shutil.copy(visit.inputs / raw.name, raw)
    workflow = Workflow(tmp_path / "run", visit.inputs / "crds_cache")
    workflow.folder.mkdir()

    def refused(*config, arguments=()):
        run = workflow.snakemake("--config", *config, *arguments)
        text = run.stdout + run.stderr
        assert run.returncode != 0
        assert "Traceback" not in text
        assert not list(workflow.folder.rglob("*_cal.asdf"))
        return text

    refused.raw, refused.workflow = raw, workflow
    return refused


def no_job_ran(workflow):
    return not (workflow.folder / "logs").exists()


def test_truncated_files_and_files_of_another_model_are_named_before_any_job(visit, faults):
    """Cut within the first lines, within the tree and within the pixels; and a product in place of a raw exposure."""
    content = faults.raw.read_bytes()
    for size in (100, 3000, 1_000_000):
        (faults.raw.parent / f"cut{size}_uncal.asdf").write_bytes(content[:size])
    shutil.copy(visit.results / f"{FIRST}_cal.asdf", faults.raw.parent / "product_uncal.asdf")
    text = faults(f"input={faults.raw.parent}")
    for size in (100, 3000, 1_000_000):
        (line,) = [line for line in text.splitlines() if f"{faults.raw.parent}/cut{size}_uncal.asdf" in line]
        assert "truncated" in line
    (line,) = [line for line in text.splitlines() if "product_uncal.asdf: " in line]
    assert "wfi_image" in line and "give a raw exposure" in line
    assert no_job_ran(faults.workflow)


def test_a_missing_reference_is_named_before_any_job(faults):
    text = faults(f"input={faults.raw}", "references={override: {flat: nowhere.asdf}}")
    assert "references.override.flat" in text
    assert "nowhere.asdf" in text
    assert no_job_ran(faults.workflow)


def test_a_reference_that_the_cache_lacks_is_named_before_any_job(visit, faults, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(visit.inputs / "crds_cache", cache)
    for path in (cache / "references" / "roman" / "wfi").glob("*_gain_*"):
        path.unlink()
    faults.workflow.environment["CRDS_PATH"] = str(cache)
    text = faults(f"input={faults.raw}")
    assert "roman_wfi_gain_wfi01" in text
    assert "not in the CRDS cache" in text
    assert no_job_ran(faults.workflow)


WRONG_STEPS = (
    "refpix: {remove_ofset: false}, ramp_fitting: {rejection_threshold: high, skip: true}, saturation: {n_pix_grow_sat: -1}"
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ["stepz={}", f"steps={{{WRONG_STEPS}}}", "keep_intermediates=[nonsense]", "require_alignment=often"],
            [
                *("'stepz'", "did you mean 'steps'", "'steps.refpix.remove_ofset'", "did you mean 'remove_offset'"),
                *("steps.ramp_fitting.rejection_threshold", "a number", "steps.saturation.n_pix_grow_sat", "not below 0"),
                *(
                    "'steps.ramp_fitting.skip'",
                    "keep_intermediates",
                    "dq_init",
                    "require_alignment is 'often'",
                    "true or false",
                ),
            ],
        ),
        (["steps={tweakreg: {abs_separation: 0.5}}"], ["abs_separation (0.5 arcsec)", "√2 times abs_tolerance"]),
        (["astrometric_catalog=GAIADR9"], ["'GAIADR9' is no known catalog", "did you mean GAIADR"]),
        (["steps={source_catalog: {forced_segmentation: none.asdf}}"], ["forced_segmentation: none.asdf does not exist"]),
    ],
    ids=["keys_and_values", "contradiction", "catalog", "file"],
)
def test_a_wrong_setting_is_named_with_what_it_takes(faults, settings, expected):
    text = faults(f"input={faults.raw}", *settings)
    for part in expected:
        assert part in text
    assert no_job_ran(faults.workflow)


def test_a_damaged_reference_is_named_and_leaves_no_product(visit, faults, tmp_path):
    gain = next((visit.inputs / "crds_cache" / "references" / "roman" / "wfi").glob("*_gain_wfi01*"))
    short = tmp_path / "short_gain.asdf"
    short.write_bytes(gain.read_bytes()[:5000])
    text = faults(f"input={faults.raw}", f"references={{override: {{gain: {short}}}}}")
    assert f"{short}" in text
    assert "truncated" in text
    assert not list(faults.workflow.folder.rglob("*_rampfit.asdf"))


# ----------------------------------------------------------------------------------------------------------- by hand
def test_a_step_runs_with_neither_snakemake_nor_crds(visit, tmp_path):
    """Packages of these names are replaced by ones that fail to import."""
    for name in ("snakemake", "crds"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise ImportError('not here')\n")
    references = visit.inputs / "crds_cache" / "references" / "roman" / "wfi"
    command = [
        *(sys.executable, ROOT / "scripts" / "ramp_fitting.py"),
        *(visit.results / "intermediates" / f"{FIRST}_linearity.asdf", tmp_path / "out.asdf"),
        *("--readnoise", next(references.glob("*_readnoise_wfi01*")), "--gain", next(references.glob("*_gain_wfi01*"))),
    ]
    environment = {k: v for k, v in visit.environment.items() if not k.startswith("CRDS")}
    environment["PYTHONPATH"] = str(tmp_path / "blocked")
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    with (
        roman_datamodels.open(tmp_path / "out.asdf") as ours,
        roman_datamodels.open(visit.results / "intermediates" / f"{FIRST}_rampfit.asdf") as workflows,
    ):
        np.testing.assert_array_equal(ours.data, workflows.data)
