"""finalize: statuses, statistics compared with closed forms, both products complete and valid, or none."""

import datetime

import asdf
import finalize
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finalize import finish_statuses, good_pixels, image_statistics, measure_image, median_in_place, read_catalog
from PIL import Image
from roman_datamodels import datamodels
from simulator.simulate_references import Detector, make_distortion
from small_files import FRAME_TIME, arrays_of, image, meta_of, opened, ramp, run, statuses, succeed, write_image, write_ramp

from rampflow import SOFTWARE_NAME, __version__
from rampflow import dq as flags
from rampflow.alignment.exposures import StoredWcs
from rampflow.alignment.product import write_solutions
from rampflow.chain import LATER_STATUSES, STATUSES
from rampflow.errors import RampflowError
from rampflow.files import models
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.data_models import data_model
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged
from rampflow.pictures.image import bin_down, binning, corners_of, draw, stretch
from rampflow.step.exposure import Exposure
from rampflow.step.provenance import LOG_KEY
from rampflow.wcs.building import build_wcs
from rampflow.wcs.conversion import wcs_of_tree
from rampflow.wcs.footprint import s_region

SIZE = 248
PLACEHOLDERS = {"photometry.conversion_megajanskys": 0.5, "photometry.pixel_area": 2.8e-13}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """An image with a WCS, after its last step."""
    folder = tmp_path_factory.mktemp("calibrated")
    model = next(iter(make_distortion(Detector("WFI07", 256, 1)).values()))
    model.save(folder / "distortion.asdf")
    dq = np.zeros((SIZE, SIZE), np.uint32)
    dq[:5], dq[5:9] = flags.DO_NOT_USE, flags.JUMP_DET
    path = write_image(folder / "before.asdf", image(SIZE, SIZE), {**PLACEHOLDERS, "cal_logs": ["an earlier line"]}, dq=dq)
    succeed("assign_wcs", path, folder / "image.asdf", "--distortion", folder / "distortion.asdf")
    return folder / "image.asdf"


@pytest.fixture(scope="module")
def products(calibrated):
    """Folder with both products, r_cal.asdf and r_wcs.asdf."""
    folder = calibrated.parent / "products"
    pictures = folder / "r_cal.png", folder / "r_cal_thumb.png"
    succeed("finalize", calibrated, folder / "r_cal.asdf", folder / "r_wcs.asdf", "--preview", *pictures)
    return folder


# ------------------------------------------------------------------------------------------------------------- statuses
def test_steps_that_did_not_run_are_skipped():
    cal_step = statuses("dq_init", "ramp_fit") | {"photom": "SKIPPED"}
    finish_statuses(cal_step, 7)
    done = {"dq_init": "COMPLETE", "ramp_fit": "COMPLETE", "wfi18_transient": "N/A"}
    assert {name: cal_step[name] for name in STATUSES} == {name: done.get(name, "SKIPPED") for name in STATUSES}
    assert {cal_step[name] for name in LATER_STATUSES} == {"INCOMPLETE"}


@pytest.mark.parametrize(("status", "detector", "expected"), [("INCOMPLETE", 18, "SKIPPED"), ("INCOMPLETE", 17, "N/A"),
                                                              ("COMPLETE", 18, "COMPLETE"), ("N/A", 3, "N/A")])  # fmt: skip
def test_the_transient_status_is_of_wfi18_alone(status, detector, expected):
    cal_step = {"wfi18_transient": status}
    finish_statuses(cal_step, detector)
    assert cal_step["wfi18_transient"] == expected
    assert cal_step["tweakreg"] == "SKIPPED"


# ------------------------------------------------------------------------------------------------------------- preview
@pytest.mark.slow
def test_the_preview_is_the_image_with_its_flagged_rows_dark(products):
    with AsdfFile(products / "r_cal.asdf") as file, Image.open(products / "r_cal.png") as picture:
        data, region = file.tree["roman"]["data"].read(), file.tree["roman"]["meta"]["wcsinfo"]["s_region"]
        data[:5] = np.nan
        expected = draw(stretch(bin_down(data, np.isfinite(data), 1)), corners_of(region))
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize("shape", [(248, 248), (1208, 1208), (2500, 2500)])
def test_the_image_for_the_preview_is_that_of_all_rows_at_once(tmp_path, shape):
    data = image(*shape)
    path = write_image(tmp_path / "x.asdf", data, PLACEHOLDERS)
    with AsdfFile(path) as file:
        _, _, binned = measure_image(Exposure(file))
        whole = file.tree["roman"]["data"].read()
    factor = binning(shape, 1080)
    np.testing.assert_array_equal(binned, bin_down(whole, np.isfinite(whole), factor))
    assert binned.shape == (shape[0] // factor, shape[1] // factor)


# ----------------------------------------------------------------------------------------------------------- statistics
def statistics_of(data, dq, err):
    return image_statistics(data[good_pixels(data, dq, err)], data.size)


def test_statistics_are_those_of_the_good_pixels():
    data = np.array([[1, 2, 3, 4], [100, np.nan, 1e9, np.inf]], np.float32)
    dq = np.zeros(data.shape, np.uint32)
    err = np.ones(data.shape, np.float16)
    dq[0, 1], dq[1, 2] = flags.JUMP_DET, flags.DO_NOT_USE | flags.HOT
    statistics = statistics_of(data, dq, err)
    # 1, 2, 3, 4, 100: median 3, deviations 2, 1, 0, 1, 97
    assert statistics["image_median"] == 3
    assert statistics["image_rms"] == pytest.approx(1.482602218505602, rel=1e-6)
    assert statistics["good_pixel_fraction"] == 5 / 8
    assert statistics["zodiacal_light"] == -1
    err[0, :2] = 0, np.nan
    assert statistics_of(data, dq, err)["good_pixel_fraction"] == 3 / 8
    err[0, 2] = np.inf
    assert statistics_of(data, dq, err)["good_pixel_fraction"] == 2 / 8
    assert statistics_of(data, dq, err)["image_median"] == 52  # of 4 and 100


def test_the_rms_is_exact_for_a_gaussian():
    data = np.random.default_rng(1).normal(10, 2.5, (500, 400)).astype(np.float32)
    statistics = statistics_of(data, np.zeros(data.shape, np.uint32), np.ones(data.shape))
    # The median absolute deviation of n values is known to 1.17 σ / √n, the median to 1.25 σ / √n.
    assert statistics["image_rms"] == pytest.approx(2.5, abs=5 * 1.17 * 2.5 / 447)
    assert statistics["image_median"] == pytest.approx(10, abs=5 * 1.25 * 2.5 / 447)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 1001])
def test_the_median_equals_that_of_numpy(size):
    values = np.random.default_rng(size).normal(0.2, 0.05, size).astype(np.float32)
    assert median_in_place(values.copy()) == np.median(values)
    assert np.isnan(median_in_place(values[:0]))


def test_an_image_without_a_good_pixel_has_no_statistics():
    statistics = statistics_of(np.zeros((3, 4)), np.full((3, 4), flags.DO_NOT_USE, np.uint32), np.ones((3, 4)))
    assert np.isnan(statistics["image_median"]) and np.isnan(statistics["image_rms"])
    assert statistics["good_pixel_fraction"] == 0


# ------------------------------------------------------------------------------------------------------------- products
@pytest.mark.slow
def test_the_calibrated_image_is_complete_and_valid(products, calibrated):
    with opened(products / "r_cal.asdf") as model, opened(calibrated) as before:
        assert type(model).__name__ == model.meta.model_type == "ImageModel"
        assert (model.meta.filename, model.meta.product_type) == ("r_cal.asdf", "l2")
        assert (model.meta.calibration_software_name, model.meta.calibration_software_version) == (SOFTWARE_NAME, __version__)
        for name in ("data", "dq", "err", "var_poisson", "chisq", "dumo", "amp33", "border_ref_pix_left"):
            np.testing.assert_array_equal(model[name], before[name])
        good = np.asarray(model.data)[5:]
        assert model.meta.statistics.image_median == pytest.approx(float(np.median(good)), rel=1e-6)
        assert model.meta.statistics.good_pixel_fraction == pytest.approx(243 / 248)
        assert model.meta.cal_step.assign_wcs == model.meta.cal_step.ramp_fit == "COMPLETE"
        assert model.meta.cal_step.refpix == model.meta.cal_step.tweakreg == "SKIPPED"
        assert model.meta.cal_step.wfi18_transient == "N/A"
        logs = list(model.meta.cal_logs)
        assert logs[0] == "an earlier line" and "rampflow.finalize" in logs[-1]
        assert model.meta.exposure.frame_time == FRAME_TIME
        np.testing.assert_allclose(model.meta.wcs(10, 20), before.meta.wcs(10, 20), rtol=1e-14)
        assert abs((model.meta.file_date - before.meta.file_date).sec) < 600


def test_the_wcs_product_has_both_wcs(products, calibrated):
    with opened(products / "r_wcs.asdf") as model, opened(calibrated) as before:
        assert type(model).__name__ == model.meta.model_type == "WfiWcsModel"
        assert model.meta.filename == "r_wcs.asdf"
        assert model.meta.calibration_software_name == SOFTWARE_NAME
        assert model.meta.calibration_software_version == __version__
        place = before.meta.wcs(10, 20)
        np.testing.assert_allclose(model.wcs_l2(10, 20), place, rtol=1e-14)
        np.testing.assert_allclose(model.wcs_l1(14, 24), place, rtol=1e-13)
        inner = np.array(model.wcs_l2.bounding_box.bounding_box(order="F"))
        outer = np.array(model.wcs_l1.bounding_box.bounding_box(order="F"))
        np.testing.assert_array_equal(outer, inner + [0, 8])
        assert model.meta.wcsinfo.s_region == before.meta.wcsinfo.s_region


def test_a_fully_saturated_exposure_has_a_wcs_product_of_metadata_alone(tmp_path):
    cal_step = statuses("dq_init", "saturation") | {"ramp_fit": "SKIPPED", "assign_wcs": "SKIPPED"}
    zeros = np.zeros((SIZE, SIZE), np.float32)
    half = zeros.astype(np.float16)
    write_image(tmp_path / "in.asdf", zeros, {**PLACEHOLDERS, "cal_step": cal_step},
                dq=np.full(zeros.shape, flags.SATURATED, np.uint32), err=half, var_poisson=half)  # fmt: skip
    said = succeed("finalize", tmp_path / "in.asdf", tmp_path / "r_cal.asdf", tmp_path / "r_wcs.asdf").stderr
    assert "no good pixel" in said
    with opened(tmp_path / "r_cal.asdf") as model:
        assert not np.asarray(model.data).any() and model.meta.wcs is None
        assert np.isnan(model.meta.statistics.image_median) and model.meta.statistics.good_pixel_fraction == 0
        assert model.meta.cal_step.assign_wcs == "SKIPPED"
    with opened(tmp_path / "r_wcs.asdf") as model:
        assert "wcs_l1" not in model and "wcs_l2" not in model
        assert (model.meta.model_type, model.meta.filename) == ("WfiWcsModel", "r_wcs.asdf")
        assert model.meta.instrument.detector == "WFI07"


# ------------------------------------------------------------------------------------------------------ neither product
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"meta": {"exposure.type": "WFI_SELFIE"}}, "WFI_SELFIE"),
        ({"meta": {"observation": ...}}, "observation"),
        ({"err": np.zeros((SIZE, SIZE), np.float64)}, "float64"),
    ],
)
def test_an_invalid_image_is_refused_and_no_product_is_left(tmp_path, wrong, message):
    write_image(tmp_path / "in.asdf", image(SIZE, SIZE), **wrong)
    done = run("finalize", tmp_path / "in.asdf", tmp_path / "p/r_cal.asdf", tmp_path / "p/r_wcs.asdf")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "is not a valid ImageModel" in done.stderr and message in done.stderr
    assert not any((tmp_path / "p").iterdir())


def test_a_calibrated_image_gets_the_data_model_that_is_asked_for(products, tmp_path):
    """From 1.1 to 1.2 and back, with its segmentation map; the arrays are the same."""
    with AsdfFile(products / "r_cal.asdf") as file:
        meta = {key: value for key, value in file.tree["roman"]["meta"].items() if key != "wcs"}
        roman = tagged({"meta": meta, "data": np.ones((SIZE, SIZE), np.uint32)}, data_model("1.1").segmentation_map)
        with create_asdf(tmp_path / "r_segm.asdf", {"roman": roman}):
            pass
    given = products / "r_cal.asdf", tmp_path / "r_segm.asdf"
    before = arrays_of(given[0])
    for version, second in (("1.2", {"dq2"}), ("1.1", set())):
        cal, wcs, segm = (tmp_path / version / f"r_{name}.asdf" for name in ("cal", "wcs", "segm"))
        succeed("finalize", given[0], cal, wcs, "--segmentation", given[1], segm, "--data_model", version)
        model, found = data_model(version), {}
        for path, kind in ((cal, "image"), (wcs, "wcs"), (segm, "segmentation_map")):
            with AsdfFile(path) as file:
                found[kind] = Exposure(file)
                assert ROMAN_PREFIX + found[kind].tag == getattr(model, kind)
                assert found[kind].meta["visit"]["wfi_acm_z_defocus_size"] == -999999.0
        after = arrays_of(cal)
        assert after.keys() - before.keys() == second and not before.keys() - after.keys()
        for name, values in before.items():
            np.testing.assert_array_equal(after[name], values, err_msg=name)
        assert (arrays_of(segm)["data"] == 1).all()
        assert not second or (after["dq2"].dtype == np.uint32 and not after["dq2"].any())
        given = cal, segm
    with opened(cal) as image:
        image.validate()


@pytest.mark.parametrize("version", ["1.4.0", "1.8.0"])
def test_an_image_of_an_older_major_version_keeps_it_and_its_wcs_is_valid(tmp_path, version):
    """The oldest version of a WCS that is known requires metadata that the image doesn't have."""
    image = datamodels.ImageModel.create_fake_data(tag=f"{ROMAN_PREFIX}wfi_image-{version}", shape=(SIZE, SIZE))
    image.meta.cal_logs, image.meta.wcs, image.meta.filename = [], None, "r_cal.asdf"
    image.meta.cal_step = dict.fromkeys((*STATUSES, *LATER_STATUSES, "outlier_detection", "refpix"), "INCOMPLETE")
    image.save(tmp_path / "in_cal.asdf")
    products = tmp_path / "r_cal.asdf", tmp_path / "r_wcs.asdf"
    succeed("finalize", tmp_path / "in_cal.asdf", *products, "--data_model", "1.1")
    found = []
    for path in products:
        with AsdfFile(path) as file:
            found.append(Exposure(file).tag)
        with opened(path) as product:
            product.validate()
    assert found == [f"wfi_image-{version}", "wfi_wcs-2.1.0"]


def test_an_invalid_segmentation_map_is_refused_and_no_product_is_left(calibrated, tmp_path):
    with AsdfFile(calibrated) as file:
        meta = {key: value for key, value in file.tree["roman"]["meta"].items() if key != "wcs"}
        roman = tagged({"meta": meta, "data": np.zeros((9, 9), np.int16)}, f"{ROMAN_PREFIX}segmentation_map-2.1.0")
        with create_asdf(tmp_path / "in_segm.asdf", {"roman": roman}):
            pass
    outputs = tmp_path / "p/r_cal.asdf", tmp_path / "p/r_wcs.asdf"
    done = run("finalize", calibrated, *outputs, "--segmentation", tmp_path / "in_segm.asdf", tmp_path / "p/r_segm.asdf")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "r_segm.asdf: is not a valid SegmentationMapModel" in done.stderr and "int16" in done.stderr
    assert not any((tmp_path / "p").iterdir())


@pytest.mark.parametrize("product", ["r_cal.asdf", "r_wcs.asdf"])
def test_every_tag_of_a_product_is_checked_against_the_schema_that_asdf_has_for_it(products, product):
    tags = set()

    def collect(node):
        tags.add(asdf.tagged.get_tag(node))
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            collect(value)

    collect(asdf.util.load_yaml(products / product, tagged=True))
    ours, theirs = (file.extension_manager for file in (models._known_schemas(), asdf.AsdfFile()))
    assert len(tags) > 5
    for tag in filter(None, tags):
        assert ours.handles_tag_definition(tag) == theirs.handles_tag_definition(tag), tag
        if theirs.handles_tag_definition(tag):
            assert ours.get_tag_definition(tag).schema_uris == theirs.get_tag_definition(tag).schema_uris


def test_a_product_that_was_there_survives_a_failure(tmp_path):
    write_image(tmp_path / "in.asdf", image(SIZE, SIZE), {"exposure.type": "WFI_SELFIE"})
    for name in ("r_cal.asdf", "r_wcs.asdf"):
        (tmp_path / name).write_text("before")
    assert run("finalize", tmp_path / "in.asdf", tmp_path / "r_cal.asdf", tmp_path / "r_wcs.asdf").returncode == 1
    assert (tmp_path / "r_cal.asdf").read_text() == (tmp_path / "r_wcs.asdf").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 3


# ----------------------------------------------------------------------------------------------- all four products at once
STEM = "r0000101001001001001_0001_wfi07_f158"


def star_field():
    """Twenty-five stars on a faint sky."""
    y, x = np.indices((SIZE, SIZE))
    places = np.random.default_rng(8).uniform(-3, 3, (25, 2)) + np.stack(
        np.meshgrid(*[np.arange(30, 230, 45)] * 2), -1
    ).reshape(-1, 2)
    return image(SIZE, SIZE) + sum(300 * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2)) for px, py in places)


def process(folder, meta):
    """Make all four products from an image, as the rules of the workflow do."""
    next(iter(make_distortion(Detector("WFI07", 256, 1)).values())).save(folder / "distortion.asdf")
    steps = {name: folder / f"{STEM}_{name}.asdf" for name in ("rampfit", "assignwcs", "segm", "tweakreg")}
    catalog = folder / f"{STEM}_cat.parquet"
    write_image(steps["rampfit"], star_field(), {**PLACEHOLDERS, "wcsinfo.s_region": "?", **meta})
    succeed("assign_wcs", steps["rampfit"], steps["assignwcs"], "--distortion", folder / "distortion.asdf")
    succeed("source_catalog", steps["assignwcs"], catalog, steps["segm"], "--epsf", "N/A", "--apcorr", "N/A")
    return steps, catalog


def finish(folder, steps, catalog, *options):
    final = {name: folder / "products" / f"{STEM}_{name}" for name in ("cal.asdf", "wcs.asdf", "cat.parquet", "segm.asdf")}
    succeed("finalize", steps["assignwcs"], final["cal.asdf"], final["wcs.asdf"], *options, "--catalog", catalog,
            final["cat.parquet"], "--segmentation", steps["segm"], final["segm.asdf"])  # fmt: skip
    return final


def texts_of(path):
    """Metadata of a catalog."""
    return {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}


@pytest.mark.slow
def test_the_metadata_describe_each_product(tmp_path):
    steps, catalog = process(tmp_path, {"cal_logs": ["an earlier line"]})
    moved = meta_of(steps["assignwcs"])
    pointing = {name: moved["wcsinfo"][name] for name in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref")}
    with AsdfFile(tmp_path / "distortion.asdf") as file:
        distortion = wcs_of_tree(file.tree["roman"]["coordinate_distortion_transform"])
    wcs = build_wcs(distortion, pointing | {"dec_ref": 66.001}, 1.0, (SIZE, SIZE))
    results = {"status": "SUCCESS"}
    solution = {"status": "COMPLETE", "reason": "", "wcs": StoredWcs(wcs), "s_region": s_region(wcs)}
    solution["wcs_fit_results"] = results
    write_solutions(steps["tweakreg"], {"cal_logs": ["a line of tweakreg"]}, {STEM: solution})
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    final = finish(tmp_path, steps, catalog, "--solutions", steps["tweakreg"])

    with opened(final["cal.asdf"]) as cal, opened(final["wcs.asdf"]) as wcs, opened(final["segm.asdf"]) as segm:
        texts, given = texts_of(final["cat.parquet"]), texts_of(catalog)
        assert solution["s_region"] != moved["wcsinfo"]["s_region"] == meta_of(steps["segm"])["wcsinfo"]["s_region"]
        for name, model in (("cal.asdf", cal), ("wcs.asdf", wcs), ("segm.asdf", segm)):
            assert model.meta.filename == final[name].name
            assert model.meta.model_type == type(model).__name__
            assert model.meta.file_date.datetime >= before - datetime.timedelta(milliseconds=1)
            assert model.meta.wcsinfo.s_region == solution["s_region"]
            software = model.meta.calibration_software_name, model.meta.calibration_software_version
            assert software == (SOFTWARE_NAME, __version__)
        assert texts["roman.meta.filename"] == final["cat.parquet"].name
        assert texts["roman.meta.model_type"] == "ImageSourceCatalogModel"
        assert datetime.datetime.fromisoformat(texts["roman.meta.file_date"]) >= before - datetime.timedelta(milliseconds=1)
        assert texts["roman.meta.wcsinfo.s_region"] == solution["s_region"]
        assert texts["roman.meta.image.filename"] == cal.meta.filename
        assert datetime.datetime.fromisoformat(texts["roman.meta.image.file_date"]) == cal.meta.file_date.datetime
        assert texts["roman.meta.calibration_software_version"] == __version__
        # What the catalog says of its making, and all else, is what source_catalog wrote.
        own = {"filename", "file_date", "wcsinfo.s_region", "image.filename", "image.file_date"}
        changed = {key for key in given if texts.get(key) != given[key]}
        assert changed <= {f"roman.meta.{name}" for name in own} | {LOG_KEY.decode()} and LOG_KEY.decode() not in texts
        assert cal.meta.cal_step.source_catalog == cal.meta.cal_step.tweakreg == "COMPLETE"
        assert cal.meta.source_catalog.tweakreg_catalog_name == final["cat.parquet"].name
        for reftype, name in segm.meta.ref_file.items():
            if reftype != "crds":
                assert cal.meta.ref_file[reftype] == name == texts[f"roman.meta.ref_file.{reftype}"]
        logs = "\n".join(cal.meta.cal_logs)
        lines = ("an earlier line", "rampflow.assign_wcs", "rampflow.source_catalog", "a line of tweakreg", "rampflow.finalize")
        places = [logs.index(line) for line in lines]
        assert places == sorted(places)
        # Positions follow the WCS that the image has; the map is the one that was made.
        table = pq.read_table(final["cat.parquet"])
        assert table.num_rows == 25
        place = cal.meta.wcs(table["x_centroid"].to_numpy(), table["y_centroid"].to_numpy())
        np.testing.assert_allclose([table["ra"].to_numpy(), table["dec"].to_numpy()], place, atol=1e-9)
        np.testing.assert_array_equal(cal.meta.wcs(10, 20), wcs.wcs_l2(10, 20))
        for name, values in arrays_of(steps["segm"]).items():
            np.testing.assert_array_equal(segm[name], values)
    assert final["segm.asdf"].stat().st_size < 1.01 * steps["segm"].stat().st_size  # labels are compressed


@pytest.mark.slow
def test_without_a_pointing_all_products_are_valid_and_have_no_footprint(tmp_path):
    steps, catalog = process(tmp_path, {"wcsinfo.ra_ref": -999999, "wcsinfo.dec_ref": -999999})
    stars = tmp_path / "stars.parquet"
    succeed("astrometric_catalog", stars, "--images", steps["assignwcs"], "--astrometric_catalog", "GAIADR3_S3")
    solutions, summary = steps["tweakreg"], tmp_path / "summary.json"
    options = ("--images", steps["assignwcs"], "--catalogs", catalog, "--astrometric_catalog", stars)
    said = succeed("tweakreg", solutions, summary, *options).stderr
    assert f"{STEM}: SKIPPED, it has no WCS: its pointing is not known" in said
    final = finish(tmp_path, steps, catalog, "--solutions", solutions)
    with opened(final["cal.asdf"]) as cal, opened(final["wcs.asdf"]) as wcs, opened(final["segm.asdf"]) as segm:
        assert cal.meta.wcs is None and "wcs_l2" not in wcs
        assert cal.meta.cal_step.assign_wcs == cal.meta.cal_step.tweakreg == "SKIPPED"
        assert cal.meta.cal_step.source_catalog == "COMPLETE" and np.max(segm.data) == 25
        assert {model.meta.wcsinfo.s_region for model in (cal, wcs, segm)} == {"?"}
        assert any("roman_set_telescope_pointing" in line for line in cal.meta.cal_logs)
    table = pq.read_table(final["cat.parquet"])
    for name in ("ra", "dec", "ra_centroid", "dec_centroid", "ra_centroid_win", "dec_centroid_win"):
        assert np.isnan(table[name].to_numpy()).all()
    assert np.isfinite(table["kron_flux"].to_numpy()).all()


def test_a_catalog_that_is_damaged_or_without_metadata_is_refused(tmp_path):
    path = tmp_path / "a_cat.parquet"
    pq.write_table(pa.table({"x": [1.0]}), path)
    with pytest.raises(RampflowError, match=f"{path}: .*has no metadata"):
        read_catalog(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RampflowError, match=f"{path}: .*can't be read .*; get it again"):
        read_catalog(path)


def test_files_of_another_exposure_are_refused(tmp_path):
    """Swapped by hand: the image of one exposure would get the catalog, the map or the WCS of another."""
    names = [f"r0000101001001001001_000{number}_wfi07" for number in (1, 2)]
    meta = {"source_catalog.status": "COMPLETE"}
    for name in names:
        write_image(tmp_path / f"{name}_flat.asdf", image(), {"filename": f"{name}_flat.asdf"})
        pq.write_table(
            pa.table({"label": [1]}).replace_schema_metadata(meta | {"roman.meta.filename": f"{name}_cat.parquet"}),
            tmp_path / f"{name}_cat.parquet",
        )
    first, second = (tmp_path / name for name in names)
    done = run("finalize", f"{second}_flat.asdf", f"{first}_cal.asdf", f"{first}_wcs.asdf")
    assert done.returncode == 1 and f"is of {names[1]} by its metadata (filename)" in done.stderr
    catalog = ("--catalog", f"{second}_cat.parquet", tmp_path / "x_cat.parquet")
    done = run("finalize", f"{first}_flat.asdf", f"{first}_cal.asdf", f"{first}_wcs.asdf", *catalog)
    assert done.returncode == 1 and f"{second}_cat.parquet: is of {names[1]}" in done.stderr
    assert not list(tmp_path.glob("*_cal.asdf"))


@pytest.mark.parametrize("missing", ["input", "model"])
def test_an_input_that_is_not_an_image_is_refused(tmp_path, missing):
    if missing == "model":
        write_ramp(tmp_path / "in.asdf", ramp())
    done = run("finalize", tmp_path / "in.asdf", tmp_path / "r_cal.asdf", tmp_path / "r_wcs.asdf")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert ("expected the data model 'wfi_image'" if missing == "model" else "can't be opened") in done.stderr
    assert not (tmp_path / "r_cal.asdf").exists()


def test_the_program_takes_three_names(capsys):
    with pytest.raises(SystemExit) as left:
        finalize.main(["a.asdf"])
    assert left.value.code == 2 and "CAL" in capsys.readouterr().err


def test_metadata_of_the_input_are_not_changed(calibrated, products):
    assert meta_of(calibrated)["filename"] == "image.asdf" and "statistics" not in meta_of(calibrated)
