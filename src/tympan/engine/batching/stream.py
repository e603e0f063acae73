"""A stream of a batched engine: its slot and its words, and the events that each step's result becomes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tympan.audio.activity import SilenceMeter, pauses_from_silence
from tympan.engine.base import Deliver, EngineInfo
from tympan.engine.batching.scheduler import Batch, PartialFrame, Row, Slot
from tympan.engine.batching.stall_guard import StallGuard
from tympan.engine.batching.step import StepResult, prefix_frames
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Pcm, Progress, Warning
from tympan.transcript.tokenizer import Tokenizer
from tympan.transcript.words import WordAssembler

logger = logging.getLogger(__name__)

Replay = Callable[[Slot, int], int]
"""As `Scheduler.replay`."""

WorkItem = tuple[Slot, Pcm | Flushed | Finished | PartialFrame | None, float]
"""Work for a slot and when it came; `None` drops the stream."""


class Owner(Protocol):
    """The engine, as its streams see it."""

    stall_seconds: float

    @property
    def info(self) -> EngineInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def post(self, letter: WorkItem) -> None:
        """Put work into the engine thread's inbox."""

    def release(self, stream: BatchedStream) -> None:
        """The stream is over: its slot is free."""


class BatchedStream:
    """The loop's end of a slot."""

    def __init__(self, engine: Owner, index: int, deliver: Deliver, *, live: bool) -> None:
        info = engine.info
        self.slot = Slot(index, self, live)
        self.deliver = deliver
        self.open = True
        self.frames = 0
        self.invalid = False
        self.frame_samples, self.sample_rate = info.frame_samples, info.sample_rate
        self.words = WordAssembler(engine.tokenizer, info.delay_seconds, prefix_frames(info))
        self.guard = StallGuard(engine.stall_seconds, info) if engine.stall_seconds else None
        self.energy_horizons = info.pause_horizons if info.turns_from == "energy" else ()
        self.silence = SilenceMeter(info.frame_seconds) if self.guard or self.energy_horizons else None
        self._engine = engine

    def hear(self, row: Row, pauses: Sequence[float], level: float, replay: Replay, events: list[EngineEvent]) -> None:
        """Adds what a frame of audio causes beside words: progress, and a warning where the model is started again."""
        self.frames += 1
        silent_frames = 0 if self.silence is None else self.silence.push(level)
        if self.energy_horizons:
            pauses = pauses_from_silence(self._seconds(silent_frames), self.energy_horizons)
        events.append(Progress(self._seconds(self.frames), tuple(pauses)))
        if self.guard is not None:
            start = self.guard.hear(row.number, silent_frames, pauses)
            if start is not None:
                self._start_again(start, replay, events)

    def hear_again(self, row: Row, token: int, probability: float) -> list[EngineEvent]:
        """What a frame gives that is run once more."""
        taken_back = self.words.rewind(row.number) if row.fresh else []
        return taken_back + self.words.step(token, probability)

    def fail(self) -> Failed:
        """Return the event that ends a stream whose model's output is not a number; its later results do not count."""
        self.invalid = True
        logger.error("slot %d: the model's output is not a number; its stream ends", self.slot.index)
        return Failed(EngineError("the model's output is not a number"))

    def _start_again(self, start: int, replay: Replay, events: list[EngineEvent]) -> None:
        frames = replay(self.slot, start)
        if not frames:
            return
        assert self.guard is not None
        self.guard.started()
        seconds = self._seconds(frames)
        logger.warning("slot %d: speech without a word; its model starts again, %.1f s back", self.slot.index, seconds)
        message = f"there was speech but no word: the model starts again, {seconds:.1f} s back"
        events.append(Warning("stalled", message))

    def _seconds(self, frames: int) -> float:
        return frames * self.frame_samples / self.sample_rate

    def push(self, frame: Pcm) -> None:
        self._engine.post((self.slot, frame, time.monotonic()))

    def flush(self, marker: int, rest: Pcm | None = None) -> None:
        self._engine.post((self.slot, Flushed(marker) if rest is None else PartialFrame(rest, Flushed(marker)), 0.0))

    def finish(self) -> None:
        self._engine.post((self.slot, Finished(), 0.0))

    def close(self) -> None:
        if self.open:
            self._engine.release(self)
            self._engine.post((self.slot, None, 0.0))


def tell_answers(batch: Batch) -> list[tuple[BatchedStream, list[EngineEvent]]]:
    """The marks that needed no step."""
    told: list[tuple[BatchedStream, list[EngineEvent]]] = []
    for slot, marker in batch.answers:
        assert isinstance(slot.stream, BatchedStream)
        told.append((slot.stream, [marker]))
    return told


def tell_events(batch: Batch, result: StepResult, replay: Replay) -> list[tuple[BatchedStream, list[EngineEvent]]]:
    """Return each row's events: words, then progress, warnings and the answer to a flush.

    Where the model's numbers are NaN, the row's stream fails, and no other does.
    """
    told: list[tuple[BatchedStream, list[EngineEvent]]] = []
    for row, token, probability, pauses, level in zip(
        batch.rows, result.tokens, result.probabilities, result.pauses, result.levels, strict=True
    ):
        stream = row.slot.stream
        assert isinstance(stream, BatchedStream)
        if stream.invalid:
            continue  # the loop is about to drop the rest of its work
        if math.isnan(probability + sum(pauses)):
            told.append((stream, [stream.fail()]))
            continue
        if row.replayed:
            events = stream.hear_again(row, token, probability)
        else:
            events = stream.words.step(token, probability, row.injected)
        if events and stream.guard is not None:
            stream.guard.text(row.number)
        if row.frame is not None and not row.injected:
            stream.hear(row, pauses, level, replay, events)
        if row.marker is not None:
            events += stream.words.release()
            events.append(row.marker)
        if events:
            told.append((stream, events))
    return told
