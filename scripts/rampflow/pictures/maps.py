"""Maps of a calibrated image: its flags, its χ² and its jumps."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm

from rampflow import dq
from rampflow.errors import counted
from rampflow.pictures.figures import BLUE, ORANGE, RED, new_figure, picture
from rampflow.pictures.image import bin_down, binning, stretch

SIZE = 128  #: blocks a side of a map, at most
CUTOUT = 256  #: pixels a side of a cutout
MOST_FLAGS = 9  #: that have a map of their own


def flag_counts(flags: np.ndarray) -> dict[str, int]:
    """Count the pixels that have each flag of `rampflow.dq.pixel_flags`.

    Parameters
    ----------
    flags : numpy.ndarray
        Data quality, uint32.

    Returns
    -------
    dict of int
        Number of pixels by the flag's name, the most frequent first, without flags that no pixel has.
    """
    counts = {name: int(np.count_nonzero(dq.has(flags, flag))) for name, flag in dq.pixel_flags().items()}
    return {name: n for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n}


def flag_maps(flags: np.ndarray, counts: dict[str, int]) -> dict | None:
    """Draw where each flag is set, as the part of the pixels of each block that have it.

    Parameters
    ----------
    flags : numpy.ndarray
        Data quality, uint32.
    counts : dict of int
        Number of pixels by flag, of `flag_counts`.

    Returns
    -------
    dict or None
        The picture; `None` where no pixel has a flag.
    """
    names = list(counts)[:MOST_FLAGS]
    if not names:
        return None
    rows = -(-len(names) // 3)
    figure = new_figure(0.35 + 1.85 * rows)
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    factor, everywhere = binning(flags.shape, SIZE), np.ones(flags.shape, bool)
    for axis, name in zip(axes, names, strict=False):
        parts = bin_down(dq.has(flags, dq.pixel_flags()[name]).astype(np.float32), everywhere, factor)
        shown = axis.imshow(parts, norm=PowerNorm(0.25, 0, 1), extent=_extent(flags.shape))  # one pixel of a block is seen
        part = counts[name] / flags.size
        axis.set_title(f"{name}\n" + (f"{part:.2%}" if part > 1e-4 else counted(counts[name], "pixel")), fontsize=7)
        axis.set(xticks=[], yticks=[])
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, aspect=30, ticks=[0, 0.001, 0.01, 0.1, 0.5, 1])
    bar.ax.set_xticklabels(["0", "0.1 %", "1 %", "10 %", "50 %", "all"], fontsize=7)
    bar.set_label(f"pixels with the flag, of {factor} × {factor}", fontsize=7)
    caption = "Data quality (dq) by flag, the most frequent first, with the part of all pixels. A pixel may have several."
    return picture(figure, "Data quality", caption)


def _extent(shape: tuple[int, int]) -> tuple[float, ...]:
    return (-0.5, shape[1] - 0.5, -0.5, shape[0] - 0.5)


def chisq_map(chisq: np.ndarray, flags: np.ndarray, n_resultants: int) -> dict | None:
    """Draw χ² of the ramp fits over the detector, and its distribution beside the one that the noise model gives.

    Parameters
    ----------
    chisq, flags : numpy.ndarray
        Value of χ² of each pixel's fit, and data quality. Pixels with any of DO_NOT_USE, SATURATED and JUMP_DET, whose fits
        have fewer degrees of freedom, are left out.
    n_resultants : int
        Number of resultants, two more than the degrees of freedom.

    Returns
    -------
    dict or None
        The picture; `None` without any such fit.
    """
    freedom = n_resultants - 2
    good = ~dq.has(flags, dq.DO_NOT_USE | dq.SATURATED | dq.JUMP_DET) & np.isfinite(chisq)
    if freedom < 1 or not good.any():
        return None
    from scipy.special import chdtri

    figure = new_figure(5.6)
    top, bottom = figure.subplots(2, 1, height_ratios=[2.4, 1])
    mean = bin_down(chisq, good, binning(chisq.shape, SIZE)) / freedom
    low, high = np.nanpercentile(mean, (0.5, 99.5))
    shown = top.imshow(mean, vmin=min(low, 0.9), vmax=max(high, 1.1), extent=_extent(chisq.shape))
    top.set(xlabel="x (pixel)", ylabel="y (pixel)")
    figure.colorbar(shown, ax=top, label="χ² per degree of freedom")
    edges = np.linspace(0, chdtri(freedom, 1e-5), 60)
    values = chisq[good].astype(np.float32)
    bottom.hist(values, edges, density=True, color=BLUE, alpha=0.6, label=f"fits (median {np.median(values):.2f})")
    middle = (edges[1:] + edges[:-1]) / 2
    bottom.plot(middle, chisq_density(middle, freedom), color=RED, label=f"expected (median {chdtri(freedom, 0.5):.2f})")
    bottom.set(xlabel=f"χ² with {freedom} degrees of freedom", ylabel="density", xlim=(0, edges[-1]))
    bottom.legend()
    caption = "Goodness of the ramp fits of pixels without jump or saturation: mean over blocks, and distribution."
    return picture(figure, "χ² of the ramp fits", caption)


def chisq_density(values: np.ndarray, freedom: int) -> np.ndarray:
    """Compute the probability density of χ², without `scipy.stats`: its import takes longer than drawing the picture.

    Parameters
    ----------
    values : numpy.ndarray
        Values of χ², above 0.
    freedom : int
        Degrees of freedom.

    Returns
    -------
    numpy.ndarray
        Density at each value.
    """
    from scipy.special import gammaln

    return np.exp((freedom / 2 - 1) * np.log(values / 2) - values / 2 - gammaln(freedom / 2)) / 2


def jump_map(flags: np.ndarray, jumps: np.ndarray | None, times: np.ndarray) -> dict | None:
    """Draw where and when jumps were found.

    Parameters
    ----------
    flags : numpy.ndarray
        Data quality.
    jumps : numpy.ndarray or None
        Resultant, row and column of each, (n, 3); `None` where they were not recorded.
    times : numpy.ndarray
        Mean time of each resultant, seconds.

    Returns
    -------
    dict or None
        The picture; `None` without any jump.
    """
    jumped = dq.has(flags, dq.JUMP_DET)
    if not jumped.any():
        return None
    factor = binning(flags.shape, 64)
    heights = [2.4] if jumps is None else [2.4, 1]
    figure = new_figure(0.3 + 1.55 * sum(heights))
    top, *rest = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).flat
    density = 1000 * bin_down(jumped.astype(np.float32), np.ones(flags.shape, bool), factor)
    shown = top.imshow(density, norm=PowerNorm(0.4, 0), extent=_extent(flags.shape))  # snowballs would leave all else dark
    top.set(xlabel="x (pixel)", ylabel="y (pixel)")
    figure.colorbar(shown, ax=top, label="pixels with a jump, of 1000")
    if jumps is not None:
        counts = np.bincount(jumps[:, 0], minlength=len(times))[: len(times)]
        axis = rest[0]
        axis.bar(range(len(times)), 1000 * counts / flags.size, color=BLUE)
        axis.set(xlabel=f"resultant (the last at {times[-1]:.0f} s)", ylabel="jumps per\n1000 pixels")
    total = f"{len(jumps):,} jumps" if jumps is not None else f"{np.count_nonzero(jumped):,} pixels"
    return picture(figure, "Jumps", f"Where and when a ramp jumps, mostly by cosmic rays: {total}.")


def source_cutout(
    image: np.ndarray, segmentation: np.ndarray, x: np.ndarray, y: np.ndarray, extended: np.ndarray
) -> dict | None:
    """Draw the sources on the part of the image that has most of them.

    Parameters
    ----------
    image, segmentation : numpy.ndarray
        Count rate (DN/s), and the label of the source of each pixel (0: none).
    x, y : numpy.ndarray
        Positions, pixels.
    extended : numpy.ndarray of bool
        Whether each source is extended.

    Returns
    -------
    dict or None
        The picture; `None` without any source.
    """
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    x, y, extended = x[known], y[known], extended[known]
    side = min(CUTOUT, *image.shape)
    left, bottom = _densest(x, y, side, image.shape)
    window = (slice(bottom, bottom + side), slice(left, left + side))
    figure = new_figure(4.7)
    axis = figure.subplots()
    extent = (left - 0.5, left + side - 0.5, bottom - 0.5, bottom + side - 0.5)
    axis.imshow(stretch(image[window]), cmap="gray_r", vmin=0, vmax=1.1, extent=extent)
    axis.contour(segmentation[window] > 0, [0.5], colors=[BLUE], linewidths=0.7, extent=extent)
    for chosen, marker, color, label in ((~extended, "+", RED, "point source"), (extended, "x", ORANGE, "extended source")):
        axis.scatter(x[chosen], y[chosen], s=40, c=color, marker=marker, linewidths=1.2, label=label)
    axis.set(xlim=extent[:2], ylim=extent[2:], xlabel="x (pixel)", ylabel="y (pixel)")
    figure.legend(loc="outside upper center", ncols=2)
    caption = f"The {side} × {side} pixels with most sources: positions in the catalog, and outlines of their segments."
    return picture(figure, "Sources", caption)


def _densest(x: np.ndarray, y: np.ndarray, side: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Left and bottom edge of the square with most positions."""
    rows, columns = (max(n // side, 1) for n in shape)
    counts, *_ = np.histogram2d(y, x, bins=(rows, columns), range=((0, rows * side), (0, columns * side)))
    row, column = np.unravel_index(np.argmax(counts), counts.shape)
    return int(column) * side, int(row) * side
