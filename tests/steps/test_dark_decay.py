"""dark_decay: the mean of an exponential over the reads, pixel by pixel; border arrays; invalid input."""

import numpy as np
import pytest
from dark_decay import decay_factors, subtract_dark_decay
from small_files import FRAME_TIME, PATTERN, arrays_of, opened, ramp, refuse, succeed, write_ramp, write_reference

from rampflow.detector import pixel_read_times

AMPLITUDE, TIME_CONSTANT = 3.5, 12.0


def decay_of(shape, detector, pattern=PATTERN, amplitude=AMPLITUDE, time_constant=TIME_CONSTANT):
    """The signal of each resultant: its reads one by one."""
    frame = pixel_read_times(shape, FRAME_TIME, detector)
    at_reads = [[amplitude * np.exp(-(frame + (n - 1.5) * FRAME_TIME) / time_constant) for n in reads] for reads in pattern]
    return np.array([np.mean(reads, axis=0) for reads in at_reads])


@pytest.fixture
def reference(tmp_path):
    table = {"WFI07": {"amplitude": AMPLITUDE, "time_constant": TIME_CONSTANT}, "WFI03": {"amplitude": 1, "time_constant": 40}}
    return write_reference(tmp_path / "decay.asdf", decay_table=table)


def correct(folder, *options):
    return succeed("dark_decay", folder / "in.asdf", folder / "out.asdf", "--darkdecaysignal", folder / "decay.asdf", *options)


@pytest.mark.parametrize("shape", [(32, 128), (32, 256), (32, 384), (32, 1024)])  # pairs of channels are alike
@pytest.mark.parametrize(("detector", "amplitude", "time_constant"), [(7, AMPLITUDE, TIME_CONSTANT), (3, 1, 40)])
def test_the_mean_of_the_reads_is_subtracted(tmp_path, reference, detector, amplitude, time_constant, shape):
    data = ramp(rows=shape[0], columns=shape[1])
    write_ramp(tmp_path / "in.asdf", data, {"instrument.detector": f"WFI{detector:02d}"})
    expected = data - decay_of(data.shape[1:], detector, amplitude=amplitude, time_constant=time_constant)
    for threads in (1, 2):
        correct(tmp_path, f"--threads={threads}")
        with opened(tmp_path / "out.asdf") as model:
            np.testing.assert_allclose(model.data, expected, atol=2e-4)  # float32 of some thousand
            assert np.abs(model.data - data)[0].min() > 0.5
            assert model.meta.cal_step.dark_decay == "COMPLETE"
            assert not model.groupdq.any() and not model.pixeldq.any()


def test_the_factors_have_their_closed_form():
    # Reads n … n + k − 1 make a geometric series.
    tau, frame_time, start, reads = 7.0, 3.0, 5, 9
    q = np.exp(-frame_time / tau)
    series = np.exp(-(start - 1.5) * frame_time / tau) * (1 - q**reads) / (1 - q) / reads
    (first, second) = decay_factors(tau, frame_time, [[1], list(range(start, start + reads))])
    assert first == pytest.approx(np.exp(0.5 * frame_time / tau), rel=1e-14)
    assert second == pytest.approx(series, rel=1e-13)


def test_resultants_take_their_factor_and_change_in_place():
    data = np.full((2, 3, 4), 10, np.float32)
    decay = np.arange(12.0).reshape(3, 4)
    subtract_dark_decay(data, decay, np.array([1, 0.25]))
    np.testing.assert_array_equal(data, 10 - decay * np.array([1, 0.25])[:, None, None])


def test_the_simulated_decay_is_removed(tmp_path, reference):
    data = ramp()
    write_ramp(tmp_path / "in.asdf", data + decay_of(data.shape[1:], 7))
    correct(tmp_path)
    np.testing.assert_allclose(arrays_of(tmp_path / "out.asdf")["data"], data, atol=5e-4)


@pytest.mark.parametrize("refpix", ["COMPLETE", "SKIPPED"])
def test_border_arrays_that_share_the_ramp_are_corrected(tmp_path, reference, refpix):
    data = ramp()
    write_ramp(tmp_path / "in.asdf", data, {"cal_step.refpix": refpix})
    correct(tmp_path)
    after = arrays_of(tmp_path / "out.asdf")
    follows = after["data"] if refpix == "COMPLETE" else data
    np.testing.assert_array_equal(after["border_ref_pix_left"], follows[..., :4])
    np.testing.assert_array_equal(after["border_ref_pix_right"], follows[..., -4:])
    np.testing.assert_array_equal(after["border_ref_pix_top"], data[:, :4])
    np.testing.assert_array_equal(after["border_ref_pix_bottom"], data[:, -4:])


def test_without_a_reference_the_step_is_skipped(tmp_path):
    write_ramp(tmp_path / "in.asdf", ramp())
    assert "WARNING" in succeed("dark_decay", tmp_path / "in.asdf", tmp_path / "o.asdf", "--darkdecaysignal", "N/A").stderr
    with opened(tmp_path / "o.asdf") as model:
        assert model.meta.cal_step.dark_decay == "SKIPPED"
        np.testing.assert_array_equal(model.data, ramp())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"WFI01": {"amplitude": 1, "time_constant": 20}}, "no entry for WFI07"),
        ({"WFI07": {"amplitude": 1}}, "decay_table.WFI07.time_constant is missing"),
        ({"WFI07": {"amplitude": 1, "time_constant": 0}}, "decay_table.WFI07.time_constant is 0 s"),
        ({"WFI07": {"amplitude": float("nan"), "time_constant": 20}}, "finite amplitude"),
        ({"WFI07": {"amplitude": "1", "time_constant": 20}}, "decay_table.WFI07.amplitude is '1'"),
        ([1], "decay_table is [1]"),
    ],
)
def test_a_damaged_reference_is_refused(tmp_path, table, message):
    write_ramp(tmp_path / "in.asdf", ramp())
    path = write_reference(tmp_path / "decay.asdf", decay_table=table)
    said = refuse("dark_decay", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--darkdecaysignal", path)
    assert "decay.asdf: " in said and message in said
