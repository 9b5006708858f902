"""The WCS, source positions and group of each exposure to align. No pixel is read."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from rampflow.alignment.affine import NO_CORRECTION, Affine
from rampflow.alignment.source_positions import SourcePositions
from rampflow.astrometry.region import epoch_of, unit_vectors
from rampflow.errors import RampflowError, one_line
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.wcs.conversion import wcs_of_tree
from rampflow.wcs.footprint import image_box
from rampflow.wcs.wcs_tree import frame_fault

log = step_logger("tweakreg")

if TYPE_CHECKING:
    from gwcs.wcs import WCS
    from tweakwcs import RomanWCSCorrector

ARCSEC = np.pi / 180 / 3600  #: radians
#: Largest distance of the corners on the sky by the tangent plane from those by the WCS, arcsec.
SAME_PLACE = 0.01


class UnsuitableWcs(RampflowError):
    """A WCS that tweakwcs doesn't take, or not for what it is; the message says what is wrong."""


class StoredWcs:
    """A WCS in a compact form: 50 kB instead of the megabyte of its objects, so that thousands fit into memory.

    Parameters
    ----------
    wcs : gwcs.wcs.WCS
        The WCS.
    """

    def __init__(self, wcs: WCS):
        self._content = pickle.dumps(wcs)

    def load(self) -> WCS:
        """Make the WCS.

        Returns
        -------
        gwcs.wcs.WCS
            A new object.
        """
        return pickle.loads(self._content)


class CatalogedExposure:
    """An exposure of an association with its sources.

    Positions on the sky are unit vectors. The tangent plane of the exposure touches the sky at its reference point, as its
    present WCS has it, which may include an earlier correction. tweakwcs applies a further correction to positions in this
    plane. The plane and the sky differ by a rotation alone, so that the WCS is evaluated only once.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    group : str
        Name of its group. Members of a group were taken at the same time and share the errors of the pointing.
    wcs : gwcs.wcs.WCS
        WCS of the image, with a bounding box.
    angles : dict
        ``v2_ref``, ``v3_ref`` (arcsec) and ``roll_ref`` (degrees), for tweakwcs.
    sources : SourcePositions
        Positions of the sources; those outside the bounding box are left out.
    epoch : float, optional
        Epoch of the exposure, Julian year.

    Attributes
    ----------
    stem, group, angles, sources, epoch
        See above.
    plane : numpy.ndarray
        Positions of the sources in the tangent plane, (n, 2), arcsec.
    error : numpy.ndarray
        Standard deviations of a coordinate, (n,), arcsec.
    corners : numpy.ndarray
        Corners of the bounding box in the tangent plane, (4, 2), arcsec.
    pointed_corners : numpy.ndarray
        The same without an earlier correction in the WCS: where the pointing of the telescope puts them.
    rotation : numpy.ndarray
        Orthogonal matrix, (3, 3), from (1, x, y), with x and y in radians, to the direction on the sky.
    pixel_scale : float
        Pixel scale, arcsec per pixel.

    Raises
    ------
    UnsuitableWcs
        The frame v2v3 of the WCS is not in arcsec, or its angles are not those of the WCS.
    """

    def __init__(self, stem: str, group: str, wcs: WCS, angles: dict, sources: SourcePositions, epoch: float | None = None):
        self.stem, self.group, self.angles, self.epoch = stem, group, angles, epoch
        self._wcs = StoredWcs(wcs)
        (x0, x1), (y0, y1) = wcs.bounding_box
        inside = (sources.x > x0) & (sources.x < x1) & (sources.y > y0) & (sources.y < y1)
        self.sources = SourcePositions(sources.x[inside], sources.y[inside], sources.error[inside])
        corrector = self.corrector()
        earlier = self._earlier = _correction_in(wcs)
        self.rotation = _rotation_of(corrector, earlier)
        self.corners = earlier.undo(np.array(corrector.det_to_tanp([x0, x1, x1, x0], [y0, y0, y1, y1])).T)
        self.pointed_corners = earlier.undo(self.corners)
        self._check_plane(wcs)
        side = self.corners[[1, 3]] - self.corners[0]
        self.pixel_scale = float(np.sqrt(abs(np.linalg.det(side)) / ((x1 - x0) * (y1 - y0))))
        self.plane = self._plane_by(corrector, self.sources.x, self.sources.y)
        self.error = self.pixel_scale * self.sources.error

    def _check_plane(self, wcs: WCS) -> None:
        (x0, x1), (y0, y1) = wcs.bounding_box
        expected = unit_vectors(*wcs([x0, x1, x1, x0], [y0, y0, y1, y1], with_bounding_box=False))
        apart = float(np.linalg.norm(self.to_sky(self.corners) - expected, axis=1).max() / ARCSEC)
        if not apart <= SAME_PLACE:
            raise UnsuitableWcs(
                f"its WCS (meta.wcs) contradicts itself: by the plane of its frame v2v3, its corners lie {apart:.3g} arcsec "
                "from where the WCS has them. The frames v2v3 and v2v3vacorr must be in arcsec; assign_wcs makes such a WCS"
            )

    def plane_of(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Project positions on the detector to the tangent plane.

        Parameters
        ----------
        x, y : numpy.ndarray
            Pixels, (n,).

        Returns
        -------
        numpy.ndarray
            Positions, (n, 2), arcsec.
        """
        return self._plane_by(self.corrector(), x, y)

    def _plane_by(self, corrector, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._earlier.undo(np.array(corrector.det_to_tanp(x, y), float).reshape(2, -1).T)

    @property
    def wcs(self) -> WCS:
        """The WCS of the image.

        Returns
        -------
        gwcs.wcs.WCS
            A new object.
        """
        return self._wcs.load()

    def corrector(self, **meta: Any) -> RomanWCSCorrector:
        """Make a corrector of tweakwcs for the WCS of the image.

        Parameters
        ----------
        **meta : object
            Additional metadata of the corrector.

        Returns
        -------
        tweakwcs.RomanWCSCorrector
            The corrector.
        """
        from tweakwcs import RomanWCSCorrector

        return RomanWCSCorrector(wcs=self.wcs, wcsinfo=self.angles, meta={"name": self.stem, **meta})

    def to_sky(self, plane: np.ndarray) -> np.ndarray:
        """Project positions in the tangent plane to the sky.

        Parameters
        ----------
        plane : numpy.ndarray
            Positions, (n, 2), arcsec.

        Returns
        -------
        numpy.ndarray
            Unit vectors, (n, 3).
        """
        vectors = np.column_stack([np.ones(len(plane)), plane * ARCSEC]) @ self.rotation.T
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def to_plane(self, vectors: np.ndarray) -> np.ndarray:
        """Project directions to the tangent plane.

        Parameters
        ----------
        vectors : numpy.ndarray
            Unit vectors, within 90 degrees of the reference point, (n, 3).

        Returns
        -------
        numpy.ndarray
            Positions, (n, 2), arcsec.
        """
        along, *across = (vectors @ self.rotation).T
        return np.column_stack([axis / along for axis in across]) / ARCSEC

    def near(self, vectors: np.ndarray, margin: float) -> np.ndarray:
        """Find the directions that lie on the exposure or near it.

        Parameters
        ----------
        vectors : numpy.ndarray
            Unit vectors, (n, 3).
        margin : float
            Largest distance from the circle through the farthest corner, arcsec.

        Returns
        -------
        numpy.ndarray
            Indices of the directions.
        """
        radius = np.linalg.norm(self.corners, axis=1).max() + margin
        return np.flatnonzero(vectors @ self.rotation[:, 0] > np.cos(min(radius * ARCSEC, np.pi / 2)))

    def aligned_sources(self, affine: Affine) -> np.ndarray:
        """Compute the directions of the sources under a correction.

        Parameters
        ----------
        affine : Affine
            The correction.

        Returns
        -------
        numpy.ndarray
            Unit vectors, (n, 3).
        """
        return self.to_sky(affine(self.plane))

    def count_stars(self, affine: Affine, stars: np.ndarray) -> int:
        """Count the stars on the detector under a correction.

        Parameters
        ----------
        affine : Affine
            The correction.
        stars : numpy.ndarray
            Directions, (m, 3).

        Returns
        -------
        int
            Number of stars.
        """
        plane = self.to_plane(stars[self.near(stars, float(np.linalg.norm(affine.shift)))])
        corners = affine(self.corners)
        sides = np.roll(corners, -1, axis=0) - corners
        offsets = plane[:, None] - corners
        turns = sides[:, 0] * offsets[..., 1] - sides[:, 1] * offsets[..., 0]
        return int(((turns > 0).all(axis=1) | (turns < 0).all(axis=1)).sum())


def _correction_in(wcs) -> Affine:
    """The correction of an earlier alignment in a WCS; `NO_CORRECTION` for a WCS of assign_wcs.

    Positions in the plane of tweakwcs's corrector contain it twice: the corrector applies it to the corrected WCS.
    """
    frames = wcs.available_frames
    if "v2v3corr" not in frames:
        return NO_CORRECTION
    affine = wcs.pipeline[frames.index("v2v3corr") - 1].transform["tp_affine"]
    return Affine(np.array(affine.matrix.value, float), np.array(affine.translation.value, float) / ARCSEC)


def _rotation_of(corrector, earlier: Affine) -> np.ndarray:
    """The rotation between the tangent plane of an exposure and the sky, from three points of a corrector."""
    step = 0.01  # radians; three points half a degree apart give the axes to rounding error
    plane = np.array([[0.0, 0.0], [step, 0.0], [0.0, step]])
    directions = unit_vectors(*corrector.tanp_to_world(*earlier(plane / ARCSEC).T))
    directions *= np.sqrt(1 + (plane**2).sum(axis=1))[:, None]
    axes = np.column_stack([directions[0], (directions[1:] - directions[0]).T / step])
    left, _, right = np.linalg.svd(axes)  # the nearest orthogonal matrix
    return left @ right


# --------------------------------------------------------------------------------------------------------------- reading
def read_exposure(stem: str, image: Exposure, sources: SourcePositions, *, with_epoch: bool = False) -> CatalogedExposure:
    """Read the WCS, group and epoch of an image file.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    image : Exposure
        The image; its pixels are not read.
    sources : SourcePositions
        Positions of its sources.
    with_epoch : bool
        Read the time of the exposure, for stars with proper motions.

    Returns
    -------
    CatalogedExposure
        The exposure.

    Raises
    ------
    RampflowError
        The header lacks the WCS, a reference angle, the group or, with `with_epoch`, the time; `UnsuitableWcs` if the WCS
        can't be aligned by its tangent plane.
    """
    angles = {name: image.get(f"meta.wcsinfo.{name}", (int, float)) for name in ("v2_ref", "v3_ref", "roll_ref")}
    # As in romancal, exposures taken at the same time have the same observation_id, unless the file has a group_id.
    group = image.meta.get("group_id") or image.get("meta.observation.observation_id", str)
    node = image.get("meta.wcs")
    if not isinstance(node, dict):
        raise RampflowError(f"{image.path}: has no WCS; run assign_wcs on it first")
    epoch = epoch_of(image) if with_epoch else None
    if fault := frame_fault(node):
        raise UnsuitableWcs(fault)
    wcs = _wcs_in(node)
    if wcs.bounding_box is None:
        raise UnsuitableWcs("its WCS (meta.wcs) has no bounding box; assign_wcs makes one that can be aligned")
    try:
        _limit_box(wcs, image)
        return CatalogedExposure(stem, str(group), wcs, angles, sources, epoch)
    except (ValueError, TypeError) as error:  # of tweakwcs, and of models with units
        reason = " ".join(str(error).split())
        raise UnsuitableWcs(
            f"its WCS (meta.wcs) can't be aligned ({reason}); assign_wcs makes one that can, with the frames detector, v2v3, "
            "v2v3vacorr and world"
        ) from error


def _wcs_in(node: dict):
    """The WCS of a tree, which is the user's if the image is."""
    try:
        wcs = wcs_of_tree(node)
    except RampflowError:  # a block of the file is damaged
        raise
    except Exception as error:  # the converters of gwcs and astropy raise all kinds
        raise UnsuitableWcs(f"its WCS (meta.wcs) can't be read ({one_line(error)}); assign_wcs makes one that can") from error
    if not hasattr(wcs, "bounding_box"):
        kind = getattr(node, "tag", "a mapping without a tag")
        raise UnsuitableWcs(
            f"its WCS (meta.wcs) is {kind}, which the installed gwcs doesn't read; assign_wcs makes one that it does"
        )
    return wcs


def _limit_box(wcs, image: Exposure) -> None:
    """Give a WCS whose bounding box is impossible that of the image."""
    box = tuple((float(low), float(high)) for low, high in wcs.bounding_box)
    possible = image_box(box, image.array("data").shape)
    if possible != box:
        log.warning(
            "%s: the bounding box of its WCS (meta.wcs) is %s: that of the image is used, %s", image.path.name, box, possible
        )
        wcs.bounding_box = possible
