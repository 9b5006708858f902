"""Compiled loops of `rampflow.catalog`: smoothing, PSF photometry, local background, apertures and segments."""

import numpy as np
from numba import njit

RELATIVE_ROUNDING = 1e-14  #: singular values below this fraction of the largest one are zero but for rounding
LARGE_GROUP = 20  #: sources; larger groups are allowed fewer evaluations of their model
SMALLEST_WEIGHT = 1e-14  #: a pixel of which a smaller fraction lies in an ellipse is outside but for rounding
WINDOW_ITERATIONS = 16  #: largest number of steps of a windowed centroid
WINDOW_TOLERANCE = 1e-4  #: pixels; a windowed centroid that moves by less has converged
LARGEST_BOX = 1_000_000  #: pixels, or those of the image if it has more; nothing is measured in a larger box


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
def smooth_rows(image: np.ndarray, mask: np.ndarray, taps: np.ndarray, start: int, result: np.ndarray) -> None:
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
        Convolved rows from `start` on, float32, shape (some rows, columns), written; NaN where all pixels under the kernel are
        masked.
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
def evaluate_psf(
    columns: np.ndarray,
    rows: np.ndarray,
    x: float,
    y: float,
    coefficients: np.ndarray,
    grid_x: np.ndarray,
    grid_y: np.ndarray,
    oversampling: int,
    value: np.ndarray,
    slope_x: np.ndarray,
    slope_y: np.ndarray,
) -> None:
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
        Positions of the stamps on the detector along either axis, pixels, shapes (grid x,) and (grid y,).
    oversampling : int
        Samples per pixel along either axis.
    value, slope_x, slope_y : numpy.ndarray
        Value in each pixel, and its derivatives with respect to `x` and `y`, float64, shape (pixels,), written.
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
def fit_group(
    values: np.ndarray,
    errors: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    start: np.ndarray,
    coefficients: np.ndarray,
    grid_x: np.ndarray,
    grid_y: np.ndarray,
    oversampling: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
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
        Positions of the stamps on the detector along either axis, pixels, shapes (grid x,) and (grid y,).
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
def clip_rings(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, inner: float, outer: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute statistics of the pixels in rings, clipped at 3 standard deviations around the median.

    A pixel belongs to a ring if its center does. There are at most 5 iterations of clipping.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (rows, columns); pixels that are not finite are left out.
    x, y : numpy.ndarray
        Centers of the rings, pixels, shape (rings,).
    inner, outer : float
        Radii, pixels.

    Returns
    -------
    medians, deviations : numpy.ndarray
        Median and standard deviation of each ring, float64, shape (rings,); NaN without a pixel.
    counts : numpy.ndarray
        Number of pixels that remain, int64, same shape.
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


@njit(cache=True, nogil=True)
def _sector(x0, y0, x1, y1):
    """Signed area of the triangle from the origin to both ends of a line, as far as it lies in the unit circle."""
    dx, dy = x1 - x0, y1 - y0
    square, half, level = dx * dx + dy * dy, x0 * dx + y0 * dy, x0 * x0 + y0 * y0 - 1.0
    within = half * half - square * level
    if within <= 0.0 or square == 0.0:
        return 0.5 * np.arctan2(x0 * y1 - x1 * y0, x0 * x1 + y0 * y1)
    # Fractions of the length of the line at which it enters the circle and leaves it.
    enters, leaves = (-half - np.sqrt(within)) / square, (-half + np.sqrt(within)) / square
    if leaves <= 0.0 or enters >= 1.0:
        return 0.5 * np.arctan2(x0 * y1 - x1 * y0, x0 * x1 + y0 * y1)
    area = 0.0
    if enters > 0.0:
        x, y = x0 + enters * dx, y0 + enters * dy
        area += 0.5 * np.arctan2(x0 * y - x * y0, x0 * x + y0 * y)
        x0, y0 = x, y
    if leaves < 1.0:
        x, y = x1 - (1.0 - leaves) * dx, y1 - (1.0 - leaves) * dy
        area += 0.5 * np.arctan2(x * y1 - x1 * y, x * x1 + y * y1)
        x1, y1 = x, y
    return area + 0.5 * (x0 * y1 - x1 * y0)


@njit(cache=True, nogil=True)
def _ellipse_box(x, y, major, minor, angle, rows, columns):
    """Box of an ellipse in the image: first row, row after the last, first column, column after the last; its whole size."""
    cosine, sine = np.cos(angle), np.sin(angle)
    reach_x, reach_y = np.hypot(major * cosine, minor * sine), np.hypot(major * sine, minor * cosine)
    top, bottom = np.floor(y - reach_y + 0.5), np.floor(y + reach_y + 0.5) + 1.0
    left, right = np.floor(x - reach_x + 0.5), np.floor(x + reach_x + 0.5) + 1.0
    size = (bottom - top) * (right - left)
    return int(max(top, 0.0)), int(min(bottom, rows)), int(max(left, 0.0)), int(min(right, columns)), size


@njit(cache=True, nogil=True)
def _unit_circle(major, minor, angle):
    """Plane in which an ellipse is the unit circle: vectors p and q (half a pixel along x and y), half diagonal, pixel area."""
    cosine, sine = np.cos(angle), np.sin(angle)
    px, py, qx, qy = 0.5 * cosine / major, -0.5 * sine / minor, 0.5 * sine / major, 0.5 * cosine / minor
    return px, py, qx, qy, max(np.hypot(px + qx, py + qy), np.hypot(px - qx, py - qy)), 1.0 / (major * minor)


@njit(cache=True, nogil=True)
def _fraction_inside(dx, dy, plane):
    """Fraction of a pixel, at some offset from the center of an ellipse, that lies in it; `plane` is its `_unit_circle`."""
    px, py, qx, qy, diagonal, area = plane
    u, v = 2.0 * (px * dx + qx * dy), 2.0 * (py * dx + qy * dy)
    distance = np.sqrt(u * u + v * v)
    if distance >= 1.0 + diagonal:
        return 0.0
    if distance <= 1.0 - diagonal:
        return 1.0
    # The pixel is a parallelogram with the corners ±p ± q.
    fraction = (
        _sector(u - px - qx, v - py - qy, u + px - qx, v + py - qy)
        + _sector(u + px - qx, v + py - qy, u + px + qx, v + py + qy)
        + _sector(u + px + qx, v + py + qy, u - px + qx, v - py + qy)
        + _sector(u - px + qx, v - py + qy, u - px - qx, v - py - qy)
    ) / area
    return fraction if fraction > SMALLEST_WEIGHT else 0.0


@njit(cache=True, nogil=True)
def sum_circles(
    image: np.ndarray, err: np.ndarray, mask: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the pixels in circles, each by the fraction of it that lies inside.

    Parameters
    ----------
    image, err : numpy.ndarray of float32
        Image and its error, shape (rows, columns).
    mask : numpy.ndarray of bool
        True where a pixel does not count, same shape.
    x, y : numpy.ndarray
        Centers, pixels, float64, shape (circles,).
    radius : float
        Radius, pixels.

    Returns
    -------
    totals : numpy.ndarray
        Sums, float64, shape (circles,); NaN where a circle lies outside the image.
    errors : numpy.ndarray
        Their errors, same shape.
    """
    rows, columns = image.shape
    totals, errors = np.full(x.size, np.nan), np.full(x.size, np.nan)
    plane = _unit_circle(radius, radius, 0.0)
    for i in range(x.size):
        top, bottom, left, right, _ = _ellipse_box(x[i], y[i], radius, radius, 0.0, rows, columns)
        if top >= bottom or left >= right:
            continue
        total, variance = 0.0, 0.0
        for row in range(top, bottom):
            for column in range(left, right):
                if mask[row, column]:
                    continue
                fraction = _fraction_inside(column - x[i], row - y[i], plane)
                if fraction > 0.0:
                    total += fraction * image[row, column]
                    variance += fraction * (err[row, column] * err[row, column])
        totals[i], errors[i] = total, np.sqrt(variance)
    return totals, errors


# ------------------------------------------------------------------------------------------------------------ segments
@njit(cache=True, nogil=True)
def _excluded(mask, labels, label, row, column):
    """Whether a pixel does not count for a source: it is masked, or belongs to another source."""
    return mask[row, column] or (labels[row, column] != label and labels[row, column] != 0)


@njit(cache=True, nogil=True)
def collect_pixels(
    image: np.ndarray, err: np.ndarray, mask: np.ndarray, labels: np.ndarray, label: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collect the good pixels of each segment.

    Parameters
    ----------
    image, err : numpy.ndarray of float32
        Image and its error, shape (rows, columns).
    mask : numpy.ndarray of bool
        True where a pixel does not count, same shape.
    labels : numpy.ndarray of int32
        Segmentation map, same shape.
    label : numpy.ndarray of int32
        Labels of the sources, shape (sources,).
    boxes : numpy.ndarray of int64
        First row, row after the last, first column, column after the last of each segment, shape (sources, 4).

    Returns
    -------
    values : numpy.ndarray of float64
        Values, source by source, shape (pixels,).
    variances : numpy.ndarray of float32
        Squares of the errors, same shape.
    counts : numpy.ndarray of int64
        Number of good pixels of each source, shape (sources,).
    """
    counts = np.zeros(label.size, np.int64)
    for i in range(label.size):
        for row in range(boxes[i, 0], boxes[i, 1]):
            for column in range(boxes[i, 2], boxes[i, 3]):
                if labels[row, column] == label[i] and not mask[row, column]:
                    counts[i] += 1
    values, variances = np.empty(counts.sum(), np.float64), np.empty(counts.sum(), np.float32)
    n = 0
    for i in range(label.size):
        for row in range(boxes[i, 0], boxes[i, 1]):
            for column in range(boxes[i, 2], boxes[i, 3]):
                if labels[row, column] == label[i] and not mask[row, column]:
                    values[n] = image[row, column]
                    variances[n] = err[row, column] * err[row, column]
                    n += 1
    return values, variances, counts


@njit(cache=True, nogil=True)
def measure_moments(
    detection: np.ndarray, mask: np.ndarray, labels: np.ndarray, label: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Measure centroids and variances of segments, weighted by the smoothed image.

    Parameters
    ----------
    detection : numpy.ndarray of float32
        Smoothed image, shape (rows, columns); values that are negative or not finite count as zero.
    mask, labels, label, boxes : numpy.ndarray
        As in `collect_pixels`.

    Returns
    -------
    numpy.ndarray of float64
        Centroids x and y (pixels), and variances xx, xy and yy (pixels²) of each source, shape (5, sources); NaN without light.
    """
    result = np.full((5, label.size), np.nan)
    for i in range(label.size):
        top, bottom, left, right = boxes[i]
        total = sum_x = sum_y = 0.0
        for row in range(top, bottom):
            for column in range(left, right):
                value = detection[row, column]
                if labels[row, column] == label[i] and not mask[row, column] and value > 0.0 and value < np.inf:
                    total += value
                    sum_x += value * (column - left)
                    sum_y += value * (row - top)
        if total == 0.0:
            continue
        x, y = sum_x / total, sum_y / total
        xx = xy = yy = 0.0
        for row in range(top, bottom):
            for column in range(left, right):
                value = detection[row, column]
                if labels[row, column] == label[i] and not mask[row, column] and value > 0.0 and value < np.inf:
                    dx, dy = column - left - x, row - top - y
                    xx += value * dx * dx
                    xy += value * dx * dy
                    yy += value * dy * dy
        result[0, i], result[1, i] = x + left, y + top
        result[2, i], result[3, i], result[4, i] = xx / total, xy / total, yy / total
    return result


@njit(cache=True, nogil=True)
def measure_kron_radii(
    image: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    label: np.ndarray,
    ellipses: np.ndarray,
    scale: float,
    smallest: float,
) -> np.ndarray:
    """Measure Kron radii: first moments of the light by elliptical radius.

    Parameters
    ----------
    image, mask, labels, label : numpy.ndarray
        As in `collect_pixels`.
    ellipses : numpy.ndarray of float64
        Center x and y, semi-major axis, semi-minor axis (pixels, 1 σ), angle of the major axis from +x (radians) and the
        coefficients xx, xy and yy of the equation of each ellipse, shape (8, sources).
    scale : float
        The moment is that of the pixels within this many times the ellipse.
    smallest : float
        Radius of sources whose light or moment is not positive, in units of the ellipse.

    Returns
    -------
    numpy.ndarray of float64
        Radii in units of the ellipse, shape (sources,); NaN without an ellipse, or with one larger than the image.
    """
    rows, columns = image.shape
    result = np.full(label.size, np.nan)
    for i in range(label.size):
        x, y, major, minor, angle, cxx, cxy, cyy = ellipses[:, i]
        if not np.isfinite(x + y + major + minor + angle):
            continue
        top, bottom, left, right, size = _ellipse_box(x, y, scale * major, scale * minor, angle, rows, columns)
        if top >= bottom or left >= right or size > max(image.size, LARGEST_BOX):
            continue
        moment = total = 0.0
        for row in range(top, bottom):
            for column in range(left, right):
                dx, dy = column - x, row - y
                radius = np.sqrt(max(cxx * dx * dx + cxy * dx * dy + cyy * dy * dy, 0.0))
                if radius <= scale and not _excluded(mask, labels, label[i], row, column):
                    moment += image[row, column] * radius
                    total += image[row, column]
        result[i] = moment / total if moment > 0.0 and total > 0.0 else smallest
    return result


@njit(cache=True, nogil=True)
def sum_ellipses(
    image: np.ndarray,
    err: np.ndarray,
    detection: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    label: np.ndarray,
    ellipses: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the pixels in an ellipse around each source, each by the fraction of it that lies inside.

    Parameters
    ----------
    image, err : numpy.ndarray
        As in `collect_pixels`.
    detection : numpy.ndarray of float32
        Smoothed image, in which masked pixels are interpolated, shape (rows, columns).
    mask, labels, label : numpy.ndarray
        As in `collect_pixels`; pixels of other sources do not count.
    ellipses : numpy.ndarray of float64
        Center x and y, semi-major axis, semi-minor axis (pixels) and angle of the major axis from +x (radians) of each
        source, shape (5, sources).

    Returns
    -------
    sums : numpy.ndarray of float64
        Sum of `image` over the good pixels, its error, and the sums of `detection` over the good and over the masked pixels,
        shape (4, sources); the first two are NaN without an ellipse, without a good pixel, or with an ellipse larger than the
        image.
    masked : numpy.ndarray of int64
        Number of masked pixels, whole or in part, shape (sources,).
    """
    rows, columns = image.shape
    sums, masked = np.full((4, label.size), np.nan), np.zeros(label.size, np.int64)
    for i in range(label.size):
        x, y, major, minor, angle = ellipses[:, i]
        if not np.isfinite(x + y + major + minor + angle):
            continue
        top, bottom, left, right, size = _ellipse_box(x, y, major, minor, angle, rows, columns)
        if top >= bottom or left >= right:
            continue
        plane = _unit_circle(major, minor, angle)
        total = variance = seen = lost = 0.0
        good = 0
        for row in range(top, bottom):
            for column in range(left, right):
                if labels[row, column] != label[i] and labels[row, column] != 0:
                    continue
                fraction = _fraction_inside(column - x, row - y, plane)
                if fraction == 0.0:
                    continue
                if mask[row, column]:
                    masked[i] += 1
                    lost += fraction * detection[row, column]
                else:
                    good += 1
                    total += fraction * image[row, column]
                    variance += fraction * (err[row, column] * err[row, column])
                    seen += fraction * detection[row, column]
        sums[2, i], sums[3, i] = seen, lost
        if good and size <= max(image.size, LARGEST_BOX):
            sums[0, i], sums[1, i] = total, np.sqrt(variance)
    return sums, masked


@njit(cache=True, nogil=True)
def sum_circle(image: np.ndarray, mask: np.ndarray, labels: np.ndarray, label: int, x: float, y: float, radius: float) -> float:
    """Sum the good pixels in a circle around a source, each by the fraction of it that lies inside.

    Parameters
    ----------
    image, mask, labels : numpy.ndarray
        As in `collect_pixels`; pixels of other sources do not count.
    label : int
        Label of the source.
    x, y, radius : float
        Center and radius, pixels.

    Returns
    -------
    float
        The sum; 0 outside the image.
    """
    top, bottom, left, right, _ = _ellipse_box(x, y, radius, radius, 0.0, image.shape[0], image.shape[1])
    plane = _unit_circle(radius, radius, 0.0)
    total = 0.0
    for row in range(top, bottom):
        for column in range(left, right):
            if not _excluded(mask, labels, label, row, column):
                fraction = _fraction_inside(column - x, row - y, plane)
                if fraction > 0.0:
                    total += fraction * image[row, column]
    return total


@njit(cache=True, nogil=True)
def measure_windowed_centroids(
    image: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    label: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    sigma: np.ndarray,
) -> np.ndarray:
    """Measure centroids under a Gaussian window that follows them (XWIN_IMAGE and YWIN_IMAGE of SExtractor).

    Parameters
    ----------
    image, mask, labels, label : numpy.ndarray
        As in `collect_pixels`; pixels of other sources do not count.
    x, y : numpy.ndarray of float64
        Initial positions, pixels, shape (sources,).
    sigma : numpy.ndarray of float64
        Width of each window, pixels, shape (sources,). A window ends at 4 times this.

    Returns
    -------
    numpy.ndarray of float64
        Centroids x and y, pixels, shape (2, sources); NaN where `x`, `y` or `sigma` is, where a window has no light, and
        where it is larger than the image.
    """
    rows, columns = image.shape
    result = np.full((2, label.size), np.nan)
    for i in range(label.size):
        center_x, center_y, reach = x[i], y[i], 4.0 * sigma[i]
        if not np.isfinite(center_x + center_y + reach) or (2 * int(reach + 1.5) + 1) ** 2 > max(image.size, LARGEST_BOX):
            continue
        for _ in range(WINDOW_ITERATIONS):
            total = sum_x = sum_y = 0.0
            for row in range(int(max(np.ceil(center_y - reach), 0)), int(min(np.floor(center_y + reach) + 1, rows))):
                dy = row - center_y
                for column in range(int(max(np.ceil(center_x - reach), 0)), int(min(np.floor(center_x + reach) + 1, columns))):
                    dx = column - center_x
                    square = dx * dx + dy * dy
                    if square <= reach * reach and not _excluded(mask, labels, label[i], row, column):
                        weighted = image[row, column] * np.exp(-0.5 * square / (sigma[i] * sigma[i]))
                        total += weighted
                        sum_x += weighted * dx
                        sum_y += weighted * dy
            if total == 0.0:
                center_x = center_y = np.nan
                break
            step_x, step_y = sum_x / total, sum_y / total
            center_x, center_y = center_x + 2.0 * step_x, center_y + 2.0 * step_y
            if np.hypot(step_x, step_y) <= WINDOW_TOLERANCE:
                break
        result[0, i], result[1, i] = center_x, center_y
    return result
