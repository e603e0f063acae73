"""The queue in front of a slow reader."""

from __future__ import annotations

import pytest

from tympan.errors import ResumeError, SlowReaderError
from tympan.server.sessions.outbox import Outbox, ResumableOutbox


def drain(outbox: Outbox) -> list[str | bytes]:
    return list(iter(outbox.take, None))


def test_last_messages_follow_in_order() -> None:
    outbox = Outbox(10)
    outbox.put("a")
    outbox.put("b")
    outbox.put("c", droppable=True)
    outbox.put_last(["bye"])
    assert drain(outbox) == ["a", "b", "c", "bye"]


def test_droppable_messages_above_half_full() -> None:
    outbox = Outbox(4)
    for text in "abcd":
        outbox.put(text, droppable=True)
    outbox.put("e")
    assert drain(outbox) == ["a", "b", "e"]
    assert outbox.dropped == 2


def test_slow_reader() -> None:
    outbox = Outbox(2)
    outbox.put("a")
    outbox.put("b")
    with pytest.raises(SlowReaderError):
        outbox.put("c")
    outbox.put_last(["bye"])
    assert drain(outbox) == ["a", "b", "bye"]


def test_rewind() -> None:
    outbox = ResumableOutbox(10)
    for text in "abc":
        outbox.put(text)
    outbox.put("x", droppable=True)
    assert drain(outbox) == ["a", "b", "c", "x"]
    outbox.put("d")
    outbox.put("y", droppable=True)
    outbox.rewind(2)
    outbox.put("e")
    assert drain(outbox) == ["c", "d", "e"]
    outbox.rewind(2)
    outbox.put_last(["bye"])
    assert drain(outbox) == ["c", "d", "e", "bye"]
    outbox.rewind(6)
    assert drain(outbox) == []


@pytest.mark.parametrize("received", [0, 5, 2])
def test_rewind_too_far(received: int) -> None:
    """Of four, two are kept; one that has arrived is not kept any more."""
    outbox = ResumableOutbox(2)
    for text in "abcd":
        outbox.put(text)
        outbox.take()
    if received == 2:
        outbox.rewind(3)
    with pytest.raises(ResumeError):
        outbox.rewind(received)


def test_long_messages_count_by_length() -> None:
    """A client may have its own settings shown to it again and again, and read none of it."""
    outbox = Outbox(1024)
    for _ in range(4):
        outbox.put("x" * (1 << 20))
    with pytest.raises(SlowReaderError):
        outbox.put("x")
    outbox.take()
    outbox.put("x")
    outbox.put_last(["goodbye"])
    assert [len(outbox.take() or "") for _ in range(5)] == [1 << 20] * 3 + [1, 7]
