"""How long work takes on so many workers: chains of jobs, each of which waits for the one before it."""

import heapq
from collections.abc import Sequence


def wall_time(chains: Sequence[Sequence[float]], workers: int) -> float:
    """Return when the last job ends, in the unit of the jobs' lengths.

    chains: lengths of jobs in order. A worker that is free takes the next job of the chain that has most left.
    """
    ready = [(-sum(chain), number) for number, chain in enumerate(chains) if chain]
    heapq.heapify(ready)
    done = [0] * len(chains)
    working: list[tuple[float, int]] = []  # (when the job ends, its chain)
    now = 0.0
    while ready or working:
        while ready and len(working) < workers:
            _, number = heapq.heappop(ready)
            heapq.heappush(working, (now + chains[number][done[number]], number))
        now, number = heapq.heappop(working)
        done[number] += 1
        if left := chains[number][done[number] :]:
            heapq.heappush(ready, (-sum(left), number))
    return now
