"""How long work takes on so many workers: chains of jobs, each of which waits for the one before it.

A chain may also wait, before its first job, for some jobs of other chains: chain -> [(other chain, its first jobs)].
"""

import functools
import heapq
from collections.abc import Mapping, Sequence

Waits = Mapping[int, Sequence[tuple[int, int]]]


def wall_time(chains: Sequence[Sequence[float]], workers: int, waits: Waits | None = None) -> float:
    """Return when the last job ends, in the unit of the jobs' lengths.

    chains: lengths of jobs in order. A worker that is free takes the next job of the chain that has most left.
    """
    waits = waits or {}
    held = {number for number in waits if chains[number]}
    ready = [(-sum(chain), number) for number, chain in enumerate(chains) if chain and number not in held]
    heapq.heapify(ready)
    done = [0] * len(chains)
    working: list[tuple[float, int]] = []  # (when the job ends, its chain)
    now = 0.0
    while True:
        for number in sorted(held):
            if all(done[other] >= jobs for other, jobs in waits[number]):
                held.remove(number)
                heapq.heappush(ready, (-sum(chains[number]), number))
        while ready and len(working) < workers:
            _, number = heapq.heappop(ready)
            heapq.heappush(working, (now + chains[number][done[number]], number))
        if not working:
            return now
        now, number = heapq.heappop(working)
        done[number] += 1
        if left := chains[number][done[number] :]:
            heapq.heappush(ready, (-sum(left), number))


def critical_path(chains: Sequence[Sequence[float]], waits: Waits | None = None) -> tuple[float, int]:
    """Return how long jobs take that no number of workers makes faster, and the number of the chain that they end."""

    @functools.cache
    def begins(number: int) -> float:
        others = (waits or {}).get(number, ())
        return max((begins(other) + sum(chains[other][:jobs]) for other, jobs in others), default=0.0)

    lengths = [begins(number) + sum(chain) for number, chain in enumerate(chains)]
    longest = max(range(len(chains)), key=lengths.__getitem__)
    return lengths[longest], longest
