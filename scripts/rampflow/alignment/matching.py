"""Finding the same stars in two lists of positions, with tweakwcs, and the limits of a correction that can be believed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rampflow.alignment.affine import TERMS, Affine
from rampflow.alignment.exposures import CatalogedExposure
from rampflow.errors import RampflowError
from rampflow.step.logs import step_logger

log = step_logger("tweakreg")

#: arcsec, more than the width of a detector. The histogram of the offsets has one cell per pixel: here it takes 1 GB, and its
#: memory grows with the square of the search radius.
LARGEST_SEARCH = 600.0


class Matching(NamedTuple):
    """How two lists of positions are matched and a correction fitted to the matches; see the parameters of tweakreg."""

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
        """From the parameters of the step whose names begin with `prefix`.

        Raises
        ------
        RampflowError
            They contradict each other.
        """
        matching = cls(*(parameters[prefix + name] for name in cls._fields))
        if matching.separation <= np.sqrt(2) * matching.tolerance:
            raise RampflowError(
                f"{prefix}separation ({matching.separation} arcsec) must be more than √2 times {prefix}tolerance "
                f"({matching.tolerance} arcsec), or one star could be matched to two: raise the one or lower the other"
            )
        for name in ("searchrad", "tolerance", "sigma"):
            if getattr(matching, name) <= 0:
                raise RampflowError(f"{prefix}{name} is {getattr(matching, name)}; it must be positive")
        if matching.use2dhist and matching.searchrad > LARGEST_SEARCH:
            raise RampflowError(
                f"{prefix}searchrad is {matching.searchrad:g} arcsec; the search takes at most {LARGEST_SEARCH:g} "
                "(its memory grows with the square): lower it"
            )
        return matching

    @property
    def largest_move(self) -> float:
        """A corner of an image that moves by more than this, arcsec, was moved by false matches: romancal's limit."""
        return 2 * (self.tolerance + (self.searchrad if self.use2dhist else 0))

    @property
    def advice(self) -> str:
        """What may help where nothing matches."""
        return "try a larger abs_searchrad" if self.use2dhist else "search for the offset (abs_use2dhist)"

    def trials(self, radius):
        """Number of corrections that are tried, for pairs within `radius` arcsec (a number or an array).

        The shift may be any within the search and the tolerance. It is chosen for the most pairs, for which shifts that differ
        by a quarter of the radius count as other ones. The linear terms are fitted to pairs within the tolerance, so that none
        of them moves a position by more than that.
        """
        shifts = 1 + 8 * (self.tolerance + (self.searchrad if self.use2dhist else 0)) / radius
        linear = 1 + 2 * self.tolerance / radius
        return shifts**2 * linear ** (TERMS[self.fitgeometry] - 2)

    def matcher(self):
        """Matching as tweakwcs does it, by a two-dimensional histogram of the offsets, then by the nearest neighbours."""
        from tweakwcs.matchutils import XYXYMatch

        return XYXYMatch(
            searchrad=self.searchrad, separation=self.separation, use2dhist=self.use2dhist, tolerance=self.tolerance
        )

    def believable(self, member: CatalogedExposure, affine: Affine) -> bool:
        """Whether a correction moves no corner too far."""
        return bool((np.linalg.norm(affine(member.corners) - member.corners, axis=1) < self.largest_move).all())

    def align(self, member: CatalogedExposure, directions: np.ndarray) -> tuple[Affine | None, str]:
        """Align one exposure to stars in some directions (n, 3).

        Returns
        -------
        affine : Affine or None
            `None` where too few of its sources match, or what matches leads too far.
        reason : str
            Why there is none.
        """
        from astropy.table import Table
        from tweakwcs.linearfit import NotEnoughPointsError, SingularMatrixError, iter_linear_fit

        near, n_sources = member.near(directions, self.searchrad + self.tolerance), len(member.plane)
        fewest = (TERMS[self.fitgeometry] + 1) // 2
        if min(len(near), n_sources) < max(self.minobj, fewest):
            least = max(self.minobj, fewest)
            return None, f"{n_sources} sources and {len(near)} stars near it, and a fit takes {least} matches"
        # Stars with a close neighbor are not matched here and count in the end: a start takes half of minobj.
        least = max((self.minobj + 1) // 2, fewest)
        stars = member.to_plane(directions[near])
        lists = [Table({"TPx": positions[:, 0], "TPy": positions[:, 1]}) for positions in (stars, member.plane)]
        try:
            star, source = self.matcher()(*lists, tp_pscale=member.pixel_scale, tp_units="arcsec")
            if len(star) < least:
                return None, f"{len(star)} of {n_sources} sources matched, and a fit takes {least}; {self.advice}"
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
        if not self.believable(member, affine):
            return (
                None,
                f"{len(star)} of {n_sources} sources matched, but they move it by over {self.largest_move:g} arcsec",
            )
        return affine, ""
