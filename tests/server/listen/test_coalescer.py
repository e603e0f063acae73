"""Messages are read together and processed together, with a short sleep after them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tympan.server.listen import coalescer
from tympan.server.listen.coalescer import MessageCoalescer


class FakeLoop:
    """Collects the callbacks of `call_soon`; `run` calls them."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def run(self) -> None:
        while self.callbacks:
            self.callbacks.pop(0)()


class FakeClock:
    """A clock that advances only by `sleep`, which records the requested times, and by the test."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


class Recorder:
    """A connection that records its messages; processing each takes `seconds` on the clock."""

    def __init__(self, clock: FakeClock, seconds: float = 0.0) -> None:
        self.messages: list[Any] = []
        self._clock = clock
        self._seconds = seconds

    def on_message(self, message: object) -> None:
        self.messages.append(message)
        self._clock.now += self._seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(coalescer, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
    return clock


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def make(loop: FakeLoop) -> MessageCoalescer:
    return MessageCoalescer(cast(Any, loop))


def test_messages_of_one_iteration_are_processed_together(clock: FakeClock, loop: FakeLoop) -> None:
    messages, first, second = make(loop), Recorder(clock), Recorder(clock)
    messages.put(cast(Any, first), b"a")
    messages.put(cast(Any, second), b"b")
    messages.put(cast(Any, first), b"c")
    assert (first.messages, second.messages) == ([], [])
    assert len(loop.callbacks) == 1
    loop.run()
    assert (first.messages, second.messages) == ([b"a", b"c"], [b"b"])


def test_sleeps_at_most_5_ms_per_period(clock: FakeClock, loop: FakeLoop) -> None:
    messages, connection = make(loop), Recorder(clock)
    for _ in range(10):
        messages.put(cast(Any, connection), b"")
        loop.run()
        clock.now += 0.001
    assert clock.sleeps == [pytest.approx(0.004)] * 9, "the rest of a period of 5 ms, after the first message"


def test_busy_loop_does_not_sleep(clock: FakeClock, loop: FakeLoop) -> None:
    messages, slow = make(loop), Recorder(clock, seconds=0.006)
    for _ in range(5):
        messages.put(cast(Any, slow), b"")
        loop.run()
    assert clock.sleeps == []


def test_flush_processes_without_sleep(clock: FakeClock, loop: FakeLoop) -> None:
    messages, connection = make(loop), Recorder(clock)
    messages.put(cast(Any, connection), b"a")
    messages.flush()
    assert connection.messages == [b"a"]
    assert clock.sleeps == []
    loop.run()
    assert connection.messages == [b"a"], "once"
