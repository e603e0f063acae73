"""Leaving a stream before its end: at once, also while messages arrive, and the server's slot is free.

In Python 3.11, `asyncio.wait_for` may swallow the cancellation of a task whose awaited message has just arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from support.server import LiveServer
from support.waiting import wait_until

import tympan
from tympan.cli.listen import listen
from tympan.cli.terminal import PlainScreen
from tympan.client.microphone import BlockCallback, InputStream, Microphone
from tympan.messages import Event, Lag, Word

LEAVE_SECONDS = 8.0  # of a busy machine; a swallowed cancellation took 20 to 60 s
TRIALS = 5
EVENTS = ("ready", "partial", "word", "vad", "lag")  # so many that one has usually just arrived
FRAME = bytes(3840)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(max_streams=1) as server:
        yield server


@pytest.fixture(autouse=True)
def slot_is_free_again(server: LiveServer) -> Iterator[None]:
    yield
    wait_until(lambda: not server.service.engine.active)


async def frames() -> AsyncIterator[bytes]:
    while True:
        yield FRAME * 5
        await asyncio.sleep(0.001)


async def test_break_in_a_loop_over_the_stream(server: LiveServer) -> None:
    for _ in range(TRIALS):
        async with asyncio.timeout(LEAVE_SECONDS):
            async with tympan.connect(server.url(""), events=EVENTS) as stream:
                for _ in range(20):
                    await stream.send(FRAME)
                async for event in stream:
                    if isinstance(event, Word):
                        break
        wait_until(lambda: not server.service.engine.active)


async def test_break_in_a_loop_over_transcribe(server: LiveServer) -> None:
    for _ in range(TRIALS):
        async with asyncio.timeout(LEAVE_SECONDS):
            async with tympan.connect(server.url(""), events=EVENTS) as stream:
                async for event in stream.transcribe(frames()):
                    if isinstance(event, Word):
                        break
        wait_until(lambda: not server.service.engine.active)


async def test_cancelled_task(server: LiveServer) -> None:
    for _ in range(TRIALS):
        words = asyncio.Event()

        async def read(words: asyncio.Event = words) -> None:
            async with tympan.connect(server.url(""), events=EVENTS) as stream:
                async for event in stream.transcribe(frames()):
                    if isinstance(event, Word):
                        words.set()

        reading = asyncio.create_task(read())
        async with asyncio.timeout(LEAVE_SECONDS):
            await words.wait()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        wait_until(lambda: not server.service.engine.active)


def blocks() -> Iterator[bytes]:
    while True:
        yield FRAME * 5
        time.sleep(0.001)


def test_break_in_the_blocking_client(server: LiveServer) -> None:
    def leave() -> None:
        for _ in range(TRIALS):
            with tympan.connect_sync(server.url(""), events=EVENTS) as stream:
                for event in stream.transcribe(blocks()):
                    if isinstance(event, Word):
                        break
            wait_until(lambda: not server.service.engine.active)

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS + TRIALS)
    assert not leaving.is_alive(), "the client hangs"


class EndlessCard:
    """A sound card that delivers silence until it is closed."""

    samplerate = 24_000.0

    def __init__(self, device: str | int | None, block_seconds: float, callback: BlockCallback) -> None:
        self._block = np.zeros((round(block_seconds * self.samplerate), 1), np.float32)
        self._callback = callback
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(0.002):
            self._callback(self._block, len(self._block), None, None)


def open_card(device: str | int | None, block_seconds: float, callback: BlockCallback) -> InputStream:
    return EndlessCard(device, block_seconds, callback)


class ClosedPipe(PlainScreen):
    """A screen whose output is closed after the first word, as by `| head`."""

    def show(self, event: Event) -> None:
        if isinstance(event, Word | Lag):
            raise BrokenPipeError


async def test_command_whose_output_is_closed(server: LiveServer) -> None:
    for _ in range(TRIALS):
        async with asyncio.timeout(LEAVE_SECONDS):
            with pytest.raises(BrokenPipeError):
                await listen(server.url(""), None, Microphone(open_input=open_card), ClosedPipe(io.StringIO()))
        wait_until(lambda: not server.service.engine.active)
