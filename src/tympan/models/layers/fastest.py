"""Selection of the fastest of several implementations by timing them on the machine at hand.

The same operator can be a hundred times slower on one processor than on another: a library that has no kernel for the
available instructions silently falls back to a reference loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

Calls = Sequence[Callable[[], object]]

_ROUNDS = 7
_CUTOFF = 4.0  # a candidate that takes this many times the best of the first round is not timed again


def fastest(candidates: Mapping[str, Calls], *, margin: float, clock: Callable[[], float] = time.perf_counter) -> str:
    """Return the name of the candidate whose calls take the least time.

    The candidates are timed in turn for several rounds, and each call counts with its best time, so that other programs
    on the machine affect no candidate more than the others. A warm-up round, which may compile kernels, is not timed.

    Args:
        candidates: The calls of each candidate, in order of preference. Several calls on different memory show how fast
            a candidate reads memory.
        margin: A candidate may take this many times the shortest time and still be preferred to later ones.
        clock: Returns the time in seconds.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    for calls in candidates.values():
        calls[0]()
    best = {name: _seconds(calls, clock) for name, calls in candidates.items()}
    limit = _CUTOFF * min(map(sum, best.values()))
    best = {name: seconds for name, seconds in best.items() if sum(seconds) <= limit}
    for _ in range(_ROUNDS):
        for name, seconds in best.items():
            best[name] = [min(pair) for pair in zip(seconds, _seconds(candidates[name], clock), strict=True)]
    limit = margin * min(map(sum, best.values()))
    return next(name for name, seconds in best.items() if sum(seconds) <= limit)


def _seconds(calls: Calls, clock: Callable[[], float]) -> list[float]:
    """Return the duration of each call."""
    durations = []
    for call in calls:
        start = clock()
        call()
        durations.append(clock() - start)
    return durations
