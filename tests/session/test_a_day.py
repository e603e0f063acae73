"""A whole day of one stream through decoder, session, scheduler and words, in simulated time.

The model only counts frames, so the events of each moment are known: the test would show a clock that drifts by a
sample per minute, or a list that grows by an entry per second.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence

import numpy as np
import psutil
import pytest
from support.counting import CountingRunner

from tympan.config import Config
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.messages import Audio, AudioFormat, Complete, Event, Finish, Flush, Flushed, Lag, Vad, Word
from tympan.session.session import Session

DAY_SECONDS = 24 * 3600
RATE = 8_000  # a telephone line; the resampler triples it
MESSAGE_SECONDS = 1.0
FLUSH_EVERY_SECONDS = 300
WORD_SECONDS = 0.32  # the counting model gives one every four frames


class Counter(CountingRunner):
    """Keeps no record of its batches."""

    def launch(self, rows: Sequence[Row]) -> StepResult:
        result = super().launch(rows)
        self.batches.clear()
        return result


class Listener:
    """Checks every event and keeps only the unexpected ones."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()
        self.words = self.flushed = 0
        self.last_word = Word("", 0.0, 0.0, 0.0)
        self.last: Event | None = None
        self.frames = 0
        self.most_behind = 0.0
        self.odd: list[Event] = []

    def note(self, as_expected: bool, event: Event) -> None:
        if not as_expected:
            self.odd = [*self.odd[:9], event]

    def on_event(self, event: Event, channel: int) -> None:
        self.last = event
        match event:
            case Word():
                self.note(event.start >= self.last_word.end - 1e-6 and event.end >= event.start, event)
                self.note(event.start - self.last_word.end <= 2 * WORD_SECONDS, event)
                self.words += 1
                self.last_word = event
            case Vad():
                self.frames += 1
                self.note(abs(event.time - self.frames * 0.08) < 1e-3, event)  # one per frame
            case Lag():
                self.most_behind = max(self.most_behind, event.behind)
            case Flushed():
                self.flushed += 1

    def on_room(self) -> None:
        self.room.set()

    def on_end(self, error: Exception | None) -> None:
        self.ended.set_result(error)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_day_of_audio() -> None:
    engine = BatchedEngine(lambda: Counter(slots=1))
    await engine.start()
    listener = Listener()
    audio_format = AudioFormat("mulaw", RATE)
    session = Session(
        "day",
        engine,
        audio_format,
        Config(),
        listener,
        wants_vad=True,
    )
    message = np.random.default_rng(0).integers(0, 256, int(RATE * MESSAGE_SECONDS), np.uint8).tobytes()
    process, memory = psutil.Process(), []

    for second in range(DAY_SECONDS):
        listener.room.clear()
        if not session.execute(Audio(message)):
            await asyncio.wait(
                (asyncio.ensure_future(listener.room.wait()), listener.ended), return_when="FIRST_COMPLETED"
            )
            assert not listener.ended.done(), listener.ended
        if second % FLUSH_EVERY_SECONDS == FLUSH_EVERY_SECONDS - 1:
            session.execute(Flush(second))
        if second % 3600 == 3599:
            gc.collect()
            memory.append(process.memory_info().rss)
    session.execute(Finish())
    assert await listener.ended is None
    await engine.stop()

    assert isinstance(listener.last, Complete)
    assert listener.last.audio_seconds == DAY_SECONDS
    assert listener.frames == pytest.approx(DAY_SECONDS / 0.08, abs=1)
    assert listener.flushed == DAY_SECONDS / FLUSH_EVERY_SECONDS
    # The up to 19 silent frames of a flush give further words; all others come one every four frames.
    assert listener.words == pytest.approx(DAY_SECONDS / WORD_SECONDS, rel=0.01)
    assert DAY_SECONDS - 1 < listener.last_word.end <= DAY_SECONDS
    assert listener.odd == []
    assert listener.most_behind <= Config().limits.backlog_seconds + MESSAGE_SECONDS + 0.08
    grown = max(memory[1:]) - min(memory[1:])
    figures = {"hours": DAY_SECONDS // 3600, "flushes": listener.flushed, "words": listener.words}
    print(f"\n{json.dumps(figures | {'grown_mib': round(grown / 2**20, 2)})}")
    assert grown < 4 * 1024 * 1024, memory
