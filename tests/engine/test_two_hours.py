"""A stream of two hours: memory and step times stay the same, and other streams do not change its tokens."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import pytest
from support.two_hours import MINUTE, SLOTS, Outcome, run

MINUTES = 120
SETTLED = 10  # minutes after which memory no longer grows
# A flush runs up to 19 steps. Meanwhile each other stream, which sends a frame every third step at most, waits.
MOST_WAITING = (SLOTS - 1) * 19 // 3


@pytest.mark.long
@pytest.mark.timeout(1800)  # ten minutes on two slow cores with nothing beside it
def test_two_hours_in_batch_equal_alone() -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        alone, busy = pool.map(run, (MINUTES, MINUTES), (False, True))
    assert busy.tokens == alone.tokens
    assert len(busy.tokens) == MINUTE
    assert len(set(busy.tokens)) > 5
    assert busy.others > 100
    for outcome in (alone, busy):
        check_flat(outcome)


def check_flat(outcome: Outcome) -> None:
    grown = median(outcome.memory_bytes[-SETTLED:]) - median(outcome.memory_bytes[SETTLED : 2 * SETTLED])
    assert grown < 4 * 2**20
    assert max(outcome.waiting_frames) <= MOST_WAITING, "only frames of the other streams wait, while they flush"
    assert median(outcome.waiting_frames[-30:]) <= median(outcome.waiting_frames[5:35]) + 1, (
        "their number stays the same"
    )
    early, late = (median(outcome.step_seconds[part]) for part in (slice(5, 35), slice(-30, None)))
    assert late < 1.5 * early, "a step costs the same at the end"
