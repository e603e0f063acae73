"""Selection of a GPU's fastest kernel configuration, with a clock that the candidates advance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest

from tympan.engine.kyutai.tuning import fastest


class Clock:
    """A clock, and candidates that take the given seconds in successive rounds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def candidate(self, name: str, *seconds: float) -> list[Callable[[], object]]:
        durations: Iterator[float] = chain(seconds, repeat(seconds[-1]))

        def call() -> None:
            self.calls.append(name)
            self.now += next(durations)

        return [call]

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("first", "second", "chosen"), [(1.0, 2.0, "a"), (2.0, 1.0, "b"), (1.1, 1.0, "a")])
def test_margin_prefers_earlier_candidate(first: float, second: float, chosen: str) -> None:
    clock = Clock()
    candidates = {"a": clock.candidate("a", first), "b": clock.candidate("b", second)}
    assert fastest(candidates, margin=1.2, clock=clock) == chosen


def test_slow_rounds_are_ignored() -> None:
    clock = Clock()
    candidates = {"a": clock.candidate("a", 90.0, 1.0, 7.0, 1.0), "b": clock.candidate("b", 2.0)}
    assert fastest(candidates, margin=1.0, clock=clock) == "a"


def test_slow_candidate_is_dropped() -> None:
    clock = Clock()
    candidates = {"a": clock.candidate("a", 100.0), "b": clock.candidate("b", 1.0)}
    assert fastest(candidates, margin=1.2, clock=clock) == "b"
    assert clock.calls.count("a") == 2
    assert clock.calls.count("b") > 5


def test_single_candidate_is_not_timed() -> None:
    clock = Clock()
    assert fastest({"a": clock.candidate("a", 1.0)}, margin=1.0, clock=clock) == "a"
    assert not clock.calls
