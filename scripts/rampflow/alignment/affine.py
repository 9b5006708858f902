"""Affine corrections of positions in the tangent plane of an exposure, p → A p + s, made of a few terms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Terms of each fitting geometry: two of the shift (arcsec), rotation (radians), scale, and the two of the shear.
TERMS = {"shift": 2, "rshift": 3, "rscale": 4, "general": 6}

#: Matrices of the linear terms, in the order of the terms: rotation, scale, shear along the axes and along the diagonals.
_LINEAR = np.array([[[0, -1], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]], float)


class Affine(NamedTuple):
    """An affine correction, p → matrix p + shift.

    Attributes
    ----------
    matrix : numpy.ndarray
        Linear part, dimensionless, (2, 2).
    shift : numpy.ndarray
        Shift, arcsec, (2,).
    """

    matrix: np.ndarray
    shift: np.ndarray

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """Corrected positions (n, 2) of positions (n, 2), arcsec."""
        return plane @ self.matrix.T + self.shift

    def undo(self, plane: np.ndarray) -> np.ndarray:
        """Invert the correction.

        Parameters
        ----------
        plane : numpy.ndarray
            Corrected positions, (n, 2), arcsec.

        Returns
        -------
        numpy.ndarray
            Positions before the correction, (n, 2), arcsec.
        """
        return np.linalg.solve(self.matrix, (plane - self.shift).T).T

    def rotation_and_scale(self) -> tuple[float, float]:
        """Compute the mean rotation and scale of the correction.

        Returns
        -------
        rotation : float
            Rotation, degrees, with the sign of tweakwcs.
        scale : float
            Scale, dimensionless.
        """
        (a, b), (c, d) = self.matrix
        return float(np.degrees(np.arctan2(b - c, a + d))), float(np.sqrt(abs(a * d - b * c)))


NO_CORRECTION = Affine(np.eye(2), np.zeros(2))


def affine_of_terms(terms: np.ndarray) -> Affine:
    """Make a correction from its terms.

    Parameters
    ----------
    terms : numpy.ndarray
        Shift (arcsec), then as many of the linear terms (rotation in radians, scale, shears) as the geometry has, (2 to 6,).

    Returns
    -------
    Affine
        The correction.
    """
    return Affine(np.eye(2) + np.tensordot(terms[2:], _LINEAR[: len(terms) - 2], 1), np.array(terms[:2]))


def terms_of(affine: Affine, geometry: str) -> np.ndarray:
    """Extract the terms of a correction.

    Parameters
    ----------
    affine : Affine
        The correction.
    geometry : str
        A key of `TERMS`.

    Returns
    -------
    numpy.ndarray
        The terms, see `affine_of_terms`; terms that the geometry doesn't have are left out.
    """
    # The linear matrices are orthogonal to each other and have the norm √2.
    linear = np.tensordot(_LINEAR, affine.matrix - np.eye(2), 2) / 2
    return np.concatenate([affine.shift, linear])[: TERMS[geometry]]


def design(plane: np.ndarray, n_terms: int) -> np.ndarray:
    """Compute the derivatives of corrected positions with respect to the terms.

    Parameters
    ----------
    plane : numpy.ndarray
        Positions, (n, 2), arcsec.
    n_terms : int
        Number of terms, 2 to 6.

    Returns
    -------
    numpy.ndarray
        Derivatives, (n, 2, n_terms).
    """
    shift = np.broadcast_to(np.eye(2), (len(plane), 2, 2))
    linear = np.einsum("tij,nj->nit", _LINEAR[: n_terms - 2], plane)
    return np.concatenate([shift, linear], axis=2)


def fit_affine(before: np.ndarray, after: np.ndarray) -> Affine:
    """Fit the correction that takes some positions to others, by least squares.

    Parameters
    ----------
    before, after : numpy.ndarray
        Positions, (n, 2) with n ≥ 3, arcsec.

    Returns
    -------
    Affine
        The correction.
    """
    solution = np.linalg.lstsq(np.column_stack([before, np.ones(len(before))]), after, rcond=None)[0]
    return Affine(solution[:2].T, solution[2])
