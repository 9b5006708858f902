"""Corrections of positions in an exposure's plane: p → A p + s, made of a few terms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Terms of each fitting geometry: two of the shift (arcsec), rotation (radians), scale, and the two of the shear.
TERMS = {"shift": 2, "rshift": 3, "rscale": 4, "general": 6}

#: Matrices of the linear terms, in the order of the terms: rotation, scale, shear along the axes and along the diagonals.
_LINEAR = np.array([[[0, -1], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]], float)


class Affine(NamedTuple):
    """Affine map p → matrix p + shift, p and shift in arcsec."""

    matrix: np.ndarray
    shift: np.ndarray

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """Corrected positions (n, 2)."""
        return plane @ self.matrix.T + self.shift

    def undo(self, plane: np.ndarray) -> np.ndarray:
        """Positions (n, 2) before the correction."""
        return np.linalg.solve(self.matrix, (plane - self.shift).T).T

    def rotation_and_scale(self) -> tuple[float, float]:
        """Mean rotation in degrees, of the sign of tweakwcs's, and mean scale."""
        (a, b), (c, d) = self.matrix
        return float(np.degrees(np.arctan2(b - c, a + d))), float(np.sqrt(abs(a * d - b * c)))


NO_CORRECTION = Affine(np.eye(2), np.zeros(2))


def of_terms(terms: np.ndarray) -> Affine:
    """The correction that some terms make."""
    return Affine(np.eye(2) + np.tensordot(terms[2:], _LINEAR[: len(terms) - 2], 1), np.array(terms[:2]))


def terms_of(affine: Affine, geometry: str) -> np.ndarray:
    """The terms of a correction that a fitting geometry has."""
    # The linear matrices are orthogonal to each other and have the norm √2.
    linear = np.tensordot(_LINEAR, affine.matrix - np.eye(2), 2) / 2
    return np.concatenate([affine.shift, linear])[: TERMS[geometry]]


def design(plane: np.ndarray, n_terms: int) -> np.ndarray:
    """Derivatives (n, 2, n_terms) of corrected positions with respect to the terms, at positions (n, 2)."""
    shift = np.broadcast_to(np.eye(2), (len(plane), 2, 2))
    linear = np.einsum("tij,nj->nit", _LINEAR[: n_terms - 2], plane)
    return np.concatenate([shift, linear], axis=2)


def between(before: np.ndarray, after: np.ndarray) -> Affine:
    """The correction that takes some positions (n ≥ 3, 2) to others, by least squares."""
    solution = np.linalg.lstsq(np.column_stack([before, np.ones(len(before))]), after, rcond=None)[0]
    return Affine(solution[:2].T, solution[2])
