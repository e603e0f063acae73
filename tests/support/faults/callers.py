"""Clients that send marks through the SDK in real time, and figures about the words that they receive."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import tympan
from support.faults import marks
from tympan.bench.load.score import compare
from tympan.client.backoff import Backoff
from tympan.client.transport import Connection, NoConnectionError, open_websocket

PATIENT = Backoff(attempts=60, first_seconds=0.2, longest_seconds=1.0)
RAMP_SECONDS = 1.0


@dataclass
class Caller:
    """A client with one stream.

    Attributes:
        number: The number of its stream; marks encode it.
        words: How many words it sends.
        received: The words received, with the time of each (`time.monotonic`).
        close_codes: The codes with which its connections were closed by the server or the network.
        error: The error that ended the stream, or an empty string.
    """

    number: int
    words: int
    received: list[tuple[float, tympan.Word]] = field(default_factory=list)
    close_codes: list[int] = field(default_factory=list)
    error: str = ""

    async def call(self, url: str, sample_rate: int = 24_000) -> None:
        try:
            async with tympan.connect(
                url, sample_rate=sample_rate, events=("word",), backoff=PATIENT, transport=self._open
            ) as stream:
                async for event in stream.transcribe(self._speak(sample_rate)):
                    if isinstance(event, tympan.Word):
                        self.received.append((time.monotonic(), event))
        except tympan.ServerError as error:
            self.error = f"{error.reason}: {error}"

    async def _speak(self, sample_rate: int) -> AsyncIterator[bytes]:
        began = time.monotonic()
        for number, chunk in enumerate(marks.chunks(self.number, self.words, sample_rate)):
            await asyncio.sleep(began + (number + 1) * marks.CHUNK_SECONDS - time.monotonic())
            yield chunk

    async def _open(self, url: str, headers: Mapping[str, str]) -> Connection:
        return RecordingConnection(await open_websocket(url, headers), self.close_codes)


class RecordingConnection:
    """A connection that records its close code."""

    def __init__(self, connection: Connection, close_codes: list[int]) -> None:
        self._connection = connection
        self._close_codes = close_codes
        self.send = connection.send
        self.close = connection.close

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.receive()
        except NoConnectionError as error:
            self._close_codes.append(error.code)
            raise


@dataclass
class Crowd:
    """Several concurrent callers; `broke_at` is the time of the fault."""

    callers: list[Caller]
    broke_at: float = 0.0

    @classmethod
    def of(cls, streams: int, seconds: float) -> Crowd:
        words = round(seconds / (marks.STRIDE_CHUNKS * marks.CHUNK_SECONDS))
        return cls([Caller(number, words) for number in range(streams)])

    def start(self, url: str, sample_rate: int = 24_000) -> asyncio.Task[None]:
        return asyncio.create_task(self._call(url, sample_rate))

    async def _call(self, url: str, sample_rate: int) -> None:
        async def delayed(caller: Caller) -> None:
            await asyncio.sleep(RAMP_SECONDS * caller.number / len(self.callers))
            await caller.call(url, sample_rate)

        await asyncio.gather(*map(delayed, self.callers))

    def mark_fault(self) -> None:
        """Record that the fault happens now."""
        self.broke_at = time.monotonic()

    async def wait_for_words(self, words: int = 3) -> None:
        """Wait until every caller has received this many words."""
        await until(lambda: min(len(caller.received) for caller in self.callers) >= words)

    def figures(self, fault: str, **more: object) -> dict[str, object]:
        """Return the figures, and print them as a line of JSON for `benchmarks/reliability.py`."""
        compared = [
            compare(marks.texts(caller.number, caller.words), [word.text for _, word in caller.received])
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
        """Return the longest time without a word that ended after the fault, in seconds."""
        times = [time for time, _ in caller.received]
        return max((later - earlier for earlier, later in pairwise(times) if later > self.broke_at), default=0.0)

    def close_codes(self) -> Counter[int]:
        """Count the close codes other than 1000."""
        return Counter(code for caller in self.callers for code in caller.close_codes if code != 1000)

    def max_time_error(self) -> float:
        """Return the largest difference between a word's time and that of its mark, in seconds."""
        return max(
            abs(word.start - start)
            for caller in self.callers
            for (_, word), start in zip(caller.received, marks.starts(caller.words), strict=True)
        )


def none_lost(figures: Mapping[str, object]) -> bool:
    return (figures["lost"], figures["repeated"], figures["errors"]) == (0, 0, 0)


async def until(condition: Callable[[], bool]) -> None:
    """Poll the condition in a thread."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)
