"""One stream of a `BatchedEngine`, and the events that the result of a step causes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tympan.audio.activity import SilenceMeter, pauses_from_silence
from tympan.engine.base import Deliver
from tympan.engine.batching.repetition_guard import REPLAYED_FRAMES, RepetitionGuard
from tympan.engine.batching.scheduler import Batch, PartialFrame, Row, Scheduler, Slot
from tympan.engine.batching.stall_guard import StallGuard
from tympan.engine.batching.step import StepResult, prefix_frames
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Partial, Pcm, Progress, Warning, Word
from tympan.transcript.words import WordAssembler

if TYPE_CHECKING:
    from tympan.engine.batching.engine import BatchedEngine

logger = logging.getLogger(__name__)

QUIET_FRAMES = 3
"""Frames without text after which a flush may end: a piece of a word may follow one or two frames of padding."""

LEAST_SPEECH_FRAMES = 4
"""Frames of speech by energy, 0.32 s, that should give a word."""

WorkItem = tuple[Slot, Pcm | Flushed | Finished | PartialFrame | None, float]
"""Work for a slot and its arrival time; None drops the stream."""


class BatchedStream:
    """The event loop's side of a slot. The engine thread calls only `on_audio`, `on_replayed_frame` and `fail`."""

    def __init__(self, engine: BatchedEngine, index: int, deliver: Deliver, *, live: bool) -> None:
        info = engine.info
        self.slot = Slot(index, self, live)
        self.deliver = deliver
        self.open = True
        self.frames = 0
        self.invalid = False
        self.frame_samples, self.sample_rate = info.frame_samples, info.sample_rate
        self._new_assembler = partial(WordAssembler, engine.tokenizer, info.delay_seconds, prefix_frames(info))
        self.words = self._new_assembler()
        self.has_text = self._is_retried = False
        self.speech_frames = 0
        self.guard = StallGuard(engine.stall_seconds, info) if engine.stall_seconds else None
        self.energy_horizons = info.pause_horizons if info.turns_from == "energy" else ()
        self.repetition = RepetitionGuard() if engine.stall_seconds else None
        self.silence = SilenceMeter(info.frame_seconds)
        self.last_frames = 0  # one bit for each of the last three frames, 1 for speech
        self._engine = engine

    def push(self, frame: Pcm) -> None:
        self._engine.post((self.slot, frame, time.monotonic()))

    def flush(self, marker: int, partial_frame: Pcm | None = None) -> None:
        flushed = Flushed(marker)
        self._engine.post((self.slot, flushed if partial_frame is None else PartialFrame(partial_frame, flushed), 0.0))

    def finish(self) -> None:
        self._engine.post((self.slot, Finished(), 0.0))

    def close(self) -> None:
        if self.open:
            self._engine.release(self)
            self._engine.post((self.slot, None, 0.0))

    def on_audio(
        self, row: Row, pauses: Sequence[float], level: float, scheduler: Scheduler, events: list[EngineEvent]
    ) -> None:
        """Append the progress of a frame of audio to `events`, and a warning if the model is restarted."""
        self.frames += 1
        silent_frames = self.silence.push(level)
        self.speech_frames += silent_frames == 0
        self.last_frames = (self.last_frames << 1 | (silent_frames == 0)) & 0b111
        if self.energy_horizons:
            pauses = pauses_from_silence(self._seconds(silent_frames), self.energy_horizons)
        speech = self.last_frames.bit_count() >= 2
        events.append(Progress(self._seconds(self.frames), tuple(pauses), speech))
        if self.guard is not None:
            start = self.guard.on_audio(row.number, silent_frames, pauses)
            if start is not None:
                self._restart_after_stall(start, scheduler, events)
        if self.repetition is not None and self.repetition.is_looping:
            self._restart_after_repetition(row, scheduler, events)

    def on_replayed_frame(self, row: Row, token: int, probability: float) -> list[EngineEvent]:
        """Return the words of a replayed frame. The first one of a replay withdraws the pending partial word."""
        withdrawn = self.words.rewind(row.number) if row.fresh and not self._is_retried else []
        return withdrawn + self.words.step(token, probability, row.injected)

    def retry(self, row: Row, scheduler: Scheduler) -> list[EngineEvent]:
        """Run the stream again with a temperature if it ends in this row and its speech has given no text.

        Returns:
            A warning if it runs again, which it does once; else nothing.
        """
        has_failed = not self.has_text and self.speech_frames >= LEAST_SPEECH_FRAMES and self.guard is not None
        if not has_failed or self._is_retried or not isinstance(row.marker, Finished):
            return []
        frames = scheduler.retry(self.slot)
        if not frames:
            return []
        self._is_retried = True
        self.words = self._new_assembler()
        seconds = self._seconds(frames)
        logger.warning("slot %d: speech without any word; its %.1f s run again", self.slot.index, seconds)
        return [Warning("retried", f"there was speech but no word: the {seconds:.1f} s are transcribed once more")]

    def fail(self) -> Failed:
        """Return the event that ends a stream whose model's output is NaN, and ignore the stream's later results."""
        self.invalid = True
        logger.error("slot %d: the model's output is not a number; its stream ends", self.slot.index)
        return Failed(EngineError("the model's output is not a number"))

    def _restart_after_stall(self, start: int, scheduler: Scheduler, events: list[EngineEvent]) -> None:
        frames = scheduler.replay(self.slot, start)
        if not frames:
            return
        assert self.guard is not None
        self.guard.on_restart()
        seconds = self._seconds(frames)
        logger.warning("slot %d: speech without a word; the model restarts %.1f s back", self.slot.index, seconds)
        message = f"there was speech but no word: the model restarts {seconds:.1f} s back"
        events.append(Warning("stalled", message))

    def _restart_after_repetition(self, row: Row, scheduler: Scheduler, events: list[EngineEvent]) -> None:
        """Reset the model, unless the slot cannot be replayed now; the words so far are final."""
        frames = scheduler.replay(self.slot, max(1, row.number + 1 - REPLAYED_FRAMES), "repetition")
        if not frames:
            return
        assert self.repetition is not None
        self.repetition.on_restart()
        seconds = self._seconds(frames)
        logger.warning("slot %d: the text repeats itself; the model restarts %.1f s back", self.slot.index, seconds)
        message = f"the text repeated itself without end: the model restarts {seconds:.1f} s back"
        events.append(Warning("repetition", message))

    def _seconds(self, frames: int) -> float:
        return frames * self.frame_samples / self.sample_rate


def step_events(
    batch: Batch, result: StepResult, scheduler: Scheduler
) -> list[tuple[BatchedStream, list[EngineEvent]]]:
    """Return the events of each row: words, then progress, warnings and the answer to a flush.

    A flush whose last frames brought text is extended, so that its words are complete and none is released later.

    If the model's output for a row is NaN, only the stream of that row fails.
    """
    events_by_stream: list[tuple[BatchedStream, list[EngineEvent]]] = []
    for row, token, probability, pauses, level in zip(
        batch.rows, result.tokens, result.probabilities, result.pauses, result.levels, strict=True
    ):
        stream: BatchedStream = row.slot.stream
        if stream.invalid:
            continue  # the event loop will drop the rest of its work
        if math.isnan(probability + sum(pauses)):
            events_by_stream.append((stream, [stream.fail()]))
            continue
        if row.replayed:
            events = stream.on_replayed_frame(row, token, probability)
        else:
            events = stream.words.step(token, probability, row.injected)
        if events and stream.guard is not None:
            stream.guard.on_text(row.number)
            stream.has_text = stream.has_text or any(isinstance(each, Word | Partial) and each.text for each in events)
        if stream.repetition is not None:
            stream.repetition.push(token)
        if row.frame is not None and not row.injected:
            stream.on_audio(row, pauses, level, scheduler, events)
        if row.marker is not None and (warnings := stream.retry(row, scheduler)):
            events += warnings
        elif row.marker is not None and scheduler.end_flush(row.slot, QUIET_FRAMES - stream.words.quiet_frames):
            events += stream.words.release()
            events.append(row.marker)
        if events:
            events_by_stream.append((stream, events))
    return events_by_stream
