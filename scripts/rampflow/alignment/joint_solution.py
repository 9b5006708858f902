"""The joint solution of an association: all exposures at once, from the stars that they share and those of the catalog.

The correction of each exposure is linear in a few terms. The position of a star on the sky is not known; where it is observed
in several exposures, their positions must agree, and where it is in the astrometric catalog, with that one too. The sum over
stars k and their observations m, of ``w_m |y_m + D_m θ − t_k|²``, with w = 1/σ² and y the observed offset from the star's
mean position, is minimal in the terms θ and the positions t. The positions are eliminated, so that the normal equations have
as many unknowns as the exposures have terms. (As in the block adjustment of overlapping plates: Eichhorn 1960, Astron. Nachr.
285, 233.)

Terms that the stars don't determine are constrained by priors: errors of the pointing are common to the exposures of one
group (rotation, and scale by the aberration of light), and the distortion is stable. So the linear terms of each exposure
scatter about those of its group. A few stars then give an exposure a shift of its own, and the linear terms of its group.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from rampflow.alignment.affine import Affine, affine_of_terms, design, terms_of
from rampflow.alignment.exposures import ARCSEC, CatalogedExposure

#: Largest distance of the positions of one star before the solution, arcsec: about a pixel.
STAR_RADIUS = 0.1
#: Standard deviations of an exposure's shift about its initial value (arcsec), and of its linear terms about its group's.
SHIFT_SCATTER = 0.1
LINEAR_SCATTER = 5e-6
#: Standard deviations of a group's rotation (radians), scale and shears about zero.
GROUP_SCATTER = (1e-3, 1e-4, 1e-5, 1e-5)
#: Minimum error of a star of the catalog, arcsec: positions without an error count as almost exact.
LEAST_STAR_ERROR = 1e-5
#: Minimum number of stars (of the catalog, or others) to estimate their errors from their scatter.
MIN_TO_JUDGE = 10
#: Newton steps: the second converges to rounding error, for corrections of arcseconds in a plane of arcminutes.
STEPS = 2

_CATALOG = -1


@dataclasses.dataclass(frozen=True)
class Fit:
    """The joint solution for one exposure.

    Attributes
    ----------
    affine : Affine
        The correction.
    star : numpy.ndarray
        Rows in the catalog of the stars that determined the correction, outliers excluded.
    source : numpy.ndarray
        Row among the sources of each of these stars.
    n_shared : int
        Number of its stars that other exposures have too.
    """

    affine: Affine
    star: np.ndarray
    source: np.ndarray
    n_shared: int


def solve(
    members: list[CatalogedExposure],
    starts: list[Affine],
    catalog: np.ndarray,
    catalog_error: np.ndarray,
    *,
    geometry: str = "general",
    nclip: int = 3,
    sigma: float = 3.0,
) -> list[Fit]:
    """Solve the corrections of all exposures jointly.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures.
    starts : list of Affine
        An initial correction of each, accurate to `STAR_RADIUS`.
    catalog : numpy.ndarray
        Directions of the catalog's stars, (n, 3).
    catalog_error : numpy.ndarray
        Standard deviation of a coordinate, (n,), arcsec.
    geometry : str
        Terms of the corrections, a key of `rampflow.alignment.affine.TERMS`.
    nclip : int
        Maximum number of clipping iterations.
    sigma : float
        Stars whose observations scatter by more than `sigma` times the typical scatter are clipped.

    Returns
    -------
    list of Fit
        The solution for each exposure.
    """
    start = np.array([terms_of(affine, geometry) for affine in starts])
    terms = start
    for _ in range(2):  # the second time with the stars that coincide after the first solution
        observations = _observe(members, terms, catalog, catalog_error)
        used = np.ones(observations.n_stars, bool)
        for clipping in range(nclip + 1):
            for _ in range(STEPS):
                terms = terms + _step(members, observations, used, terms, start)
                observations = observations.moved(members, terms)
            if clipping < nclip:
                used, before = observations.agreeing(sigma), used
                if (used == before).all():
                    break
            observations = observations.weighed(used)
    return [_fit(index, affine_of_terms(terms[index]), observations, used) for index in range(len(members))]


# ---------------------------------------------------------------------------------------------------------- observations
@dataclasses.dataclass(frozen=True)
class _Observations:
    """Observations of stars by the exposures and the catalog; one row per observation, sorted by star."""

    member: np.ndarray  # index of the exposure, or _CATALOG
    row: np.ndarray  # row among its sources, or in the catalog
    star: np.ndarray
    variance: np.ndarray  # of a coordinate, arcsec²
    direction: np.ndarray  # unit vectors
    excess: float = 0.0  # variance that the catalog's errors leave unexplained
    factor: float = 1.0  # by which errors of sources outside the catalog are underestimated, relative to its stars

    @property
    def n_stars(self) -> int:
        return int(self.star[-1]) + 1 if self.star.size else 0

    @property
    def weight(self) -> np.ndarray:
        """Inverse variance of each observation, inflated to the observed scatter, arcsec⁻²."""
        variance = np.where(self.of_catalog[self.star], self.variance, self.factor * self.variance)
        return 1 / (variance + np.where(self.member == _CATALOG, self.excess, 0))

    @property
    def of_catalog(self) -> np.ndarray:
        """Whether each star is in the catalog."""
        result = np.zeros(self.n_stars, bool)
        result[self.star[self.member == _CATALOG]] = True
        return result

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each star's observations."""
        return _summation(self.star, self.n_stars) @ values

    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (n, 2) of the observations from their star's mean position, arcsec, and the star's axes (n, 2, 3)."""
        mean = self.sums(self.weight[:, None] * self.direction)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        axes = _axes(mean)[self.star]
        return np.einsum("nij,nj->ni", axes, self.direction - mean[self.star]) / ARCSEC, axes

    def moved(self, members, terms) -> _Observations:
        """The observations with the corrections of other terms (n_members, n_terms)."""
        direction = self.direction.copy()
        for index, member in enumerate(members):
            own = self.member == index
            direction[own] = member.to_sky(affine_of_terms(terms[index])(member.plane[self.row[own]]))
        return dataclasses.replace(self, direction=direction)

    def reduced(self) -> np.ndarray:
        """χ² of each star per degree of freedom."""
        squares = self.sums(self.weight * (self.offsets()[0] ** 2).sum(axis=1))
        return squares / (2 * (np.bincount(self.star, minlength=self.n_stars) - 1))

    def agreeing(self, sigma: float) -> np.ndarray:
        """Whether the scatter of each star is less than `sigma` times the typical scatter."""
        reduced = self.reduced()
        # χ² of two degrees of freedom has the median 2 ln 2; the clipping threshold is in standard deviations.
        return reduced < sigma**2 * np.median(reduced) / np.log(2) if reduced.size else np.ones(0, bool)

    def weighed(self, used: np.ndarray) -> _Observations:
        """The observations with variances inflated to the observed scatter of the stars in use.

        Years after the epoch of a catalog, its faint stars are less accurate than their listed errors. Most sources that the
        exposures share and the catalog doesn't have are galaxies, whose positions by PSF fits are several times less accurate
        than their listed errors. With these errors they would outweigh the stars.
        """
        reduced, of_catalog = self.reduced(), self.of_catalog
        groups = (reduced[used & of_catalog], reduced[used & ~of_catalog])
        stars, others = (float(np.median(g)) if len(g) >= MIN_TO_JUDGE else 1.0 for g in groups)
        self = dataclasses.replace(self, factor=self.factor * max(1.0, others / min(stars, 1.0)) if others > 0 else self.factor)
        in_catalog = self.member == _CATALOG
        has_catalog = (self.sums(in_catalog.astype(float)) > 0) & used
        chosen = in_catalog & has_catalog[self.star]
        if not chosen.any():
            return self
        offset, _ = self.offsets()
        own = self.weight[chosen]
        others = self.sums(self.weight)[self.star[chosen]] - own
        # Offset from the mean of the other observations: the offset from the mean of all, times all weights over the others'.
        distance = (offset[chosen] ** 2).sum(axis=1) * ((own + others) / others) ** 2
        expected = self.variance[chosen] + 1 / others
        excess = max(0.0, float(np.median(distance) / (2 * np.log(2)) - np.median(expected)))
        return dataclasses.replace(self, excess=excess)


def _observe(members, terms, catalog, catalog_error) -> _Observations:
    """Find the stars: positions within `STAR_RADIUS` of each other are one, unless one exposure sees two of them."""
    index = np.concatenate(
        [np.full(len(m.plane), i) for i, m in enumerate(members)] + [np.full(len(catalog), _CATALOG)]
    ).astype(int)
    row = np.concatenate([np.arange(len(m.plane)) for m in members] + [np.arange(len(catalog))]).astype(int)
    direction = np.concatenate([m.to_sky(affine_of_terms(t)(m.plane)) for m, t in zip(members, terms, strict=True)] + [catalog])
    variance = np.concatenate([m.error for m in members] + [np.maximum(catalog_error, LEAST_STAR_ERROR)]) ** 2
    label = clusters(direction, STAR_RADIUS)
    # A star with one observation adds nothing, and one with two of the same exposure is not one star.
    seen, counts = np.unique(np.column_stack([label, index]), axis=0, return_counts=True)
    exposures = np.bincount(seen[:, 0])
    confused = np.zeros(len(exposures), bool)
    confused[seen[counts > 1, 0]] = True
    kept = np.flatnonzero(((exposures > 1) & ~confused)[label])
    kept = kept[np.argsort(label[kept], kind="stable")]
    _, star = np.unique(label[kept], return_inverse=True)
    return _Observations(index[kept], row[kept], star, variance[kept], direction[kept])


def clusters(directions: np.ndarray, radius: float) -> np.ndarray:
    """Group directions within some distance of each other.

    Parameters
    ----------
    directions : numpy.ndarray
        Unit vectors, (n, 3).
    radius : float
        Distance, arcsec.

    Returns
    -------
    numpy.ndarray
        Number of the group of each direction, (n,).
    """
    pairs = (
        cKDTree(directions).query_pairs(radius * ARCSEC, output_type="ndarray") if len(directions) else np.empty((0, 2), int)
    )
    graph = sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(directions),) * 2)
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def _axes(directions: np.ndarray) -> np.ndarray:
    """Two unit vectors (n, 2, 3) across each direction."""
    helper = np.eye(3)[np.abs(directions).argmin(axis=1)]  # the axis farthest from the direction, so that no pole is singular
    first = np.cross(helper, directions)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(directions, first)], axis=1)


def _summation(star: np.ndarray, n_stars: int):
    return sparse.csr_array((np.ones(len(star)), (star, np.arange(len(star)))), shape=(n_stars, len(star)))


# --------------------------------------------------------------------------------------------------------------- solving
def _step(members, observations, used, terms, start) -> np.ndarray:
    """Newton's step of all terms (n_members, n_terms)."""
    n_members, n_terms = terms.shape
    matrix, gradient = _priors(members, terms, start)
    kept = used[observations.star] if observations.n_stars else np.zeros(0, bool)
    if kept.any():
        offset, axes = observations.offsets()
        values, columns = np.zeros((len(kept), 2, n_terms)), np.zeros((len(kept), 2, n_terms), int)
        for index, member in enumerate(members):
            own = np.flatnonzero(observations.member == index)
            plane = member.plane[observations.row[own]]
            # d(direction)/d(plane), across the direction, in arcsec per arcsec; the plane's scale grows with the distance.
            stretch = np.sqrt(1 + ((affine_of_terms(terms[index])(plane) * ARCSEC) ** 2).sum(axis=1))
            across = axes[own] @ member.rotation[:, 1:] / stretch[:, None, None]
            values[own] = across @ design(plane, n_terms)
            columns[own] = index * n_terms + np.arange(n_terms)
        weight = np.where(kept, observations.weight, 0)
        summation = sparse.kron(_summation(observations.star, observations.n_stars), sparse.eye_array(2), format="csr")
        rows = np.repeat(np.arange(2 * len(kept)), n_terms)
        derivative = sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=(2 * len(kept), matrix.shape[0]))
        weights = sparse.diags_array(np.repeat(weight, 2))
        weighted = weights @ derivative
        per_star = summation @ weighted
        total = np.repeat(observations.sums(weight), 2)
        inverse = sparse.diags_array(np.divide(1, total, out=np.zeros_like(total), where=total > 0))
        matrix = matrix + (derivative.T @ weighted - per_star.T @ inverse @ per_star).toarray()
        y = offset.ravel()
        gradient = gradient + weighted.T @ y - per_star.T @ (inverse @ (summation @ (weights @ y)))
    return -np.linalg.solve(matrix, gradient)[: terms.size].reshape(terms.shape)


def _priors(members, terms, start) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix and gradient of the priors; the unknowns are the terms, then the groups' linear terms.

    The groups' terms are linear in the others, so that each step solves for them from zero.
    """
    n_terms = terms.shape[1]
    n_linear = n_terms - 2
    groups = {group: number for number, group in enumerate(dict.fromkeys(m.group for m in members))}
    size = terms.size + len(groups) * n_linear
    matrix, gradient = np.zeros((size, size)), np.zeros(size)
    linear = np.arange(n_linear)
    for index, member in enumerate(members):
        shift = index * n_terms + np.arange(2)
        matrix[shift, shift] += SHIFT_SCATTER**-2
        gradient[shift] += (terms[index, :2] - start[index, :2]) / SHIFT_SCATTER**2
        own, common = index * n_terms + 2 + linear, terms.size + groups[member.group] * n_linear + linear
        weight = LINEAR_SCATTER**-2
        matrix[own, own] += weight
        matrix[common, common] += weight
        matrix[own, common] -= weight
        matrix[common, own] -= weight
        gradient[own] += weight * terms[index, 2:]
        gradient[common] -= weight * terms[index, 2:]
    of_groups = np.arange(terms.size, size)
    matrix[of_groups, of_groups] += np.tile(np.array(GROUP_SCATTER[:n_linear]) ** -2.0, len(groups))
    return matrix, gradient


def _fit(index: int, affine: Affine, observations: _Observations, used: np.ndarray) -> Fit:
    """The solution for one exposure."""
    own = (observations.member == index) & (used[observations.star] if observations.n_stars else False)
    row_in_catalog = np.full(observations.n_stars, -1)
    from_catalog = observations.member == _CATALOG
    row_in_catalog[observations.star[from_catalog]] = observations.row[from_catalog]
    exposures = np.bincount(observations.star[~from_catalog], minlength=observations.n_stars)
    star, source = observations.star[own], observations.row[own]
    matched = row_in_catalog[star] >= 0
    return Fit(affine, row_in_catalog[star][matched], source[matched], int((exposures[star] > 1).sum()))
