"""The joint solution of an association: all exposures at once, from the stars that they share and those of the catalog.

The correction of each exposure is linear in a few terms. The position of a star on the sky is not known; where it is observed
in several exposures, their positions must agree, and where it is in the astrometric catalog, with that one too. The sum over
stars k and their observations m, of ``w_m |y_m + D_m θ − t_k|²``, with w = 1/σ² and y the observed offset from the star's
mean position, is minimal in the terms θ and the positions t. The positions are eliminated, so that the normal equations have
as many unknowns as the exposures have terms. (As in the block adjustment of overlapping plates: Eichhorn 1960, Astron. Nachr.
285, 233.) Their matrix couples all exposures that share stars: for a thousand exposures of one field it would have no zeros.
So it is never made; conjugate gradients need only its product with a vector, and time and memory grow with the number of
observations.

Terms that the stars don't determine are constrained by priors: errors of the pointing are common to the exposures of one
group (rotation, and scale by the aberration of light), and the distortion is stable. So the linear terms of each exposure
scatter about those of its group. A few stars then give an exposure a shift of its own, and the linear terms of its group.
"""

from __future__ import annotations

import dataclasses
import functools

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
#: Largest residual of the linear equations of a step, relative to their right-hand side.
PRECISION = 1e-12

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
            observations = observations.with_inflated_variances(used)
    return _fits([affine_of_terms(own) for own in terms], observations, used)


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

    @functools.cached_property
    def of_members(self) -> list[np.ndarray]:
        """Indices of the observations by the catalog, then by each exposure up to the last one that has some."""
        order = np.argsort(self.member, kind="stable")
        return np.split(order, np.searchsorted(self.member[order], np.arange(self.member.max(initial=_CATALOG) + 1)))

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

    def moved(self, members: list[CatalogedExposure], terms: np.ndarray) -> _Observations:
        """The observations with the corrections of other terms (n_members, n_terms)."""
        direction = self.direction.copy()
        for member, own_terms, own in zip(members, terms, self.of_members[1:], strict=False):
            direction[own] = member.to_sky(affine_of_terms(own_terms)(member.plane[self.row[own]]))
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

    def with_inflated_variances(self, used: np.ndarray) -> _Observations:
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
        Number of the group of each direction, (n,). Groups are numbered in the order of their first members.

    Notes
    -----
    A star that a thousand exposures see has half a million pairs of observations, so that the pairs are not listed. Space is
    divided into cells whose diagonal is the distance: all members of a cell belong together. Two cells belong together if the
    boxes around their members tell so, and else if their nearest members do.
    """
    count = len(directions)
    if not count:
        return np.empty(0, int)
    distance = radius * ARCSEC
    cells = np.floor(directions / (distance / np.sqrt(3))).astype(np.int64)
    order = np.lexsort(cells.T)
    is_first = np.r_[True, (np.diff(cells[order], axis=0) != 0).any(axis=1)]
    begins = np.flatnonzero(is_first)
    ordered = directions[order]
    lower, upper = (extreme.reduceat(ordered, begins) for extreme in (np.minimum, np.maximum))
    first, second = cKDTree((lower + upper) / 2).query_pairs(2 * distance, output_type="ndarray").T
    nearest = np.linalg.norm(np.maximum(0, np.maximum(lower[second] - upper[first], lower[first] - upper[second])), axis=1)
    farthest = np.linalg.norm(np.maximum(upper[second] - lower[first], upper[first] - lower[second]), axis=1)
    linked = farthest <= distance
    label = _connected(first[linked], second[linked], len(begins))
    open_pairs = np.flatnonzero((nearest <= distance) & ~linked & (label[first] != label[second]))
    members = np.split(ordered, begins[1:])
    for pair in open_pairs:
        tree = cKDTree(members[first[pair]])
        linked[pair] = np.isfinite(tree.query(members[second[pair]], distance_upper_bound=distance)[0]).any()
    label = _connected(first[linked], second[linked], len(begins))
    result = np.empty(count, int)
    result[order] = label[np.cumsum(is_first) - 1]
    _, appears, inverse = np.unique(result, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appears))[inverse]


def _connected(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """The number of the connected component of each node, of edges between nodes `first` and `second`."""
    graph = sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(size, size))
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
    priors, gradient = _priors(members, terms, start)
    kept = used[observations.star] if observations.n_stars else np.zeros(0, bool)
    if not kept.any():
        return -sparse.linalg.spsolve(priors, gradient)[: terms.size].reshape(terms.shape)
    offset, axes = observations.offsets()
    weight = np.where(kept, observations.weight, 0)
    total = observations.sums(weight)
    inverse = np.divide(1, total, out=np.zeros_like(total), where=total > 0)

    def _weighted(values):
        """Weights times what each star's observations, (n, 2), differ by from their mean."""
        mean = inverse[:, None] * observations.sums(weight[:, None] * values)
        return weight[:, None] * (values - mean[observations.star])

    derivative, blocks = _derivative(members, observations, terms, axes, weight * (1 - weight * inverse[observations.star]))

    def _product(vector):
        """The normal matrix times a vector."""
        weighted = _weighted((derivative @ vector[: terms.size]).reshape(-1, 2))
        result = priors @ vector
        result[: terms.size] += derivative.T @ weighted.ravel()
        return result

    gradient[: terms.size] += derivative.T @ _weighted(offset).ravel()
    # The part of each exposure by itself, with the priors, which alone couple exposures: its factors have few elements.
    padding = sparse.csr_array((priors.shape[0] - terms.size,) * 2)
    alone = sparse.linalg.splu(sparse.csc_array(priors + sparse.block_diag([*blocks, padding])), permc_spec="MMD_AT_PLUS_A")
    matrix = sparse.linalg.LinearOperator(priors.shape, matvec=_product, dtype=float)
    precondition = sparse.linalg.LinearOperator(priors.shape, matvec=alone.solve, dtype=float)
    step, _ = sparse.linalg.cg(matrix, -gradient, rtol=PRECISION, atol=0, M=precondition)
    return step[: terms.size].reshape(terms.shape)


def _derivative(members, observations, terms, axes, weight):
    """Derivatives of the offsets (2 n) by the terms, a sparse array; and for each exposure their square with these weights."""
    n_terms = terms.shape[1]
    count = len(observations.member)
    values, columns = np.zeros((count, 2, n_terms)), np.zeros((count, 2, n_terms), np.int32)
    blocks = [np.zeros((n_terms, n_terms))] * len(members)
    for index, own in enumerate(observations.of_members[1:]):
        member = members[index]
        plane = member.plane[observations.row[own]]
        # d(direction)/d(plane), across the direction, in arcsec per arcsec; the plane's scale grows with the distance.
        stretch = np.sqrt(1 + ((affine_of_terms(terms[index])(plane) * ARCSEC) ** 2).sum(axis=1))
        across = axes[own] @ member.rotation[:, 1:] / stretch[:, None, None]
        values[own] = across @ design(plane, n_terms)
        columns[own] = index * n_terms + np.arange(n_terms)
        blocks[index] = np.einsum("nij,nik,n->jk", values[own], values[own], weight[own], optimize=True)
    begins = np.arange(0, 2 * count * n_terms + 1, n_terms)
    return sparse.csr_array((values.ravel(), columns.ravel(), begins), shape=(2 * count, terms.size)), blocks


def _priors(members, terms, start):
    """Normal matrix (sparse) and gradient of the priors; the unknowns are the terms, then the groups' linear terms.

    The groups' terms are linear in the others, so that each step solves for them from zero.
    """
    n_members, n_terms = terms.shape
    n_linear = n_terms - 2
    groups = {group: number for number, group in enumerate(dict.fromkeys(m.group for m in members))}
    size = terms.size + len(groups) * n_linear
    number = np.array([groups[m.group] for m in members])
    # Unknowns of each exposure, (n_members, 2 or n_linear): its shift, its linear terms, and those of its group.
    shift, own = np.split(np.arange(terms.size).reshape(n_members, n_terms), [2], axis=1)
    common = terms.size + number[:, None] * n_linear + np.arange(n_linear)
    diagonal, gradient = np.zeros(size), np.zeros(size)
    diagonal[shift] = SHIFT_SCATTER**-2
    gradient[shift] = (terms[:, :2] - start[:, :2]) / SHIFT_SCATTER**2
    weight = LINEAR_SCATTER**-2
    diagonal[own] = weight
    gradient[own] = weight * terms[:, 2:]
    np.add.at(diagonal, common, weight)
    np.add.at(gradient, common, -weight * terms[:, 2:])
    diagonal[terms.size :] += np.tile(np.array(GROUP_SCATTER[:n_linear]) ** -2.0, len(groups))
    rows, columns = np.concatenate([own.ravel(), common.ravel()]), np.concatenate([common.ravel(), own.ravel()])
    coupling = sparse.coo_array((np.full(rows.size, -weight), (rows, columns)), shape=(size, size))
    return sparse.csr_array(sparse.diags_array(diagonal) + coupling), gradient


def _fits(affines: list[Affine], observations: _Observations, used: np.ndarray) -> list[Fit]:
    """The solution for each exposure."""
    row_in_catalog = np.full(observations.n_stars, -1)
    from_catalog = observations.member == _CATALOG
    row_in_catalog[observations.star[from_catalog]] = observations.row[from_catalog]
    exposures = np.bincount(observations.star[~from_catalog], minlength=observations.n_stars)
    nothing = np.empty(0, int)
    seen = observations.of_members[1:]
    fits = []
    for affine, own in zip(affines, seen + [nothing] * (len(affines) - len(seen)), strict=True):
        own = own[used[observations.star[own]]]
        star, source = observations.star[own], observations.row[own]
        matched = row_in_catalog[star] >= 0
        fits.append(Fit(affine, row_in_catalog[star][matched], source[matched], int((exposures[star] > 1).sum())))
    return fits
