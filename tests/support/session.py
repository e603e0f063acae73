"""A session without a socket, and what it reported."""

from __future__ import annotations

import asyncio

from tympan.config import Config
from tympan.engine.base import Engine
from tympan.messages import AudioFormat, Complete, Event, Finish, Word
from tympan.session.session import Session


class SessionClient:
    """Opens a session and collects its events; `room` is set when it accepts audio again, `ended` is its end."""

    def __init__(self, engine: Engine, audio_format: AudioFormat) -> None:
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.session = Session("id", engine, audio_format, Config(), self, wants_vad=True)

    def on_event(self, event: Event, channel: int) -> None:
        self.events.append(event)
        self.changed.set()

    def on_room(self) -> None:
        self.room.set()

    def on_end(self, error: Exception | None) -> None:
        self.ended.set_result(error)

    @property
    def words(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Word)]

    async def finish(self) -> Complete:
        self.session.execute(Finish())
        assert await asyncio.wait_for(self.ended, 10) is None
        assert isinstance(self.events[-1], Complete)
        return self.events[-1]

    async def wait_for(self, event: Event) -> None:
        async with asyncio.timeout(10):
            while event not in self.events:
                self.changed.clear()
                await self.changed.wait()
