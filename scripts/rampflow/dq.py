"""Data-quality flags: those of `roman_datamodels.dqflags`, without its import time.

A flag has the same bit in `groupdq` (uint8, per resultant) and in `pixeldq` (uint32, per pixel), except bit 7, which is
WFI18_TRANSIENT in `groupdq`.
"""

from __future__ import annotations

import numpy as np

DO_NOT_USE = 1 << 0
SATURATED = 1 << 1
JUMP_DET = 1 << 2
DROPOUT = 1 << 3
GW_AFFECTED_DATA = 1 << 4
PERSISTENCE = 1 << 5
AD_FLOOR = 1 << 6
OUTLIER = 1 << 7
WFI18_TRANSIENT = 1 << 7  # groupdq only
UNRELIABLE_ERROR = 1 << 8
NON_SCIENCE = 1 << 9
DEAD = 1 << 10
HOT = 1 << 11
WARM = 1 << 12
LOW_QE = 1 << 13
TELEGRAPH = 1 << 15
NONLINEAR = 1 << 16
BAD_REF_PIXEL = 1 << 17
NO_FLAT_FIELD = 1 << 18
NO_GAIN_VALUE = 1 << 19
NO_LIN_CORR = 1 << 20
NO_SAT_CHECK = 1 << 21
UNRELIABLE_BIAS = 1 << 22
UNRELIABLE_DARK = 1 << 23
UNRELIABLE_SLOPE = 1 << 24
UNRELIABLE_FLAT = 1 << 25
UNRELIABLE_RESET = 1 << 28
OTHER_BAD_PIXEL = 1 << 30
REFERENCE_PIXEL = 1 << 31


def pixel_flags() -> dict[str, int]:
    """Get the flags of `pixeldq` by name.

    Returns
    -------
    dict of str to int
        Their values.
    """
    return {name: value for name, value in globals().items() if name.isupper() and name != "WFI18_TRANSIENT"}


def has(dq: np.ndarray, flags: int) -> np.ndarray:
    """Tell where any of some flags is set.

    Parameters
    ----------
    dq : numpy.ndarray
        Flags, of an unsigned integer type.
    flags : int
        The flags in question, combined.

    Returns
    -------
    numpy.ndarray
        Of the shape of `dq`, bool.
    """
    # In pieces of numpy's buffer: the flags of a whole frame would be another 67 MB, which the system clears.
    return np.bitwise_and(dq, dq.dtype.type(flags), out=np.empty(dq.shape, bool), casting="unsafe")
