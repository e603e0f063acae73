"""A thread used as a coroutine."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from tympan.audio.containers.pull_thread import More, PullThread


def _pairs(more: More) -> Generator[bytes]:
    """Two halves of every piece of input."""
    while data := more():
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]
    yield b"end"


def test_results_until_hungry() -> None:
    coroutine = PullThread(_pairs, "test")
    assert list(coroutine.results()) == []
    coroutine.feed(b"abcd")
    coroutine.feed(b"ef")
    assert list(coroutine.results()) == [b"ab", b"cd", b"e", b"f"]
    assert list(coroutine.results()) == []
    coroutine.end()
    assert list(coroutine.results()) == [b"end"]
    assert list(coroutine.results()) == []


def test_rest_comes_later() -> None:
    coroutine = PullThread(_pairs, "test")
    coroutine.feed(b"abcd")
    assert next(coroutine.results()) == b"ab"
    coroutine.feed(b"ef")
    coroutine.end()
    assert list(coroutine.results()) == [b"cd", b"e", b"f", b"end"]


def test_results_ahead() -> None:
    made: list[int] = []

    def body(more: More) -> Generator[int]:
        for number in range(1_000):
            made.append(number)
            yield number

    coroutine = PullThread(body, "test")
    coroutine.feed(b"x")
    for number in coroutine.results():
        assert len(made) <= number + 20
    assert len(made) == 1_000
    assert list(coroutine.results()) == []


def test_errors() -> None:
    def body(more: More) -> Generator[int]:
        yield 1
        raise ValueError("no more")

    before = threading.active_count()
    coroutine = PullThread(body, "test")
    coroutine.feed(b"x")
    results = coroutine.results()
    assert next(results) == 1
    with pytest.raises(ValueError, match="no more"):
        next(results)
    assert threading.active_count() == before
    assert list(coroutine.results()) == []


def test_close() -> None:
    cleaned = threading.Event()

    def body(more: More) -> Generator[bytes]:
        try:
            while True:
                yield more()
        finally:
            cleaned.set()

    coroutine = PullThread(body, "test")
    coroutine.feed(b"x")
    assert list(coroutine.results()) == [b"x"]
    coroutine.close()
    assert cleaned.is_set()
    coroutine.feed(b"y")
    assert list(coroutine.results()) == []
