"""Matching of two lists of positions with tweakwcs, and the limits of a plausible correction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rampflow.alignment.affine import TERMS, Affine
from rampflow.errors import RampflowError, counted
from rampflow.step.logs import step_logger

if TYPE_CHECKING:
    from tweakwcs.matchutils import XYXYMatch

    from rampflow.alignment.exposures import CatalogedExposure

log = step_logger("tweakreg")

#: Largest search radius, arcsec: more than the width of a detector. The histogram of the offsets has one cell per pixel. With
#: this radius it takes 1 GB, and its memory grows with the square of the radius.
LARGEST_SEARCH = 600.0
#: Clipping threshold beyond which no star is clipped: its square must be a number.
LARGEST_SIGMA = 1e9


class Matching(NamedTuple):
    """How two lists of positions are matched and a correction is fitted to the matches; see the parameters of tweakreg."""

    minobj: int
    searchrad: float
    use2dhist: bool
    separation: float
    tolerance: float
    fitgeometry: str
    nclip: int
    sigma: float

    @classmethod
    def of_parameters(cls, parameters: dict, prefix: str = "") -> Matching:
        """Make a matching from the parameters of the step with a prefix.

        Parameters
        ----------
        parameters : dict
            Parameters of the step, name to value.
        prefix : str
            Prefix of their names: ``""`` between exposures, ``"abs_"`` with the astrometric catalog.

        Returns
        -------
        Matching
            The matching.

        Raises
        ------
        RampflowError
            The parameters contradict each other.
        """
        matching = cls(*(parameters[prefix + name] for name in cls._fields))
        matching = matching._replace(sigma=min(matching.sigma, LARGEST_SIGMA))
        if matching.separation <= np.sqrt(2) * matching.tolerance:
            raise RampflowError(
                f"{prefix}separation ({matching.separation} arcsec) must be more than √2 times {prefix}tolerance "
                f"({matching.tolerance} arcsec), or one star could match two: increase the former or decrease the latter"
            )
        for name in ("searchrad", "tolerance", "sigma"):
            if getattr(matching, name) <= 0:
                raise RampflowError(f"{prefix}{name} is {getattr(matching, name)}; it must be positive")
        if matching.use2dhist and matching.searchrad > LARGEST_SEARCH:
            raise RampflowError(
                f"{prefix}searchrad is {matching.searchrad:g} arcsec; the maximum is {LARGEST_SEARCH:g}, as "
                "the memory of the search grows with its square: lower it"
            )
        return matching

    @property
    def largest_move(self) -> float:
        """Largest plausible shift of a corner of an image; beyond it, the matches are false.

        Returns
        -------
        float
            Shift, arcsec; romancal's limit.
        """
        return 2 * self.largest_shift

    @property
    def largest_shift(self) -> float:
        """Largest shift that the matching looks for.

        Returns
        -------
        float
            Shift, arcsec.
        """
        return self.tolerance + (self.searchrad if self.use2dhist else 0)

    @property
    def advice(self) -> str:
        """The parameter to change if nothing matches.

        Returns
        -------
        str
            Advice for a message.
        """
        return "try a larger abs_searchrad" if self.use2dhist else "set abs_use2dhist: true to search for the offset"

    def trials(self, radius: np.ndarray | float) -> np.ndarray | float:
        """Compute the number of corrections that a search tries, for pairs within some radius.

        Parameters
        ----------
        radius : float or numpy.ndarray
            Largest distance of a pair, arcsec.

        Returns
        -------
        float or numpy.ndarray
            Number of corrections, same shape as `radius`.

        Notes
        -----
        The shift may be any within the search radius and the tolerance. It is chosen for the most pairs, where shifts that
        differ by a quarter of the radius count as different. The linear terms are fitted to pairs within the tolerance, so
        that none of them moves a position by more than that.
        """
        shifts = 1 + 8 * self.largest_shift / radius
        linear = 1 + 2 * self.tolerance / radius
        return shifts**2 * linear ** (TERMS[self.fitgeometry] - 2)

    def matcher(self) -> XYXYMatch:
        """Make the matching of tweakwcs: a two-dimensional histogram of the offsets, then the nearest neighbors.

        Returns
        -------
        tweakwcs.matchutils.XYXYMatch
            The matching.
        """
        from tweakwcs.matchutils import XYXYMatch

        return XYXYMatch(
            searchrad=self.searchrad, separation=self.separation, use2dhist=self.use2dhist, tolerance=self.tolerance
        )

    def is_plausible(self, member: CatalogedExposure, affine: Affine) -> bool:
        """Test whether a correction moves no corner of an exposure by more than the largest move.

        Parameters
        ----------
        member : CatalogedExposure
            The exposure.
        affine : Affine
            The correction.

        Returns
        -------
        bool
            Whether it moves none by more.
        """
        return bool((np.linalg.norm(affine(member.corners) - member.corners, axis=1) < self.largest_move).all())

    def align(self, member: CatalogedExposure, directions: np.ndarray) -> tuple[Affine | None, str]:
        """Align one exposure to stars.

        Parameters
        ----------
        member : CatalogedExposure
            The exposure.
        directions : numpy.ndarray
            Directions of the stars, (n, 3).

        Returns
        -------
        affine : Affine or None
            The correction; `None` if too few sources match, or if the matches move the exposure too far.
        reason : str
            Why there is no correction; empty if there is one.
        """
        from astropy.table import Table
        from tweakwcs.linearfit import NotEnoughPointsError, SingularMatrixError, iter_linear_fit

        near, n_sources = member.near(directions, self.searchrad + self.tolerance), len(member.plane)
        fewest = (TERMS[self.fitgeometry] + 1) // 2
        if min(len(near), n_sources) < max(self.minobj, fewest):
            least = max(self.minobj, fewest)
            known = f"{counted(n_sources, 'source')} and {counted(len(near), 'star')} near it"
            return None, f"{known}; a fit needs {counted(least, 'match', 'matches')}"
        # Stars with a close neighbor are not matched here, but count after the solution: half of minobj suffices for a start.
        least = max((self.minobj + 1) // 2, fewest)
        stars = member.to_plane(directions[near])
        lists = [Table({"TPx": positions[:, 0], "TPy": positions[:, 1]}) for positions in (stars, member.plane)]
        try:
            star, source = self.matcher()(*lists, tp_pscale=member.pixel_scale, tp_units="arcsec")
            if len(star) < least:
                return None, f"{len(star)} of {n_sources} sources matched; a fit needs {least}; {self.advice}"
            fit = iter_linear_fit(
                stars[star],
                member.plane[source],
                fitgeom=self.fitgeometry,
                nclip=self.nclip,
                sigma=(self.sigma, "rmse"),
                clip_accum=True,
            )
        except (RuntimeError, NotEnoughPointsError, SingularMatrixError) as error:
            log.warning("%s: %s", member.stem, error)
            return None, str(error)
        matrix = fit["matrix"]
        affine = Affine(matrix, fit["shift"] + fit["center"] - matrix @ fit["center"])
        if not self.is_plausible(member, affine):
            return (
                None,
                f"{len(star)} of {n_sources} sources matched, but they would move it by more than {self.largest_move:g} arcsec",
            )
        return affine, ""
