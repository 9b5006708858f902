"""Memory, time and cores that the jobs of a run ask for.

The numbers in the rules come from tests/benchmark/fit_resources.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

#: Size of the raw exposure of a job: resultants, rows, columns.
Shape = tuple[int, int, int]

#: Environment variable that the profile of a cluster sets: with ``--cores``, jobs are submitted, too.
CLUSTER_VARIABLE = "RAMPFLOW_CLUSTER"
#: MB of the two processes of Snakemake that run beside the step in a cluster job.
CLUSTER_OVERHEAD = 400


def memory(
    base: float, *, frames: float = 0, ramps: float = 0, shape: tuple[int, int, int] | None, attempt: int, on_cluster: bool
) -> int:
    """Compute the memory of a job.

    Parameters
    ----------
    base : float
        MB of the program.
    frames, ramps : float
        Number of float32 frames, and of float32 ramps, of the exposure's size that the program holds at a time.
    shape : tuple of int or None
        Of the raw exposure: resultants, rows, columns. None: of a job without an exposure.
    attempt : int
        1 at the first attempt; each further attempt asks for as much again.
    on_cluster : bool
        Whether the job is submitted to a cluster.

    Returns
    -------
    int
        MB.
    """
    frame, ramp = float32_sizes(shape)
    return int(attempt * (base + frames * frame + ramps * ramp)) + (CLUSTER_OVERHEAD if on_cluster else 0)


def minutes(base: float, *, per_gigabyte: float = 0, shape: tuple[int, int, int] | None, attempt: int) -> int:
    """Compute the time limit of a job, for slow disks and busy nodes.

    Parameters
    ----------
    base : float
        Minutes of the program.
    per_gigabyte : float
        Minutes for each GB of the exposure's float32 ramp.
    shape : tuple of int or None
        Of the raw exposure: resultants, rows, columns. None: of a job without an exposure.
    attempt : int
        1 at the first attempt; each further attempt asks for as much again.

    Returns
    -------
    int
        Minutes.
    """
    _, ramp = float32_sizes(shape)
    return int(attempt * (base + per_gigabyte * ramp / 1e3) + 0.5)


def float32_sizes(shape: tuple[int, int, int] | None) -> tuple[float, float]:
    """Compute the size of a frame and of a ramp in single precision.

    Parameters
    ----------
    shape : tuple of int or None
        Resultants, rows, columns.

    Returns
    -------
    tuple of float
        Sizes of a frame and of a ramp, MB; zeros without a shape.
    """
    if shape is None:
        return 0.0, 0.0
    resultants, rows, columns = shape
    frame = 4 * rows * columns / 1e6
    return frame, resultants * frame


def threads(exposures: int, cores: int | None) -> int:
    """Choose the number of cores of a job that can use two.

    Parameters
    ----------
    exposures : int
        Number of exposures of the run.
    cores : int or None
        Cores of this machine that the run may use. None: jobs are submitted to a cluster.

    Returns
    -------
    int
        1 where there are enough exposures to keep all cores busy, which is faster than two cores for each; otherwise 2.
    """
    return 1 if cores is not None and 1 < exposures >= cores else 2


class Resources:
    """Resource functions of the rules: what the jobs of a run ask for.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Shape of each raw exposure of the run, by the exposure's name.
    local_cores : callable
        Returns the cores of this machine that the run may use; None if its jobs are submitted to a cluster. It is called when
        a job asks, because Snakemake may not know them before.
    """

    def __init__(self, shapes: dict[str, Shape], local_cores: Callable[[], int | None]):
        self._shapes, self._local_cores = shapes, local_cores

    def _shape(self, wildcards: Any) -> Shape | None:
        return self._shapes[wildcards.stem] if "stem" in wildcards.keys() else None

    def cores(self, wildcards: Any) -> int:
        """Choose the number of cores of a job that can use two.

        Parameters
        ----------
        wildcards : snakemake.io.Wildcards
            Wildcards of the job; unused.

        Returns
        -------
        int
            1 or 2, see `threads`.
        """
        return threads(len(self._shapes), self._local_cores())

    def memory(
        self, base: float, *, frames: float = 0, ramps: float = 0, more_ramps: Callable[[str], float] | None = None
    ) -> Callable:
        """Make the function of the memory of a job, MB.

        Parameters
        ----------
        base, frames, ramps : float
            As for the function `memory` of this module.
        more_ramps : callable, optional
            Number of float32 ramps that the job holds beside them, for the name of an exposure.

        Returns
        -------
        callable
            Function of wildcards and attempt.
        """
        return lambda wildcards, attempt: memory(
            base,
            frames=frames,
            ramps=ramps + (more_ramps(wildcards.stem) if more_ramps else 0),
            shape=self._shape(wildcards),
            attempt=attempt,
            on_cluster=self._local_cores() is None,
        )

    def memory_of_members(self, base: float, *, per_member: float, members: Callable[[str], Sized]) -> Callable:
        """Make the function of the memory of a job of an association, MB.

        Parameters
        ----------
        base : float
            MB of the program.
        per_member : float
            MB for each exposure that the job reads.
        members : callable
            Returns these exposures for the name of an association.

        Returns
        -------
        callable
            Function of wildcards and attempt.
        """
        return lambda wildcards, attempt: self.memory(base + per_member * len(members(wildcards.association)))(
            wildcards, attempt
        )

    def minutes(self, base: float, *, per_gigabyte: float = 0) -> Callable:
        """Make the function of the time limit of a job, minutes.

        Parameters
        ----------
        base, per_gigabyte : float
            As for the function `minutes` of this module.

        Returns
        -------
        callable
            Function of wildcards and attempt.
        """
        return lambda wildcards, attempt: minutes(
            base, per_gigabyte=per_gigabyte, shape=self._shape(wildcards), attempt=attempt
        )
