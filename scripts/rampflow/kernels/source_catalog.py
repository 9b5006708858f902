"""Compiled loops of `rampflow.catalog`: smoothing, PSF photometry and local background."""

import numpy as np
from numba import njit

RELATIVE_ROUNDING = 1e-14  #: singular values below this fraction of the largest one are zero but for rounding
LARGE_GROUP = 20  #: sources; larger groups are allowed fewer evaluations of their model


# ------------------------------------------------------------------------------------------------------------ detection
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _weigh(values, taps, result):
    """Correlate a padded row with a profile; `result` is written."""
    for x in range(result.size):
        total = 0.0
        for k in range(taps.size):
            total += taps[k] * values[x + k]
        result[x] = total


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _add_row(row, tap, total):
    for x in range(row.size):
        total[x] += tap * row[x]


@njit(cache=True, nogil=True)
def smooth_rows(image, mask, taps, start, result):
    """Convolve rows of an image with a separable kernel: the weighted mean of the pixels that are not masked.

    The image is zero, and not masked, beyond its edges.

    Parameters
    ----------
    image : numpy.ndarray of float32
        Image, shape (rows, columns).
    mask : numpy.ndarray of bool
        True where a pixel does not count, same shape.
    taps : numpy.ndarray
        Profile of the kernel along either axis, float64, of odd length and sum 1.
    start : int
        First row.
    result : numpy.ndarray
        Convolved rows from `start` on, float32, written; NaN where all pixels under the kernel are masked.
    """
    rows, columns = image.shape
    reach = taps.size // 2
    wanted = result.shape[0]
    # First along each row that the kernel touches; rows without a masked pixel have the weight 1 everywhere.
    sums = np.zeros((wanted + 2 * reach, columns))
    weights = np.ones((wanted + 2 * reach, columns))
    values, good = np.zeros(columns + 2 * reach), np.ones(columns + 2 * reach)
    whole = np.ones(wanted + 2 * reach, np.bool_)
    for i in range(wanted + 2 * reach):
        y = start - reach + i
        if y < 0 or y >= rows:
            continue
        for x in range(columns):
            masked = mask[y, x]
            values[reach + x] = 0.0 if masked else image[y, x]
            good[reach + x] = 0.0 if masked else 1.0
            if masked:
                whole[i] = False
        _weigh(values, taps, sums[i])
        if not whole[i]:
            _weigh(good, taps, weights[i])
    total, weight = np.empty(columns), np.empty(columns)
    for i in range(wanted):
        total[:] = 0.0
        weight[:] = 0.0
        for k in range(taps.size):
            _add_row(sums[i + k], taps[k], total)
        if whole[i : i + taps.size].all():
            for x in range(columns):
                result[i, x] = total[x]
            continue
        for k in range(taps.size):
            _add_row(weights[i + k], taps[k], weight)
        for x in range(columns):
            # Where all pixels under the kernel are masked, the weight is zero but for rounding.
            result[i, x] = total[x] / weight[x] if weight[x] > 1e-12 else np.nan


# ------------------------------------------------------------------------------------------------------- PSF photometry
@njit(cache=True, nogil=True)
def _cubic_weights(t, weights, slopes):
    """Weights of four B-spline coefficients at the fraction `t` between the middle two, and their derivatives; written."""
    s = 1.0 - t
    weights[0] = s * s * s / 6.0
    weights[1] = 2.0 / 3.0 - 0.5 * t * t * (2.0 - t)
    weights[2] = 2.0 / 3.0 - 0.5 * s * s * (2.0 - s)
    weights[3] = t * t * t / 6.0
    slopes[0] = -0.5 * s * s
    slopes[1] = 1.5 * t * t - 2.0 * t
    slopes[2] = 2.0 * s - 1.5 * s * s
    slopes[3] = 0.5 * t * t


@njit(cache=True, nogil=True)
def _cell(grid, position):
    """Nearest cell of a grid: its two lines, the fraction of the cell before a position (0 to 1), and its derivative."""
    if grid.size == 1:
        return 0, 0, 0.0, 0.0
    low = min(max(np.searchsorted(grid, position) - 1, 0), grid.size - 2)
    span = grid[low + 1] - grid[low]
    part = (position - grid[low]) / span
    if part < 0.0:
        return low, low + 1, 0.0, 0.0
    if part > 1.0:
        return low, low + 1, 1.0, 0.0
    return low, low + 1, part, 1.0 / span


@njit(cache=True, nogil=True)
def evaluate_psf(columns, rows, x, y, coefficients, grid_x, grid_y, oversampling, value, slope_x, slope_y):
    """Evaluate a gridded PSF of unit flux.

    Parameters
    ----------
    columns, rows : numpy.ndarray
        Pixels, float64, shape (pixels,).
    x, y : float
        Position of the source, pixels.
    coefficients : numpy.ndarray
        Spline coefficients of the stamps, float64, shape (grid y, grid x, rows, columns), as in
        `rampflow.catalog.psf_photometry.GriddedPSF`.
    grid_x, grid_y : numpy.ndarray
        Positions of the stamps on the detector along either axis, pixels.
    oversampling : int
        Samples per pixel along either axis.
    value, slope_x, slope_y : numpy.ndarray
        Value in each pixel, and its derivatives with respect to `x` and `y`, float64, written.
    """
    height, width = coefficients.shape[2:]
    left, right, part_x, rate_x = _cell(grid_x, x)
    bottom, top, part_y, rate_y = _cell(grid_y, y)
    wx, sx, wy, sy = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    corners, corners_x, corners_y = np.empty(4), np.empty(4), np.empty(4)
    for i in range(columns.size):
        value[i] = slope_x[i] = slope_y[i] = 0.0
        u = oversampling * (columns[i] - x) + 0.5 * (width - 1)
        v = oversampling * (rows[i] - y) + 0.5 * (height - 1)
        if u < 0.0 or v < 0.0 or u > width - 1 or v > height - 1:
            continue
        iu, iv = min(int(u), width - 2), min(int(v), height - 2)
        _cubic_weights(u - iu, wx, sx)
        _cubic_weights(v - iv, wy, sy)
        for corner in range(4):
            stamp = coefficients[top if corner >= 2 else bottom, right if corner % 2 else left]
            total = total_x = total_y = 0.0
            for k in range(4):
                row = abs(iv + k - 1)  # the spline is mirrored at the stamp's edges
                row = row if row < height else 2 * (height - 1) - row
                along = along_x = 0.0
                for j in range(4):
                    column = abs(iu + j - 1)
                    column = column if column < width else 2 * (width - 1) - column
                    along += wx[j] * stamp[row, column]
                    along_x += sx[j] * stamp[row, column]
                total += wy[k] * along
                total_x += wy[k] * along_x
                total_y += sy[k] * along
            corners[corner], corners_x[corner], corners_y[corner] = total, total_x, total_y
        low, high = (1.0 - part_x) * corners[0] + part_x * corners[1], (1.0 - part_x) * corners[2] + part_x * corners[3]
        value[i] = (1.0 - part_y) * low + part_y * high
        # A derivative has two parts: the PSF moves with the source, and varies over the detector.
        changes_x = (1.0 - part_y) * (corners[1] - corners[0]) + part_y * (corners[3] - corners[2])
        slope_x[i] = rate_x * changes_x - oversampling * (
            (1.0 - part_y) * ((1.0 - part_x) * corners_x[0] + part_x * corners_x[1])
            + part_y * ((1.0 - part_x) * corners_x[2] + part_x * corners_x[3])
        )
        slope_y[i] = rate_y * (high - low) - oversampling * (
            (1.0 - part_y) * ((1.0 - part_x) * corners_y[0] + part_x * corners_y[1])
            + part_y * ((1.0 - part_x) * corners_y[2] + part_x * corners_y[3])
        )


@njit(cache=True, nogil=True)
def _model(columns, rows, values, errors, parameters, psf, residuals, jacobian):
    """Evaluate the residuals (model − data) / error of a group of sources, and their derivatives; written."""
    coefficients, grid_x, grid_y, oversampling = psf
    value, slope_x, slope_y = np.empty(values.size), np.empty(values.size), np.empty(values.size)
    for i in range(values.size):
        residuals[i] = -values[i] / errors[i]
    for source in range(parameters.size // 3):
        flux, x, y = parameters[3 * source : 3 * source + 3]
        evaluate_psf(columns, rows, x, y, coefficients, grid_x, grid_y, oversampling, value, slope_x, slope_y)
        for i in range(values.size):
            residuals[i] += flux * value[i] / errors[i]
            jacobian[i, 3 * source] = value[i] / errors[i]
            jacobian[i, 3 * source + 1] = flux * slope_x[i] / errors[i]
            jacobian[i, 3 * source + 2] = flux * slope_y[i] / errors[i]


@njit(cache=True, nogil=True)
def _norm(vector):
    return np.sqrt(np.sum(vector * vector))


@njit(cache=True, nogil=True)
def _limited_step(projection, singular, directions, radius):
    """Step of at most the length `radius` that minimizes a linear least-squares problem.

    With the singular values s_i, the right singular vectors v_i and the projections b_i of the residuals on the left ones, the
    step is −Σ s_i b_i / (s_i² + d) v_i. The damping d is zero (Gauss-Newton) if that step is short enough. Otherwise d gives
    the length `radius`; it is found by Newton's method, from below, on 1 / length − 1 / radius, which is nearly linear in d.
    """
    damping = 0.0
    if singular[-1] <= RELATIVE_ROUNDING * singular[0]:
        damping = (RELATIVE_ROUNDING * singular[0]) ** 2
    for _ in range(50):
        weights = singular * singular + damping
        parts = singular * projection / weights
        length = _norm(parts)
        if length <= radius * 1.0001:
            break
        damping += (length / radius - 1.0) * length * length / np.sum(parts * parts / weights)
    return -(directions.T @ parts)


@njit(cache=True, nogil=True)
def _enlarge_scale(scale, jacobian):
    """Raise the inverse error of each parameter to the length of its column in the Jacobian, in place; 1 if there is none."""
    for i in range(scale.size):
        scale[i] = max(scale[i], _norm(jacobian[:, i])) or 1.0


@njit(cache=True, nogil=True)
def fit_group(values, errors, columns, rows, start, coefficients, grid_x, grid_y, oversampling):
    """Fit flux, x and y of a group of sources by weighted least squares in a trust region.

    The trust region measures each parameter in units of the error that it has alone (Moré 1978, Lect. Notes Math. 630, 105;
    `scipy.optimize.least_squares` with ``x_scale="jac"``), so that the units of flux and position don't matter.

    Parameters
    ----------
    values, errors, columns, rows : numpy.ndarray
        Values, errors and positions of the pixels, float64, shape (pixels,); a pixel appears once for each source near it.
    start : numpy.ndarray
        Initial flux, x and y of each source, float64, shape (sources, 3).
    coefficients : numpy.ndarray
        Spline coefficients of the stamps, float64, shape (grid y, grid x, rows, columns), as in
        `rampflow.catalog.psf_photometry.GriddedPSF`.
    grid_x, grid_y : numpy.ndarray
        Positions of the stamps on the detector along either axis, pixels.
    oversampling : int
        Samples per pixel along either axis.

    Returns
    -------
    fitted : numpy.ndarray
        Fitted flux, x and y, shape (sources, 3).
    covariance : numpy.ndarray
        Covariance of all parameters, shape (3 sources, 3 sources).
    residuals : numpy.ndarray
        (model − data) / error of each pixel, shape (pixels,).
    converged : bool
        False if the fit did not end within 1000 evaluations of the model, or 100 in a group of more than `LARGE_GROUP` sources.
    """
    ftol = gtol = 1e-8  # as photutils' PSFPhotometry
    # Fits of galaxies may need hundreds of evaluations. The time of one grows with the third power of the number of sources.
    evaluations_allowed = 1000 if len(start) <= LARGE_GROUP else 100
    shortest = 1e-5  # a step of this length changes no parameter by more than 1e-5 of its error
    psf = (coefficients, grid_x, grid_y, oversampling)
    size = start.size
    parameters = start.copy().reshape(size)
    residuals, trial_residuals = np.empty(values.size), np.empty(values.size)
    jacobian, trial_jacobian = np.empty((values.size, size)), np.empty((values.size, size))
    _model(columns, rows, values, errors, parameters, psf, residuals, jacobian)
    cost = 0.5 * np.sum(residuals * residuals)
    scale = np.zeros(size)
    _enlarge_scale(scale, jacobian)
    radius = _norm(parameters * scale)
    if radius == 0.0:
        radius = 1.0
    evaluations, converged = 1, False
    while not converged and evaluations < evaluations_allowed:
        scaled = jacobian / scale
        if np.abs(scaled.T @ residuals).max() < gtol:
            converged = True
            break
        left, singular, directions = np.linalg.svd(scaled, full_matrices=False)
        projection = left.T @ residuals
        gain = -1.0
        while gain <= 0.0 and not converged and evaluations < evaluations_allowed:
            step = _limited_step(projection, singular, directions, radius)
            change = scaled @ step
            predicted = -np.sum(change * (0.5 * change + residuals))
            trial = parameters + step / scale
            _model(columns, rows, values, errors, trial, psf, trial_residuals, trial_jacobian)
            evaluations += 1
            length = _norm(step)
            trial_cost = 0.5 * np.sum(trial_residuals * trial_residuals)
            if not np.isfinite(trial_cost):
                radius = 0.25 * length
                continue
            gain = cost - trial_cost
            ratio = gain / predicted if predicted > 0.0 else (1.0 if predicted == gain == 0.0 else 0.0)
            if ratio < 0.25:
                radius = 0.25 * length
            elif ratio > 0.75 and length > 0.95 * radius:
                radius *= 2.0
            converged = (gain < ftol * cost and ratio > 0.25) or length < shortest
        if gain > 0.0:
            parameters, cost = trial, trial_cost
            residuals, trial_residuals = trial_residuals, residuals
            jacobian, trial_jacobian = trial_jacobian, jacobian
            _enlarge_scale(scale, jacobian)
    _, singular, directions = np.linalg.svd(jacobian, full_matrices=False)
    inverse = np.zeros(size)
    for i in range(size):
        if singular[i] > RELATIVE_ROUNDING * singular[0]:
            inverse[i] = 1.0 / singular[i] ** 2
    covariance = directions.T @ (inverse.reshape(-1, 1) * directions)
    return parameters.reshape(start.shape), covariance, residuals, converged


# ------------------------------------------------------------------------------------------------------------ apertures
@njit(cache=True, nogil=True)
def clip_rings(image, x, y, inner, outer):
    """Compute statistics of the pixels in rings, clipped at 3 standard deviations around the median.

    A pixel belongs to a ring if its center does. At most 5 iterations of clipping.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (rows, columns); pixels that are not finite are left out.
    x, y : numpy.ndarray
        Centers of the rings, pixels.
    inner, outer : float
        Radii, pixels.

    Returns
    -------
    medians, deviations : numpy.ndarray
        Median and standard deviation of each ring, float64; NaN without a pixel.
    counts : numpy.ndarray
        Number of pixels that remain, int64.
    """
    rows, columns = image.shape
    medians, deviations, counts = np.full(x.size, np.nan), np.full(x.size, np.nan), np.zeros(x.size, np.int64)
    values = np.empty((2 * int(outer) + 3) ** 2)
    for i in range(x.size):
        count = 0
        for row in range(max(int(np.ceil(y[i] - outer)), 0), min(int(np.floor(y[i] + outer)) + 1, rows)):
            for column in range(max(int(np.ceil(x[i] - outer)), 0), min(int(np.floor(x[i] + outer)) + 1, columns)):
                square = (row - y[i]) ** 2 + (column - x[i]) ** 2
                if inner * inner <= square < outer * outer and np.isfinite(image[row, column]):
                    values[count] = image[row, column]
                    count += 1
        if count == 0:
            continue
        kept = np.sort(values[:count])
        for _ in range(5):
            median, deviation = 0.5 * (kept[(kept.size - 1) // 2] + kept[kept.size // 2]), kept.std()
            low, high = np.searchsorted(kept, median - 3 * deviation), np.searchsorted(kept, median + 3 * deviation, "right")
            if high - low == kept.size:
                break
            kept = kept[low:high]
        medians[i], deviations[i] = 0.5 * (kept[(kept.size - 1) // 2] + kept[kept.size // 2]), kept.std()
        counts[i] = kept.size
    return medians, deviations, counts
