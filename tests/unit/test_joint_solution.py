"""The joint solution of many exposures: groups of close positions, linear equations, corrections of hundreds of members."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from rampflow.alignment.affine import NO_CORRECTION, affine_of_terms
from rampflow.alignment.exposures import ARCSEC
from rampflow.alignment.joint_solution import clusters, solve

RADIUS = 0.1
NOISE = 0.0015  # arcsec


def directions(plane):
    """Unit vectors of positions in a tangent plane, arcsec."""
    vectors = np.column_stack([np.ones(len(plane)), plane * ARCSEC])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def groups_by_all_pairs(vectors):
    pairs = cKDTree(vectors).query_pairs(RADIUS * ARCSEC, output_type="ndarray")
    graph = sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(vectors),) * 2)
    return sparse.csgraph.connected_components(graph, directed=False)[1]


@pytest.mark.parametrize(("span", "copies", "scatter"), [(30, 1, 0), (10, 3, 0.05), (5, 20, 0.06), (100, 30, 0.005)])
def test_groups_are_those_of_all_pairs(span, copies, scatter):
    rng = np.random.default_rng(copies)
    plane = np.repeat(rng.uniform(-span / 2, span / 2, (300, 2)), copies, axis=0)
    vectors = directions(rng.permutation(plane + rng.normal(0, scatter, plane.shape)))
    vectors = vectors @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    np.testing.assert_array_equal(clusters(vectors, RADIUS), groups_by_all_pairs(vectors))


def test_no_positions_have_no_groups():
    assert clusters(np.empty((0, 3)), RADIUS).size == 0 and clusters(np.array([[1.0, 0, 0]]), RADIUS).tolist() == [0]


def test_hundreds_of_exposures_of_one_field_are_aligned_by_few_stars_of_the_catalog():
    rng = np.random.default_rng(3)
    stars = rng.uniform(-250, 250, (60, 2))
    catalog = directions(stars[:20])
    members, truth = [], []
    for number in range(300):
        affine = affine_of_terms(np.r_[rng.normal(0, 0.02, 2), rng.normal(0, 2e-5), rng.normal(0, 3e-6, 3)])
        plane = affine.undo(stars + rng.normal(0, NOISE, stars.shape))
        error, group = np.full(len(stars), NOISE), f"group {number // 3}"
        members.append(SimpleNamespace(rotation=np.eye(3), plane=plane, error=error, group=group, to_sky=directions))
        truth.append(affine)
    fits = solve(members, [NO_CORRECTION] * len(members), catalog, np.full(len(catalog), 1e-4))
    errors = np.array([fit.affine(stars) - affine(stars) for fit, affine in zip(fits, truth, strict=True)])
    # The mean of all exposures follows the catalog to the noise of 300 exposures; each has that of its 60 stars.
    assert np.abs(errors.mean(axis=(0, 1))).max() < 4 * NOISE / np.sqrt(20 * 300) + 4e-4 / np.sqrt(20)
    assert np.sqrt((errors**2).mean()) < 2 * NOISE * np.sqrt(6 / (2 * 60))
    assert all(len(fit.star) == 20 and fit.n_shared == 60 for fit in fits)
