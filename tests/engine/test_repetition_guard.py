"""A model that repeats itself without end is reset; speech that repeats itself is not."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counting import COUNTING_INFO, LoopingRunner
from support.listener import Listener

from tympan.engine.base import StepReport
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.repetition_guard import LEAST_REPEATS, LEAST_TOKENS, LONGEST_PERIOD, RepetitionGuard
from tympan.messages import Progress, Warning
from tympan.transcript.words import BOUNDARY, PADDING

SPEECH = np.full(COUNTING_INFO.frame_samples, 0.1, np.float32)


def tokens_until_loop(guard: RepetitionGuard, period: int, most: int) -> int | None:
    """Return how many tokens of a loop it takes until it counts as one."""
    for count, token in enumerate(islice(cycle(range(10, 10 + period)), most), 1):
        guard.push(token)
        if guard.is_looping:
            return count
    return None


@pytest.mark.parametrize("period", range(1, LONGEST_PERIOD + 1))
def test_limit_by_period(period: int) -> None:
    assert tokens_until_loop(RepetitionGuard(), period, 1000) == max(LEAST_TOKENS, LEAST_REPEATS * period)


def test_longer_periods_are_no_loop() -> None:
    assert tokens_until_loop(RepetitionGuard(), LONGEST_PERIOD + 1, 1000) is None


def test_padding_does_not_hide_a_loop() -> None:
    guard = RepetitionGuard()
    for token in [BOUNDARY, 10, PADDING, 11, PADDING, PADDING] * 16:
        guard.push(token)
    assert guard.is_looping


def test_padding_is_no_loop() -> None:
    guard = RepetitionGuard()
    for token in [BOUNDARY, *[PADDING] * 9] * 100:
        guard.push(token)
    assert not guard.is_looping


def test_other_text_ends_a_loop() -> None:
    guard = RepetitionGuard()
    assert tokens_until_loop(guard, 4, 1000)
    guard.push(99)
    assert not guard.is_looping


def test_limit_doubles_after_each_restart_until_other_text() -> None:
    guard = RepetitionGuard()
    for factor in (1, 2, 4):
        assert tokens_until_loop(guard, 4, 1000) == factor * LEAST_TOKENS
        guard.on_restart()
    for token in range(1000, 1000 + 8 * LEAST_REPEATS * LONGEST_PERIOD):
        guard.push(token)
    assert not guard.is_looping
    assert tokens_until_loop(guard, 4, 1000) == LEAST_TOKENS


@given(st.lists(st.integers(10, 14), max_size=300))
def test_loop_is_a_repetition(tokens: list[int]) -> None:
    """Whatever counts as a loop is one by its definition."""
    guard = RepetitionGuard()
    for count, token in enumerate(tokens, 1):
        guard.push(token)
        expected = any(
            count >= (length := max(LEAST_TOKENS, LEAST_REPEATS * period))
            and tokens[count - length : count - period] == tokens[count - length + period : count]
            for period in range(1, LONGEST_PERIOD + 1)
        )
        assert guard.is_looping is expected


async def transcribe(loops_at: int, stall_seconds: float, frames: int = 250) -> tuple[Listener, list[StepReport]]:
    engine = BatchedEngine(lambda: LoopingRunner(loops_at), stall_seconds=stall_seconds)
    await engine.start()
    reports: list[StepReport] = []
    engine.observe = reports.append
    listener = Listener()
    stream = engine.open(listener)
    for _ in range(frames):
        stream.push(SPEECH)
    stream.finish()
    await listener.wait_for_end()
    await engine.stop()
    return listener, reports


async def test_looping_model_is_reset() -> None:
    listener, reports = await transcribe(40, 8.0)
    (warning,) = listener.of(Warning)
    assert isinstance(warning, Warning)
    assert warning.code == "repetition"
    assert (sum(report.repetitions for report in reports), sum(report.stalls for report in reports)) == (1, 0)
    expected, _ = await transcribe(-1, 8.0)
    last = expected.words[-20:]
    assert listener.words[-20:] == last, "after the reset, the words are those of a model without the failure"
    ends = [word.end for word in listener.words]
    assert ends == sorted(ends)
    assert len(listener.of(Progress)) == 250


async def test_model_that_does_not_repeat_itself_is_not_reset() -> None:
    listener, reports = await transcribe(-1, 8.0)
    assert not listener.of(Warning)
    assert not any(report.repetitions for report in reports)


async def test_guard_is_off_without_stall_seconds() -> None:
    listener, _ = await transcribe(40, 0.0)
    assert not listener.of(Warning)
    assert len({word.text for word in listener.words[-20:-2]}) == 2, "the last ones may be cut"
