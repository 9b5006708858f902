"""linearity: identities, ramps simulated read by read, flags, ADC tables and the program."""

import subprocess
import sys
from pathlib import Path

import linearity
import numpy as np
import pytest
import roman_datamodels.datamodels as rdm
from hypothesis import given, settings
from hypothesis import strategies as st
from linearity import correct_linearity, grid_nonlinearity

from rampflow import dq as flags
from rampflow.files.asdf_writer import create_asdf

SCRIPT = Path(linearity.__file__)
PATTERN = [[1], [2], [3, 4], [5, 6, 7, 8], [9, 10, 11], [12]]
SHAPE = (len(PATTERN), 72, 256)  # two blocks of rows, the second a short one
PIXELS = SHAPE[1:]


def polynomials(*terms):
    """The same polynomial in every pixel."""
    return np.broadcast_to(np.array(terms, np.float32)[:, None, None], (len(terms), *PIXELS)).copy()


def correct(
    data,
    groupdq=None,
    pixeldq=None,
    *,
    lin=None,
    lin_dq=None,
    inverse=None,
    pattern=PATTERN,
    nonlinearity=None,
    any_polynomial=True,
):
    """Correct a ramp, by default with polynomials that no detector has, whose results are simple numbers."""
    identity = polynomials(0, 1)
    return correct_linearity(
        np.asarray(data, np.float32),
        np.zeros(data.shape, np.uint8) if groupdq is None else groupdq,
        np.zeros(PIXELS, np.uint32) if pixeldq is None else pixeldq,
        identity if lin is None else lin,
        np.zeros(PIXELS, np.uint32) if lin_dq is None else lin_dq,
        identity if inverse is None else inverse,
        pattern,
        nonlinearity=nonlinearity,
        any_polynomial=any_polynomial,
    )


def response(linear, quadratic=-6e-7):
    """Measured counts of a detector with a small non-linearity, and the terms of its polynomial."""
    return linear + quadratic * linear**2


def inverse_of_response(degree=6, quadratic=-6e-7):
    """Terms of the polynomial that inverts `response`: the series of its exact inverse."""
    catalan = (1, 1, 2, 5, 14, 42)
    return (0, *((-quadratic) ** n * catalan[n] for n in range(degree)))


def simulate(rate, pedestal=500.0, pattern=PATTERN):
    """Linear and measured resultants of ramps of `rate` DN per read, (resultant, row, column), averaged from reads."""
    reads = np.arange(1, pattern[-1][-1] + 1)[:, None, None]
    linear = pedestal + rate * reads
    means = [np.array([frames[np.array(r) - 1].mean(axis=0) for r in pattern]) for frames in (linear, response(linear))]
    return means[0], means[1].astype(np.float32)


def rates(low=0.0, high=4500.0):
    return np.linspace(low, high, np.prod(PIXELS)).reshape(PIXELS)


# ---------------------------------------------------------------------------------------------------------- the numbers
def test_identity_polynomials_change_nothing():
    data = np.random.default_rng(1).uniform(-50, 65000, SHAPE).astype(np.float32)
    corrected, groupdq, pixeldq = correct(data)
    np.testing.assert_array_equal(corrected, data)
    assert not groupdq.any() and not pixeldq.any()


def test_a_ramp_averaged_from_reads_is_recovered():
    linear, measured = simulate(rates())
    corrected, _, _ = correct(measured, lin=polynomials(*inverse_of_response()), inverse=polynomials(0, 1, -6e-7))
    assert np.abs(measured - linear).max() > 1000
    # What is left is the tail of the series and the rounding of the measured counts.
    np.testing.assert_allclose(corrected, linear, atol=0.02, rtol=2e-6)


def test_reads_and_not_their_mean_are_corrected():
    pattern = [[1], [2], list(range(3, 40))]
    linear, measured = simulate(rates(high=1400.0), pattern=pattern)
    to_linear = polynomials(*inverse_of_response())
    corrected, _, _ = correct(measured, lin=to_linear, inverse=polynomials(0, 1, -6e-7), pattern=pattern)
    of_mean = np.polynomial.polynomial.polyval(measured[2].astype(float), inverse_of_response())
    assert np.abs(of_mean - linear[2]).max() > 50
    # The rate comes from the two first resultants and rides on float32 counts over 37 reads.
    np.testing.assert_allclose(corrected[2], linear[2], atol=0.05, rtol=1e-5)


def test_the_shift_keeps_the_mean_of_the_reads():
    # A polynomial of degree one commutes with the mean, so whatever the reads are, the resultant gets it exactly.
    data = np.random.default_rng(2).uniform(0, 60000, SHAPE).astype(np.float32)
    corrected, _, _ = correct(data, lin=polynomials(3, 1.25), inverse=polynomials(-7, 0.8, 1e-7))
    np.testing.assert_allclose(corrected, 3 + 1.25 * data, rtol=3e-7, atol=0.01)


@pytest.mark.parametrize("terms", [2, 3, 5, 9])
def test_any_number_of_terms(terms):
    rng = np.random.default_rng(terms)
    scale = 50000.0 ** -np.maximum(np.arange(terms) - 1, 0)
    lin = (rng.normal(0, 0.02, terms) * scale).astype(np.float32)
    lin[0], lin[1] = 4, 1.01
    pattern = [[1], [2], [3], [4]]
    data = rng.uniform(0, 60000, (4, *PIXELS)).astype(np.float32)
    corrected, _, _ = correct(data, lin=polynomials(*lin), pattern=pattern)
    expected = np.polynomial.polynomial.polyval(data.astype(float), lin.astype(float))
    np.testing.assert_allclose(corrected, expected, atol=0.01)


@pytest.mark.parametrize("terms", [(2, 4), (4, 7), (5, 5), (6, 10), (11, 11)])
@pytest.mark.parametrize(("sign", "wrong"), [(1, 1e-4), (-1, 1e-3)])
def test_single_precision_is_sufficient(terms, sign, wrong):
    # As every read in float64, for polynomials near the identity and, with the sign of the linear term changed, far from it.
    rng = np.random.default_rng(sum(terms))
    _, measured = simulate(rates() * rng.uniform(0.5, 1, PIXELS))

    def random_polynomial(n):
        coefficients = rng.normal(0, 0.06, (n, *PIXELS)) / 60000.0 ** (np.arange(n)[:, None, None] - 1)
        coefficients[0], coefficients[1] = 0, sign
        return coefficients.astype(np.float32)

    lin, inverse = map(random_polynomial, terms)
    table = grid_nonlinearity(np.arange(0, 65521, 16), np.cumsum(rng.normal(0, 0.1, (2, 4096)), axis=1))
    corrected, _, _ = correct(measured, lin=lin, inverse=inverse, nonlinearity=table)

    def polynomial(c, x):
        return np.polynomial.polynomial.polyval(x, c.astype(float), tensor=False)

    means = np.array([np.mean(r) for r in PATTERN])
    first, last = polynomial(lin, measured[0].astype(float)), polynomial(lin, measured[-2].astype(float))
    rate = (last - first) / (means[-2] - means[0])
    for counts, reads, got in zip(measured.astype(float), PATTERN, corrected, strict=True):
        frames = polynomial(inverse, first + rate * (np.array(reads)[:, None, None] - means[0]))
        frames += counts - frames.mean(axis=0)
        for channel, correction in enumerate(table.correction):
            columns = frames[..., channel * 128 : (channel + 1) * 128]
            columns += np.interp(columns, np.arange(0, 65521, 16), correction)
        expected = polynomial(lin, frames).mean(axis=0)
        assert np.mean(np.abs(got - expected) > np.spacing(np.abs(expected).astype(np.float32))) < wrong


def test_rows_are_corrected_independently():
    _, measured = simulate(rates())
    lin, inverse = polynomials(*inverse_of_response()), polynomials(0, 1, -6e-7)
    whole, _, _ = correct(measured, lin=lin, inverse=inverse)
    zeros = np.zeros((1, PIXELS[1]), np.uint32)
    part, _, _ = correct_linearity(
        np.ascontiguousarray(measured[:, 3:4]),
        np.zeros((len(PATTERN), 1, PIXELS[1]), np.uint8),
        zeros,
        np.ascontiguousarray(lin[:, 3:4]),
        zeros,
        np.ascontiguousarray(inverse[:, 3:4]),
        PATTERN,
    )
    np.testing.assert_array_equal(part, whole[:, 3:4])


def test_one_resultant_is_corrected_without_a_rate():
    data = np.full((1, *PIXELS), 1000, np.float32)
    corrected, _, _ = correct(data, lin=polynomials(0, 1, 1e-6), inverse=polynomials(0, 1, -1e-6), pattern=[[1, 2, 3]])
    np.testing.assert_allclose(corrected, 1001, rtol=1e-6)


def test_inconsistent_shapes_are_refused():
    with pytest.raises(ValueError, match="same resultants, rows and columns"):
        correct(np.zeros(SHAPE), np.zeros(SHAPE[1:], np.uint8))
    with pytest.raises(ValueError, match="same resultants, rows and columns"):
        correct(np.zeros(SHAPE), pattern=PATTERN[:-1])


# -------------------------------------------------------------------------------------------------------------- the rate
def rate_used(saturated_from, pattern=((1,), (2,), (3,), (4,), (5, 9))):
    """The rate that predicted the reads of the last resultant, inferred from a correction of x² over reads 4 apart."""
    pattern = [list(r) for r in pattern]
    data = np.zeros((5, *PIXELS), np.float32)
    data[:] = np.array([0, 100, 300, 700, 1000])[:, None, None]
    groupdq = np.zeros(data.shape, np.uint8)
    groupdq[saturated_from:4] = flags.SATURATED  # the last stays unsaturated, to be looked at
    corrected, _, _ = correct(data, groupdq, lin=polynomials(0, 1, 1e-6), pattern=pattern)
    extra = (corrected[4, 0, 0].astype(float) - 1000) / 1e-6 - 1000**2
    return np.sqrt(extra) / 2  # the reads lie 2 reads' counts either side of the mean


@pytest.mark.parametrize(
    ("saturated_from", "last"),
    [
        (4, 3),  # five unsaturated: the fourth resultant
        (3, 2),  # four unsaturated
        (2, 1),  # three unsaturated
        (1, 1),  # two: the second, though it is saturated
    ],
)
def test_the_rate_comes_from_the_last_good_resultant(saturated_from, last):
    counts, reads = np.array([0, 100, 300, 700]), np.array([1, 2, 3, 4])
    linear = counts + 1e-6 * counts.astype(float) ** 2
    if saturated_from == 1:
        linear = counts.astype(float)  # a saturated resultant is taken as it is
    expected = linear[last] / (reads[last] - reads[0])
    assert rate_used(saturated_from) == pytest.approx(expected, rel=0.01)


# ----------------------------------------------------------------------------------------------------------------- flags
def test_saturated_resultants_keep_their_values():
    _, measured = simulate(rates())
    groupdq = np.zeros(SHAPE, np.uint8)
    groupdq[3:, :, ::2] = flags.SATURATED
    corrected, corrected_dq, _ = correct(measured, groupdq, lin=polynomials(0, 1, 1e-5))
    np.testing.assert_array_equal(corrected[3:, :, ::2], measured[3:, :, ::2])
    assert np.all(corrected[3:, :, 1::2] > measured[3:, :, 1::2])
    np.testing.assert_array_equal(corrected_dq, groupdq)


def break_flag(lin, inverse, lin_dq):
    lin_dq[2, 5] = flags.NO_LIN_CORR


def break_nan(lin, inverse, lin_dq):
    lin[2, 2, 5] = np.nan


def break_zero(lin, inverse, lin_dq):
    lin[1, 2, 5] = 0


@pytest.mark.parametrize("break_pixel", [break_flag, break_nan, break_zero])
def test_a_pixel_without_a_polynomial_keeps_its_counts(break_pixel):
    _, measured = simulate(rates(100.0))
    lin, inverse, lin_dq = polynomials(0, 1, 1e-6), polynomials(0, 1, -1e-6), np.zeros(PIXELS, np.uint32)
    lin_dq[1, 1] = flags.HOT
    break_pixel(lin, inverse, lin_dq)
    pixeldq = np.full(PIXELS, flags.DEAD, np.uint32)
    corrected, groupdq, corrected_dq = correct(measured, None, pixeldq, lin=lin, inverse=inverse, lin_dq=lin_dq)
    np.testing.assert_array_equal(corrected[:, 2, 5], measured[:, 2, 5])
    assert np.all(np.delete(corrected, 5, axis=2) != np.delete(measured, 5, axis=2))
    assert corrected_dq[2, 5] == flags.DEAD | flags.NO_LIN_CORR
    assert corrected_dq[1, 1] == flags.DEAD | flags.HOT  # the reference's flags are carried over
    assert np.count_nonzero(corrected_dq & flags.NO_LIN_CORR) == 1
    assert not groupdq.any()


@pytest.mark.parametrize("term", [{"index": 2, "value": np.nan}, {"index": 1, "value": 0.0}])
def test_an_unusable_inverse_becomes_the_identity(term):
    _, measured = simulate(rates(100.0))
    lin, inverse = polynomials(0, 1, 1e-6), polynomials(0, 1, -1e-6)
    inverse[term["index"], 2, 5] = term["value"]
    corrected, _, pixeldq = correct(measured, lin=lin, inverse=inverse)
    identity, _, _ = correct(measured, lin=lin, inverse=polynomials(0, 1, 0))
    np.testing.assert_array_equal(corrected[:, 2, 5], identity[:, 2, 5])
    assert pixeldq[2, 5] == flags.NO_LIN_CORR and np.count_nonzero(pixeldq) == 1


@pytest.mark.parametrize("reference", ["lin", "inverse"])
@pytest.mark.parametrize("terms", [(0, 0.1, 0), (0, 6, 0), (0, -1, 0), (0, 1, 4e-5), (0, 1, -3e-5), (13000, 1, 0)])
def test_polynomials_that_no_detector_has_are_not_used(reference, terms):
    _, measured = simulate(rates(100.0))
    polynomial = {"lin": polynomials(0, 1, 1e-6), "inverse": polynomials(0, 1, -1e-6)}
    sound, _, _ = correct(measured, **polynomial, any_polynomial=False)
    assert np.all(sound != measured)
    polynomial[reference][:, 2, 5] = terms
    corrected, _, pixeldq = correct(measured, **polynomial, any_polynomial=False)
    assert np.argwhere(pixeldq).tolist() == [[2, 5]] and pixeldq[2, 5] == flags.NO_LIN_CORR
    polynomial[reference][:, 2, 5] = 0, 1, 0
    expected, _, _ = correct(measured, **polynomial)
    np.testing.assert_array_equal(corrected, expected)
    np.testing.assert_array_equal(np.delete(corrected, 5, axis=2), np.delete(sound, 5, axis=2))


def test_implausible_values_are_clipped_and_flagged():
    data = np.full(SHAPE, 60000, np.float32)
    lin = polynomials(0, 1)
    lin[1, 1, 1], lin[1, 2, 2], lin[1, 3, 3] = 17, -17, 16
    groupdq = np.zeros(SHAPE, np.uint8)
    groupdq[1] = flags.JUMP_DET
    corrected, corrected_dq, _ = correct(data, groupdq, lin=lin)
    assert np.all(corrected[:, 1, 1] == 1e6) and np.all(corrected[:, 2, 2] == -1e6)
    assert np.all(corrected[:, 3, 3] == 960000)
    expected = groupdq.copy()
    expected[:, (1, 2), (1, 2)] |= flags.DO_NOT_USE
    np.testing.assert_array_equal(corrected_dq, expected)


def test_nan_is_flagged_and_does_not_spread():
    data = np.full(SHAPE, 1000, np.float32)
    data[2, 4, 7] = np.nan
    table = grid_nonlinearity(np.array([0, 65520]), np.array([[1.0, 1.0]] * 2))
    corrected, groupdq, _ = correct(data, nonlinearity=table)
    assert np.argwhere(groupdq).tolist() == [[2, 4, 7]] and groupdq[2, 4, 7] == flags.DO_NOT_USE
    assert np.argwhere(np.isnan(corrected)).tolist() == [[2, 4, 7]]


# ---------------------------------------------------------------------------------------------- integral nonlinearity
def test_the_converters_correction_is_added_by_channel():
    rng = np.random.default_rng(3)
    value = np.arange(0, 65521, 16)
    tables = rng.normal(0, 2, (2, value.size))
    data = rng.uniform(-100, 66000, (4, *PIXELS)).astype(np.float32)
    corrected, _, _ = correct(data, pattern=[[1], [2], [3], [4]], nonlinearity=grid_nonlinearity(value, tables))
    for channel, table in enumerate(tables):
        columns = np.s_[..., channel * 128 : (channel + 1) * 128]
        expected = data[columns] + np.interp(data[columns], value, table)
        np.testing.assert_allclose(corrected[columns], expected, atol=0.006)


def test_the_converters_correction_comes_before_the_polynomial():
    data = np.full((4, *PIXELS), 1000, np.float32)
    table = grid_nonlinearity(np.array([0, 65535]), np.full((2, 2), 10.0))
    corrected, _, _ = correct(data, lin=polynomials(0, 2), pattern=[[1], [2], [3], [4]], nonlinearity=table)
    np.testing.assert_allclose(corrected, 2020, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 65535), min_size=2, max_size=30, unique=True), st.integers(0, 2**32 - 1))
def test_an_uneven_table_is_interpolated(points, seed):
    rng = np.random.default_rng(seed)
    value = np.sort(points).astype(np.uint16)
    tables = rng.normal(0, 3, (2, value.size))
    grid = grid_nonlinearity(value, tables)
    x = rng.uniform(0, 65535, 200)
    at = grid.start + grid.step * np.arange(grid.correction.shape[1])
    for table, on_grid in zip(tables, grid.correction, strict=True):
        np.testing.assert_allclose(np.interp(x, at, on_grid), np.interp(x, value, table), atol=1e-5)


def test_a_uniform_table_is_kept():
    value = np.arange(32, 65521, 16).astype(np.uint16)
    grid = grid_nonlinearity(value, np.ones((2, value.size)))
    assert (grid.start, grid.step, grid.correction.shape) == (32, 16, (2, value.size))


@pytest.mark.parametrize("value", [[0, 0], [5, 3], [0.5, 1.0], [7]])
def test_an_unusable_table_is_refused(value):
    with pytest.raises(ValueError, match="increasing whole numbers"):
        grid_nonlinearity(np.array(value), np.zeros((1, len(value))))


def test_a_table_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        grid_nonlinearity(np.array([0, 16]), np.array([[0, np.nan]]))


# ----------------------------------------------------------------------------------------------------------- the program
@pytest.fixture
def exposure(tmp_path):
    """A ramp file of a small detector with its references, and its arrays."""
    linear, measured = simulate(rates(100.0))
    model = rdm.RampModel.create_fake_data(shape=SHAPE)
    model.data = measured
    model.groupdq = np.zeros(SHAPE, np.uint8)
    model.groupdq[-1, 4, 4] = flags.SATURATED
    model.pixeldq = np.full(PIXELS, flags.HOT, np.uint32)
    model.meta.exposure.read_pattern = PATTERN
    model.meta.instrument.detector = "WFI07"
    model.meta.cal_step.refpix = "COMPLETE"
    model.border_ref_pix_left = measured[:, :, :4].copy()
    model.border_ref_pix_right = measured[:, :, -4:].copy()
    model.save(tmp_path / "in.asdf")
    write_polynomials(tmp_path / "lin.asdf", inverse_of_response())
    write_polynomials(tmp_path / "inverse.asdf", (0, 1, -6e-7))
    write_tables(tmp_path / "inl.asdf")
    return tmp_path, linear, measured


def write_polynomials(path, terms, shape=PIXELS):
    coeffs = np.broadcast_to(np.array(terms, np.float32)[:, None, None], (len(terms), *shape)).copy()
    with create_asdf(path, {"roman": {"meta": {}, "coeffs": coeffs, "dq": np.zeros(shape, np.uint32)}}):
        pass


def write_tables(path, channels=2, points=4096, table_points=None, offset=0.5):
    table = {
        f"science_channel_{n:02d}": {"correction": np.full(table_points or points, n * offset)} for n in range(1, channels + 1)
    }
    value = (16 * np.arange(points)).astype(np.uint16)
    with create_asdf(path, {"roman": {"meta": {}, "value": value, "inl_table": table}}):
        pass


def program(folder, *, lin="lin.asdf", inverse="inverse.asdf", inl="N/A", options=()):
    """Run the script on the files of `folder`."""
    references = [
        f"--{name}={value if value == 'N/A' else folder / value}"
        for name, value in (("linearity", lin), ("inverselinearity", inverse), ("integralnonlinearity", inl))
    ]
    return subprocess.run(
        [sys.executable, SCRIPT, folder / "in.asdf", folder / "out.asdf", *references, *options],
        capture_output=True,
        text=True,
    )


def test_the_program_writes_the_result_of_the_function(exposure):
    folder, linear, measured = exposure
    result = program(folder, options=["--threads=2"])
    assert result.returncode == 0, result.stderr
    with rdm.open(folder / "out.asdf") as model, rdm.open(folder / "in.asdf") as before:
        assert isinstance(model, rdm.RampModel)
        model.validate()
        expected, _, pixeldq = correct(
            measured, before.groupdq, before.pixeldq, lin=polynomials(*inverse_of_response()), inverse=polynomials(0, 1, -6e-7)
        )
        np.testing.assert_array_equal(model.data, expected)
        np.testing.assert_array_equal(model.groupdq, before.groupdq)
        np.testing.assert_array_equal(model.pixeldq, pixeldq)
        assert np.all(model.pixeldq == flags.HOT)
        assert model.data[-1, 4, 4] == measured[-1, 4, 4]
        np.testing.assert_array_equal(model.border_ref_pix_left, expected[:, :, :4])
        np.testing.assert_array_equal(model.border_ref_pix_right, expected[:, :, -4:])
        np.testing.assert_array_equal(model.border_ref_pix_top, before.border_ref_pix_top)
        assert model.meta.cal_step.linearity == "COMPLETE"
        assert model.meta.ref_file.linearity.endswith("lin.asdf")
        assert model.meta.ref_file.integralnonlinearity == "N/A"


@pytest.mark.slow
def test_the_program_adds_the_converters_correction(exposure):
    folder, _, measured = exposure
    write_polynomials(folder / "lin.asdf", (0, 1))
    assert program(folder, inl="inl.asdf").returncode == 0
    with rdm.open(folder / "out.asdf") as model:
        added = model.data - measured
    added[-1, 4, 4] = 0.5
    np.testing.assert_allclose(added[..., :128], 0.5, atol=0.004)
    np.testing.assert_allclose(added[..., 128:], 1.0, atol=0.004)


@pytest.mark.parametrize("missing", ["lin", "inverse"])
def test_without_a_polynomial_reference_the_step_is_skipped(exposure, missing):
    folder, _, measured = exposure
    result = program(folder, **{missing: "N/A"})
    assert result.returncode == 0 and "WARNING" in result.stderr
    with rdm.open(folder / "out.asdf") as model:
        assert model.meta.cal_step.linearity == "SKIPPED"
        np.testing.assert_array_equal(model.data, measured)


def damage_shape(folder):
    write_polynomials(folder / "lin.asdf", (0, 1), shape=(72, 128))
    return "lin.asdf: coeffs has the shape (2, 72, 128)"


def damage_inverse(folder):
    write_polynomials(folder / "inverse.asdf", (0, 1), shape=(73, 256))
    return "inverse.asdf: coeffs has the shape (2, 73, 256)"


def damage_terms(folder):
    write_polynomials(folder / "lin.asdf", (0,))
    return "lin.asdf: coeffs has no linear term"


def damage_channels(folder):
    write_tables(folder / "inl.asdf", channels=1)
    return "inl.asdf: inl_table.science_channel_02.correction is missing"


def damage_points(folder):
    write_tables(folder / "inl.asdf", table_points=7)
    return "inl.asdf: inl_table.science_channel_01.correction has 7 points"


def damage_values(folder):
    write_tables(folder / "inl.asdf", points=1)
    return "inl.asdf: value must be two or more increasing whole numbers"


def damage_groupdq(folder):
    with rdm.open(folder / "in.asdf") as model:
        model.groupdq = model.groupdq[:-1].copy()
        model.save(folder / "other.asdf")
    (folder / "other.asdf").rename(folder / "in.asdf")
    return "in.asdf: groupdq has the shape (5, 72, 256)"


@pytest.mark.parametrize(
    "damage", [damage_groupdq, damage_shape, damage_inverse, damage_terms, damage_channels, damage_points, damage_values]
)
def test_inconsistent_references_are_refused_without_output(exposure, damage):
    folder, _, _ = exposure
    message = damage(folder)
    result = program(folder, inl="inl.asdf")
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr
    assert [p.name for p in folder.iterdir() if "out" in p.name] == []
