"""Compiled loops of the linearity step.

Let the polynomial from measured to linear counts be x + D(x), y an observed resultant, and y + u the reads that it is the
mean of, so that the mean of u is zero. The converters add t(y + u) to a read, which makes it y + v with v = u + t. The linear
counts of the resultant are then the mean over its reads

    <y + v + D(y + v)> = y + D(y) + <t + v Q(y + v)>,    Q(x) = (D(x) - D(y)) / (x - y).

Q is a polynomial too: Horner's scheme for D(y) meets its coefficients on the way. y + D(y) is computed in float64 once per
resultant. What is computed for each read is a small difference to it, for which a float32 is ample: half the bytes, twice the
pixels in a vector register. The reads follow from the inverse polynomial likewise, as differences to the counts at their mean.

Inside, counts are in units of 65,536 DN, a power of two: coefficients of high powers, tiny per DN, don't underflow in float32.

Where loops seem split without need: a loop over the pixels of a chunk runs in vector registers when it writes to few arrays,
and when it has no index that the compiler takes for one that may be negative, as a sum is.
"""

import numpy as np
from numba import njit

# Columns worked on together, those of a channel: all that belongs to them stays in the first-level cache.
CHUNK = 128

UNIT = 65536.0  # DN
PER_DN = np.float32(1 / UNIT)

ZERO = 0.0
NOTHING = np.float32(0)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _load(coefficients, row, chunk, limits, without, value, deviation):
    # The deviation from the identity, D: the highest power first, with zeros before it to fill the rows. All zeros where
    # there is no correction. The value of the polynomial at a typical count is summed on the way.
    terms, scale = coefficients.shape[0], 1 / UNIT
    highest = deviation.shape[0] - terms
    for k in range(terms):
        term = coefficients[k, row, chunk]
        for p in range(CHUNK):
            without[p] |= np.int32(term[p] != term[p])
    typical, least, most, low, high = limits
    power = 1.0
    for p in range(CHUNK):
        value[p] = ZERO
    for k in range(terms):
        term, into = coefficients[k, row, chunk], deviation[highest + terms - 1 - k]
        identity = 1.0 if k == 1 else 0.0
        for p in range(CHUNK):
            coefficient = np.float64(term[p])
            into[p] = coefficient * scale - identity
            value[p] += coefficient * power
        scale *= UNIT
        power *= typical
    term, any_without = coefficients[1, row, chunk], np.int32(0)
    for p in range(CHUNK):
        without[p] |= np.int32(term[p] == 0) | np.int32(not least <= term[p] <= most) | np.int32(not low <= value[p] <= high)
        any_without |= without[p]
    if any_without:
        for k in range(highest, highest + terms):
            for p in range(CHUNK):
                deviation[k, p] = ZERO if without[p] else deviation[k, p]


@njit(cache=True, nogil=True, fastmath={"contract"}, forceinline=True)
def _expand(deviation, y, value, quotient):
    # D(y), and the coefficients of Q with the highest power first. Four at a time stay in registers, here and below.
    for p in range(CHUNK):
        value[p] = deviation[0, p]
    for k in range(0, quotient.shape[0], 4):
        terms, into = deviation[k + 1 : k + 5], quotient[k : k + 4]
        for p in range(CHUNK):
            b = value[p]
            into[0, p] = b
            b = b * y[p] + terms[0, p]
            into[1, p] = b
            b = b * y[p] + terms[1, p]
            into[2, p] = b
            b = b * y[p] + terms[2, p]
            into[3, p] = b
            value[p] = b * y[p] + terms[3, p]


@njit(cache=True, nogil=True, fastmath={"contract"}, forceinline=True)
def _predict(quotient, first, rate, offset, other_offset, mean_offset, read, other_read):
    # Measured counts of two reads less those at the mean linear counts of their resultant, d + d Q(x) for linear counts x that
    # differ by d from that mean. The coefficients are loaded once for both.
    final = quotient.shape[0] - 4
    for k in range(0, final, 4):
        for p in range(CHUNK):
            x, other_x = first[p] + rate[p] * offset, first[p] + rate[p] * other_offset
            a, b = (NOTHING, NOTHING) if k == 0 else (read[p] * x, other_read[p] * other_x)
            a, b = a + quotient[k, p], b + quotient[k, p]
            a, b = a * x + quotient[k + 1, p], b * other_x + quotient[k + 1, p]
            a, b = a * x + quotient[k + 2, p], b * other_x + quotient[k + 2, p]
            read[p], other_read[p] = a * x + quotient[k + 3, p], b * other_x + quotient[k + 3, p]
    for p in range(CHUNK):
        x, other_x = first[p] + rate[p] * offset, first[p] + rate[p] * other_offset
        d, other_d = rate[p] * (offset - mean_offset), rate[p] * (other_offset - mean_offset)
        a, b = (NOTHING, NOTHING) if final == 0 else (read[p] * x, other_read[p] * other_x)
        a, b = a + quotient[final, p], b + quotient[final, p]
        a, b = a * x + quotient[final + 1, p], b * other_x + quotient[final + 1, p]
        a, b = a * x + quotient[final + 2, p], b * other_x + quotient[final + 2, p]
        a, b = a * x + quotient[final + 3, p], b * other_x + quotient[final + 3, p]
        read[p], other_read[p] = d + d * a, other_d + other_d * b


@njit(cache=True, nogil=True, fastmath={"contract"}, forceinline=True)
def _add_table(table, start, per_step, y, read, total, interval, fraction, entry):
    # t, linearly interpolated and constant beyond the table's ends, is added to u and to the total.
    # Only the look-up can't run in vector registers; in a loop of its own it doesn't keep the rest from it. An entry has two
    # float32, the value at a grid point and the change to the next, and is moved as one float64.
    last = np.float32(table.size - 1)
    for p in range(CHUNK):
        at = (y[p] + read[p] - start) * per_step
        at = at if at > NOTHING else NOTHING  # NaN too
        at = at if at < last else last
        interval[p] = np.int32(at)
        fraction[p] = at - np.float32(np.int32(at))
    for p in range(CHUNK):
        entry[p] = table[np.uint32(interval[p])]  # unsigned: no test for an index from the end
    pairs = entry.view(np.float32)
    for p in range(CHUNK):
        t = (pairs[2 * p] + fraction[p] * pairs[2 * p + 1]) * PER_DN
        read[p] += t
        total[p] += t


@njit(cache=True, nogil=True, fastmath={"contract"}, forceinline=True)
def _add_difference(quotient, y, read, value, total):
    # v Q(y + v) is added to the total.
    final = quotient.shape[0] - 4
    for k in range(0, final, 4):
        for p in range(CHUNK):
            x = y[p] + read[p]
            q = (NOTHING if k == 0 else value[p] * x) + quotient[k, p]
            value[p] = ((q * x + quotient[k + 1, p]) * x + quotient[k + 2, p]) * x + quotient[k + 3, p]
    for p in range(CHUNK):
        x = y[p] + read[p]
        q = (NOTHING if final == 0 else value[p] * x) + quotient[final, p]
        q = ((q * x + quotient[final + 1, p]) * x + quotient[final + 2, p]) * x + quotient[final + 3, p]
        total[p] += read[p] * q


@njit(cache=True, nogil=True, fastmath={"contract"})
def correct_rows(
    data: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    linearity: np.ndarray,
    linearity_dq: np.ndarray,
    inverse: np.ndarray,
    limits: np.ndarray,
    read_offsets: np.ndarray,
    first_reads: np.ndarray,
    gaps: np.ndarray,
    tables: np.ndarray,
    table_start: np.float32,
    table_steps: np.float32,
    saturated_flag: np.uint8,
    do_not_use_flag: np.uint8,
    no_correction_flag: np.uint32,
    largest: np.float32,
    corrected: np.ndarray,
    corrected_groupdq: np.ndarray,
    corrected_pixeldq: np.ndarray,
) -> None:
    """Correct rows of a ramp at read level.

    Parameters
    ----------
    data : numpy.ndarray
        Counts, DN, float32 of shape (resultant, row, channel, column of the channel).
    groupdq : numpy.ndarray
        Flags per resultant, uint8 of the same shape.
    pixeldq : numpy.ndarray
        Flags per pixel, uint32 of shape (row, channel, column).
    linearity : numpy.ndarray
        Polynomials from measured to linear counts, ascending powers, of shape (term, row, channel, column).
    linearity_dq : numpy.ndarray
        Their flags, uint32 of shape (row, channel, column).
    inverse : numpy.ndarray
        Polynomials from linear to measured counts, of shape (term, row, channel, column).
    limits : numpy.ndarray
        Plausible polynomials: a typical count (DN), smallest and largest linear term, smallest and largest value at the typical
        count (DN), float64 of shape (5,). A polynomial that is beyond them is replaced by the identity.
    read_offsets : numpy.ndarray
        Number of each read minus the mean read number of the first resultant, float32 of shape (reads,), all
        resultants one after the other.
    first_reads : numpy.ndarray
        Where the reads of each resultant begin in `read_offsets`, and the end of the last, intp of shape (resultants + 1,).
    gaps : numpy.ndarray
        Mean read number of each resultant minus that of the first, float32 of shape (resultants,).
    tables : numpy.ndarray
        From `linearity.IntegralNonlinearity.entries`, float64 of shape (channel, grid point); without points for none.
    table_start, table_steps : numpy.float32
        Start of the grid, DN, and its steps per DN.
    saturated_flag, do_not_use_flag : numpy.uint8
        Flags of `groupdq`.
    no_correction_flag : numpy.uint32
        Flag of `pixeldq`.
    largest : numpy.float32
        Largest plausible absolute value, DN.
    corrected, corrected_groupdq, corrected_pixeldq : numpy.ndarray
        Written, like `data`, `groupdq` and `pixeldq`.
    """
    resultants, rows, channels, _ = data.shape
    most_reads = 0
    for i in range(resultants):
        most_reads = max(most_reads, first_reads[i + 1] - first_reads[i])
    start, per_step = table_start * PER_DN, np.float32(table_steps * UNIT)
    without = np.empty(CHUNK, np.int32)
    without_inverse = np.empty(CHUNK, np.int32)
    # Rows for whole fours of terms; of a quotient, which has one less.
    quotient = np.empty(((linearity.shape[0] + 2) // 4 * 4, CHUNK), np.float32)
    to_linear = np.zeros((quotient.shape[0] + 1, CHUNK))
    inverse_quotient = np.empty(((inverse.shape[0] + 2) // 4 * 4, CHUNK), np.float32)
    to_counts = np.zeros((inverse_quotient.shape[0] + 1, CHUNK), np.float32)
    unsaturated = np.empty(CHUNK, np.int16)
    saturated = np.empty(CHUNK, np.bool_)
    gap = np.empty(CHUNK, np.float32)
    observed = np.empty((resultants, CHUNK), np.float32)
    last = np.empty(CHUNK, np.float32)
    deviation = np.empty(CHUNK)
    linear = np.empty(CHUNK)
    first = np.empty(CHUNK, np.float32)
    rate = np.empty(CHUNK, np.float32)
    mean_linear = np.empty(CHUNK, np.float32)
    mean = np.empty(CHUNK, np.float32)
    total = np.empty(CHUNK, np.float32)
    value = np.empty(CHUNK, np.float32)
    interval = np.empty(CHUNK, np.int32)
    fraction = np.empty(CHUNK, np.float32)
    entry = np.empty(CHUNK)
    reads = np.empty((most_reads, CHUNK), np.float32)

    for row in range(rows):
        for chunk in range(channels):
            for p in range(CHUNK):
                without[p] = without_inverse[p] = np.int32((linearity_dq[row, chunk, p] & no_correction_flag) != 0)
            _load(linearity, row, chunk, limits, without, deviation, to_linear)
            _load(inverse, row, chunk, limits, without_inverse, deviation, to_counts)
            for p in range(CHUNK):
                lacking = no_correction_flag if without[p] | without_inverse[p] else np.uint32(0)
                corrected_pixeldq[row, chunk, p] = pixeldq[row, chunk, p] | linearity_dq[row, chunk, p] | lacking

            for p in range(CHUNK):
                unsaturated[p] = 0
            for i in range(resultants):
                counts, flags = data[i, row, chunk], groupdq[i, row, chunk]
                for p in range(CHUNK):
                    observed[i, p] = counts[p] * PER_DN
                for p in range(CHUNK):
                    unsaturated[p] += np.int16((flags[p] & saturated_flag) == 0)

            # Linear counts of the first and of the last good resultant (as they are where saturated) give the count rate. The
            # last good one is that before the last unsaturated one, which may be partly saturated; at least the second, and
            # the first where there is no other (its count rate is then zero).
            flags = groupdq[0, row, chunk]
            _expand(to_linear, observed[0], deviation, quotient)
            for p in range(CHUNK):
                linear[p] = observed[0, p] + (ZERO if flags[p] & saturated_flag else deviation[p])
                first[p] = linear[p]
            for p in range(CHUNK):
                good = np.uint32(min(max(unsaturated[p] - 2, 1), resultants - 1))
                last[p] = observed[good, p]
                saturated[p] = groupdq[good, row, chunk, p] & saturated_flag
                gap[p] = gaps[good]
            _expand(to_linear, last, deviation, quotient)
            for p in range(CHUNK):
                change = last[p] + (ZERO if saturated[p] else deviation[p]) - linear[p]
                rate[p] = change / gap[p] if gap[p] > NOTHING else ZERO

            for i in range(resultants):
                begin, n = first_reads[i], first_reads[i + 1] - first_reads[i]
                share = np.float32(1 / n)
                flags = groupdq[i, row, chunk]
                y = observed[i]
                for p in range(CHUNK):
                    total[p] = NOTHING
                _expand(to_linear, y, deviation, quotient)

                # The reads as they were before averaging, shifted so that their mean is what was observed: a single one is.
                if n == 1:
                    for p in range(CHUNK):
                        reads[0, p] = mean[p] = NOTHING
                else:
                    for p in range(CHUNK):
                        mean_linear[p] = first[p] + rate[p] * gaps[i]
                        mean[p] = NOTHING
                    _expand(to_counts, mean_linear, value, inverse_quotient)
                    for j in range(1, n + 1, 2):
                        # Reads are predicted in pairs: the last of an odd number together with the one before it.
                        k = min(j, n - 1)
                        offset, other_offset = read_offsets[begin + k - 1], read_offsets[begin + k]
                        _predict(inverse_quotient, first, rate, offset, other_offset, gaps[i], reads[k - 1], reads[k])
                    for j in range(n):
                        for p in range(CHUNK):
                            mean[p] += reads[j, p]
                    for p in range(CHUNK):
                        mean[p] *= share
                for j in range(n):
                    read = reads[j]
                    for p in range(CHUNK):
                        read[p] -= mean[p]
                    if tables.shape[1]:
                        _add_table(tables[chunk], start, per_step, y, read, total, interval, fraction, entry)
                    _add_difference(quotient, y, read, value, total)

                result, result_flags = corrected[i, row, chunk], corrected_groupdq[i, row, chunk]
                special = np.int32(0)
                for p in range(CHUNK):
                    result[p] = UNIT * (y[p] + deviation[p] + total[p] * share)
                for p in range(CHUNK):
                    special |= np.int32(flags[p] & saturated_flag) | np.int32(not abs(result[p]) <= largest)  # NaN too
                for p in range(CHUNK):
                    result_flags[p] = flags[p]
                if special:
                    for p in range(CHUNK):
                        if flags[p] & saturated_flag:
                            result[p] = data[i, row, chunk, p]
                        if not abs(result[p]) <= largest:
                            result_flags[p] |= do_not_use_flag
                        result[p] = largest if result[p] > largest else -largest if result[p] < -largest else result[p]
