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
