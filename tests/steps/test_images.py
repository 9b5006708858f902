"""dark_current, photom and flatfield: what they change in an image, and what they leave unchanged."""

import numpy as np
import pytest
from astropy.modeling.models import Scale, Shift
from dark_current import subtract_dark_current
from flatfield import flat_variance, usable_flat
from photom import photometry_of
from small_files import (
    COLUMNS,
    ROWS,
    arrays_of,
    image,
    meta_of,
    opened,
    ramp,
    refuse,
    run,
    succeed,
    write_image,
    write_ramp,
    write_reference,
)

from rampflow import dq as flags
from rampflow.wcs.building import build_wcs
from rampflow.wcs.conversion import tree_of_wcs

SHAPE = ROWS - 8, COLUMNS - 8
FRAME = ROWS, COLUMNS
PLANES = ("data", "dq", "err", "var_poisson", "chisq", "dumo")


def random_flags(*choices, shape=SHAPE, seed=3):
    return np.random.default_rng(seed).choice(np.array([0, *choices], np.uint32), shape)


def same(path, other, names):
    one, two = arrays_of(path), arrays_of(other)
    for name in names:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
        assert one[name].dtype == two[name].dtype


# --------------------------------------------------------------------------------------------------------- dark current
def test_the_trimmed_dark_is_subtracted_and_its_flags_added(tmp_path):
    data, dq = image(), random_flags(flags.JUMP_DET)
    slope = np.random.default_rng(2).normal(0.01, 0.1, FRAME).astype(np.float32)
    dark_dq = random_flags(flags.HOT, flags.DO_NOT_USE, shape=FRAME, seed=4)
    write_image(tmp_path / "in.asdf", data, dq=dq)
    write_reference(tmp_path / "dark.asdf", dark_slope=slope, dq=dark_dq)
    succeed("dark_current", tmp_path / "in.asdf", tmp_path / "out.asdf", "--dark", tmp_path / "dark.asdf")
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_array_equal(model.data, data - slope[4:-4, 4:-4])
        np.testing.assert_array_equal(model.dq, dq | dark_dq[4:-4, 4:-4])
        assert model.data.dtype == np.float32 and model.dq.dtype == np.uint32
        assert model.meta.cal_step.dark == "COMPLETE"
    same(tmp_path / "in.asdf", tmp_path / "out.asdf", PLANES[2:])


def test_a_dark_is_trimmed_by_four_pixels():
    slope, dq = np.arange(100.0).reshape(10, 10), np.arange(100, dtype=np.uint32).reshape(10, 10)
    data, flagged = subtract_dark_current(np.zeros((2, 2)), np.zeros((2, 2), np.uint32), slope, dq)
    np.testing.assert_array_equal(data, [[-44, -45], [-54, -55]])
    np.testing.assert_array_equal(flagged, [[44, 45], [54, 55]])


@pytest.mark.parametrize(("rate", "share", "warned"), [(50.0, 0.5, "50 %"), (-20.0, 0.04, "4 %"), (50.0, 0.02, None)])
def test_a_dark_that_is_absurd_in_a_part_of_the_frame_is_flagged_there(tmp_path, rate, share, warned):
    """Plausible for a hot pixel, not for so many."""
    rows, columns = (n - 8 for n in FRAME)
    number = round(share * rows * columns)
    slope = np.full(FRAME, 0.01, np.float32)
    slope[4:-4, 4:-4] = np.where(np.arange(rows * columns) < number, np.float32(rate), slope[0, 0]).reshape(rows, columns)
    write_image(tmp_path / "in.asdf", image())
    write_reference(tmp_path / "dark.asdf", dark_slope=slope[::-1].copy(), dq=np.zeros(FRAME, np.uint32))
    said = succeed("dark_current", tmp_path / "in.asdf", tmp_path / "out.asdf", "--dark", tmp_path / "dark.asdf").stderr
    assert (f"dark.asdf: {warned} of dark_slope lie beyond -0.5 to 5 DN/s" in said) == (warned is not None) == ("WARN" in said)
    trimmed = slope[::-1][4:-4, 4:-4]
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_allclose(model.data, image() - trimmed, rtol=1e-6)
        np.testing.assert_array_equal(model.dq != 0, (trimmed == np.float32(rate)) & (warned is not None))


@pytest.mark.parametrize("shape", [SHAPE, (ROWS, COLUMNS + 128)])
def test_a_dark_of_another_shape_is_refused(tmp_path, shape):
    write_image(tmp_path / "in.asdf", image())
    write_reference(tmp_path / "dark.asdf", dark_slope=np.zeros(shape, np.float32), dq=np.zeros(shape, np.uint32))
    said = refuse("dark_current", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--dark",
                  tmp_path / "dark.asdf")  # fmt: skip
    assert "dark.asdf: dark_slope has the shape" in said


@pytest.mark.parametrize("broken", ["dq", "dark_slope"])
def test_a_dark_whose_arrays_differ_in_shape_is_refused(tmp_path, broken):
    write_image(tmp_path / "in.asdf", image())
    content = {"dark_slope": np.zeros(FRAME, np.float32), "dq": np.zeros(FRAME, np.uint32)}
    content[broken] = content[broken][:-2].copy()
    write_reference(tmp_path / "dark.asdf", **content)
    said = refuse("dark_current", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--dark",
                  tmp_path / "dark.asdf")  # fmt: skip
    assert "dark.asdf" in said


@pytest.mark.parametrize(("step", "option", "status"), [("dark_current", "dark", "dark"), ("flatfield", "flat", "flat_field"),
                                                        ("photom", "photom", "photom")])  # fmt: skip
def test_without_a_reference_a_step_is_skipped(tmp_path, step, option, status):
    write_image(tmp_path / "in.asdf", image())
    assert "WARNING" in succeed(step, tmp_path / "in.asdf", tmp_path / "out.asdf", f"--{option}", "N/A").stderr
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step[status] == "SKIPPED"
        assert model.meta.ref_file[option] == "N/A"
    same(tmp_path / "in.asdf", tmp_path / "out.asdf", PLANES)


# --------------------------------------------------------------------------------------------------------------- photom
TABLE = {
    "F158": {"photmjsr": 0.5, "uncertainty": 0.01, "pixelareasr": 2.8e-13, "wavelength": None},
    "GRISM": {"photmjsr": None, "uncertainty": None, "pixelareasr": None},
    "F062": {"photmjsr": 1, "uncertainty": None, "pixelareasr": 3e-13},
}


def calibrate(folder, element, table=TABLE):
    write_image(folder / "in.asdf", image(), {"instrument.optical_element": element})
    write_reference(folder / "photom.asdf", phot_table=table)
    return succeed("photom", folder / "in.asdf", folder / "out.asdf", "--photom", folder / "photom.asdf")


@pytest.mark.parametrize(("element", "values"), [("F158", (0.5, 0.01, 2.8e-13)), ("GRISM", (None, None, None)),
                                                 ("F062", (1.0, None, 3e-13))])  # fmt: skip
def test_the_optical_element_s_calibration_is_recorded(tmp_path, element, values):
    calibrate(tmp_path, element)
    with opened(tmp_path / "out.asdf") as model:
        names = ("conversion_megajanskys", "conversion_megajanskys_uncertainty", "pixel_area")
        assert tuple(model.meta.photometry[name] for name in names) == values
        assert model.meta.cal_step.photom == "COMPLETE"
    same(tmp_path / "in.asdf", tmp_path / "out.asdf", PLANES)


def test_an_unknown_optical_element_changes_nothing(tmp_path):
    said = calibrate(tmp_path, "F213").stderr
    assert "WARNING" in said and "F213" in said
    before = meta_of(tmp_path / "in.asdf")["photometry"]
    with opened(tmp_path / "out.asdf") as model:
        assert dict(model.meta.photometry.items()) == before
    same(tmp_path / "in.asdf", tmp_path / "out.asdf", PLANES)


@pytest.mark.parametrize(
    "row", [{"photmjsr": 0.5}, {**TABLE["F158"], "photmjsr": float("nan")}, {**TABLE["F158"], "uncertainty": "much"}]
)
def test_a_damaged_table_is_refused(tmp_path, row):
    write_image(tmp_path / "in.asdf", image())
    path = write_reference(tmp_path / "photom.asdf", phot_table={"F158": row})
    said = refuse("photom", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--photom", path)
    assert "photom.asdf: phot_table.F158 is damaged" in said


@pytest.mark.parametrize(("scale", "warned"), [(0.11, False), (0.112, False), (0.12, True), (0.1, True)])
def test_a_pixel_area_that_differs_from_the_wcs_gives_a_warning(tmp_path, scale, warned):
    """A WCS with pixels of `scale` arcsec, and a reference with those of 0.11."""
    pixels = (Scale(scale) & Scale(scale)) | (Shift(1546) & Shift(-892))
    pointing = {"v2_ref": 1546.0, "v3_ref": -892.0, "roll_ref": 60.0, "ra_ref": 270.0, "dec_ref": 66.0}
    wcs = tree_of_wcs(build_wcs(pixels, pointing, 1.0, image().shape))
    write_image(tmp_path / "in.asdf", image(), {"wcs": wcs})
    area = float(np.radians(0.11 / 3600) ** 2)
    write_reference(tmp_path / "photom.asdf", phot_table={"F158": {**TABLE["F158"], "pixelareasr": area}})
    done = succeed("photom", tmp_path / "in.asdf", tmp_path / "out.asdf", "--photom", tmp_path / "photom.asdf")
    lines = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(lines) == warned
    for line in lines:
        assert f"phot_table.F158.pixelareasr is {area:.4g} sr" in line
        assert f"{np.radians(scale / 3600) ** 2:.3g}"[:4] in line and "meta.wcs" in line
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.photometry.pixel_area == area


def test_names_of_elements_are_read_in_capitals():
    assert photometry_of(TABLE, "f158")["pixel_area"] == 2.8e-13
    assert photometry_of(TABLE, "PRISM") is None


# ------------------------------------------------------------------------------------------------------------ flatfield
@pytest.fixture
def flat(tmp_path):
    """A flat with all its faults, in flat.asdf: its data, err and dq."""
    data = np.random.default_rng(6).uniform(0.5, 2, SHAPE).astype(np.float32)
    dq = random_flags(flags.HOT, seed=7)
    data[3, :5], data[4, :5] = np.nan, 0
    dq[5, :5] |= flags.NO_FLAT_FIELD
    err = np.random.default_rng(8).uniform(0.01, 0.1, SHAPE).astype(np.float32)
    write_reference(tmp_path / "flat.asdf", data=data, err=err, dq=dq)
    return data, err, dq


def planes():
    rng = np.random.default_rng(9)
    halves = {name: rng.uniform(0.25, 4, SHAPE).astype(np.float16) for name in ("err", "var_poisson", "dumo", "chisq")}
    return {"data": image(), "dq": random_flags(flags.JUMP_DET, seed=10), **halves}


def flatten(folder, given, *options):
    write_image(folder / "in.asdf", **given)
    return succeed("flatfield", folder / "in.asdf", folder / "out.asdf", "--flat", folder / "flat.asdf", *options)


def expected_flat(flat):
    usable = flat[0].astype(float)
    usable[3:6, :5] = 1
    dq = flat[2].copy()
    dq[3:6, :5] |= flags.NO_FLAT_FIELD
    return usable, dq


HALF = {"rtol": 2.0**-10}  # float16


@pytest.mark.parametrize("with_read_noise", [False, True])
def test_planes_are_divided_by_the_flat(tmp_path, flat, with_read_noise):
    given = planes()
    if with_read_noise:
        given["var_rnoise"] = np.full(SHAPE, 0.5, np.float16)
    flatten(tmp_path, given)
    usable, flat_dq = expected_flat(flat)
    with opened(tmp_path / "out.asdf") as model:
        np.testing.assert_allclose(model.data, given["data"] / usable, rtol=2e-7)
        np.testing.assert_array_equal(model.dq, given["dq"] | flat_dq)
        for name, power in {"err": 1, "dumo": 1, "var_poisson": 2, "var_rnoise": 2}.items():
            if name in given:
                np.testing.assert_allclose(model[name], given[name] / usable**power, **HALF)
                assert model[name].dtype == np.float16
        np.testing.assert_array_equal(model.chisq, given["chisq"])
        np.testing.assert_array_equal(np.asarray(model.data)[3:6, :5], given["data"][3:6, :5])
        assert model.meta.cal_step.flat_field == "COMPLETE"
        assert "var_flat" not in model


def test_the_flat_s_variance_is_stored_and_added(tmp_path, flat):
    given = planes()
    flatten(tmp_path, given, "--include_var_flat=true")
    usable, _ = expected_flat(flat)
    with opened(tmp_path / "out.asdf") as model:
        # "data" is the image that has been divided already.
        var_flat = (given["data"] / usable) ** 2 / usable**2 * flat[1].astype(float) ** 2
        np.testing.assert_allclose(model.var_flat, var_flat, rtol=2e-3, atol=1e-7)
        np.testing.assert_allclose(model.err, np.sqrt((given["err"] / usable) ** 2 + var_flat), rtol=2e-3)
        assert np.abs(np.asarray(model.err, float) / (given["err"] / usable)).max() > 1.001
        np.testing.assert_allclose(model.var_poisson, given["var_poisson"] / usable**2, **HALF)


def test_a_flat_of_one_changes_nothing(tmp_path):
    write_reference(tmp_path / "flat.asdf", data=np.ones(SHAPE, np.float32), err=np.ones(SHAPE, np.float32),
                    dq=np.zeros(SHAPE, np.uint32))  # fmt: skip
    flatten(tmp_path, planes())
    same(tmp_path / "in.asdf", tmp_path / "out.asdf", PLANES)


def test_a_flat_of_another_shape_is_left_out(tmp_path):
    write_reference(tmp_path / "flat.asdf", data=np.full(FRAME, 2, np.float32), err=np.ones(FRAME, np.float32),
                    dq=np.full(FRAME, flags.HOT, np.uint32))  # fmt: skip
    said = flatten(tmp_path, planes()).stderr
    assert "WARNING" in said and "(72, 256)" in said
    same(tmp_path / "in.asdf", tmp_path / "out.asdf", PLANES)
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step.flat_field == "SKIPPED"


@pytest.mark.parametrize("broken", ["dq", "err"])
def test_a_flat_whose_arrays_differ_in_shape_ends_without_a_product(tmp_path, flat, broken):
    content = dict(zip(("data", "err", "dq"), flat, strict=True))
    content[broken] = content[broken][:, :-1].copy()
    write_reference(tmp_path / "flat.asdf", **content)
    write_image(tmp_path / "in.asdf", image())
    said = refuse("flatfield", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--flat",
                  tmp_path / "flat.asdf", "--include_var_flat=true")  # fmt: skip
    assert "flat.asdf" in said


def test_faults_of_the_flat_are_flagged():
    flat = np.array([2, np.nan, 0, 3, -1], np.float32)
    dq = np.array([flags.HOT, 0, flags.DEAD, flags.NO_FLAT_FIELD, 0], np.uint32)
    usable, usable_dq = usable_flat(flat, dq)
    none = flags.NO_FLAT_FIELD
    np.testing.assert_array_equal(usable, [2, 1, 1, 1, 1])
    np.testing.assert_array_equal(usable_dq, [flags.HOT, none, flags.DEAD | none, none, none])
    assert usable.dtype == np.float32 and usable_dq.dtype == np.uint32
    np.testing.assert_array_equal(dq, [flags.HOT, 0, flags.DEAD, none, 0])


def test_the_error_of_the_flat_adds_its_variance():
    np.testing.assert_allclose(flat_variance(np.array([6.0]), np.array([2.0]), np.array([0.5])), [6**2 / 4 * 0.25])


def test_a_ramp_is_refused_where_an_image_is_expected(tmp_path):
    write_ramp(tmp_path / "in.asdf", ramp())
    for step, option in (("dark_current", "dark"), ("flatfield", "flat"), ("photom", "photom")):
        done = run(step, tmp_path / "in.asdf", tmp_path / "o.asdf", f"--{option}", "N/A")
        assert (
            done.returncode == 1 and f"expected the data model 'wfi_image', found 'ramp'; give {step} the output" in done.stderr
        )
