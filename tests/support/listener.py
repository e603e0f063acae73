"""An engine stream's listener that records events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from tympan.engine.base import Engine, EngineInfo
from tympan.messages import EngineEvent, Failed, Finished, Samples, Word


class Listener:
    """The `deliver` callback of one stream."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, events: Sequence[EngineEvent]) -> None:
        self.events += events
        self._changed.set()

    @property
    def words(self) -> list[Word]:
        return [event for event in self.events if isinstance(event, Word)]

    def of(self, *kinds: type) -> list[EngineEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    async def wait_for(self, *kinds: type, count: int = 1) -> None:
        """Wait until `count` events of these types have arrived."""
        async with asyncio.timeout(30):
            while len(self.of(*kinds)) < count:
                self._changed.clear()
                await self._changed.wait()

    async def wait_for_end(self) -> None:
        await self.wait_for(Finished, Failed)


def frames_of(samples: Samples, info: EngineInfo) -> list[Samples]:
    """Split mono samples at the engine's rate into frames; the last one is zero-padded."""
    missing = -len(samples) % info.frame_samples
    return list(np.pad(samples, (0, missing)).reshape(-1, info.frame_samples))


async def hear(engine: Engine, samples: Samples) -> Listener:
    """Process a whole stream, and return its listener."""
    listener = Listener()
    stream = engine.open(listener)
    for frame in frames_of(samples, engine.info):
        stream.push(frame)
    stream.finish()
    await listener.wait_for_end()
    return listener
