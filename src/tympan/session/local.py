"""Transcription without a server: samples go straight into an engine of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

from tympan.config import LimitSettings, TurnSettings
from tympan.engine.base import Engine
from tympan.messages import AudioFormat, Complete, Event, Pcm
from tympan.session.channel import Channel


class _EventQueue:
    """Queues a channel's events for an iterator, and reports when there is room for more audio."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self.room = asyncio.Event()

    def on_event(self, event: Event, channel: int) -> None:
        self.events.put_nowait(event)

    def on_room(self) -> None:
        self.room.set()

    def on_end(self, error: Exception | None) -> None:
        self.room.set()
        self.events.put_nowait(error)


async def transcribe(
    engine: Engine, blocks: Iterable[Pcm], turns: TurnSettings | None = None, limits: LimitSettings | None = None
) -> AsyncGenerator[Event, None]:
    """Yield the events of mono audio; the last one is `Complete`.

    Args:
        engine: A started engine.
        blocks: Audio, each block `[n]` at the engine's sample rate. A thread reads one block at a time, as fast as the
            engine transcribes them, so a file may be larger than the memory.
        turns: When a turn ends.
        limits: The limit of the backlog.

    Raises:
        CapacityError: All slots of the engine are in use.
        Exception: The error of the engine, or of reading `blocks`.
    """
    info = engine.info
    queue = _EventQueue()
    most_frames = (limits or LimitSettings()).backlog_seconds / info.frame_seconds
    audio_format = AudioFormat("auto", info.sample_rate, 1)  # decoded: its bytes were no raw samples
    channel = Channel(engine, audio_format, turns or TurnSettings(), queue, most_frames, live=False)
    feeder = asyncio.create_task(_feed(channel, queue, blocks))
    try:
        while isinstance(event := await queue.events.get(), Event):
            yield event
        if event is not None:
            raise event
        yield Complete(channel.received_seconds, channel.words)
    finally:
        feeder.cancel()
        channel.close()


async def _feed(channel: Channel, queue: _EventQueue, blocks: Iterable[Pcm]) -> None:
    iterator = iter(blocks)
    try:
        while (block := await asyncio.to_thread(next, iterator, None)) is not None:
            queue.room.clear()
            channel.push(block)
            if channel.is_full:
                await queue.room.wait()
        channel.finish()
    except Exception as error:
        queue.on_end(error)  # the iterator raises it
