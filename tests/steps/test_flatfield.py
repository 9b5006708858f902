"""flatfield: what it changes in an image, and what it leaves unchanged."""

import numpy as np
import pytest
from flatfield import flat_variance, usable_flat
from small_files import (
    FRAME,
    IMAGE_ARRAYS,
    TRIMMED,
    arrays_of,
    assert_same_arrays,
    image,
    opened,
    random_flags,
    refuse,
    succeed,
    write_image,
    write_reference,
)

from rampflow import dq as flags


@pytest.fixture
def flat(tmp_path):
    """A flat with all its faults, in flat.asdf: its data, err and dq."""
    data = np.random.default_rng(6).uniform(0.5, 2, TRIMMED).astype(np.float32)
    dq = random_flags(flags.HOT, seed=7)
    data[3, :5], data[4, :5] = np.nan, 0
    dq[5, :5] |= flags.NO_FLAT_FIELD
    err = np.random.default_rng(8).uniform(0.01, 0.1, TRIMMED).astype(np.float32)
    write_reference(tmp_path / "flat.asdf", data=data, err=err, dq=dq)
    return data, err, dq


def planes():
    rng = np.random.default_rng(9)
    halves = {name: rng.uniform(0.25, 4, TRIMMED).astype(np.float16) for name in ("err", "var_poisson", "dumo", "chisq")}
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
        given["var_rnoise"] = np.full(TRIMMED, 0.5, np.float16)
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


def test_the_variance_of_the_flat_is_stored_and_added(tmp_path, flat):
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


@pytest.mark.parametrize("dtype", [np.float64, ">f8", np.float16])
def test_a_flat_of_another_type_gives_the_same(tmp_path, flat, dtype):
    data, err, dq = (array.astype(np.float16).astype(np.float32) if array.dtype.kind == "f" else array for array in flat)
    results = []
    for kind in (np.float32, dtype):
        write_reference(tmp_path / "flat.asdf", data=data.astype(kind), err=err.astype(kind), dq=dq)
        flatten(tmp_path, planes(), "--include_var_flat", "true")
        results.append(arrays_of(tmp_path / "out.asdf"))
    for name in ("data", "err", "var_poisson", "dumo", "var_flat"):
        assert results[1][name].dtype == results[0][name].dtype
        np.testing.assert_allclose(*(arrays[name].astype(float) for arrays in results), **HALF, atol=2.0**-24, err_msg=name)


def test_a_flat_of_one_changes_nothing(tmp_path):
    write_reference(tmp_path / "flat.asdf", data=np.ones(TRIMMED, np.float32), err=np.ones(TRIMMED, np.float32),
                    dq=np.zeros(TRIMMED, np.uint32))  # fmt: skip
    flatten(tmp_path, planes())
    assert_same_arrays(tmp_path / "in.asdf", tmp_path / "out.asdf", IMAGE_ARRAYS)


def test_a_flat_of_another_shape_is_left_out(tmp_path):
    write_reference(tmp_path / "flat.asdf", data=np.full(FRAME, 2, np.float32), err=np.ones(FRAME, np.float32),
                    dq=np.full(FRAME, flags.HOT, np.uint32))  # fmt: skip
    said = flatten(tmp_path, planes()).stderr
    assert "WARNING" in said and "(72, 256)" in said
    assert_same_arrays(tmp_path / "in.asdf", tmp_path / "out.asdf", IMAGE_ARRAYS)
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
