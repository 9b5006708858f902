"""Compiled loops of the linearity step.

They compute in float64: a float32 has steps of 0.004 DN at 60,000 DN, which the slope of the correction would bring into
the result's last digit.
"""

import numpy as np
from numba import njit

# Columns worked on together: all that belongs to them stays in the first-level cache, and a chunk lies in one channel.
CHUNK = 128

ZERO = 0.0
ONE = 1.0


@njit(cache=True, nogil=True)
def _load_deviation(coefficients, row, column, without, deviation):
    # A polynomial is held as its deviation from the identity, p(x) - x: what is added to the counts, and all zeros for a pixel
    # without a correction.
    # The highest power comes first: the compiler sees that a loop that runs forward over the terms can't overlap others.
    terms = coefficients.shape[0]
    for k in range(terms):
        for p in range(CHUNK):
            c = coefficients[k, row, column + p]
            without[p] |= c != c or (k == 1 and c == ZERO)
            deviation[terms - 1 - k, p] = np.float64(c) - ONE if k == 1 else c
    for k in range(terms):
        for p in range(CHUNK):
            deviation[k, p] = ZERO if without[p] else deviation[k, p]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _evaluate(deviation, x, result):
    # Horner's scheme with the pixels in the inner loop: any degree runs in vector registers. Four terms at a time stay in them.
    for p in range(CHUNK):
        result[p] = deviation[0, p]
    single = 1 + (deviation.shape[0] - 1) % 4
    for k in range(1, single):
        for p in range(CHUNK):
            result[p] = result[p] * x[p] + deviation[k, p]
    for k in range(single, deviation.shape[0], 4):
        for p in range(CHUNK):
            value = (result[p] * x[p] + deviation[k, p]) * x[p] + deviation[k + 1, p]
            result[p] = (value * x[p] + deviation[k + 2, p]) * x[p] + deviation[k + 3, p]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_table(table, start, per_step, x, total, interval, fraction):
    # x += table(x), linearly interpolated and constant beyond its ends; what was added goes into total too.
    # Only the look-up can't run in vector registers; in a loop of its own it doesn't keep the rest from it.
    last = np.float64(table.size - 1)
    last_interval = np.int32(table.size - 2)
    for p in range(CHUNK):
        t = (x[p] - start) * per_step
        t = t if t > ZERO else ZERO  # NaN too
        t = t if t < last else last
        k = np.int32(t)
        interval[p] = k if k < last_interval else last_interval
        fraction[p] = t - np.float64(interval[p])
    for p in range(CHUNK):
        k = np.uint64(interval[p])  # unsigned: no test for an index from the end
        fraction[p] = table[k] + fraction[p] * (table[k + np.uint64(1)] - table[k])
    for p in range(CHUNK):
        x[p] += fraction[p]
        total[p] += fraction[p]


@njit(cache=True, nogil=True, fastmath={"contract"})
def correct_rows(
    data,
    groupdq,
    no_correction,
    linearity,
    inverse,
    read_offsets,
    first_reads,
    gaps,
    tables,
    table_start,
    table_steps,
    saturated_flag,
    do_not_use_flag,
    largest,
    corrected,
    corrected_dq,
    uncorrected,
):
    """Correct rows of a ramp at read level.

    Parameters
    ----------
    data, groupdq : numpy.ndarray
        float32 (DN) and uint8, (resultant, row, column).
    no_correction : numpy.ndarray
        bool, (row, column): pixels with no correction.
    linearity, inverse : numpy.ndarray
        Coefficients in ascending order, (term, row, column).
    read_offsets : numpy.ndarray
        float32: each read's number minus the mean read number of the first resultant, all resultants one after the other.
    first_reads : numpy.ndarray
        intp, (resultants + 1): where each resultant's reads begin in `read_offsets`.
    gaps : numpy.ndarray
        float32, (resultant): mean read number minus that of the first resultant.
    tables : numpy.ndarray
        float32, (channel, step): what to add to the counts, on a uniform grid; none when it has no steps.
    table_start, table_steps : numpy.float32
        Start of the grid, DN, and its steps per DN.
    saturated_flag, do_not_use_flag : numpy.uint8
    largest : numpy.float32
        Largest plausible absolute value, DN.
    corrected, corrected_dq, uncorrected : numpy.ndarray
        Written: float32 and uint8 like `data` and `groupdq`, and bool, (row, column): pixels that lack a correction.
    """
    resultants, rows, columns = data.shape
    most_reads = 0
    for i in range(resultants):
        most_reads = max(most_reads, first_reads[i + 1] - first_reads[i])
    without = np.empty(CHUNK, np.bool_)
    without_inverse = np.empty(CHUNK, np.bool_)
    to_linear = np.empty((linearity.shape[0], CHUNK))
    to_counts = np.empty((inverse.shape[0], CHUNK))
    last = np.empty(CHUNK, np.int32)
    rate = np.empty(CHUNK)
    first_linear = np.empty(CHUNK)
    last_linear = np.empty(CHUNK)
    deviation = np.empty(CHUNK)
    gap = np.empty(CHUNK)
    linear = np.empty(CHUNK)
    shift = np.empty(CHUNK)
    total = np.empty(CHUNK)
    interval = np.empty(CHUNK, np.int32)
    fraction = np.empty(CHUNK)
    reads = np.empty((most_reads, CHUNK))

    for row in range(rows):
        for column in range(0, columns, CHUNK):
            for p in range(CHUNK):
                without[p] = without_inverse[p] = no_correction[row, column + p]
            _load_deviation(linearity, row, column, without, to_linear)
            _load_deviation(inverse, row, column, without_inverse, to_counts)
            for p in range(CHUNK):
                uncorrected[row, column + p] = without[p] or without_inverse[p]

            # The last good resultant: the one before the last unsaturated one, which may be partly saturated; at least the
            # second, and the first where there is no other (its count rate is then zero).
            for p in range(CHUNK):
                last[p] = -2
            for i in range(resultants):
                for p in range(CHUNK):
                    last[p] += np.int32((groupdq[i, row, column + p] & saturated_flag) == 0)
            for p in range(CHUNK):
                last[p] = min(max(last[p], 1), resultants - 1)

            # Linear counts of the first and of the last good resultant (as they are where saturated) give the count rate.
            for p in range(CHUNK):
                first_linear[p] = data[0, row, column + p]
            _evaluate(to_linear, first_linear, deviation)
            for p in range(CHUNK):
                saturated = (groupdq[0, row, column + p] & saturated_flag) != 0
                first_linear[p] += ZERO if saturated else deviation[p]
            for i in range(resultants):
                for p in range(CHUNK):
                    last_linear[p] = data[i, row, column + p] if last[p] == i else last_linear[p]
                    gap[p] = gaps[i] if last[p] == i else gap[p]
            _evaluate(to_linear, last_linear, deviation)
            for i in range(resultants):
                for p in range(CHUNK):
                    saturated = (groupdq[i, row, column + p] & saturated_flag) != 0
                    deviation[p] = ZERO if last[p] == i and saturated else deviation[p]
            for p in range(CHUNK):
                change = last_linear[p] + deviation[p] - first_linear[p]
                rate[p] = change / gap[p] if gap[p] > ZERO else ZERO

            for i in range(resultants):
                start, n = first_reads[i], first_reads[i + 1] - first_reads[i]
                share = ONE / n
                # The reads as they were before averaging, shifted so that their mean is what was observed.
                for p in range(CHUNK):
                    shift[p] = total[p] = ZERO
                for j in range(n):
                    for p in range(CHUNK):
                        linear[p] = first_linear[p] + rate[p] * read_offsets[start + j]
                    _evaluate(to_counts, linear, deviation)
                    for p in range(CHUNK):
                        reads[j, p] = linear[p] + deviation[p]
                        shift[p] += reads[j, p]
                for p in range(CHUNK):
                    shift[p] = data[i, row, column + p] - shift[p] * share
                # The corrections of the reads, added up: their mean is the correction of the resultant.
                for j in range(n):
                    read = reads[j]
                    for p in range(CHUNK):
                        read[p] += shift[p]
                    if tables.shape[1]:
                        _add_table(tables[column // CHUNK], table_start, table_steps, read, total, interval, fraction)
                    _evaluate(to_linear, read, deviation)
                    for p in range(CHUNK):
                        total[p] += deviation[p]
                for p in range(CHUNK):
                    dq = groupdq[i, row, column + p]
                    value = data[i, row, column + p]
                    value = value if dq & saturated_flag else value + total[p] * share
                    # Written so that NaN is implausible too.
                    corrected_dq[i, row, column + p] = dq if abs(value) <= largest else dq | do_not_use_flag
                    value = largest if value > largest else value
                    corrected[i, row, column + p] = -largest if value < -largest else value
