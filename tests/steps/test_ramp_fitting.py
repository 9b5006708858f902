"""ramp_fitting: closed forms, truth in simulated ramps, a dense reference, flags, large events and the program itself."""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import ramp_fitting
from hypothesis import given, settings
from hypothesis import strategies as st
from ramp_fitting import (
    STEP,
    difference_covariance,
    expand_large_events,
    find_jumps,
    fit_ramps,
    fit_slopes,
    fit_uniform,
    image_dq,
    jump_thresholds,
)
from small_files import opened

from rampflow import dq as flags
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step

SCRIPT = Path(ramp_fitting.__file__)
FRAME_TIME = 3.16247
UNEVEN = [[1], [2], [3, 4], [5, 6, 7, 8, 9], list(range(10, 18)), list(range(18, 26)), list(range(26, 34)), [44]]
SINGLE = [[k] for k in range(1, 11)]
GAIN, READNOISE = 1.8, 7.0


def planes(shape, gain=GAIN, readnoise=READNOISE):
    return np.full(shape, gain, np.float32), np.full(shape, readnoise, np.float32)


def fit(resultants, groupdq=None, gain=GAIN, readnoise=READNOISE, pattern=UNEVEN, **keywords):
    """Fit ramps of shape (resultant, column) or (resultant, row, column) with the same gain and read noise."""
    resultants = np.asarray(resultants, np.float32)
    resultants = resultants[:, None] if resultants.ndim == 2 else resultants
    groupdq = np.zeros(resultants.shape, np.uint8) if groupdq is None else groupdq.reshape(resultants.shape)
    return fit_ramps(resultants, groupdq, *planes(resultants.shape[1:], gain, readnoise), pattern, FRAME_TIME, **keywords)


def mean_times(pattern):
    return np.array([np.mean(reads) for reads in pattern]) * FRAME_TIME


def simulate(rate, n, pattern=UNEVEN, *, seed=0, jump=None, full_well=np.inf):
    """Ramps (resultant, 1, n) in DN of Poisson counts and read noise; `jump` is (DN, first read that has it)."""
    rng = np.random.default_rng(seed)
    reads = pattern[-1][-1]
    counts = rng.poisson(rate * GAIN * FRAME_TIME, (reads, n)).cumsum(axis=0) / GAIN
    if jump is not None:
        counts[jump[1] - 1 :] += jump[0]
    counts = np.minimum(counts, full_well)
    counts += rng.normal(0, READNOISE, counts.shape)
    return np.array([counts[np.array(r) - 1].mean(axis=0) for r in pattern], np.float32)[:, None]


def dense_fit(resultants, used, rate, pattern, gain=GAIN, readnoise=READNOISE):
    """Generalized least squares with the whole covariance matrix, from that of the single reads.

    Returns slope, variance, the photons' part of it, and chi squared.
    """
    reads = np.concatenate([np.array(r) for r in pattern])
    average = np.zeros((len(pattern), len(reads)))
    for k, r in enumerate(pattern):
        average[k, np.isin(reads, r)] = 1 / len(r)
    step = np.diff(average, axis=0) / np.diff(mean_times(pattern))[:, None]
    photon = step @ (np.minimum.outer(reads, reads) * FRAME_TIME * rate / gain) @ step.T
    total = photon + step @ (readnoise**2 * np.eye(len(reads))) @ step.T
    used = np.flatnonzero(used)
    photon, inverse = photon[np.ix_(used, used)], np.linalg.inv(total[np.ix_(used, used)])
    d = (np.diff(resultants.astype(float)) / np.diff(mean_times(pattern)))[used]
    ones = np.ones(len(used))
    variance = 1 / (ones @ inverse @ ones)
    weights = variance * inverse @ ones
    slope = weights @ d
    return slope, variance, weights @ photon @ weights, (d - slope) @ inverse @ (d - slope)


# --------------------------------------------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("pattern", [UNEVEN, SINGLE, SINGLE[:4]])
def test_noiseless_ramps_give_their_slope(pattern):
    rates = np.array([0.0, 0.25, 3.0, 40.0, 900.0], np.float32)
    ramps = 1000 + mean_times(pattern)[:, None] * rates
    result, jumps = fit(ramps, pattern=pattern)
    np.testing.assert_allclose(result.slope[0], rates, rtol=1e-4, atol=1e-4)  # float32 resultants
    assert not jumps.any() and (result.chisq < 1e-3).all()
    np.testing.assert_allclose(fit_uniform(ramps, pattern, FRAME_TIME), rates, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(-2000, 2000), st.integers(0, 2**31))
def test_a_pedestal_changes_nothing(pedestal, seed):
    ramps = simulate(5.0, 8, seed=seed).round()  # whole numbers, so that float32 holds the shifted ramp exactly
    a, jumps_a = fit(ramps)
    b, jumps_b = fit(ramps + np.float32(pedestal))
    np.testing.assert_array_equal(a.slope, b.slope)
    np.testing.assert_array_equal(jumps_a, jumps_b)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.25, 0.5, 2.0, 8.0]), st.integers(0, 2**31))
def test_slope_scales_with_the_unit(scale, seed):
    ramps = simulate(20.0, 16, seed=seed)
    a, jumps_a = fit(ramps)
    b, jumps_b = fit(ramps * np.float32(scale), gain=GAIN / scale, readnoise=READNOISE * scale)
    np.testing.assert_allclose(b.slope, a.slope * scale, rtol=1e-5)
    np.testing.assert_allclose(b.err, a.err * scale, rtol=1e-5)
    np.testing.assert_allclose(b.chisq, a.chisq, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(jumps_a, jumps_b)


@pytest.mark.parametrize("pattern", [UNEVEN, SINGLE])
def test_agrees_with_the_dense_covariance(pattern):
    rng = np.random.default_rng(3)
    n = 300
    ramps = np.concatenate([simulate(rate, n // 3, pattern, seed=i) for i, rate in enumerate((0.1, 4.0, 200.0))], axis=2)
    groupdq = (rng.random(ramps.shape) < 0.1).astype(np.uint8) * flags.DO_NOT_USE
    jumps = (rng.random(ramps.shape) < 0.05).astype(np.uint8) * flags.JUMP_DET
    rate = rng.uniform(-1, 200, ramps.shape[1:])
    covariance = difference_covariance(pattern, FRAME_TIME)
    result = fit_slopes(ramps, groupdq, jumps, *planes(ramps.shape[1:]), covariance, rate)
    compared = 0
    for p in range(n):
        used = (groupdq[1:, 0, p] == 0) & (groupdq[:-1, 0, p] == 0) & (jumps[1:, 0, p] == 0)
        if not used.any():
            assert np.isnan(result.slope[0, p])
            continue
        slope, variance, photon, chisq = dense_fit(ramps[:, 0, p], used, max(rate[0, p], 0), pattern, np.float32(GAIN))
        compared += 1
        np.testing.assert_allclose(result.slope[0, p], slope, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(result.err[0, p] ** 2, variance, rtol=2e-6)
        np.testing.assert_allclose(result.var_poisson[0, p], photon, rtol=2e-6, atol=1e-12)
        np.testing.assert_allclose(result.var_rnoise[0, p], variance - photon, rtol=2e-6)
        np.testing.assert_allclose(result.chisq[0, p], chisq, rtol=2e-6, atol=1e-6)
    assert compared > 250


@pytest.mark.parametrize("pattern", [UNEVEN, SINGLE])
@pytest.mark.slow
def test_search_agrees_with_trying_every_omission(pattern):
    """The search selects what dense fits without each difference or pair select."""
    rng = np.random.default_rng(5)
    one, two = jump_thresholds(4.5)
    may_pair = [len(r) > 1 for r in pattern[1:-1]]
    ramps = simulate(5.0, 60, pattern, seed=5)
    hit = rng.integers(1, len(pattern), (2, 60))
    for p in range(60):
        ramps[hit[0, p] :, 0, p] += rng.uniform(50, 400)
        ramps[hit[1, p] :, 0, p] += rng.uniform(0, 100)
    _, jumps = fit(ramps, pattern=pattern)
    for p in range(60):
        n = len(pattern) - 1
        used = np.ones(n, bool)
        rate = max(np.median(np.diff(ramps[:, 0, p].astype(float)) / np.diff(mean_times(pattern))), 0)

        def chisq(used, p=p, rate=rate):
            return dense_fit(ramps[:, 0, p], used, rate, pattern, np.float32(GAIN))[3]

        while True:
            best, choice = 0.0, None
            sets = [([i], one) for i in range(n)] + [([i, i + 1], two) for i in range(n - 1) if may_pair[i]]
            for omitted, threshold in sets:
                if used[omitted].all():
                    trial = used.copy()
                    trial[omitted] = False
                    excess = chisq(used) - chisq(trial) - threshold
                    if excess > best:
                        best, choice = excess, trial
            if choice is None:
                break
            used = choice
            if used.sum() <= 3:
                break
        np.testing.assert_array_equal(jumps[1:, 0, p] == 0, used, err_msg=f"ramp {p}")


def test_thresholds_have_the_same_chance_probability():
    from scipy.stats import chi2

    for sigma in (0.5, 3.0, 4.5, 8.0, 60.0):
        one, two = jump_thresholds(sigma)
        assert one == sigma * sigma
        np.testing.assert_allclose(chi2.logsf(two, 2), chi2.logsf(one, 1), rtol=1e-6)
    assert jump_thresholds(1e300) == (np.inf, np.inf)  # no jump is so significant


def test_sorting_network_sorts():
    from rampflow.kernels.ramp_fitting import sorting_network

    rng = np.random.default_rng(0)
    for n in (3, 4, 7, 8, 15, 33):
        values = rng.integers(0, 10, (50, n))
        expected = np.sort(values, axis=1)
        for i, j in sorting_network(n):
            values[:, i], values[:, j] = np.minimum(values[:, i], values[:, j]), np.maximum(values[:, i], values[:, j])
        np.testing.assert_array_equal(values, expected)


# ----------------------------------------------------------------------------------------------------- simulated truth
@pytest.mark.parametrize("rate", [0.05, 1.0, 20.0, 500.0])
def test_slopes_are_unbiased_and_their_errors_match_the_scatter(rate):
    n = 40000
    result, _ = fit(simulate(rate, n, seed=int(rate * 100)), rejection_threshold=None)
    pull = (result.slope - rate) / result.err
    # The slope itself is measured, not the pull, whose mean is not zero: a low slope comes with a low photon noise.
    assert abs(result.slope.mean() - rate) < 0.03 * result.err.mean()
    assert abs(pull.std() - 1) < 0.03
    assert abs(result.chisq.mean() / (len(UNEVEN) - 2) - 1) < 0.03
    np.testing.assert_allclose(result.err**2, result.var_poisson + result.var_rnoise, rtol=1e-5)


def omissions(pattern):
    """How many differences and pairs the search tries."""
    return len(pattern) - 1 + sum(len(reads) > 1 for reads in pattern[1:-1])


def jump_error(rate, pattern, k):
    """Standard deviation (DN) of the height of a jump between resultants k - 1 and k, when slope and height are fitted."""
    reads = np.concatenate([np.array(r) for r in pattern])
    average = np.array([np.isin(reads, r) / len(r) for r in pattern])
    single = np.minimum.outer(reads, reads) * FRAME_TIME * rate / GAIN + READNOISE**2 * np.eye(len(reads))
    design = np.stack([mean_times(pattern), np.arange(len(pattern)) >= k, np.ones(len(pattern))], axis=1)
    return np.linalg.inv(design.T @ np.linalg.solve(average @ single @ average.T, design))[1, 1] ** 0.5


@pytest.mark.parametrize("pattern", [UNEVEN, SINGLE])
@pytest.mark.parametrize("rate", [0.5, 50.0, 1000.0])
def test_false_alarms_are_as_rare_as_the_threshold_says(pattern, rate):
    n = 40000
    _, jumps = fit(simulate(rate, n, pattern, seed=int(rate)), pattern=pattern)
    expected = n * omissions(pattern) * 2 * NormalDist().cdf(-4.5)  # at most: the trials share their noise
    assert jumps.any(axis=0).sum() < expected + 5 * expected**0.5


@pytest.mark.parametrize("pattern", [UNEVEN, SINGLE])
@pytest.mark.parametrize("rate", [0.5, 50.0, 1000.0])
def test_completeness_is_what_the_noise_allows(pattern, rate):
    """A jump of s sigma, with its own error, is found with the probability that s plus Gaussian noise passes 4.5."""
    n = 4000
    for k in (1, 4, len(pattern) - 1):
        for significance in (3.5, 4.5, 6.0, 8.0):
            size = significance * jump_error(rate, pattern, k)
            _, jumps = fit(simulate(rate, n, pattern, seed=k, jump=(size, pattern[k][0])), pattern=pattern)
            expected = NormalDist().cdf(significance - 4.5)
            assert abs((jumps[k] != 0).mean() - expected) < 0.05, (k, significance)


@pytest.mark.parametrize("rate", [1100.0, 1700.0, 2000.0])
def test_saturation_makes_no_jumps(rate):
    """Where most of a ramp is saturated, the good differences at its start keep their photon noise, and stay."""
    n, full_well, pattern = 20000, 50000, [[1], [2], *([k, k + 1, k + 2] for k in range(3, 42, 3))]
    ramps = simulate(rate, n, pattern, seed=int(rate), full_well=full_well)
    groupdq = np.where(np.maximum.accumulate(ramps > 0.9 * full_well, axis=0), flags.SATURATED, 0).astype(np.uint8)
    groupdq[:-1] |= (groupdq[1:] != 0) * np.uint8(flags.DO_NOT_USE)  # its last reads may be saturated
    usable = (groupdq == 0).sum(axis=0).max() - 1
    assert 2 <= usable < (len(pattern) - 1) / 2
    result, jumps = fit(ramps, groupdq, pattern=pattern)
    best, _ = fit(ramps, groupdq, pattern=pattern, rejection_threshold=None)
    expected = n * 2 * usable * 2 * NormalDist().cdf(-4.5)
    assert jumps.any(axis=0).sum() < expected + 5 * expected**0.5
    assert result.slope.std() < 1.01 * best.slope.std()
    assert abs(result.slope.mean() - rate) < 5 * best.slope.std() / n**0.5
    _, theirs = fit(ramps, groupdq, pattern=pattern, saturated_in_median=True)
    assert theirs.any(axis=0).mean() > 0.1


@pytest.mark.parametrize("flag", [0, flags.DO_NOT_USE, flags.JUMP_DET])
def test_only_saturation_changes_the_median(flag):
    ramps = simulate(30.0, 500, seed=14)
    groupdq = np.zeros(ramps.shape, np.uint8)
    groupdq[2:5] = flag
    (a, jumps_a), (b, jumps_b) = fit(ramps, groupdq), fit(ramps, groupdq, saturated_in_median=True)
    np.testing.assert_array_equal(a.slope, b.slope)
    np.testing.assert_array_equal(jumps_a, jumps_b)


@pytest.mark.parametrize("pattern", [UNEVEN, SINGLE])
@pytest.mark.parametrize("rate", [0.2, 10.0])
def test_jumps_are_found_where_they_are(pattern, rate):
    n, k = 4000, 4
    _, clean = fit(simulate(rate, n, pattern, seed=1), pattern=pattern)
    assert clean.any(axis=0).mean() < 0.01
    # A jump at the first read of a resultant lies wholly in the difference that ends there; its noise is one difference's.
    size = 12 * np.sqrt(2 * READNOISE**2 + rate / GAIN * (mean_times(pattern)[k] - mean_times(pattern)[k - 1]))
    result, jumps = fit(simulate(rate, n, pattern, seed=2, jump=(size, pattern[k][0])), pattern=pattern)
    found = jumps[:, 0] != 0
    assert found[k].mean() > 0.95
    assert (found.sum(axis=0) <= 2).mean() > 0.98
    pull = (result.slope - rate) / result.err
    assert abs(pull.mean()) < 0.2 and pull.std() < 1.15


def test_a_jump_within_a_resultant_spoils_both_its_differences():
    k = 5
    middle = UNEVEN[k][len(UNEVEN[k]) // 2]
    _, jumps = fit(simulate(1.0, 500, seed=4, jump=(2000, middle)))
    assert (jumps[[k, k + 1], 0] != 0).all(axis=0).mean() > 0.95
    assert jumps[[1, 2, 3, 4, 6 + 1], 0].any(axis=0).mean() < 0.05


def test_rejection_threshold_counts():
    ramps = simulate(1.0, 3000, seed=6, jump=(32, 10))
    found = [fit(ramps, rejection_threshold=t)[1].any(axis=0).mean() for t in (2.0, 4.5, 20.0)]
    assert found[0] > found[1] > 0.9 > 0.1 > found[2]


def test_no_jump_is_looked_for_without_a_threshold():
    ramps = simulate(1.0, 100, seed=7, jump=(5000, 10))
    _, jumps = fit(ramps, rejection_threshold=None)
    assert not jumps.any()


def test_the_larger_of_two_differences_is_the_jump():
    for k in (1, 2):
        ramp = mean_times(UNEVEN) * 2
        ramp[k:] += 5000
        groupdq = np.zeros(len(ramp), np.uint8)
        groupdq[3:] = flags.SATURATED
        result, jumps = fit(ramp[:, None], groupdq)
        assert np.flatnonzero(jumps).tolist() == [k]
        assert result.slope == pytest.approx(2, rel=1e-3)


def test_the_smallest_of_three_differences_stays():
    for k in (1, 2):
        ramp = mean_times(UNEVEN[2:6]) * 2
        ramp[k] += 5000  # a jump within a resultant
        ramp[k + 1 :] += 9000
        result, jumps = fit(ramp[:, None], pattern=UNEVEN[2:6])
        assert np.flatnonzero(jumps).tolist() == [k, k + 1]
        assert result.slope == pytest.approx(2, rel=1e-3)


# -------------------------------------------------------------------------------------------------------- what is bad
@pytest.mark.parametrize("flag", [flags.SATURATED, flags.DO_NOT_USE, flags.AD_FLOOR, flags.WFI18_TRANSIENT])
def test_flagged_resultants_do_not_count(flag):
    ramps = simulate(30.0, 50, seed=8)
    groupdq = np.zeros(ramps.shape, np.uint8)
    groupdq[5:] = flag
    covariance = difference_covariance(UNEVEN, FRAME_TIME)
    rate, jumps = np.full(ramps.shape[1:], 30.0), np.zeros_like(groupdq)
    a = fit_slopes(ramps, groupdq, jumps, *planes(ramps.shape[1:]), covariance, rate)
    spoiled = ramps.copy()
    spoiled[5:] = 60000
    b = fit_slopes(spoiled, groupdq, jumps, *planes(ramps.shape[1:]), covariance, rate)
    np.testing.assert_array_equal(a.slope, b.slope)
    _, found = fit(ramps, groupdq)
    assert not found[5:].any()


@pytest.mark.parametrize("gain", [np.nan, np.inf, -np.inf, -1.8, 0.0])
def test_pixels_without_gain_are_flagged(gain):
    ramps = simulate(30.0, 3, seed=9)
    gains, readnoise = planes(ramps.shape[1:])
    gains[0, 1] = gain
    groupdq = np.zeros(ramps.shape, np.uint8)
    result, jumps = fit_ramps(ramps, groupdq, gains, readnoise, UNEVEN, FRAME_TIME)
    dq = image_dq(np.zeros((1, 3), np.uint32), groupdq | jumps, result.slope, gains)
    assert dq[0, 1] == flags.NO_GAIN_VALUE | flags.DO_NOT_USE
    assert dq[0, 0] == dq[0, 2] == 0
    assert np.isfinite(result.slope[0, [0, 2]]).all()


@pytest.mark.parametrize("where", ["resultants", "readnoise"])
def test_nan_in_the_result_is_always_flagged(where):
    ramps = simulate(30.0, 3, seed=10)
    gains, readnoise = planes(ramps.shape[1:])
    {"resultants": ramps[2], "readnoise": readnoise}[where][0, 1] = np.nan
    groupdq = np.zeros(ramps.shape, np.uint8)
    result, _ = fit_ramps(ramps, groupdq, gains, readnoise, UNEVEN, FRAME_TIME)
    dq = image_dq(np.zeros((1, 3), np.uint32), groupdq, result.slope, gains)
    assert (dq & flags.DO_NOT_USE != 0).tolist() == [[False, True, False]]
    assert np.isfinite(result.slope).tolist() == [[True, False, True]]


def test_image_dq():
    n = 5
    groupdq = np.zeros((n, 1, 8), np.uint8)
    groupdq[2:, 0, 1] = flags.SATURATED
    groupdq[3, 0, 2] = flags.JUMP_DET
    groupdq[:, 0, 3] = [flags.SATURATED, flags.DO_NOT_USE] * 2 + [flags.SATURATED]
    groupdq[1:, 0, 4] = flags.DO_NOT_USE
    groupdq[2:, 0, 5] = flags.DO_NOT_USE
    groupdq[:, 0, 6] = flags.AD_FLOOR
    pixeldq = np.full((1, 8), flags.HOT, np.uint32)
    slope = np.ones((1, 8), np.float32)
    slope[0, 7] = np.nan
    dq = image_dq(pixeldq, groupdq, slope, planes((1, 8))[0]) ^ flags.HOT
    bad = flags.DO_NOT_USE
    assert dq.tolist() == [[0, flags.SATURATED, flags.JUMP_DET, bad | flags.SATURATED, bad, 0, 0, bad]]
    assert (pixeldq == flags.HOT).all()


def test_two_lone_resultants_are_not_a_ramp():
    ramps = simulate(30.0, 1, seed=11)
    groupdq = np.full(ramps.shape, flags.DO_NOT_USE, np.uint8)
    groupdq[[0, 4]] = 0
    result, _ = fit(ramps, groupdq)
    assert np.isnan(result.slope).all()
    assert image_dq(np.zeros((1, 1), np.uint32), groupdq, result.slope, planes((1, 1))[0]) == flags.DO_NOT_USE


# -------------------------------------------------------------------------------------------------------- few resultants
FEW = {"two": UNEVEN[1:3], "three": UNEVEN[2:5], "two single": SINGLE[:2], "three single": SINGLE[:3]}


@pytest.mark.parametrize("pattern", FEW.values(), ids=FEW.keys())
@pytest.mark.parametrize("rate", [0.1, 5.0, 300.0, 3000.0])  # read noise dominates below some 5 DN/s, photon noise above
def test_few_resultants_have_unbiased_slopes_and_right_errors(rate, pattern):
    n = 200_000
    result, jumps = fit(simulate(rate, n, pattern, seed=3), pattern=pattern)
    slope, err = result.slope[0].astype(float), result.err[0].astype(float)
    sigma = true_sigma(rate, pattern)
    assert not jumps.any()
    assert abs(slope.mean() - rate) < 4.5 * sigma / np.sqrt(n)
    # 4.5 standard errors of a standard deviation are 0.7 %. Weights of an estimated noise add up to 0.1 %.
    assert slope.std() == pytest.approx(sigma, rel=0.008)
    # Where read noise dominates, a rate that comes out negative has no photon noise, others have some: err is up to 1 % high.
    assert np.sqrt(np.mean(err**2)) == pytest.approx(sigma, rel=0.013 if rate < 1 else 0.006)
    pulls = (slope - rate) / np.sqrt(np.mean(err**2))
    assert abs(pulls.mean()) < 4.5 / np.sqrt(n)
    np.testing.assert_allclose(result.var_poisson + result.var_rnoise, result.err**2, rtol=1e-5)
    if len(pattern) == 3:
        assert result.chisq.mean() == pytest.approx(1, abs=0.02)  # one degree of freedom
    else:
        assert np.abs(result.chisq).max() < 1e-6


def true_sigma(rate, pattern):
    """Standard deviation of the best slope, by the dense reference with the true noise."""
    return np.sqrt(dense_fit(np.zeros(len(pattern)), np.ones(len(pattern) - 1), rate, pattern)[1])


def test_two_resultants_give_their_difference():
    pattern = [[1], [2, 3]]
    ramps = np.array([[1000.0, 1000, 1000], [1030, 1000, 970]])
    result, _ = fit(ramps, pattern=pattern)
    step = 1.5 * FRAME_TIME
    np.testing.assert_allclose(result.slope[0], [30 / step, 0, -30 / step], rtol=1e-6)
    read = READNOISE**2 * (1 + 1 / 2) / step**2
    # τ of reads 2 and 3 is (3 · 2 + 1 · 3) / 4 frames, that of read 1 one frame, and their covariance one frame.
    photon = 30 / step / GAIN * (9 / 4 + 1 - 2) * FRAME_TIME / step**2
    np.testing.assert_allclose(result.err[0] ** 2, [read + photon, read, read], rtol=1e-5)
    np.testing.assert_allclose(result.var_poisson[0], [photon, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("resultants", [2, 3])
def test_few_resultants_are_not_searched_for_jumps_and_say_so(resultants):
    pattern = UNEVEN[:resultants]
    ramps = simulate(5.0, 50, pattern, seed=2, jump=(5000, 2))
    result, jumps = fit(ramps, pattern=pattern)
    assert not jumps.any() and np.isfinite(result.slope).all()
    groupdq = np.zeros(ramps.shape, np.uint8)
    groupdq[1:, 0, 1] = flags.SATURATED
    result, _ = fit(ramps, groupdq, pattern=pattern)
    dq = image_dq(np.zeros((1, 50), np.uint32), groupdq, result.slope, planes((1, 50))[0])
    assert dq[0, 0] == flags.UNRELIABLE_SLOPE
    assert dq[0, 1] == flags.UNRELIABLE_SLOPE | flags.SATURATED | flags.DO_NOT_USE and np.isnan(result.slope[0, 1])


@pytest.mark.parametrize("good", [2, 3])
def test_a_long_ramp_with_few_good_resultants_is_fitted_like_a_short_one(good):
    # The same slope and error, in the same pixels; it has four or more resultants, so that UNRELIABLE_SLOPE isn't set.
    ramps = simulate(300.0, 1000, seed=4)
    groupdq = np.zeros(ramps.shape, np.uint8)
    groupdq[good:] = flags.SATURATED
    long, _ = fit(ramps, groupdq, rejection_threshold=None)
    short, _ = fit(ramps[:good], pattern=UNEVEN[:good])
    for name in ("slope", "err", "var_poisson", "var_rnoise", "chisq"):
        np.testing.assert_array_equal(getattr(long, name), getattr(short, name))
    dq = image_dq(np.zeros((1, 1000), np.uint32), groupdq, long.slope, planes((1, 1000))[0])
    assert (dq == flags.SATURATED).all()


def test_one_resultant_is_refused():
    with pytest.raises(RampflowError, match="1 resultant; .*at least 2"):
        fit(np.zeros((1, 5)), pattern=SINGLE[:1])


# ------------------------------------------------------------------------------------------------------- large events
def disc(shape, row, column, radius):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def snowball(core=3, halo=8, center=(40, 50)):
    groupdq = np.zeros((5, 80, 100), np.uint8)
    groupdq[2, disc((80, 100), *center, halo)] = flags.JUMP_DET
    groupdq[2:, disc((80, 100), *center, core)] = flags.SATURATED
    return groupdq


def extent(mask):
    """Rows covered by a mask."""
    return np.count_nonzero(mask.any(axis=1))


def test_a_snowball_grows():
    before = snowball()
    after, number = expand_large_events(before)
    assert number == 1
    jumps, saturated = flags.has(after, flags.JUMP_DET), flags.has(after, flags.SATURATED)
    assert extent(jumps[2]) == pytest.approx(1.9 * 16, abs=2)
    assert extent(saturated[2]) == pytest.approx(2 * (3 + 2), abs=1)
    for k in (3, 4):
        np.testing.assert_array_equal(saturated[k], saturated[2])
    assert not after[:2].any() and not jumps[3:].any()
    assert not (jumps & saturated).any()
    np.testing.assert_array_equal(before, snowball())


def test_expand_factor_and_sat_expand():
    sizes = [extent(expand_large_events(snowball(), expand_factor=f)[0][2] == flags.JUMP_DET) for f in (1.2, 1.9, 3.0)]
    assert sizes[0] < sizes[1] < sizes[2]
    cores = [extent(expand_large_events(snowball(), sat_expand=e)[0][2] == flags.SATURATED) for e in (2, 4, 6)]
    np.testing.assert_allclose(np.diff(cores), 4, atol=2)  # 2 pixels on each side, but for pixels on the very edge


def test_a_snowball_needs_its_core_and_its_size():
    no_core = snowball()
    no_core[flags.has(no_core, flags.SATURATED)] = 0
    no_core[2, disc((80, 100), 40, 50, 8)] = flags.JUMP_DET
    after, number = expand_large_events(no_core)
    assert number == 0
    np.testing.assert_array_equal(after, no_core)
    after, number = expand_large_events(no_core, sat_required_snowball=False)
    assert number == 1 and after.sum() > no_core.sum()
    assert expand_large_events(snowball(), min_jump_area=1000)[1] == 0
    assert expand_large_events(snowball(), min_sat_area=1000)[1] == 0
    assert expand_large_events(snowball(halo=1, core=0), min_jump_area=6)[1] == 0


def test_a_core_in_the_next_resultant_counts():
    groupdq = snowball()
    groupdq[2, disc((80, 100), 40, 50, 8)] = flags.JUMP_DET  # saturates one resultant later
    after, number = expand_large_events(groupdq)
    assert number == 1
    assert extent(after[2] == flags.JUMP_DET) == pytest.approx(1.9 * 15, abs=2)


def test_a_pixel_saturated_before_is_no_core():
    groupdq = snowball()
    groupdq[:, disc((80, 100), 40, 50, 3)] = flags.SATURATED
    assert expand_large_events(groupdq)[1] == 0


def test_small_cores_are_not_extended():
    after, number = expand_large_events(snowball(), min_sat_radius_extend=50)
    assert number == 1
    np.testing.assert_array_equal(flags.has(after, flags.SATURATED), flags.has(snowball(), flags.SATURATED))


def test_near_the_edge_no_core_is_needed():
    groupdq = np.zeros((4, 80, 100), np.uint8)
    groupdq[1, disc((80, 100), 2, 50, 6)] = flags.JUMP_DET
    assert expand_large_events(groupdq)[1] == 0
    after, number = expand_large_events(groupdq, edge_size=10)
    assert number == 1 and np.count_nonzero(after) > np.count_nonzero(groupdq)


@pytest.mark.parametrize("transpose", [False, True])
def test_a_long_event_grows_along_its_own_axes(transpose):
    y, x = np.mgrid[:120, :120] - 60.0
    along, across = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    mask = (along / 25) ** 2 + (across / 6) ** 2 < 1
    core = np.hypot(x - 12, y - 12) < 3  # off the middle, on the long axis
    groupdq = np.zeros((4, 120, 120), np.uint8)
    groupdq[1, mask] = flags.JUMP_DET
    groupdq[1:, core] = flags.SATURATED
    groupdq = groupdq[:, ::-1].copy() if transpose else groupdq
    after, number = expand_large_events(groupdq)
    assert number == 1
    new = (after[1] != 0)[::-1] if transpose else after[1] != 0
    assert np.abs(along[new]).max() == pytest.approx(25 + 0.9 * 6, abs=2.5)
    assert np.abs(across[new]).max() == pytest.approx(6 * 1.9, abs=1.5)
    # At a diagonal, an event is its own mirror image. Along a row, its core lies outside of it.
    assert expand_large_events(groupdq, mirrored_events=True)[1] == 1
    along_row = np.zeros((4, 120, 120), np.uint8)
    along_row[1, (x / 25) ** 2 + (y / 6) ** 2 < 1] = flags.JUMP_DET
    along_row[1:, np.hypot(x - 17, y) < 3] = flags.SATURATED
    assert [expand_large_events(along_row, mirrored_events=m)[1] for m in (False, True)] == [1, 0]


def test_extended_cores_of_stars_are_measured_better_with_their_whole_ramps():
    rng = np.random.default_rng(3)
    pattern = [[1], [2, 3], [4, 5, 6], *(list(range(k, k + 4)) for k in (7, 11, 15, 19, 23, 27))]
    shape, full_well = (240, 240), 60_000.0  # electrons
    y, x = np.mgrid[: shape[0], : shape[1]]
    rate = np.full(shape, 1.8)
    for row in range(20, shape[0], 40):
        for column in range(20, shape[1], 40):
            distance = np.hypot(y - row - rng.uniform(-0.5, 0.5), x - column - rng.uniform(-0.5, 0.5))
            rate += 10 ** rng.uniform(3.2, 4.2) * (1 + (distance / 2.5) ** 2) ** -2.5
    charge = rng.poisson(rate * FRAME_TIME, (pattern[-1][-1], *shape)).cumsum(axis=0)
    counts = np.minimum(charge, full_well) / GAIN + rng.normal(0, READNOISE, charge.shape)
    resultants = np.array([counts[np.array(reads) - 1].mean(axis=0) for reads in pattern], np.float32)
    saturated = [(charge[reads[-1] - 1] > 0.97 * full_well) * np.uint8(flags.SATURATED) for reads in pattern]
    groupdq = np.array(saturated)
    arrays = *planes(shape), difference_covariance(pattern, FRAME_TIME)
    first, jumps = find_jumps(resultants, groupdq, *arrays)
    expanded, _ = expand_large_events(groupdq | jumps)
    new = expanded & np.uint8(flags.SATURATED)
    ring = (new & ~groupdq).any(axis=0)
    fits = [fit_slopes(resultants, group, jumps, *arrays, first) for group in (groupdq, groupdq | new)]
    fitted, excluded = ((fit.slope[ring] - rate[ring] / GAIN, fit.err[ring]) for fit in fits)
    assert ring.sum() > 300 and np.isfinite(fitted[0]).all() and np.isnan(excluded[0]).mean() > 0.05
    both = np.isfinite(excluded[0])
    for error, sigma in (fitted, excluded):
        pull = (error / sigma)[both]
        assert abs(np.median(pull)) < 0.15 and np.median(np.abs(pull)) * 1.4826 == pytest.approx(1, abs=0.2)
    assert np.median(excluded[1][both] / fitted[1][both]) > 1.3


# -------------------------------------------------------------------------------------------------------- the program
ROWS, COLUMNS = 48, 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ramp file, its references, and a fully saturated one."""
    from roman_datamodels.datamodels import RampModel

    folder = tmp_path_factory.mktemp("ramp_fitting")
    rng = np.random.default_rng(12)
    n = len(UNEVEN)
    model = RampModel.create_fake_data(shape=(n, ROWS, COLUMNS))
    data = np.empty((n, ROWS, COLUMNS), np.float32)
    for row in range(ROWS):
        data[:, row] = simulate(8.0, COLUMNS, seed=100 + row)[:, 0] + 500
    groupdq, pixeldq = np.zeros(data.shape, np.uint8), np.zeros(data.shape[1:], np.uint32)
    core, halo = disc((ROWS, COLUMNS), 24, 64, 3), disc((ROWS, COLUMNS), 24, 64, 7)
    data[4:, halo] += 3000
    groupdq[4:, core] = flags.SATURATED
    data[4:, 10, 20] += 2000
    pixeldq[:4], pixeldq[12, 30] = flags.REFERENCE_PIXEL, flags.HOT
    model.data, model.groupdq, model.pixeldq = data, groupdq, pixeldq
    model.amp33 = rng.integers(0, 100, (n, ROWS, 128)).astype(np.uint16)
    model.border_ref_pix_left = data[:, :, :4].copy()
    model.border_ref_pix_right = data[:, :, -4:].copy()
    model.border_ref_pix_top = data[:, :4].copy()
    model.border_ref_pix_bottom = data[:, -4:].copy()
    model.dq_border_ref_pix_left = pixeldq[:, :4].copy()
    model.dq_border_ref_pix_right = pixeldq[:, -4:].copy()
    model.dq_border_ref_pix_top = pixeldq[:4].copy()
    model.dq_border_ref_pix_bottom = pixeldq[-4:].copy()
    model.meta.exposure.read_pattern = UNEVEN
    model.meta.exposure.frame_time = FRAME_TIME
    model.meta.exposure.nresultants = n
    model.save(folder / "ramp.asdf")
    with AsdfFile(folder / "ramp.asdf") as file:
        tree = file.tree
        roman = tree["roman"]
        roman["groupdq"] = np.full(data.shape, flags.SATURATED, np.uint8)
        roman["meta"]["cal_step"]["ramp_fit"] = "SKIPPED"
        with create_asdf(folder / "saturated.asdf", tree):
            pass
    gain, readnoise = planes((ROWS, COLUMNS))
    gain[30, 40] = np.nan
    for name, values in {"gain": gain, "readnoise": readnoise, "wrong": gain[:, :64]}.items():
        with create_asdf(folder / f"{name}.asdf", {"roman": {"meta": {}, "data": values.copy()}}):
            pass
    return folder


def command(folder, output, *options, source="ramp.asdf", gain="gain.asdf"):
    arguments = [folder / source, folder / output, "--gain", folder / gain, "--readnoise", folder / "readnoise.asdf"]
    return [str(a) for a in (*arguments, *options)]


def run(folder, output, *options, **keywords):
    """Run the step in this process and return its arrays."""
    assert run_step(ramp_fitting.STEP, ramp_fitting.run, command(folder, output, *options, **keywords)) == 0
    with AsdfFile(folder / output) as file:
        exposure = Exposure(file)
        return {name: exposure.array(name).read() for name in exposure.roman if name != "meta"}


@pytest.fixture(scope="module")
def default(folder):
    return run(folder, "default.asdf")


def test_the_program_writes_a_valid_image(folder):
    import roman_datamodels

    done = subprocess.run(
        [sys.executable, SCRIPT, *command(folder, "program.asdf", "--threads", "2")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with roman_datamodels.open(folder / "program.asdf") as image, roman_datamodels.open(folder / "ramp.asdf") as ramp:
        assert type(image).__name__ == "ImageModel"
        image.validate()
        assert image.meta.model_type == "ImageModel" and image.meta.product_type == "l2"
        assert image.meta.cal_step.ramp_fit == "COMPLETE"
        assert image.meta.photometry.pixel_area == -999999
        assert image.meta.filename == "program.asdf"
        assert image.meta.ref_file.gain.endswith("gain.asdf")
        assert any("ramp_fitting" in line for line in image.meta.cal_logs)
        assert image.data.shape == (ROWS - 8, COLUMNS - 8)
        dtypes = {"data": "f4", "dq": "u4", "err": "f2", "var_poisson": "f2", "chisq": "f2", "dumo": "f2", "jump_indices": "i2"}
        for name, dtype in dtypes.items():
            assert image[name].dtype == np.dtype(dtype), name
        for name in ramp_fitting.CARRIED_ARRAYS:
            np.testing.assert_array_equal(image[name], ramp[name])
        assert not {"pixeldq", "groupdq", "var_rnoise"} & set(image.keys())


def test_the_image_is_the_fit(folder, default):
    with AsdfFile(folder / "ramp.asdf") as file, AsdfFile(folder / "gain.asdf") as gain:
        roman = file.tree["roman"]
        data, groupdq, pixeldq = (roman[name].read() for name in ("data", "groupdq", "pixeldq"))
        gain = gain.tree["roman"]["data"].read()
    expected, jumps = fit_ramps(data, groupdq, gain, planes(gain.shape)[1], UNEVEN, FRAME_TIME)
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_array_equal(default["data"], expected.slope[inner])
    np.testing.assert_array_equal(default["err"], expected.err[inner].astype(np.float16))
    dumo = (fit_uniform(data, UNEVEN, FRAME_TIME) - expected.slope)[inner].astype(np.float16)
    np.testing.assert_array_equal(default["dumo"], dumo)
    np.testing.assert_array_equal(default["dq"], image_dq(pixeldq, groupdq | jumps, expected.slope, gain)[inner])
    np.testing.assert_array_equal(default["jump_indices"], np.argwhere(jumps[:, 4:-4, 4:-4]))
    assert [4, 6, 16] in default["jump_indices"].tolist()
    assert default["dq"][8, 26] & flags.HOT
    assert default["dq"][26, 36] == flags.NO_GAIN_VALUE | flags.DO_NOT_USE
    good = default["dq"] & flags.DO_NOT_USE == 0
    assert np.isfinite(default["data"][good]).all() and good.sum() == good.size - 1


def test_threads_and_blocks_change_nothing(folder, default, monkeypatch):
    original = Job.map_rows
    monkeypatch.setattr(Job, "map_rows", lambda self, function, rows, block=7: original(self, function, rows, block))
    for name, values in run(folder, "blocks.asdf", "--threads", "2").items():
        np.testing.assert_array_equal(values, default[name], err_msg=name)


def test_a_long_step_logs_its_progress(folder, monkeypatch):
    monkeypatch.setattr("rampflow.step.job.PROGRESS_INTERVAL", 0)
    run(folder, "slow.asdf")
    with AsdfFile(folder / "slow.asdf") as file:
        lines = [line.rsplit(" :: ")[-1] for line in file.tree["roman"]["meta"]["cal_logs"] if "Rows done" in line]
    assert lines[-1] == "Rows done: 40 of 40"


def test_parameters_of_the_fit(folder, default):
    loose = run(folder, "o1.asdf", "--rejection_threshold", "2")
    assert len(loose["jump_indices"]) > len(default["jump_indices"]) > 0
    off = run(folder, "o2.asdf", "--use_ramp_jump_detection", "false")
    assert len(off["jump_indices"]) == 0 and not (off["dq"] & flags.JUMP_DET).any()
    assert "jump_indices" not in run(folder, "o3.asdf", "--record_jumps", "false")
    median = run(folder, "o5.asdf", "--saturated_in_median", "true")
    changed = (median["data"] != default["data"]) & np.isfinite(default["data"])
    assert changed.any() and flags.has(default["dq"][changed], flags.SATURATED).all()
    variances = run(folder, "o4.asdf", "--include_var_rnoise", "true")
    assert variances["var_rnoise"].dtype == np.float16
    good = variances["dq"] & flags.DO_NOT_USE == 0
    total = variances["var_rnoise"].astype(float) + variances["var_poisson"]
    np.testing.assert_allclose(total[good], variances["err"][good].astype(float) ** 2, rtol=3e-3)


def test_parameters_of_large_events(folder, default):
    def counts(*options):
        image = run(folder, "large.asdf", "--expand_large_events", "true", *options)
        return [np.count_nonzero(image["dq"] & flag) for flag in (flags.JUMP_DET, flags.SATURATED)], image

    (jumps, saturated), image = counts()
    assert jumps > np.count_nonzero(default["dq"] & flags.JUMP_DET)
    assert saturated > np.count_nonzero(default["dq"] & flags.SATURATED)
    assert len(image["jump_indices"]) > len(default["jump_indices"])
    changed = image["dq"] != default["dq"]
    extended = changed & flags.has(image["dq"], flags.SATURATED)
    halo = changed & ~extended
    # A halo is measured without its jump. The extension of a core flags pixels whose whole ramp is fitted, without the jump
    # that was found there.
    assert extended.sum() > 20 and halo.sum() > 20
    assert (image["err"][halo] > default["err"][halo]).all()
    for name in ("data", "err", "chisq"):
        np.testing.assert_array_equal(image[name][extended], default[name][extended], err_msg=name)
    excluded = counts("--exclude_extended_cores", "true")[1]
    np.testing.assert_array_equal(excluded["dq"], image["dq"])
    np.testing.assert_array_equal(excluded["jump_indices"], image["jump_indices"])
    assert (excluded["err"][extended] > image["err"][extended]).all()
    np.testing.assert_array_equal(excluded["data"][~extended], image["data"][~extended])
    assert counts("--expand_factor", "3")[0][0] > jumps
    assert counts("--sat_expand", "4")[0][1] > saturated
    assert counts("--min_sat_radius_extend", "40")[0][1] < saturated
    assert counts("--min_jump_area", "4000")[0][0] < jumps
    assert counts("--min_sat_area", "4000")[0] == [np.count_nonzero(default["dq"] & f) for f in (4, 2)]
    assert counts("--sat_required_snowball", "false")[0][1] < saturated
    assert counts("--min_sat_area", "4000", "--edge_size", "30")[0][0] > np.count_nonzero(default["dq"] & flags.JUMP_DET)


def test_a_saturated_exposure_becomes_zeros(folder):
    import roman_datamodels

    arguments = command(folder, "zeros.asdf", source="saturated.asdf")
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with roman_datamodels.open(folder / "zeros.asdf") as image:
        assert type(image).__name__ == "ImageModel"
        image.validate()
        assert image.meta.cal_step.ramp_fit == "SKIPPED"
        for name in ("data", "err", "var_poisson", "chisq", "dumo"):
            assert not np.any(image[name])
        assert ((image.dq & flags.SATURATED) != 0).all() and image.dq[8, 26] == flags.SATURATED | flags.HOT


def test_inconsistent_inputs_are_refused(folder, capsys):
    assert run_step(ramp_fitting.STEP, ramp_fitting.run, command(folder, "x.asdf", gain="wrong.asdf")) == 1
    assert "give the gain of this detector" in capsys.readouterr().err
    assert not (folder / "x.asdf").exists()
    shorten(folder, 1)
    assert run_step(ramp_fitting.STEP, ramp_fitting.run, command(folder, "x.asdf", source="short.asdf")) == 1
    assert "short.asdf: the ramp has 1 resultant; ramp_fitting needs at least 2" in capsys.readouterr().err


def shorten(folder, resultants, flag=0):
    """Write the first resultants of the ramp as an exposure; `flag` is set in the last one."""
    with AsdfFile(folder / "ramp.asdf") as file:
        roman = file.tree["roman"]
        roman["data"], roman["groupdq"] = roman["data"].read()[:resultants], roman["groupdq"].read()[:resultants]
        roman["groupdq"][-1] |= np.uint8(flag)
        roman["meta"]["exposure"]["read_pattern"] = UNEVEN[:resultants]
        with create_asdf(folder / "short.asdf", file.tree):
            pass


@pytest.mark.parametrize("resultants", [2, 3])
@pytest.mark.parametrize("options", [[], ["--expand_large_events=true"]])
def test_an_exposure_of_few_resultants_is_complete_and_says_that_it_was_not_searched(folder, capsys, resultants, options):
    shorten(folder, resultants)
    assert run_step(ramp_fitting.STEP, ramp_fitting.run, command(folder, "few.asdf", *options, source="short.asdf")) == 0
    said = capsys.readouterr().err
    assert f"short.asdf: the ramp has {resultants} resultants, too few to search for jumps (4 are needed)" in said
    with opened(folder / "few.asdf") as image:
        assert image.meta.cal_step.ramp_fit == "COMPLETE"
        assert ((image.dq & flags.UNRELIABLE_SLOPE) != 0).all() and not (image.dq & flags.JUMP_DET).any()
        assert image.jump_indices.shape == (0, 3)
        good = (image.dq & flags.DO_NOT_USE) == 0
        assert good.mean() > 0.5 and np.isfinite(image.data[good]).all() and (image.err[good] > 0).all()


def test_an_exposure_without_a_usable_slope_is_failed(folder, capsys):
    shorten(folder, 2, flags.DO_NOT_USE)
    assert run_step(ramp_fitting.STEP, ramp_fitting.run, command(folder, "few.asdf", source="short.asdf")) == 0
    assert "short.asdf: no pixel has a usable slope (all are DO_NOT_USE): the status is FAILED" in capsys.readouterr().err
    with opened(folder / "few.asdf") as image:
        assert image.meta.cal_step.ramp_fit == "FAILED"


def test_ols_cas22_is_refused_by_name(folder, capsys):
    with pytest.raises(SystemExit):
        run_step(ramp_fitting.STEP, ramp_fitting.run, command(folder, "x.asdf", "--algorithm", "ols_cas22"))
    assert "ols_cas22 is deprecated in romancal and not offered" in capsys.readouterr().err
    algorithm = STEP.parameters[0]
    assert algorithm.schema()["enum"] == ["likely"]
    with pytest.raises(argparse.ArgumentTypeError):
        algorithm.parse("simple")


def test_the_script_starts_without_heavy_packages():
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import ramp_fitting; print([m for m in ('numba', 'scipy', "
    code += "'astropy', 'asdf', 'roman_datamodels') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_find_jumps_returns_the_first_rate():
    ramps = simulate(10.0, 5, seed=13)
    covariance = difference_covariance(UNEVEN, FRAME_TIME)
    rate, jumps = find_jumps(ramps, np.zeros(ramps.shape, np.uint8), *planes((1, 5)), covariance)
    assert rate.dtype == np.float64 and jumps.shape == ramps.shape
    np.testing.assert_allclose(rate, 10, atol=2)
