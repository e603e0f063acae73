"""The queue in front of a slow reader."""

from __future__ import annotations

import pytest

from tympan.errors import SlowReaderError
from tympan.session.outbox import Outbox


def drain(outbox: Outbox) -> list[str | bytes]:
    return list(iter(outbox.take, None))


def test_messages_come_out_in_order_and_then_the_last_words() -> None:
    outbox = Outbox(10)
    outbox.put("a")
    outbox.put("b")
    outbox.put("c", droppable=True)
    outbox.put_last(["bye"])
    assert drain(outbox) == ["a", "b", "c", "bye"]


def test_from_half_full_on_what_matters_less_is_left_out() -> None:
    outbox = Outbox(4)
    for text in "abcd":
        outbox.put(text, droppable=True)
    outbox.put("e")
    assert drain(outbox) == ["a", "b", "e"]
    assert outbox.dropped == 2


def test_what_matters_is_never_dropped_but_the_reader_is() -> None:
    outbox = Outbox(2)
    outbox.put("a")
    outbox.put("b")
    with pytest.raises(SlowReaderError):
        outbox.put("c")
    outbox.put_last(["bye"])
    assert drain(outbox) == ["a", "b", "bye"]


def test_long_messages_are_counted_by_their_length() -> None:
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
