"""node: what a large node does per hour, by a simulation of Snakemake's scheduling with measured costs of the jobs.

A job starts as soon as its inputs exist and the node has cores and memory for it, in the order of the exposures. Snakemake
starts a limited number of jobs per second, as measured in a run of many small exposures.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a job takes.

    Attributes
    ----------
    seconds : float
        Time on `cores` cores.
    cores : int
        Cores that the job is given.
    memory : float
        Memory that its rule declares, GB.
    """

    seconds: float
    cores: int
    memory: float


def simulate(
    chain: list[Cost],
    alignment: Cost,
    products: list[Cost],
    *,
    exposures: int,
    members: int,
    cores: int,
    memory: float,
    rate: float,
) -> float:
    """Simulate a run.

    Parameters
    ----------
    chain : list of Cost
        Jobs of an exposure before its alignment, one after the other.
    alignment : Cost
        The job that aligns the members of an association.
    products : list of Cost
        Jobs of an exposure after it.
    exposures, members : int
        Number of exposures, and how many of them are an association.
    cores, memory : int, float
        What the node has; memory in GB.
    rate : float
        Jobs that Snakemake starts per second at most.

    Returns
    -------
    float
        Hours.
    """
    # (number of exposure, place in its sequence); -1 stands for the alignment of the association of this exposure.
    ready = [(exposure, 0) for exposure in range(exposures)]
    heapq.heapify(ready)
    running: list[tuple[float, int, int, Cost]] = []
    to_align = {first: min(members, exposures - first) for first in range(0, exposures, members)}
    now, next_start = 0.0, 0.0
    sequence = [*chain, *products]
    while ready or running:
        while ready:
            exposure, place = ready[0]
            cost = alignment if place < 0 else sequence[place]
            if cost.cores > cores or cost.memory > memory:
                break
            heapq.heappop(ready)
            cores, memory = cores - cost.cores, memory - cost.memory
            start = max(now, next_start)
            next_start = start + 1 / rate
            heapq.heappush(running, (start + cost.seconds, exposure, place, cost))
        now, exposure, place, cost = heapq.heappop(running)
        cores, memory = cores + cost.cores, memory + cost.memory
        first = exposure // members * members
        if place < 0:
            for member in range(first, min(first + members, exposures)):
                heapq.heappush(ready, (member, len(chain)))
        elif place == len(chain) - 1:
            to_align[first] -= 1
            if not to_align[first]:
                heapq.heappush(ready, (first, -1))
        elif place + 1 < len(sequence):
            heapq.heappush(ready, (exposure, place + 1))
    return now / 3600
