"""Choosing between ways to do the same by trying them, because no table knows every processor.

The same operator can be a hundred times slower on one processor than on another: where a library has no kernel for the
instructions at hand it falls back to a reference loop, and says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

Calls = Sequence[Callable[[], object]]

_TURNS = 7
_HOPELESS = 4.0  # times the best of the first turn: not tried again


def fastest(contenders: Mapping[str, Calls], *, margin: float, clock: Callable[[], float] = time.perf_counter) -> str:
    """The name of the contender whose calls take the least time; one named earlier may take ``margin`` as long.

    They take turns, and each call counts with its best turn, so that another program's work is not counted against the
    contender that it happens to meet. The first turn, in which kernels are built, counts for none. Several calls on
    different memory are what shows how fast a contender reads memory.
    """
    if len(contenders) == 1:
        return next(iter(contenders))
    for calls in contenders.values():
        calls[0]()
    best = {name: _seconds(calls, clock) for name, calls in contenders.items()}
    limit = _HOPELESS * min(map(sum, best.values()))
    best = {name: seconds for name, seconds in best.items() if sum(seconds) <= limit}
    for _ in range(_TURNS):
        for name, seconds in best.items():
            best[name] = [min(pair) for pair in zip(seconds, _seconds(contenders[name], clock), strict=True)]
    limit = margin * min(map(sum, best.values()))
    return next(name for name, seconds in best.items() if sum(seconds) <= limit)


def _seconds(calls: Calls, clock: Callable[[], float]) -> list[float]:
    taken = []
    for call in calls:
        start = clock()
        call()
        taken.append(clock() - start)
    return taken
