"""Compare refpix with romancal's functions, which need 4096 columns and take any number of rows."""

from types import SimpleNamespace

import numpy as np
import pytest
from refpix import SAMPLES, correct_reference_pixels

from rampflow import dq as flags

romancal_refpix = pytest.importorskip("romancal.refpix.refpix")

pytestmark = pytest.mark.peer

RESULTANTS, ROWS, COLUMNS, CHANNELS = 5, 40, 4096, 32
SWITCHES = ("remove_offset", "remove_trends", "cosine_interpolate", "fft_interpolate")


@pytest.fixture(scope="module")
def ramp():
    """A ramp in whole DN with correlated noise, trends, missing amp33 samples and bad reference pixels; responses."""
    rng = np.random.default_rng(11)
    noise = np.cumsum(rng.normal(0, 0.4, (RESULTANTS, ROWS * SAMPLES)), axis=1).reshape(RESULTANTS, ROWS, SAMPLES)
    noise = noise[..., :128] + rng.normal(0, 3, (RESULTANTS, ROWS, 128))
    channels = [(noise if n % 2 == 0 else noise[..., ::-1]) * (0.7 + 0.02 * n) for n in range(CHANNELS)]
    trends = np.linspace(0, 5, ROWS)[:, None] * rng.normal(0, 1, (RESULTANTS, 1, CHANNELS)).repeat(128, axis=2)
    sky = np.arange(RESULTANTS)[:, None, None] * rng.uniform(0, 500, (ROWS, COLUMNS))
    sky[:, :4] = sky[:, -4:] = sky[:, :, :4] = sky[:, :, -4:] = 0
    data = np.rint(5000 + rng.normal(0, 50, (ROWS, COLUMNS)) + sky + np.concatenate(channels, axis=2) + trends)
    data[:, 20, 100:110] = 5000  # without change: zero once the offset is out
    amp33 = np.rint(6000 + rng.normal(0, 50, (ROWS, 128)) + noise).astype(np.uint16)
    amp33[:, 7, 20:25] = 0  # in all resultants: what is lost in some, romancal takes for a spike
    pixeldq = np.zeros((ROWS, COLUMNS), np.uint32)
    pixeldq[15:18, 1] = pixeldq[1, 500:520] = flags.BAD_REF_PIXEL
    frequency = np.arange(ROWS * SAMPLES // 2 + 1)
    shape = np.exp(-frequency / 500) * np.exp(0.2j)
    responses = [np.linspace(a, b, CHANNELS)[:, None] * shape for a, b in ((0.4, 0.1), (0.1, 0.4), (0.6, 0.3))]
    return data.astype(np.float32), amp33, pixeldq, responses


@pytest.mark.parametrize("switched_off", [None, *SWITCHES])
def test_every_option_equals_that_of_romancal(ramp, switched_off):
    data, amp33, pixeldq, responses = ramp
    model = SimpleNamespace(data=data.copy(), amp33=amp33.copy(), pixeldq=pixeldq.copy())
    references = SimpleNamespace(**dict(zip(("gamma", "zeta", "alpha"), responses, strict=True)))
    # By name: romancal's step passes them by position, one place off.
    switches = {name: name != switched_off for name in SWITCHES}
    romancal_refpix.run_steps(model, references, **switches)

    corrected, corrected_amp33 = correct_reference_pixels(data, amp33, pixeldq, responses, **switches)
    assert np.abs(corrected - data).max() > 10
    # The way back from the frequencies is in single precision here, in double there. Of N samples it is off by epsilon · log2 N
    # of the largest correction at most (see `rounding` in test_refpix.py); then counts round to the number beside them.
    eps, largest = np.finfo(np.float32).eps, np.abs(corrected - data).max()
    rounding = {"rtol": 0, "atol": eps * np.log2(ROWS * SAMPLES) * largest + np.spacing(np.abs(corrected).max())}
    np.testing.assert_allclose(corrected, model.data, **rounding)
    np.testing.assert_allclose(corrected[:, :, :4], model.border_ref_pix_left, **rounding)
    np.testing.assert_allclose(corrected[:, :, -4:], model.border_ref_pix_right, **rounding)
    # Cut to whole DN: the last bit of the trend's sums, which depends on their order, may decide.
    apart = np.abs(corrected_amp33.astype(int) - model.amp33.astype(int))
    assert apart.max() <= 1 and np.mean(apart > 0) < 1e-3
