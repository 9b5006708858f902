"""The alignment with the astrometric catalog: residuals before and after."""

from __future__ import annotations

import dataclasses

import numpy as np

from rampflow.alignment.joint_solution import STAR_RADIUS
from rampflow.errors import counted
from rampflow.pictures.figures import BLACK, BLUE, RED, SKY, new_figure, picture
from rampflow.pictures.image import compass_directions, sky_center, tangent_plane

ARCSEC = 3600  #: per degree
MAS = 1000  #: per arcsec


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Offsets of the sources of an exposure from the stars of the catalog that they are.

    Attributes
    ----------
    x, y : numpy.ndarray
        Positions on the detector, pixels.
    before, after : numpy.ndarray
        Offsets to the east and the north before and after the alignment, mas, of shape (n, 2).
    """

    x: np.ndarray
    y: np.ndarray
    before: np.ndarray
    after: np.ndarray


def measure_residuals(
    x: np.ndarray, y: np.ndarray, before: np.ndarray, after: np.ndarray, stars: np.ndarray
) -> Residuals | None:
    """Find the stars of the catalog among the sources of an exposure, by their aligned positions.

    Parameters
    ----------
    x, y : numpy.ndarray
        Positions of the sources, pixels.
    before, after : numpy.ndarray
        Right ascension and declination (degrees) by the WCS of the pointing and by the aligned one, of shape (n, 2).
    stars : numpy.ndarray
        Right ascension and declination of the stars, of shape (m, 2).

    Returns
    -------
    Residuals or None
        Residuals of the pairs of a source and a star that are each other's nearest, and not farther apart than the alignment
        takes for one star; `None` without any.
    """
    from scipy.spatial import cKDTree

    known = np.isfinite(np.column_stack([x, y, before, after])).all(axis=1)
    if not known.any() or not len(stars):
        return None
    x, y, before, after = x[known], y[known], before[known], after[known]
    center = sky_center(after)
    near = stars[np.abs(stars[:, 1] - center[1]) < 5]  # the tangent plane has no place for the far side of the sky
    if not len(near):
        return None
    planes = [ARCSEC * tangent_plane(positions, center) for positions in (before, after, near)]
    distance, source = cKDTree(planes[1]).query(planes[2], distance_upper_bound=STAR_RADIUS)
    _, star = cKDTree(planes[2]).query(planes[1])
    mutual = np.isfinite(distance)
    mutual[mutual] = star[source[mutual]] == np.flatnonzero(mutual)
    if not mutual.any():
        return None
    source = source[mutual]
    offsets = (MAS * (plane[source] - planes[2][mutual]) for plane in planes[:2])
    return Residuals(x[source], y[source], *offsets)


def rms(offsets: np.ndarray) -> float:
    """Compute the root mean square length of offsets.

    Parameters
    ----------
    offsets : numpy.ndarray
        Offsets, of shape (n, 2).

    Returns
    -------
    float
        The length, in their unit.
    """
    return float(np.sqrt((offsets**2).sum(axis=1).mean()))


def quiver_picture(residuals: Residuals, corners: np.ndarray, shape: tuple[int, int]) -> dict:
    """Draw residuals on the detector, before and after the alignment.

    Parameters
    ----------
    residuals : Residuals
        The residuals of one exposure.
    corners : numpy.ndarray
        Corners of its footprint, of `rampflow.pictures.image.corners_of`.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    dict
        The picture.
    """
    north, east, _ = compass_directions(corners, shape)
    figure = new_figure(2.9)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, offsets, name in ((axes[0], residuals.before, "before"), (axes[1], residuals.after, "after")):
        arrows = offsets @ np.stack([east, north])
        longest = np.percentile(np.linalg.norm(offsets, axis=1), 90) or 1.0
        key = _round_length(longest)
        quiver = axis.quiver(
            residuals.x, residuals.y, *arrows.T, color=BLUE, angles="xy", scale=longest / 0.2, scale_units="width", width=0.006
        )
        axis.quiverkey(quiver, 0.12, 1.06, key, f"{key:g} mas", labelpos="E", fontproperties={"size": 8})
        axis.set_title(f"{name}: rms {_length(rms(offsets))}", fontsize=9, pad=22)
        axis.set(xlim=(0, shape[1]), ylim=(0, shape[0]), aspect="equal", xlabel="x (pixel)")
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("y (pixel)")
    caption = (
        f"Sources less the catalog's stars, before and after the alignment; the scales differ. The rms is of all "
        f"{counted(len(residuals.x), 'pair')} within {STAR_RADIUS:g} arcsec, outliers included; the rmse in the tables is of "
        "the stars that decided the solution."
    )
    return picture(figure, "Alignment residuals", caption)


def _length(mas: float) -> str:
    return f"{mas:.3g} mas" if mas < 1000 else f'{mas / 1000:.3g}"'


def _round_length(length: float) -> float:
    """A length near `length` that is 1, 2 or 5 times a power of ten."""
    power = 10 ** np.floor(np.log10(max(length, 1e-3)))
    return float(power * (1 if length < 2 * power else 2 if length < 5 * power else 5))


def residual_picture(before: np.ndarray, after: np.ndarray) -> dict:
    """Draw histograms of the residuals of all exposures, before and after the alignment.

    Parameters
    ----------
    before, after : numpy.ndarray
        Offsets to the east and the north, mas, of shape (n, 2).

    Returns
    -------
    dict
        The picture.
    """
    figure = new_figure(4.4)
    for axis, offsets, name in zip(figure.subplots(2, 1), (before, after), ("before", "after"), strict=True):
        # Those few that are far off would squeeze all others into one bar.
        low, high = np.percentile(offsets, (1, 99))
        margin = 0.2 * (high - low) + 1e-3
        edges = np.linspace(low - margin, high + margin, 41)
        for values, label, color, filled in zip(offsets.T, ("east", "north"), (SKY, RED), (True, False), strict=True):
            text = f"{label}: mean {values.mean():.3g}, σ {values.std():.3g} mas"
            kind = "stepfilled" if filled else "step"
            axis.hist(values.clip(*edges[[0, -1]]), edges, color=color, histtype=kind, lw=1.4, label=text)
        axis.axvline(0, 0, 0.7, color=BLACK, lw=0.8)
        axis.set(title=f"{name} the alignment", ylabel="stars", xlabel="source less catalog (mas)")
        axis.legend(loc="upper left", fontsize=7)
        axis.set_ylim(top=1.35 * axis.get_ylim()[1])
    caption = f"Residuals of {counted(len(after), 'pair')} of a source and a star, all exposures together; the scales differ."
    return picture(figure, "Residuals before and after", caption)
