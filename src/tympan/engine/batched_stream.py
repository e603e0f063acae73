"""A stream of a batched engine: its slot and its words, and the events that each step's result becomes."""

from __future__ import annotations

import time
from typing import Protocol

from tympan.audio.activity import SilenceMeter, pauses_from_silence
from tympan.engine.base import Deliver, EngineInfo
from tympan.engine.scheduler import Batch, Rest, Slot
from tympan.engine.step import StepResult
from tympan.messages import EngineEvent, Finished, Flushed, Progress, Samples
from tympan.transcript.tokenizer import Tokenizer
from tympan.transcript.words import WordAssembler

Letter = tuple[Slot, Samples | Flushed | Finished | Rest | None, float]
"""Work for a slot and when it came; `None` drops the stream."""


class Owner(Protocol):
    """The engine, as its streams see it."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def post(self, letter: Letter) -> None:
        """Put work into the engine thread's inbox."""

    def release(self, stream: BatchedStream) -> None:
        """The stream is over: its slot is free."""


class BatchedStream:
    """The loop's end of a slot."""

    def __init__(self, engine: Owner, index: int, deliver: Deliver, *, live: bool) -> None:
        self.slot = Slot(index, self, live)
        self.deliver = deliver
        self.open = True
        self.frames = 0
        self.words = WordAssembler(engine.tokenizer, engine.info.delay_seconds)
        self.silence = SilenceMeter(engine.info.sample_rate) if engine.info.turns_from == "energy" else None
        self._engine = engine

    def pauses_by_energy(self, frame: Samples) -> tuple[float, ...]:
        """For models without pause heads."""
        assert self.silence is not None
        return pauses_from_silence(self.silence.push(frame), self._engine.info.pause_horizons)

    def push(self, frame: Samples) -> None:
        self._engine.post((self.slot, frame, time.monotonic()))

    def flush(self, mark: int, rest: Samples | None = None) -> None:
        self._engine.post((self.slot, Flushed(mark) if rest is None else Rest(rest, Flushed(mark)), 0.0))

    def finish(self) -> None:
        self._engine.post((self.slot, Finished(), 0.0))

    def close(self) -> None:
        if self.open:
            self._engine.release(self)
            self._engine.post((self.slot, None, 0.0))


def tell_answers(batch: Batch) -> list[tuple[BatchedStream, list[EngineEvent]]]:
    """The marks that needed no step."""
    told: list[tuple[BatchedStream, list[EngineEvent]]] = []
    for slot, mark in batch.answers:
        assert isinstance(slot.tenant, BatchedStream)
        told.append((slot.tenant, [mark]))
    return told


def tell_events(
    batch: Batch, result: StepResult, frame_seconds: float
) -> list[tuple[BatchedStream, list[EngineEvent]]]:
    """Each row's events, in the order of the seam: words, progress, marks."""
    told: list[tuple[BatchedStream, list[EngineEvent]]] = []
    for row, token, probability, pauses in zip(
        batch.rows, result.tokens, result.probabilities, result.pauses, strict=True
    ):
        stream = row.slot.tenant
        assert isinstance(stream, BatchedStream)
        events: list[EngineEvent] = [*stream.words.step(token, probability, injected=row.injected)]
        if row.frame is not None and not row.injected:
            stream.frames += 1
            told_pauses = tuple(pauses) if stream.silence is None else stream.pauses_by_energy(row.frame)
            events.append(Progress(round(stream.frames * frame_seconds, 3), told_pauses))
        if row.mark is not None:
            events += stream.words.release()
            events.append(row.mark)
        if events:
            told.append((stream, events))
    return told
