"""Transcription without a server: samples straight into an engine of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

from tympan.config import LimitSettings, TurnSettings
from tympan.engine.base import Engine
from tympan.messages import AudioFormat, Complete, Event, Pcm
from tympan.session.channel import Channel


class _Inbox:
    """Collects one channel's events for an iterator, and wakes the feeder when there is room."""

    wants_vad = held = True

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self.progressed = asyncio.Event()

    def on_event(self, channel: Channel, event: Event) -> None:
        self.events.put_nowait(event)

    def on_progress(self) -> None:
        self.progressed.set()

    def on_flushed(self, marker: int) -> None:
        """Nobody asks for a flush here."""

    def on_end(self, error: Exception | None) -> None:
        self.progressed.set()
        self.events.put_nowait(error)


async def transcribe(
    engine: Engine, blocks: Iterable[Pcm], turns: TurnSettings | None = None, limits: LimitSettings | None = None
) -> AsyncGenerator[Event, None]:
    """Events of mono `blocks` at the engine's rate; the last one is `Complete`.

    `blocks` is drawn from a thread, one at a time, as fast as the engine goes: a file longer than memory is fine.
    Raises `CapacityError`, whatever reading `blocks` raises, and the engine's error if it fails.
    """
    info = engine.info
    inbox = _Inbox()
    channel = Channel(engine, AudioFormat("f32le", info.sample_rate, 1), turns or TurnSettings(), inbox)
    most_frames = (limits or LimitSettings()).backlog_seconds / info.frame_seconds
    feeder = asyncio.create_task(_feed(channel, inbox, blocks, most_frames))
    try:
        while isinstance(event := await inbox.events.get(), Event):
            yield event
        if event is not None:
            raise event
        yield Complete(channel.received_seconds, channel.words)
    finally:
        feeder.cancel()
        channel.close()


async def _feed(channel: Channel, inbox: _Inbox, blocks: Iterable[Pcm], most_frames: float) -> None:
    iterator = iter(blocks)
    try:
        while (block := await asyncio.to_thread(next, iterator, None)) is not None:
            channel.hear(block)
            while channel.backlog_frames > most_frames:
                inbox.progressed.clear()
                await inbox.progressed.wait()
        channel.finish()
    except Exception as error:
        inbox.on_end(error)  # whoever iterates raises it
