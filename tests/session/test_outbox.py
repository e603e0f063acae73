"""The queue in front of a slow reader."""

from __future__ import annotations

import asyncio

import pytest

from tympan.errors import SlowReaderError
from tympan.session.outbox import Outbox


async def drain(outbox: Outbox) -> list[str | bytes]:
    messages = []
    while (message := await outbox.get()) is not None:
        messages.append(message)
    return messages


async def test_messages_come_out_in_order_and_then_the_last_words() -> None:
    outbox = Outbox(10)
    outbox.put(["a", "b"])
    outbox.put(["c"], droppable=True)
    outbox.close(["bye"])
    assert await drain(outbox) == ["a", "b", "c", "bye"]


async def test_from_half_full_on_what_matters_less_is_left_out() -> None:
    outbox = Outbox(4)
    for text in "abcd":
        outbox.put([text], droppable=True)
    outbox.put(["e"])
    outbox.close([])
    assert await drain(outbox) == ["a", "b", "e"]
    assert outbox.dropped == 2


async def test_what_matters_is_never_dropped_but_the_reader_is() -> None:
    outbox = Outbox(2)
    outbox.put(["a", "b"])
    with pytest.raises(SlowReaderError):
        outbox.put(["c"])
    outbox.close(["bye"])
    assert await drain(outbox) == ["a", "b", "bye"]


async def test_get_waits_for_a_message() -> None:
    outbox = Outbox(2)
    waiting = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.put(["a"])
    assert await waiting == "a"
