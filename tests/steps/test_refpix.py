"""refpix: unchanged input, correlated noise with a known source, each option, flags and the program."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import refpix
import roman_datamodels.datamodels as rdm
from refpix import (
    SAMPLES,
    correct_reference_pixels,
    correct_resultants,
    fill_gaps,
    fit_trend,
    remove_trend,
    replace_lost_samples,
    smooth_dead_time,
    transform_to_time,
)
from small_files import arrays_of

from rampflow import dq as flags
from rampflow.detector import border_pixels
from rampflow.files.asdf_writer import create_asdf
from rampflow.quality.measures import measure_row_scatter
from rampflow.step.logs import recorded_numbers

SCRIPT = Path(refpix.__file__)
RESULTANTS, ROWS, COLUMNS = 4, 512, 512
LEFT, RIGHT, AMP33 = range(3)
SWITCHES = ("remove_offset", "remove_trends", "cosine_interpolate", "fft_interpolate", "mean_is_missing")


def responses(columns=COLUMNS, rows=ROWS, *, passband=None, **value):
    """Responses to each reference (left, right, amp33), the same in every channel, from frequency 0 to `passband`."""
    result = np.zeros((3, columns // 128, rows * SAMPLES // 2 + 1), np.complex64)
    for name, number in value.items():
        result[{"left": LEFT, "right": RIGHT, "amp33": AMP33}[name], :, :passband] = number
    return result


def on_detector(stream, columns=COLUMNS):
    """Counts (resultant, row, column) of a noise that is the same function of time in every channel."""
    channels = [stream[..., :128] if n % 2 == 0 else stream[..., 127::-1] for n in range(columns // 128)]
    return np.concatenate(channels, axis=-1).astype(np.float32)


def slow_noise(rows=ROWS, amplitude=5.0):
    """A few slow waves per resultant, none of them common to all, (resultant, row, sample)."""
    time = np.linspace(0, 2 * np.pi, rows * SAMPLES, endpoint=False).reshape(rows, SAMPLES)
    rng = np.random.default_rng(3)
    waves = [
        sum(rng.normal(0, amplitude) * np.sin(k * time + rng.uniform(0, 6)) for k in range(2, 9)) for _ in range(RESULTANTS)
    ]
    return np.array(waves)


def white_noise(rows=ROWS, sigma=10.0, seed=1):
    return np.random.default_rng(seed).normal(0, sigma, (RESULTANTS, rows, SAMPLES))


def scene(columns=COLUMNS, rows=ROWS):
    """A frame that all resultants have."""
    return np.random.default_rng(2).uniform(4000, 60000, (rows, columns)).astype(np.float32)


def correct(data, amp33=None, response=None, pixeldq=None, **switches):
    _, rows, columns = data.shape
    return correct_reference_pixels(
        data.astype(np.float32),
        np.zeros((len(data), rows, 128), np.float32) if amp33 is None else amp33,
        np.zeros((rows, columns), np.uint32) if pixeldq is None else pixeldq,
        responses(columns, rows) if response is None else response,
        **switches,
    )


# ------------------------------------------------------------------------------------------------------ the whole thing
def test_zero_responses_change_nothing():
    data = scene() + on_detector(white_noise())
    amp33 = np.full((RESULTANTS, ROWS, 128), 5000, np.uint16)
    corrected, corrected_amp33 = correct(data, amp33, remove_trends=False)
    np.testing.assert_allclose(corrected, data, atol=0.005)
    np.testing.assert_array_equal(corrected_amp33, amp33)
    assert corrected_amp33.dtype == np.uint16


@pytest.mark.parametrize("columns", [128, 256, 384, 512])
def test_noise_that_amp33_sees_is_removed(columns):
    noise = white_noise() + slow_noise()
    data = scene(columns) + on_detector(noise, columns)
    amp33 = (6000 + noise[..., :128]).astype(np.float32)
    corrected, _ = correct(data, amp33, responses(columns, amp33=1))
    assert np.ptp(data, axis=0).mean() > 10
    # A sample that is its mean, to the last digit, counts as missing.
    missing = (data == data.mean(axis=0)).any(axis=0) | (on_detector((amp33 == amp33.mean(axis=0)).any(axis=0), columns) != 0)
    assert missing.mean() < 0.01
    # A bright pixel has few digits left for the noise: 60,000 DN are known to 0.004.
    assert np.ptp(corrected, axis=0)[~missing].max() < 0.02


@pytest.mark.parametrize("columns", [256, 384, 512])
@pytest.mark.parametrize(("reference", "border"), [("left", np.s_[..., :4]), ("right", np.s_[..., -4:])])
def test_slow_noise_that_a_border_sees_is_removed(reference, border, columns):
    noise = on_detector(slow_noise(), columns)
    only_there = np.zeros_like(noise)
    only_there[border] = 5000 + noise[border]  # counts are positive
    response = responses(columns, passband=40, **{reference: 1})
    correction = only_there - correct(only_there, response=response, remove_trends=False)[0]
    inside = np.s_[..., 8:-8, 4:-4]
    assert np.abs(noise[inside]).max() > 20
    np.testing.assert_allclose(correction[inside], (noise - noise.mean(axis=0))[inside], atol=0.5)


def test_a_delay_in_the_response_delays_the_correction():
    noise = slow_noise()
    frequency = np.arange(ROWS * SAMPLES // 2 + 1)
    delay = 1000  # samples
    response = responses(amp33=np.exp(-2j * np.pi * frequency * delay / (ROWS * SAMPLES)))
    delayed = np.roll(noise.reshape(RESULTANTS, -1), delay, axis=1).reshape(noise.shape)
    data = scene() + on_detector(delayed)
    switches = {"remove_trends": False, "fft_interpolate": False, "cosine_interpolate": False}
    # The dead time between the rows is empty in amp33, which a pure delay carries into the rows: leave these samples out.
    corrected, _ = correct(data, noise[..., :128].astype(np.float32) + 6000, response, **switches)
    sample = np.arange(ROWS * SAMPLES).reshape(ROWS, SAMPLES)[:, :128]
    known = (sample - delay) % SAMPLES < 128
    known = np.concatenate([known, known[:, ::-1]] * 2, axis=1)
    assert np.ptp(corrected, axis=0)[known].max() < 0.05


def test_each_channel_has_its_response():
    noise = slow_noise()
    response = responses(amp33=1)
    response[AMP33] *= np.array([0, 1, 2, 3])[:, None]
    amp33 = (6000 + noise[..., :128]).astype(np.float32)
    corrected, _ = correct(scene() + 3 * on_detector(noise), amp33, response, remove_trends=False)
    left = np.ptp(corrected - scene(), axis=0).reshape(ROWS, 4, 128).mean(axis=(0, 2))
    np.testing.assert_allclose(left / left[0], [1, 2 / 3, 1 / 3, 0], atol=2e-3)


def test_a_constant_frame_is_kept():
    noise = np.rint(64 * white_noise()) / 64  # few digits, so that all sums are exact
    amp33 = 6000 + noise[..., :128]
    response = responses(left=0.3 + 0.1j, right=0.2, amp33=0.5 - 0.2j, passband=5000)
    frame, amp33_frame = np.rint(scene() / 4), np.rint(scene(128) / 4)
    one, amp33_one = correct(on_detector(noise) + 4096, amp33.astype(np.float32), response)
    two, amp33_two = correct(on_detector(noise) + 4096 + frame, (amp33 + amp33_frame).astype(np.float32), response)
    assert np.abs(one - 4096 - on_detector(noise)).max() > 5
    np.testing.assert_allclose(two - frame, one, atol=0.02)
    np.testing.assert_allclose(amp33_two - amp33_frame, amp33_one, atol=0.02)


def rounding(counts, correction):
    """Largest difference (DN) of two computations of one correction that sum in different order.

    A transform of N samples in single precision is off by half an epsilon times log2 N of the largest value (N. J. Higham,
    Accuracy and Stability of Numerical Algorithms, section 24.1), in each of the two; then counts round to the number beside
    them. Libraries choose the order by processor, by how many transforms they do at once, and by number of threads.
    """
    samples = counts.shape[-2] * SAMPLES
    return np.finfo(np.float32).eps * np.log2(samples) * np.abs(correction).max() + np.spacing(np.abs(counts))


def test_rounding_is_a_small_part_of_the_correction():
    counts, correction = np.full((1, 512, 128), 4000, np.float32), np.full((1, 512, 128), 100, np.float32)
    assert rounding(counts, correction).max() < 5e-4


def test_nothing_depends_on_the_number_of_threads():
    amp33, response = white_noise(seed=8)[..., :128].astype(np.float32), responses(left=1, right=1, amp33=1)
    before = scene() + on_detector(white_noise())
    one, many = before.copy(), before.copy()
    corrected = [correct_resultants(d, amp33, scene(), amp33[0], response, threads=n) for d, n in ((one, 1), (many, 3))]
    assert np.all(np.abs(one - many) <= rounding(one, one - before))
    np.testing.assert_array_equal(*corrected)


def test_resultants_are_corrected_independently():
    # They share transforms, and so do channels where a resultant is alone.
    data, amp33 = scene(384) + on_detector(white_noise(), 384), white_noise(seed=8)[..., :128].astype(np.float32)
    arguments = scene(384), amp33.mean(axis=0), responses(384, left=1, right=1, amp33=1)
    before, together = data.copy(), data.copy()
    corrected = correct_resultants(together, amp33, *arguments)
    for i in range(RESULTANTS):
        np.testing.assert_array_equal(correct_resultants(data[i : i + 1], amp33[i : i + 1], *arguments)[0], corrected[i])
    # Transforms in single precision: what else is in one rounds some counts to numbers beside them.
    correction = together - before
    assert np.abs(correction).max() > 1000  # the bound is a millionth of it
    assert np.all(np.abs(data - together) <= rounding(together, correction))


# ---------------------------------------------------------------------------------------------------------- the switches
@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_has_an_effect(switch):
    noise = white_noise()
    amp33 = (6000 + noise[..., :128]).astype(np.float32)
    amp33[:, ::7, 40:44] = 0
    data, response = scene() + on_detector(noise), responses(left=0.3, right=0.2, amp33=0.5, passband=20000)
    on, off = (correct(data, amp33, response, **{switch: value})[0] for value in (True, False))
    assert np.abs(on - off).max() > 0.1


def test_remove_offset_keeps_the_scene_out_of_the_references():
    data = np.broadcast_to(scene(), (RESULTANTS, ROWS, COLUMNS))
    response = responses(left=1, right=1)
    np.testing.assert_allclose(correct(data, response=response)[0], data, atol=0.005)
    assert np.abs(correct(data, response=response, remove_offset=False)[0] - data).max() > 1000


def test_remove_trends_takes_a_line_in_time_out_of_each_channel():
    row, column = np.indices((ROWS, SAMPLES))
    time = (row * SAMPLES + column) / (ROWS * SAMPLES)
    slopes = np.array([3.0, -1.0, 5.0, -7.0])  # of the resultants: they have no mean
    data = scene() + on_detector(slopes[:, None, None] * time)
    data[..., 128:256] += (2 * slopes)[:, None, None]  # a step of a channel is a line too
    with_trends, _ = correct(data, remove_trends=False)
    np.testing.assert_allclose(with_trends, data, atol=0.005)
    without, _ = correct(data)
    assert np.ptp(data, axis=0).max() > 10
    assert np.ptp(without, axis=0).max() < 0.02


def test_cosine_interpolate_fills_missing_samples_of_amp33():
    noise = slow_noise()
    amp33 = (6000 + noise[..., :128]).astype(np.float32)
    whole = amp33.copy()
    amp33[:, 100, 50:60] = 0
    data, response = scene() + on_detector(noise), responses(amp33=1)
    filled, filled_amp33 = correct(data, amp33, response, remove_trends=False)
    holes, holes_amp33 = correct(data, amp33, response, remove_trends=False, cosine_interpolate=False)
    gap = np.s_[:, 100, 50:60]
    assert np.ptp(filled, axis=0)[gap[1:]].max() < 1
    assert np.ptp(holes, axis=0)[gap[1:]].max() > 5
    # The mean of a sample that is always missing is zero, so that is where the fluctuations are put back.
    np.testing.assert_allclose(filled_amp33[gap], np.abs(noise - noise.mean(axis=0))[gap], atol=1)
    assert not holes_amp33[gap].any()
    np.testing.assert_allclose(np.delete(filled_amp33, 100, axis=1), np.delete(whole, 100, axis=1), atol=0.01)


def test_fft_interpolate_smooths_the_dead_time_alone():
    noise = white_noise()
    response = responses(amp33=1)
    amp33 = (6000 + noise[..., :128]).astype(np.float32)
    on, off = (correct(scene() + on_detector(noise), amp33, response, fft_interpolate=value)[0] for value in (True, False))
    # A response of one frequency-independent number takes nothing from the dead time into the rows.
    np.testing.assert_allclose(on, off, atol=0.02)
    response[AMP33, :, 20000:] = 0
    on, off = (correct(scene() + on_detector(noise), amp33, response, fft_interpolate=value)[0] for value in (True, False))
    assert np.abs(on - off).max() > 0.5


# ------------------------------------------------------------------------------------------------------------- the parts
def test_fill_gaps_is_a_normalized_convolution():
    stream = np.random.default_rng(5).normal(0, 1, (6, SAMPLES)).astype(np.float32)
    stream[:, 128:] = 0
    stream[2, 10:100] = 0
    weights = np.sin(np.pi * np.arange(1, 33) / 32)
    there = (stream != 0).ravel().astype(float)
    sums = np.convolve(stream.ravel(), weights, "same")
    norms = np.convolve(there, weights, "same")
    expected = np.where(there, stream.ravel(), np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 1e-9))
    filled = fill_gaps(stream, stream != 0)
    inside = np.ones(stream.shape, bool)
    inside[2, 24:86] = False  # farther than the weights reach
    np.testing.assert_allclose(filled[inside], expected.reshape(stream.shape)[inside], rtol=1e-5, atol=1e-6)
    assert not filled[2, 30:80].any()


@pytest.mark.parametrize("level", [7.25, 0.0])
def test_fill_gaps_keeps_a_level(level):
    stream = np.full((5, SAMPLES), level, np.float32)
    stream[:, 128:] = stream[3, 50:60] = 0
    np.testing.assert_allclose(fill_gaps(stream, stream != 0), level, rtol=1e-6)


def test_smooth_dead_time_is_the_low_pass_filter_of_the_transform():
    stream = np.random.default_rng(6).normal(0, 1, (10, SAMPLES))
    low_pass = (1 + np.cos(2 * np.pi * np.fft.rfftfreq(stream.size))) / 2
    expected = stream.ravel().copy()
    dead = np.tile(np.arange(SAMPLES) >= 128, 10)
    for _ in range(3):
        expected[dead] = np.fft.irfft(np.fft.rfft(expected) * low_pass, stream.size)[dead]
    smoothed = smooth_dead_time(stream.astype(np.float32))
    np.testing.assert_allclose(smoothed, expected.reshape(stream.shape), atol=1e-6)
    np.testing.assert_array_equal(smoothed[:, :128], stream[:, :128].astype(np.float32))


@pytest.mark.parametrize("rows", [9, 10, 33, 64, 101])
def test_inverse_transforms_equal_those_of_numpy(rows):
    from rampflow.kernels.refpix import combine

    rng, frequencies = np.random.default_rng(9), rows * SAMPLES // 2 + 1
    response, spectra = (rng.normal(size=(2, 2, 3, frequencies, 2)) @ [1, 1j]).astype(np.complex64)
    response = tuple(response.swapaxes(0, 1))  # to each reference, by channel
    spectrum = np.empty(SAMPLES * rows, np.complex64)
    pair = (1, 0), (0, 1)  # channel and resultant
    combine(response, spectra, *pair, spectrum)
    samples = transform_to_time(spectrum)
    for (channel, resultant), time in zip(pair, (samples.real.T, samples.imag.T), strict=True):
        combined = sum(response[r][channel].astype(complex) * spectra[resultant, r] for r in range(3))
        expected = np.fft.irfft(combined * rows * SAMPLES, rows * SAMPLES).reshape(rows, SAMPLES)
        # As of `rounding`, for one transform in single precision, and one epsilon for each factor before it: response, sum of
        # three, twiddle.
        bound = np.finfo(np.float32).eps * (np.log2(rows * SAMPLES) / 2 + 4) * np.abs(expected).max()
        np.testing.assert_allclose(time, expected[:, :128], rtol=0, atol=bound)


def test_a_sample_near_the_trend_is_not_treated_as_missing():
    times = np.linspace(-1000, 1000, 501)
    values = (7 + 0.1 * times).astype(np.float32)  # the line, to the last digit of single precision
    assert np.count_nonzero(remove_trend(values, values != 0, times, (0.1, 7.0))) > 350  # the others are whole numbers


def test_fit_trend_leaves_missing_samples_out():
    times = np.linspace(-1000, 1000, 500, dtype=np.float32)
    values, there = 3 + 0.25 * times, np.ones(500, bool)
    values[::3], there[::3] = 0, False
    assert fit_trend(values, there, times) == (pytest.approx(0.25), pytest.approx(3))
    assert fit_trend(values, ~there & False, times) == (0, 0)
    values[7], there[:] = 5, False
    there[7] = True
    assert fit_trend(values, there, times) == (0, 5)
    values[8], there[8] = 7, True  # on one side of the middle
    assert fit_trend(values, there, times) == (0, 6)


def test_a_sample_that_equals_its_mean_loses_the_trend_when_it_does_not_count_as_missing():
    level, drift = scene(), np.array([6.0, -2.0, 0.0, -4.0], np.float32)[:, None, None]
    level[...] = np.rint(level)
    data = level + drift  # each pixel's mean is its level, and the third resultant equals it everywhere
    data[0, 300, 70], data[1, 300, 70] = level[300, 70], level[300, 70] + 4  # and in this pixel the first does
    kept, corrected = (correct(data, mean_is_missing=value)[0] for value in (True, False))
    np.testing.assert_allclose(corrected[0, 300, 70] - level[300, 70], -6, atol=0.01)
    assert kept[0, 300, 70] == level[300, 70]
    others = np.ones(data.shape, bool)
    others[:, 300, 70] = False
    np.testing.assert_array_equal(kept[others], corrected[others])
    np.testing.assert_allclose(np.broadcast_to(level, data.shape)[others], corrected[others], atol=0.01)


def test_a_bad_reference_pixel_counts_as_zero():
    noise, response = white_noise(), responses(left=1, passband=100)
    data, pixeldq = scene() + on_detector(noise), np.zeros((ROWS, COLUMNS), np.uint32)
    pixeldq[200:210, 1] = flags.BAD_REF_PIXEL
    pixeldq[300, 2] = flags.HOT
    zeroed, wild = data.copy(), data.copy()
    zeroed[:, 200:210, 1] = 0
    wild[:, 200:210, 1] = np.random.default_rng(7).uniform(0, 60000, (RESULTANTS, 10))
    expected, _ = correct(zeroed, response=response)
    np.testing.assert_array_equal(correct(wild, response=response, pixeldq=pixeldq)[0], expected)
    assert np.abs(correct(wild, response=response)[0] - expected).max() > 100


@pytest.mark.parametrize("lost", [0, 65535])
def test_amp33_samples_lost_in_some_resultants_make_no_spike(lost):
    noise = white_noise() + slow_noise()
    data, response = scene() + on_detector(noise), responses(amp33=1, passband=3000)
    amp33 = np.rint(6000 + noise[..., :128]).astype(np.uint16)
    whole, _ = correct(data, amp33, response)
    amp33[1, 300:305] = lost  # five rows of one resultant
    corrected, corrected_amp33 = correct(data, amp33, response)
    # The rows around fill the gap: what is left is the noise that they don't know. A spike of 6,000 DN through the same
    # response would be off by hundreds.
    assert np.abs(corrected - whole).max() < 40
    assert np.abs(corrected - whole)[[0, 2, 3]].max() < 10  # the mean of three instead of four
    assert np.abs(corrected_amp33[1, 300:305].astype(float) - 6000).max() < 60


def test_means_of_amp33_are_of_the_samples_present():
    amp33 = np.array([[10, 20, 0, 7], [12, 0, 0, 65535], [14, 23, 0, 8]], np.uint16)[:, None, :]
    samples, offset, lost = replace_lost_samples(amp33)
    np.testing.assert_array_equal(offset, [[12, 22, 0, 8]])  # 21.5 and 7.5, to even whole DN
    np.testing.assert_array_equal(samples[:, 0], [[10, 20, 0, 7], [12, 22, 0, 8], [14, 23, 0, 8]])
    assert np.count_nonzero(lost) == 2 and samples.dtype == np.uint16
    samples, offset, _ = replace_lost_samples(amp33, remove_offset=False)
    np.testing.assert_array_equal(samples[:, 0], [[10, 20, 0, 7], [12, 0, 0, 0], [14, 23, 0, 8]])
    assert not offset.any()
    sound = amp33[:, :, [0, 2]]
    samples, offset, lost = replace_lost_samples(sound)
    assert samples is sound and not lost.any()
    np.testing.assert_array_equal(offset, sound.astype(np.float32).mean(axis=0))


# ----------------------------------------------------------------------------------------------------------- the program
def write_reference(path, rows=ROWS, channels=COLUMNS // 128):
    response = responses(channels * 128, rows, left=0.3 + 0.1j, right=0.2, amp33=0.5, passband=3000)
    with create_asdf(path, {"roman": {"meta": {}, **dict(zip(("gamma", "zeta", "alpha"), response, strict=True))}}):
        pass


@pytest.fixture
def exposure(tmp_path):
    """A folder with a ramp file of a small detector and its reference."""
    noise = white_noise()
    model = rdm.RampModel.create_fake_data(shape=(RESULTANTS, ROWS, COLUMNS))
    model.data = scene() + on_detector(noise)
    model.amp33 = np.rint(6000 + noise[..., :128]).astype(np.uint16)
    model.groupdq = np.zeros(model.data.shape, np.uint8)
    model.pixeldq = np.zeros((ROWS, COLUMNS), np.uint32)
    model.pixeldq[50:60, :2] = flags.BAD_REF_PIXEL
    model.border_ref_pix_left = model.data[:, :, :4].copy()
    model.border_ref_pix_right = model.data[:, :, -4:].copy()
    model.meta.exposure.read_pattern = [[1], [2], [3, 4], [5]]
    model.meta.instrument.detector = "WFI07"
    model.save(tmp_path / "in.asdf")
    write_reference(tmp_path / "ref.asdf")
    return tmp_path


def program(folder, *options, reference="ref.asdf"):
    reference = reference if reference == "N/A" else folder / reference
    command = [sys.executable, SCRIPT, folder / "in.asdf", folder / "out.asdf", "--refpix", reference, *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("switched_off", [None, *SWITCHES])
@pytest.mark.slow
def test_the_program_writes_the_result_of_the_function(exposure, switched_off):
    result = program(exposure, "--threads=2", *([f"--{switched_off}=false"] if switched_off else []))
    assert result.returncode == 0, result.stderr
    response = responses(left=0.3 + 0.1j, right=0.2, amp33=0.5, passband=3000)
    with rdm.open(exposure / "out.asdf") as model, rdm.open(exposure / "in.asdf") as before:
        assert isinstance(model, rdm.RampModel)
        model.validate()
        switches = {switched_off: False} if switched_off else {}
        data, amp33 = correct(*(np.asarray(a) for a in (before.data, before.amp33)), response, before.pixeldq, **switches)
        # The program has two threads.
        assert np.all(np.abs(np.asarray(model.data) - data) <= rounding(data, data - before.data))
        np.testing.assert_array_equal(model.amp33, amp33)
        np.testing.assert_array_equal(model.border_ref_pix_left, model.data[:, :, :4])
        np.testing.assert_array_equal(model.border_ref_pix_right, model.data[:, :, -4:])
        for name in ("groupdq", "pixeldq", "border_ref_pix_top", "border_ref_pix_bottom"):
            np.testing.assert_array_equal(model[name], before[name])
        assert model.amp33.dtype == np.uint16
        assert model.meta.cal_step.refpix == "COMPLETE"
        assert model.meta.ref_file.refpix.endswith("ref.asdf")


@pytest.mark.slow
@pytest.mark.parametrize(("level", "silent"), [(0, True), (65535, True), (5000, True), (None, False)])
def test_reference_pixels_without_a_signal_give_a_warning(exposure, level, silent):
    with rdm.open(exposure / "in.asdf") as model:
        if level is not None:
            model.amp33 = np.full(model.amp33.shape, level, np.uint16)
        model.save(exposure / "other.asdf")
    (exposure / "other.asdf").rename(exposure / "in.asdf")
    said = program(exposure).stderr
    text = "amp33 (0%) carry no signal (in brackets: share of samples that vary between resultants)"
    assert (text in said) == silent
    assert ("WARNING" in said) == silent


@pytest.mark.slow
def test_a_stuck_channel_gives_a_warning(exposure):
    with rdm.open(exposure / "in.asdf") as model:
        model.data[:, 100:, 128:256] = 4321
        model.save(exposure / "other.asdf")
    (exposure / "other.asdf").rename(exposure / "in.asdf")
    said = program(exposure).stderr
    assert "most counts of the channels 2 (from 1) are the same in the first and the last resultant" in said
    assert said.count("WARNING") == 1


@pytest.mark.slow
def test_a_dead_border_gives_a_warning(exposure):
    with rdm.open(exposure / "in.asdf") as model:
        model.data[:, 100:, :4] = 4000
        model.save(exposure / "other.asdf")
    (exposure / "other.asdf").rename(exposure / "in.asdf")
    assert "reference pixels: the left border (20%) carry no signal" in program(exposure).stderr


def change(folder, function):
    """Change the arrays of the exposure."""
    with rdm.open(folder / "in.asdf") as model:
        function(model)
        model.save(folder / "other.asdf")
    (folder / "other.asdf").rename(folder / "in.asdf")


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize(
    ("side", "index"),
    [("left", np.s_[1, :, :4]), ("right", np.s_[1, :, -4:]), ("top", np.s_[1, :4]), ("bottom", np.s_[1, -4:])],
)
def test_a_border_that_is_lost_in_one_resultant_counts_as_missing(exposure, side, index, value):
    assert program(exposure).returncode == 0
    whole = arrays_of(exposure / "out.asdf")

    def lose(model):
        model.data[index] = value

    change(exposure, lose)
    result = program(exposure)
    said = result.stderr
    assert result.returncode == 0, said
    lost = arrays_of(exposure / "out.asdf")
    assert f"the {side} border in 2 (up to 1 of the samples)" in said
    with rdm.open(exposure / "in.asdf") as before:
        correction = (whole["data"] - before.data)[:, 4:-4, 4:-4]
    moved = (lost["data"] - whole["data"])[:, 4:-4, 4:-4]
    # What the border would have removed is left, no more; as a spike, it would move the image by thousands of DN.
    assert np.abs(moved).max() < 2 * np.abs(correction).max() < 200
    ends = side in ("top", "bottom")
    assert said.count("WARNING") == 1 + ends
    assert ("the resultants 2 (from 1) are flagged DO_NOT_USE" in said) == ends
    expected = np.zeros((RESULTANTS, 1, 1), np.uint8)
    expected[1] = flags.DO_NOT_USE if ends else 0
    np.testing.assert_array_equal(lost["groupdq"], np.broadcast_to(expected, lost["groupdq"].shape))


def test_the_scatter_of_rows_is_recorded(exposure):
    """Of pairs of rows in the difference of the last two resultants, before and after the correction."""
    program(exposure)
    with rdm.open(exposure / "out.asdf") as after, rdm.open(exposure / "in.asdf") as before:
        numbers = recorded_numbers(after.meta.cal_logs)
        for name, model in (("row_scatter_before", before), ("row_scatter_after", after)):
            difference = np.asarray(model.data)[-1] - np.asarray(model.data)[-2]
            pairs = np.stack([difference[row : row + 2] for row in range(6, len(difference) - 1, 16)])
            assert numbers[name] == pytest.approx(measure_row_scatter(pairs), rel=1e-4)
    assert numbers["row_scatter_before"] != numbers["row_scatter_after"]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [slice(None), slice(0, 4)], ids=["both sides", "one side"])
def test_a_shift_of_the_reference_pixels_is_recorded(exposure, columns):
    """It changes no corrected pixel, as the mean over the resultants is subtracted: no other number has it."""
    program(exposure)
    with rdm.open(exposure / "out.asdf") as after, rdm.open(exposure / "in.asdf") as before:
        known, data = recorded_numbers(after.meta.cal_logs), np.array(before.data)
        border = border_pixels(0, ROWS, (ROWS, COLUMNS))
        assert known["reference_level"] == pytest.approx(np.median(data[0][border]), rel=1e-6)
        left = np.median(data[0][:, :4]) - np.median(data[0][4:-4, 4:8])
        right = np.median(data[0][:, -4:]) - np.median(data[0][4:-4, -8:-4])
        assert known["reference_offset"] == pytest.approx((left + right) / 2, abs=1e-3)
        shifted = border.copy()
        shifted[:, 4 if columns.stop else COLUMNS :] = False
        before.data = data + 1000 * shifted.astype(np.float32)
        before.save(exposure / "other.asdf")
    (exposure / "other.asdf").rename(exposure / "in.asdf")
    program(exposure)
    with rdm.open(exposure / "out.asdf") as after:
        found = recorded_numbers(after.meta.cal_logs)
    expected = 500 if columns.stop else 1000
    assert found["reference_offset"] - known["reference_offset"] == pytest.approx(expected, abs=0.1)
    if not columns.stop:
        assert found["reference_level"] - known["reference_level"] == pytest.approx(1000, abs=0.1)
        assert found["row_scatter_after"] == pytest.approx(known["row_scatter_after"], rel=0.02)


@pytest.mark.slow
def test_empty_references_are_one_warning(exposure):
    """As simulators without reference pixels write them."""

    def empty(model):
        model.data[:, :4] = model.data[:, -4:] = model.data[..., :4] = model.data[..., -4:] = 0
        model.amp33 = np.zeros(model.amp33.shape, np.uint16)

    change(exposure, empty)
    said = program(exposure).stderr
    assert said.count("WARNING") == 1
    for name in ("the left border", "the right border", "the top border", "the bottom border", "amp33"):
        assert f"{name} (0%)" in said
    with rdm.open(exposure / "out.asdf") as model, rdm.open(exposure / "in.asdf") as before:
        np.testing.assert_allclose(np.asarray(model.data), before.data, atol=0.01)


def test_without_a_reference_the_step_is_skipped(exposure):
    result = program(exposure, reference="N/A")
    assert result.returncode == 0 and "WARNING" in result.stderr
    with rdm.open(exposure / "out.asdf") as model, rdm.open(exposure / "in.asdf") as before:
        assert model.meta.cal_step.refpix == "SKIPPED"
        np.testing.assert_array_equal(model.data, before.data)


def other_rows(folder):
    write_reference(folder / "ref.asdf", rows=256)
    return "ref.asdf: gamma has the shape (4, 17921)"


def other_channels(folder):
    write_reference(folder / "ref.asdf", channels=3)
    return "ref.asdf: gamma has the shape (3, 35841)"


def other_amp33(folder):
    with rdm.open(folder / "in.asdf") as model:
        model.amp33 = model.amp33[:, :-1].copy()
        model.save(folder / "other.asdf")
    (folder / "other.asdf").rename(folder / "in.asdf")
    return "in.asdf: amp33 has the shape (4, 511, 128)"


@pytest.mark.parametrize("damage", [other_rows, other_channels, other_amp33])
def test_inconsistent_references_are_refused_without_output(exposure, damage):
    message = damage(exposure)
    result = program(exposure)
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr
    assert [p.name for p in exposure.iterdir() if "out" in p.name] == []
