"""Compiled loops of ramp_fitting: generalized least squares with a tridiagonal covariance, and the search for jumps.

The differences d of successive resultants, divided by their time steps, have the tridiagonal covariance S of Brandt (2024,
PASP 136, 045004). With the factorization S = L P L^T (L unit bidiagonal, P the pivots), and the vectors u and v that solve
L u = 1 and L v = d, everything that a straight line needs is a running sum:

    C = 1' S^-1 1 = sum u^2 / P,    B = 1' S^-1 d = sum u v / P,    A = d' S^-1 d = sum v^2 / P,
    slope = B / C,    variance = 1 / C,    chi^2 = A - B^2 / C.

The pivots neither overflow nor underflow, however long the ramp. A difference that is left out has 1 and d replaced by 0
and its links to its neighbors cut, so that it adds nothing to any sum.

To leave out differences is to give each a free offset. With y = S^-1 1, r = S^-1 (d - slope) and Q = S^-1 - y y' / C, the
offsets b of a set of differences solve Q b = r (rows and columns of the set alone), chi^2 falls by r' b, and the slope by
y' b / C (equivalent to sections 3.1 and 3.2 of Brandt 2024, PASP 136, 045005).

Loops over pixels lie inside loops over differences, on pieces of a row that stay in the processor's cache. Their arrays are
sliced first: with an index that is a sum, which numba takes for one that may be negative, they don't run in vector registers.
"""

import numpy as np
from numba import njit

PIECE = 256  #: pixels that are worked on together
#: Rows of the table that describes the covariance (`ramp_fitting.difference_covariance`).
TIME_STEP, PHOTON, PHOTON_LINK, READ, READ_LINK, PAIR = range(6)

# "contract" lets a product and a sum be one instruction; nothing is reordered, and NaN stays NaN.
compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


def sorting_network(n: int) -> np.ndarray:
    """List the comparisons that sort some values, by Batcher's merge exchange.

    It has no branches that depend on the values, so that many pixels are sorted at once (Knuth, The Art of Computer
    Programming 3, 5.2.2, algorithm M).

    Parameters
    ----------
    n : int
        Number of values.

    Returns
    -------
    numpy.ndarray
        Pairs i < j of places that are put in order one after the other, int of shape (comparisons, 2).
    """
    if n < 2:
        return np.empty((0, 2), int)
    pairs, top = [], 1 << ((n - 1).bit_length() - 1)
    p = top
    while p:
        q, r, distance = top, 0, p
        while distance:
            pairs += [(i, i + distance) for i in range(n - distance) if i & p == r]
            q, r, distance = q // 2, p, q - p
        p //= 2
    return np.array(pairs)


@compiled
def _load(resultants, groupdq, row, left, width, table, difference, used):
    """Differences per second, and 1 where both of their resultants are free of flags, else 0."""
    for i in range(len(difference)):
        step, change, free = table[TIME_STEP, i], difference[i], used[i]
        before, after = resultants[i, row, left : left + width], resultants[i + 1, row, left : left + width]
        for p in range(width):
            change[p] = (after[p] - before[p]) / step
        flags, flags_after = groupdq[i, row, left : left + width], groupdq[i + 1, row, left : left + width]
        for p in range(width):
            free[p] = (flags[p] | flags_after[p]) == 0


@compiled
def _median(difference, groupdq, row, left, width, spoiled, network, scratch, number, median):
    """Median of the differences without those whose resultants have a flag of `spoiled`; `number` takes how many they are."""
    n = len(difference)
    number[:width] = 0
    for i in range(n):
        flags, flags_after = groupdq[i, row, left : left + width], groupdq[i + 1, row, left : left + width]
        change, value = difference[i], scratch[i]
        for p in range(width):
            counts = ((flags[p] | flags_after[p]) & spoiled) == 0
            number[p] += counts
            value[p] = change[p] if counts else np.inf  # sorted behind all others
    for k in range(len(network)):
        low, high = scratch[network[k, 0]], scratch[network[k, 1]]
        for p in range(width):
            a, b = low[p], high[p]
            low[p] = a if a < b else b
            high[p] = b if a < b else a
    for p in range(width):
        m = number[p]
        median[p] = 0.5 * (scratch[max(m - 1, 0) // 2, p] + scratch[m // 2, p])


@compiled
def _fit(difference, used, width, table, photon, read, link, weight, u, v, sums):
    """Sums A, B, C of a piece of a row; `link` takes L's off-diagonal and `weight` u / P."""
    for k in range(3):
        sums[k, :width] = 0.0
    for i in range(len(difference)):
        for p in range(width):
            pivot = photon[p] * table[PHOTON, i] + read[p] * table[READ, i]
            ui, vi, link_i = used[i, p], used[i, p] * difference[i, p], 0.0
            if i > 0:
                covariance = (photon[p] * table[PHOTON_LINK, i] + read[p] * table[READ_LINK, i]) * used[i, p] * used[i - 1, p]
                link_i = covariance * v[1, p]  # times the inverse of the pivot before
                pivot -= covariance * link_i
                ui -= link_i * u[p]
                vi -= link_i * v[0, p]
            inverse = 1.0 / pivot
            link[i, p], weight[i, p] = link_i, ui * inverse
            u[p], v[0, p], v[1, p] = ui, vi, inverse
            sums[0, p] += vi * vi * inverse
            sums[1, p] += ui * vi * inverse
            sums[2, p] += ui * ui * inverse


@compiled
def _search(difference, used, p, table, photon, read, one, two, scratch):
    """Leave out differences of one ramp, one or a pair at a time, until none lowers chi^2 by its threshold.

    Returns the slope; `used` becomes 0 where a difference is left out.
    """
    n = len(difference)
    inverse, link, u, v = scratch[0], scratch[1], scratch[2], scratch[3]
    slope = 0.0
    for _ in range(n):
        left = 0
        a = b = c = 0.0
        for i in range(n):
            pivot = photon * table[PHOTON, i] + read * table[READ, i]
            u[i], v[i], link[i] = used[i, p], used[i, p] * difference[i, p], 0.0
            if i > 0 and used[i, p] and used[i - 1, p]:
                covariance = photon * table[PHOTON_LINK, i] + read * table[READ_LINK, i]
                link[i] = covariance * inverse[i - 1]
                pivot -= covariance * link[i]
                u[i] -= link[i] * u[i - 1]
                v[i] -= link[i] * v[i - 1]
            inverse[i] = 1.0 / pivot
            left += used[i, p] != 0
            a += v[i] * v[i] * inverse[i]
            b += u[i] * v[i] * inverse[i]
            c += u[i] * u[i] * inverse[i]
        slope = b / c

        best_one = best_two = 0.0
        where_one = where_two = -1
        slope_one = slope_two = slope
        diagonal = y = r = q = 0.0  # of the difference after; what follows the last one is nothing
        for i in range(n - 1, -1, -1):
            link_after = link[i + 1] if i + 1 < n else 0.0
            diagonal_after, y_after, r_after, q_after = diagonal, y, r, q
            diagonal = inverse[i] + link_after * link_after * diagonal_after  # S^-1
            y = u[i] * inverse[i] - link_after * y_after
            r = (v[i] - slope * u[i]) * inverse[i] - link_after * r_after
            q = diagonal - y * y / c
            if not used[i, p]:
                continue
            gain = r * r / q
            # If one difference would remain, chi^2 is zero whichever that is. A jump adds counts, so the larger differences are
            # left out.
            better = difference[i, p] > difference[where_one, p] if left == 2 and where_one >= 0 else gain > best_one
            if left > 1 and better:
                best_one, where_one, slope_one = gain, i, slope - y * r / q / c
            if left > 2 and i + 1 < n and used[i + 1, p] and table[PAIR, i]:
                beside = -link_after * diagonal_after - y * y_after / c
                determinant = q * q_after - beside * beside
                offset = (q_after * r - beside * r_after) / determinant
                offset_after = (q * r_after - beside * r) / determinant
                gain = r * offset + r_after * offset_after
                better = difference[i, p] > difference[where_two + 1, p] if left == 3 and where_two >= 0 else gain > best_two
                if better:
                    best_two, where_two = gain, i
                    slope_two = slope - (y * offset + y_after * offset_after) / c

        # Leaving out a pair always lowers chi^2 by more than one of the two does. Their thresholds make both comparable.
        if best_one - one > best_two - two:
            if not best_one > one:
                break
            used[where_one, p], slope, left = 0.0, slope_one, left - 1
        else:
            if not best_two > two:
                break
            used[where_two, p] = used[where_two + 1, p] = 0.0
            slope, left = slope_two, left - 2
        if left <= 3:
            break
    return slope


@compiled
def search_ramps(
    resultants: np.ndarray,
    groupdq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    table: np.ndarray,
    network: np.ndarray,
    one: float,
    two: float,
    spoiled: np.uint8,
    flag: np.uint8,
    rate: np.ndarray,
    jumps: np.ndarray,
) -> None:
    """Fit ramps with the noise of their median rate, and search for jumps, as `ramp_fitting.find_jumps` says.

    Parameters
    ----------
    resultants : numpy.ndarray
        Ramps, DN, float32 of shape (resultant, row, column).
    groupdq : numpy.ndarray
        Their flags, uint8 of the same shape.
    gain, readnoise : numpy.ndarray
        Gain (electron/DN, NaN where it is unknown) and noise of a read (DN), float32 of shape (row, column).
    table : numpy.ndarray
        From `ramp_fitting.difference_covariance`, float64 of shape (6, differences).
    network : numpy.ndarray
        From `sorting_network`, for as many values as there are differences.
    one, two : float
        Thresholds for leaving out one and two differences, from `ramp_fitting.jump_thresholds`.
    spoiled : numpy.uint8
        Flags of resultants whose differences the median leaves out.
    flag : numpy.uint8
        Flag of a jump.
    rate : numpy.ndarray
        Count rate, DN/s, float64 of shape (row, column); written.
    jumps : numpy.ndarray
        The flag at the second resultant of each difference that is left out, uint8 of the shape of `resultants`; written.
    """
    n, rows, columns = len(resultants) - 1, resultants.shape[1], resultants.shape[2]
    difference, used = np.empty((n, PIECE)), np.empty((n, PIECE))
    link, weight, sums = np.empty((n, PIECE)), np.empty((n, PIECE)), np.empty((3, PIECE))
    photon, read, u, v = np.empty(PIECE), np.empty(PIECE), np.empty(PIECE), np.empty((2, PIECE))
    number, scratch, used_before = np.empty(PIECE, np.int64), np.empty((4, n)), np.empty(n)
    threshold = min(one, two)
    for row in range(rows):
        for left in range(0, columns, PIECE):
            width = min(PIECE, columns - left)
            _load(resultants, groupdq, row, left, width, table, difference, used)
            _median(difference, groupdq, row, left, width, spoiled, network, link, number, photon)
            gains, noises, rates = gain[row, left:], readnoise[row, left:], rate[row, left:]
            for p in range(width):
                photon[p] = max(photon[p], 0.0) / gains[p]
                read[p] = np.float64(noises[p]) ** 2
            _fit(difference, used, width, table, photon, read, link, weight, u, v, sums)
            for p in range(width):
                rates[p] = sums[1, p] / sums[2, p]
            for p in range(width):
                # No omission lowers chi^2 by more than its value: ramps below the threshold need no search.
                if sums[0, p] - sums[1, p] * sums[1, p] / sums[2, p] > threshold:
                    for i in range(n):
                        used_before[i] = used[i, p]
                    rates[p] = _search(difference, used, p, table, photon[p], read[p], one, two, scratch)
                    for i in range(n):
                        if used[i, p] != used_before[i]:
                            jumps[i + 1, row, left + p] |= flag


@compiled
def solve_ramps(
    resultants: np.ndarray,
    groupdq: np.ndarray,
    jumps: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    table: np.ndarray,
    rate: np.ndarray,
    slope: np.ndarray,
    err: np.ndarray,
    var_poisson: np.ndarray,
    var_rnoise: np.ndarray,
    chisq: np.ndarray,
) -> None:
    """Fit ramps with the noise of a given rate, as `ramp_fitting.fit_slopes` says.

    It writes the last five arrays.

    Parameters
    ----------
    resultants : numpy.ndarray
        Ramps, DN, float32 of shape (resultant, row, column).
    groupdq, jumps : numpy.ndarray
        Their flags and jumps, uint8 of the same shape. A difference is not used if one of its resultants is flagged, or if the
        second one has a jump.
    gain, readnoise : numpy.ndarray
        Gain (electron/DN, NaN where it is unknown) and noise of a read (DN), float32 of shape (row, column).
    table : numpy.ndarray
        From `ramp_fitting.difference_covariance`, float64 of shape (6, differences).
    rate : numpy.ndarray
        Count rate that sets the photon noise, DN/s, float64 of shape (row, column).
    slope, err, var_poisson, var_rnoise, chisq : numpy.ndarray
        The fields of `ramp_fitting.RampFit`, float32 of shape (row, column); written.
    """
    n, rows, columns = len(resultants) - 1, resultants.shape[1], resultants.shape[2]
    difference, used = np.empty((n, PIECE)), np.empty((n, PIECE))
    link, weight, sums = np.empty((n, PIECE)), np.empty((n, PIECE)), np.empty((3, PIECE))
    photon, read, u, v = np.empty(PIECE), np.empty(PIECE), np.empty(PIECE), np.empty((2, PIECE))
    for row in range(rows):
        for left in range(0, columns, PIECE):
            width = min(PIECE, columns - left)
            _load(resultants, groupdq, row, left, width, table, difference, used)
            for i in range(n):
                hit, free = jumps[i + 1, row, left:], used[i]
                for p in range(width):
                    free[p] = 0.0 if hit[p] else free[p]
            gains, noises, rates = gain[row, left:], readnoise[row, left:], rate[row, left:]
            for p in range(width):
                photon[p] = max(rates[p], 0.0) / gains[p]
                read[p] = np.float64(noises[p]) ** 2
            _fit(difference, used, width, table, photon, read, link, weight, u, v, sums)
            # Photon noise of the slope: the quadratic form of its weights y = S^-1 1 with the photon covariance.
            u[:width] = 0.0
            v[:, :width] = 0.0
            for i in range(n - 1, -1, -1):
                for p in range(width):
                    y_after = v[0, p]
                    y = weight[i, p] - v[1, p] * y_after
                    u[p] += y * y * table[PHOTON, i]
                    if i + 1 < n:
                        u[p] += 2.0 * y * y_after * table[PHOTON_LINK, i + 1]
                    v[0, p], v[1, p] = y, link[i, p]
            a, b, c = sums
            results = slope[row, left:], err[row, left:], var_poisson[row, left:], var_rnoise[row, left:], chisq[row, left:]
            for p in range(width):
                results[0][p] = b[p] / c[p]
                results[1][p] = np.sqrt(1.0 / c[p])
            for p in range(width):
                results[2][p] = photon[p] * u[p] / (c[p] * c[p])
                results[3][p] = 1.0 / c[p] - photon[p] * u[p] / (c[p] * c[p])
            for p in range(width):
                results[4][p] = a[p] - b[p] * b[p] / c[p]
