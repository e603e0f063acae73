"""Callers who speak marks through the SDK at the pace of speech, and what came of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import fault_marks as markers

import tympan
from tympan.bench.load.score import compare
from tympan.client.backoff import Backoff
from tympan.client.transport import Connection, NoConnectionError, open_websocket

PATIENT = Backoff(attempts=60, first_seconds=0.2, longest_seconds=1.0)
RAMP_SECONDS = 1.0


@dataclass
class Caller:
    """One stream; `heard` are its words and when they came (`time.monotonic`)."""

    number: int
    words: int
    heard: list[tuple[float, tympan.Word]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """How its connections ended, where the server or the network ended them: close codes."""
    error: str = ""

    async def call(self, url: str, sample_rate: int = 24_000) -> None:
        try:
            async with tympan.connect(
                url, sample_rate=sample_rate, events=("word",), backoff=PATIENT, transport=self._open
            ) as stream:
                async for event in stream.transcribe(self._speak(sample_rate)):
                    if isinstance(event, tympan.Word):
                        self.heard.append((time.monotonic(), event))
        except tympan.ServerError as error:
            self.error = f"{error.reason}: {error}"

    async def _speak(self, sample_rate: int) -> AsyncIterator[bytes]:
        began = time.monotonic()
        for place, chunk in enumerate(markers.chunks(self.number, self.words, sample_rate)):
            await asyncio.sleep(began + (place + 1) * markers.CHUNK_SECONDS - time.monotonic())
            yield chunk

    async def _open(self, url: str, headers: Mapping[str, str]) -> Connection:
        return Watched(await open_websocket(url, headers), self.ends)


class Watched:
    """A connection that notes the code it ended with."""

    def __init__(self, connection: Connection, ends: list[int]) -> None:
        self._connection = connection
        self._ends = ends
        self.send = connection.send
        self.close = connection.close

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.receive()
        except NoConnectionError as ended:
            self._ends.append(ended.code)
            raise


@dataclass
class Crowd:
    """Several callers at once. `broke_at` is the moment of the fault."""

    callers: list[Caller]
    broke_at: float = 0.0

    @classmethod
    def of(cls, streams: int, seconds: float) -> Crowd:
        words = round(seconds / (markers.STRIDE_CHUNKS * markers.CHUNK_SECONDS))
        return cls([Caller(number, words) for number in range(streams)])

    def start(self, url: str, sample_rate: int = 24_000) -> asyncio.Task[None]:
        return asyncio.create_task(self._call(url, sample_rate))

    async def _call(self, url: str, sample_rate: int) -> None:
        async def late(caller: Caller) -> None:
            await asyncio.sleep(RAMP_SECONDS * caller.number / len(self.callers))
            await caller.call(url, sample_rate)

        await asyncio.gather(*map(late, self.callers))

    def broken(self) -> None:
        """The fault happens now."""
        self.broke_at = time.monotonic()

    async def until_heard(self, words: int = 3) -> None:
        """Every caller has been told so many words."""
        await until(lambda: min(len(caller.heard) for caller in self.callers) >= words)

    def figures(self, fault: str, **more: object) -> dict[str, object]:
        """Prints them as a line of JSON, too; `benchmarks/reliability.py` reads it."""
        compared = [
            compare(markers.texts(caller.number, caller.words), [word.text for _, word in caller.heard])
            for caller in self.callers
        ]
        result = {
            "fault": fault,
            "streams": len(self.callers),
            "words": sum(caller.words for caller in self.callers),
            "lost": sum(each.lost + each.changed for each in compared),
            "repeated": sum(each.repeated + each.changed for each in compared),
            "errors": sum(bool(caller.error) for caller in self.callers),
            "seconds_without_words": round(max(map(self._pause, self.callers)), 1),
            **more,
        }
        print(f"\n{json.dumps(result)}", flush=True)
        for caller in self.callers:
            if caller.error:
                print(caller.number, caller.error)
        return result

    def _pause(self, caller: Caller) -> float:
        """The longest that this caller was told nothing, from its last words before the fault on."""
        moments = [moment for moment, _ in caller.heard]
        return max((later - earlier for earlier, later in pairwise(moments) if later > self.broke_at), default=0.0)

    def ends(self) -> Counter[int]:
        """How connections ended that the server or the network ended, the good ends aside."""
        return Counter(code for caller in self.callers for code in caller.ends if code != 1000)

    def most_time_error(self) -> float:
        """Seconds by which the time of a word is off the place of its mark, at most."""
        return max(
            abs(word.start - start)
            for caller in self.callers
            for (_, word), start in zip(caller.heard, markers.starts(caller.words), strict=True)
        )


def none_lost(figures: Mapping[str, object]) -> bool:
    return (figures["lost"], figures["repeated"], figures["errors"]) == (0, 0, 0)


async def until(holds: Callable[[], bool]) -> None:
    """Asked off the event loop, which goes on."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)
