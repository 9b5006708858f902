"""The decision which exposures of an association count as aligned, by the evidence for each after the solution."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from rampflow.alignment.affine import Affine, fit_affine
from rampflow.alignment.evidence import RADII, Pairs, count_pairs, pairs_of, rival_shift
from rampflow.alignment.exposures import ARCSEC, CatalogedExposure
from rampflow.alignment.joint_solution import STAR_RADIUS, clusters
from rampflow.alignment.matching import Matching

#: Largest distance (arcsec) from one common rotation for the detectors of an exposure to be evidence for the others.
GROUP_AGREEMENT = STAR_RADIUS / 2
#: Number of corrections within `STAR_RADIUS` of a given one that the solution could choose instead.
TRIALS_NEARBY = 4

BY_GROUP = "no stars of its own: aligned as its exposure's other detectors"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the alignment of an exposure is accepted.

    Attributes
    ----------
    pairs : rampflow.alignment.evidence.Pairs
        Pairs of its sources and the catalog's stars, under its correction.
    reason : str
        Why it is rejected; empty if it is accepted.
    group_affine : Affine or None
        The correction that the other detectors of its exposure imply, if its own stars don't suffice for another.
    is_ambiguous : bool
        Whether the stars fit another shift about as well, so that other exposures are no evidence for this one.
    """

    pairs: Pairs
    reason: str = ""
    group_affine: Affine | None = None
    is_ambiguous: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the alignment is accepted.

        Returns
        -------
        bool
            Whether there is no reason against it.
        """
        return not self.reason


def supported(pairs: Pairs, matching: Matching) -> bool:
    """Test whether there are more pairs than chance gives for the best of all corrections that a search tries.

    Parameters
    ----------
    pairs : Pairs
        Pairs of sources and stars.
    matching : Matching
        The matching of the search.

    Returns
    -------
    bool
        Whether there are more.
    """
    return pairs.significant(matching.trials(RADII))


def least_after_clipping(matching: Matching) -> int:
    """Compute the number of stars that must be left after clipping.

    Parameters
    ----------
    matching : Matching
        The matching with the catalog.

    Returns
    -------
    int
        Half of ``minobj``, rounded up.
    """
    return (matching.minobj + 1) // 2


def reason_against(pairs: Pairs, n_fitted: int, matching: Matching) -> str:
    """Explain why the stars of a catalog are not sufficient evidence for a correction.

    Parameters
    ----------
    pairs : Pairs
        Sources and stars that coincide under the correction; their number is compared with ``minobj``.
    n_fitted : int
        Number of stars that determined the correction, after clipping. A clipped star scatters more than the others, but it is
        the same star on the sky. So it counts for ``minobj``, as long as clipping leaves half of ``minobj``.
    matching : Matching
        The matching with the catalog.

    Returns
    -------
    str
        The reason; empty if they are sufficient.
    """
    text = f"{pairs.n_pairs} of {pairs.n_sources} sources matched"
    if not supported(pairs, matching):
        return f"{text}; {pairs.chance[0]:.2g} expected by chance; {matching.advice}"
    if pairs.n_pairs < matching.minobj:
        return f"{text}, and abs_minobj is {matching.minobj}"
    if n_fitted < least_after_clipping(matching):
        return (
            f"{text}, and {n_fitted} of them are left after clipping (abs_nclip {matching.nclip}, abs_sigma "
            f"{matching.sigma:g}); abs_minobj {matching.minobj} takes {least_after_clipping(matching)}"
        )
    return ""


class Judgment:
    """Decide which exposures of an association count as aligned.

    An exposure is accepted by

    1. at least ``abs_minobj`` stars of the catalog, and more than chance gives;
    2. at least ``minobj`` stars that it shares with the catalog or with accepted exposures, and more than chance gives;
    3. the accepted detectors of the same exposure, if these agree with one rotation of the focal plane, and if its own stars
       confirm it or are too few to do so;
    4. its part in a set of exposures that are tied to each other by 2 or 3 and fulfill 1 as a set.

    It is rejected where the stars fit another shift about as well: which of the two is right can't be known.

    Parameters
    ----------
    members : list of CatalogedExposure
        The exposures.
    affines : list of Affine
        The correction of each.
    n_matches : list of int
        Number of the catalog's stars that determined each correction.
    catalog : numpy.ndarray
        Directions of the catalog's stars, (n, 3).
    relative, absolute : Matching
        Matching between exposures, and with the catalog.

    Attributes
    ----------
    verdicts : list of Verdict
        The verdict for each exposure.
    """

    def __init__(self, members, affines, n_matches, catalog, relative, absolute):
        self.members, self.affines, self.catalog = members, affines, catalog
        self.relative, self.absolute, self.n_matches = relative, absolute, n_matches
        self.verdicts = []
        for member, affine, count in zip(members, affines, n_matches, strict=True):
            pairs = pairs_of(member, affine, catalog)
            reason = reason_against(pairs, count, absolute)
            rival = None if reason else rival_shift(member, affine, catalog, absolute.largest_shift)
            if rival is not None:
                reason = (
                    f"{pairs.n_pairs} of {pairs.n_sources} sources matched, and about as many do after another shift of "
                    f"({rival[0]:.2f}, {rival[1]:.2f}) arcsec: the catalog lists its stars twice; remove one of the two "
                    "lists, or set a smaller abs_searchrad"
                )
            self.verdicts.append(Verdict(pairs, reason, is_ambiguous=rival is not None))
        self._accept_by_others()
        for indices in self._tied_sets():
            self._accept_set(indices)
        self._accept_by_others()

    def _indices(self, accepted: bool) -> list[int]:
        return [index for index, verdict in enumerate(self.verdicts) if verdict.accepted == accepted]

    def _open(self) -> list[int]:
        """Exposures that other exposures may still be evidence for."""
        return [index for index in self._indices(False) if not self.verdicts[index].is_ambiguous]

    def _accept(self, index: int, **changes) -> None:
        self.verdicts[index] = dataclasses.replace(self.verdicts[index], reason="", **changes)

    def _sources(self, index: int) -> np.ndarray:
        return self.members[index].aligned_sources(self.affines[index])

    # ------------------------------------------------------------------------------------------ by accepted exposures
    def _accept_by_others(self) -> None:
        """Accept exposures by evidence from accepted exposures, until no more are found."""
        accepted: list[int] = []
        while accepted != (accepted := self._indices(True)) and accepted and len(accepted) < len(self.members):
            stars = np.concatenate([self.catalog, *(self._sources(index) for index in accepted)])
            _, first = np.unique(clusters(stars, STAR_RADIUS), return_index=True)
            for index in self._open():
                if self._shares_stars(pairs_of(self.members[index], self.affines[index], stars[first])):
                    self._accept(index)
                else:
                    self._accept_by_group(index)

    def _shares_stars(self, pairs: Pairs) -> bool:
        return pairs.found[0] >= self.relative.minobj and supported(pairs, self.absolute)

    def _accept_by_group(self, index: int) -> None:
        """Accept an exposure by its other detectors: with its own correction if its stars confirm theirs."""
        member = self.members[index]
        mates = [i for i in self._indices(True) if self.members[i].group == member.group]
        expected = as_its_group(member, [self.members[i] for i in mates], [self.affines[i] for i in mates])
        if expected is None:
            return
        confirmed = pairs_of(member, expected, self.catalog).significant()
        if confirmed and agree(member, expected, self.affines[index]):
            self._accept(index)
        elif confirmed or not self._can_be_checked(index, expected):
            self._accept(index, group_affine=expected)

    def _can_be_checked(self, index: int, affine: Affine) -> bool:
        """Whether an exposure has enough sources and stars that a right correction would show."""
        member = self.members[index]
        return min(len(member.plane), member.count_stars(affine, self.catalog)) >= self.absolute.minobj

    # ---------------------------------------------------------------------------------------------------- as one of a set
    def _tied_sets(self) -> list[list[int]]:
        """Sets of exposures that are not accepted and are tied to each other."""
        left = self._open()
        label = {index: index for index in left}  # of the set that it is in: the first of its members
        for n, a in enumerate(left):
            for b in left[:n]:
                if label[a] != label[b] and self._may_be_tied(a, b) and self._tied(a, b):
                    first, second = sorted((label[a], label[b]))
                    label = {index: first if one == second else one for index, one in label.items()}
        sets = [[index for index in left if label[index] == one] for one in dict.fromkeys(label.values())]
        return [indices for indices in sets if len(indices) > 1]

    def _may_be_tied(self, a: int, b: int) -> bool:
        """Whether two exposures are detectors of one, or so near each other that they could share stars."""
        first, second = self.members[a], self.members[b]
        if first.group == second.group:
            return True
        reach = sum(np.linalg.norm(self.affines[i](self.members[i].corners), axis=1).max() for i in (a, b)) + STAR_RADIUS
        return bool(np.linalg.norm(first.rotation[:, 0] - second.rotation[:, 0]) < reach * ARCSEC)

    def _tied(self, a: int, b: int) -> bool:
        """Whether two exposures are detectors of one that agree, or share stars."""
        first, second = self.members[a], self.members[b]
        if first.group == second.group:
            expected = as_its_group(first, [second], [self.affines[b]])
            if expected is not None and agree(first, expected, self.affines[a]):
                return True
        return self._shares_stars(pairs_of(first, self.affines[a], self._sources(b)))

    def _accept_set(self, indices: list[int]) -> None:
        """Accept tied exposures if their sources as one set, each position on the sky once, are enough evidence.

        As for a single exposure, stars of the catalog must be left after clipping: without any, the joint solution has
        placed the exposures by each other alone.
        """
        if sum(self.n_matches[index] for index in indices) < least_after_clipping(self.absolute):
            return
        sources = np.concatenate([self._sources(index) for index in indices])
        _, first = np.unique(clusters(sources, STAR_RADIUS), return_index=True)
        pairs = count_pairs(sources[first], self.catalog)
        # Each of them may move within the uncertainty of its start.
        trials = self.absolute.trials(RADII[0]) * float(TRIALS_NEARBY) ** len(indices)
        if pairs.found[0] < self.absolute.minobj or not pairs.significant(np.where(RADII == RADII[0], trials, np.inf)):
            return
        for index in indices:
            own = self.verdicts[index].pairs.significant(np.where(RADII == RADII[0], TRIALS_NEARBY, np.inf))
            if own or not self._can_be_checked(index, self.affines[index]):
                self._accept(index)


def agree(member: CatalogedExposure, first: Affine, second: Affine) -> bool:
    """Test whether two corrections of an exposure agree to the accuracy of an initial correction.

    Parameters
    ----------
    member : CatalogedExposure
        The exposure.
    first, second : Affine
        The corrections.

    Returns
    -------
    bool
        Whether no corner differs by `STAR_RADIUS` or more.
    """
    return bool((np.linalg.norm(first(member.corners) - second(member.corners), axis=1) < STAR_RADIUS).all())


def as_its_group(member: CatalogedExposure, mates: list[CatalogedExposure], affines: list[Affine]) -> Affine | None:
    """Derive the correction of an exposure from the rotation of the whole focal plane.

    The rotation is that from the pointing of the telescope, so that some of the detectors may have been aligned before.

    Parameters
    ----------
    member : CatalogedExposure
        The exposure.
    mates, affines : list of CatalogedExposure and of Affine
        Other detectors of the same exposure, and their corrections.

    Returns
    -------
    Affine or None
        The correction; `None` without other detectors, or if these don't agree with one rotation to `GROUP_AGREEMENT`.
    """
    if not mates:
        return None
    before = np.concatenate([mate.to_sky(mate.pointed_corners) for mate in mates])
    after = np.concatenate([mate.to_sky(affine(mate.corners)) for mate, affine in zip(mates, affines, strict=True)])
    # The rotation from one to the other by least squares (Wahba's problem, solved by Kabsch's algorithm).
    left, _, right = np.linalg.svd(after.T @ before)
    rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    if np.linalg.norm(before @ rotation.T - after, axis=1).max() > GROUP_AGREEMENT * ARCSEC:
        return None
    return fit_affine(member.corners, member.to_plane(member.to_sky(member.pointed_corners) @ rotation.T))


def warn_of_groups_apart(members: list[CatalogedExposure], affines: list[Affine], log: logging.Logger) -> None:
    """Warn of exposures whose detectors have corrections that don't agree with one pointing.

    Parameters
    ----------
    members : list of CatalogedExposure
        The detectors of the exposures.
    affines : list of Affine
        The correction of each by its own stars.
    log : logging.Logger
        Logger of the warnings.
    """
    for group in dict.fromkeys(member.group for member in members):
        own = [(m, a) for m, a in zip(members, affines, strict=True) if m.group == group]
        if len(own) > 1 and as_its_group(own[0][0], *zip(*own, strict=True)) is None:
            log.warning(
                "%s: no common pointing fits these detectors of one exposure (%s) to %g arcsec; each is aligned by its stars",
                ", ".join(m.stem for m, _ in own),
                group,
                GROUP_AGREEMENT,
            )
