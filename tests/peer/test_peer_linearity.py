"""Compare linearity with stcal's function, with the ADC correction of romancal's step."""

from types import SimpleNamespace

import numpy as np
import pytest
from linearity import correct_linearity, grid_nonlinearity

from rampflow import dq as flags

stcal_linearity = pytest.importorskip("stcal.linearity.linearity")
romancal_step = pytest.importorskip("romancal.linearity.linearity_step")

pytestmark = pytest.mark.peer

PATTERN = [[1], [2], [3, 4], [5, 6, 7, 8, 9], [12, 13, 14], [20]]
SHAPE = (len(PATTERN), 24, 512)
PIXELS = SHAPE[1:]
FLAGS = {"SATURATED": flags.SATURATED, "NO_LIN_CORR": flags.NO_LIN_CORR}


@pytest.fixture(scope="module")
def exposure():
    """Ramps up to saturation, polynomials that differ from pixel to pixel with some bad ones, and tables by channel."""
    rng = np.random.default_rng(12)
    reads = np.array([np.mean(r) for r in PATTERN])[:, None, None]
    data = (5000 + rng.uniform(0, 3500, PIXELS) * reads + rng.normal(0, 10, SHAPE)).astype(np.float32)
    groupdq = np.where(data > 55000, flags.SATURATED, 0).astype(np.uint8)
    groupdq[1:, 3, :20] |= flags.SATURATED
    groupdq[:, 4, :20] |= flags.SATURATED
    groupdq[2, 5] |= flags.DO_NOT_USE
    pixeldq = np.where(rng.random(PIXELS) < 0.01, flags.HOT, 0).astype(np.uint32)
    lin = np.zeros((5, *PIXELS), np.float32)
    inverse = np.zeros((6, *PIXELS), np.float32)
    lin[0], lin[1] = rng.normal(0, 2, PIXELS), rng.normal(1, 0.01, PIXELS)
    lin[2], lin[3], lin[4] = rng.normal(1e-6, 1e-7, PIXELS), rng.normal(4e-12, 1e-12, PIXELS), 1e-17
    inverse[1], inverse[2], inverse[3] = 1, -lin[2], -1.5e-12
    lin_dq = np.zeros(PIXELS, np.uint32)
    lin_dq[6, :30] = flags.NO_LIN_CORR
    lin_dq[7] = flags.DEAD
    lin[2, 8, :30] = np.nan
    lin[1, 9, :30] = 0
    inverse[3, 10, :30] = np.nan
    inverse[1, 11, :30] = 0
    value = (16 * np.arange(4096)).astype(np.uint16)
    tables = np.cumsum(rng.normal(0, 0.1, (4, value.size)), axis=1)
    return data, groupdq, pixeldq, lin, lin_dq, inverse, value, tables


@pytest.mark.parametrize("with_tables", [False, True])
def test_counts_and_flags_equal_those_of_stcal(exposure, with_tables):
    data, groupdq, pixeldq, lin, lin_dq, inverse, value, tables = exposure
    additional = None
    if with_tables:
        channels = {f"science_channel_{n:02d}": SimpleNamespace(correction=t) for n, t in enumerate(tables, 1)}
        additional = romancal_step.make_inl_correction(
            SimpleNamespace(value=value, inl_table=SimpleNamespace(**channels)), PIXELS[1]
        )
    theirs, their_dq, _ = stcal_linearity.linearity_correction(
        data[None].copy(),
        groupdq[None].copy(),
        pixeldq.copy(),
        lin.copy(),
        lin_dq.copy(),
        FLAGS,
        ilin_coeffs=inverse.copy(),
        additional_correction=additional,
        read_pattern=PATTERN,
    )
    ours, our_groupdq, our_dq = correct_linearity(
        data,
        groupdq,
        pixeldq,
        lin,
        lin_dq,
        inverse,
        PATTERN,
        nonlinearity=grid_nonlinearity(value, tables) if with_tables else None,
    )
    assert np.abs(ours - data).max() > 1000
    # float32 counts near 60,000 are known to 0.004.
    np.testing.assert_allclose(ours, theirs[0], atol=0.012)
    np.testing.assert_array_equal(our_dq, their_dq)
    np.testing.assert_array_equal(our_groupdq, groupdq)
