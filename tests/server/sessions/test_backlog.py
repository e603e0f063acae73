"""Messages that wait: in memory, on a real disk, within the limits of a stream and of all streams."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile

import pytest

from tympan.audio.budget import ByteBudget
from tympan.protocols.base import WireMessage
from tympan.server import spool as spool_module
from tympan.server.sessions import backlog as backlog_module
from tympan.server.sessions.backlog import Backlog
from tympan.server.sessions.inbox import BURST_MESSAGES, Inbox
from tympan.server.spool import BLOCK_BYTES, Spool

LARGE = 1 << 40


class Waiter:
    """Waits until the backlog reports a change."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def take(self, backlog: Backlog) -> WireMessage:
        async with asyncio.timeout(10):
            while (message := backlog.take()) is None:
                self.changed.clear()
                await self.changed.wait()
        return message


async def settled(spool: Spool) -> None:
    """Wait until nothing is on disk and the file is closed."""
    async with asyncio.timeout(10):
        while spool._file is not None:
            await asyncio.sleep(0.01)


def messages(count: int, most_bytes: int, seed: int = 0) -> list[WireMessage]:
    dice = random.Random(seed)
    sizes = [dice.choice([0, 1, dice.randint(0, most_bytes)]) for _ in range(count)]
    return [dice.randbytes(size) if dice.random() < 0.7 else "é" * (size // 2) for size in sizes]


@pytest.mark.parametrize("count", [3, 400])
async def test_order_and_types_survive_the_disk(count: int) -> None:
    spool, waiter = Spool(), Waiter()
    backlog = Backlog(spool, LARGE, waiter.changed.set)
    put = messages(count, 100_000)
    for message in put:
        backlog.put(message)
        await asyncio.sleep(0)
    taken = [await waiter.take(backlog) for _ in put]
    assert taken == put
    assert not backlog
    assert spool.waiting.used == 0
    await settled(spool)


async def test_alternating_puts_and_takes() -> None:
    spool, waiter, dice = Spool(), Waiter(), random.Random(1)
    backlog = Backlog(spool, LARGE, waiter.changed.set)
    put, taken = [], []
    for message in messages(600, 60_000):
        backlog.put(message)
        put.append(message)
        if dice.random() < 0.4:
            taken.append(await waiter.take(backlog))
    while backlog:
        taken.append(await waiter.take(backlog))
    assert taken == put
    await settled(spool)


async def test_memory_is_limited_and_disk_space_is_used_again() -> None:
    spool, waiter = Spool(), Waiter()
    backlog = Backlog(spool, LARGE, waiter.changed.set)
    for _ in range(4):
        for _ in range(64):
            backlog.put(bytes(BLOCK_BYTES - 5))
            while backlog.is_full:  # the disk is behind
                waiter.changed.clear()
                async with asyncio.timeout(10):
                    await waiter.changed.wait()
            assert backlog._memory_bytes <= backlog_module.MOST_MEMORY_BYTES + BLOCK_BYTES
        assert spool._slots <= 80
        for _ in range(60):
            assert len(await waiter.take(backlog)) == BLOCK_BYTES - 5
    backlog.clear()
    assert not backlog
    await settled(spool)


async def test_file_has_no_name(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    backlog = Backlog(spool, LARGE, lambda: None)
    for _ in range(20):
        backlog.put(bytes(BLOCK_BYTES))
    assert spool._file is not None
    assert os.listdir(tmp_path) == []
    backlog.clear()
    await settled(spool)


async def test_limit_of_one_stream() -> None:
    backlog = Backlog(Spool(), 1000, lambda: None)
    backlog.put(bytes(900))
    assert not backlog.is_full
    backlog.put("more" * 50)
    assert backlog.is_full
    assert backlog.take() == bytes(900)
    assert not backlog.is_full
    assert Backlog(Spool(), 0, lambda: None).is_full is False, "an empty queue takes one message"


async def test_limit_of_all_streams() -> None:
    spool = Spool()
    spool.waiting = ByteBudget(3000)
    one, other = Backlog(spool, LARGE, lambda: None), Backlog(spool, LARGE, lambda: None)
    one.put(bytes(2500))
    other.put(bytes(2500))
    assert (one.is_full, other.is_full) == (False, True)
    assert other.take() == bytes(2500)
    assert not other.is_full
    other.put(bytes(100))
    assert not other.is_full
    one.clear()
    other.clear()
    assert spool.waiting.used == 0


@pytest.mark.parametrize("failing", ["_write", "open"])
async def test_disk_that_cannot_be_written(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages then wait in memory up to a limit, and none is lost."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "open":
        monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    else:
        monkeypatch.setattr(spool_module, failing, fail)
    spool, waiter = Spool(), Waiter()
    backlog = Backlog(spool, LARGE, waiter.changed.set)
    put = [bytes([number]) * BLOCK_BYTES for number in range(12)]
    for message in put:
        backlog.put(message)
        await asyncio.sleep(0.01)
    assert backlog.is_full
    assert [await waiter.take(backlog) for _ in put] == put
    assert not backlog.is_full
    await settled(spool)


async def test_disk_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError(5, "Input/output error")

    failures: list[Exception] = []
    handled: list[WireMessage] = []
    inbox = Inbox(Spool(), LARGE, handled.append, lambda reading: None, failures.append)
    inbox.hold()
    for _ in range(20):
        inbox.put(bytes(BLOCK_BYTES))
        await asyncio.sleep(0.01)
    monkeypatch.setattr(spool_module, "_read", fail)
    inbox.on_room()
    async with asyncio.timeout(10):
        while not failures:
            await asyncio.sleep(0.01)
    assert isinstance(failures[0], OSError)
    assert 0 < len(handled) < 20
    inbox.close()


# --- Inbox ------------------------------------------------------------------------------------------------------------


async def test_messages_wait_while_there_is_no_room() -> None:
    handled: list[WireMessage] = []
    reading: list[bool] = []
    inbox = Inbox(Spool(), 10, handled.append, reading.append, lambda error: None)
    inbox.put(b"1")
    inbox.hold()
    inbox.put(b"2")
    assert (handled, reading, bool(inbox)) == ([b"1"], [], True)
    inbox.put(b"3" * 10)
    assert reading == [False]
    inbox.on_room()
    assert (handled, reading, bool(inbox)) == ([b"1", b"2", b"3" * 10], [False, True], False)
    inbox.hold()
    inbox.put(b"4" * 20)
    inbox.close()
    inbox.on_room()
    inbox.put(b"5")
    assert (len(handled), reading) == (3, [False, True, False, True])


async def test_many_small_messages_are_handled_in_bursts() -> None:
    handled: list[WireMessage] = []
    inbox = Inbox(Spool(), LARGE, handled.append, lambda reading: None, lambda error: None)
    inbox.hold()
    for _ in range(3 * BURST_MESSAGES):
        inbox.put("{}")
    inbox.on_room()
    assert len(handled) == BURST_MESSAGES
    inbox.put("last")
    async with asyncio.timeout(10):
        while inbox:
            await asyncio.sleep(0.01)
    assert len(handled) == 3 * BURST_MESSAGES + 1
    assert handled[-1] == "last"
