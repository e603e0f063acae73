"""One channel of a session: samples in, frames to its slot, the engine's events up, with turns, segments, lag and
warnings added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from tympan.audio.frames import Framer
from tympan.audio.sanity import SanityCheck
from tympan.config import TurnSettings
from tympan.engine.base import Engine
from tympan.messages import (
    AudioFormat,
    EngineEvent,
    Event,
    Failed,
    Finished,
    Flushed,
    Lag,
    Partial,
    Pcm,
    Progress,
    Vad,
    Warning,
    Word,
)
from tympan.transcript.segments import Segmenter
from tympan.transcript.turns import TurnDetector

LAG_EVERY_SECONDS = 1.0


class Owner(Protocol):
    """Whom a channel reports to."""

    wants_vad: bool
    """Whether `Vad`, which comes with every frame, is of interest."""
    held: bool
    """Whether it waits for `on_progress`."""

    def on_event(self, channel: Channel, event: Event) -> None: ...

    def on_progress(self) -> None:
        """One frame more has been transcribed. Called while `held`."""

    def on_flushed(self, marker: int) -> None:
        """The flush with this mark is done on this channel."""

    def on_end(self, error: Exception | None) -> None:
        """The last report of a channel that was not closed."""


class Channel:
    """Takes a slot when made (raises `CapacityError`), and gives it back at its end or when `close` is called."""

    def __init__(
        self,
        engine: Engine,
        audio_format: AudioFormat,
        turns: TurnSettings,
        owner: Owner,
        number: int = 0,
        *,
        live: bool = True,
    ) -> None:
        self.number = number
        info = engine.info
        self._sample_rate = info.sample_rate
        self._owner = owner
        self._framer = Framer(info.frame_samples)
        self._sanity = SanityCheck(audio_format, info.sample_rate)
        self._turns = TurnDetector(turns, info.pause_horizons)
        self._segments = Segmenter(info.delay_seconds)
        self._received_samples = 0
        self.backlog_frames = 0
        """Handed to the engine and not transcribed yet."""
        self._next_lag = LAG_EVERY_SECONDS
        self.words = 0
        self._stream = engine.open(self._deliver, live=live)

    @property
    def received_seconds(self) -> float:
        return round(self._received_samples / self._sample_rate, 6)  # exact enough to resume at the sample

    def declare(self, audio_format: AudioFormat) -> None:
        """Nothing was heard yet, and what comes is in another format: another sort of audio looks wrong."""
        self._sanity = SanityCheck(audio_format, self._sample_rate)

    def hear(self, samples: Pcm) -> None:
        """More audio, `[n]` at the engine's rate."""
        self._received_samples += len(samples)
        for warning in self._sanity.push(samples):
            self._emit(warning)
        for frame in self._framer.push(samples):
            self.backlog_frames += 1
            self._stream.push(frame)

    def flush(self, marker: int, *, to_the_end: bool) -> None:
        """`to_the_end`: with the frame that has only begun, which the engine hears beside the clock, so that no time
        moves. For an endpoint the frames will do: it lies behind them.
        """
        self._stream.flush(marker, self._framer.show() if to_the_end else None)

    def finish(self) -> None:
        rest = self._framer.pad()
        if rest is not None:
            self.backlog_frames += 1
            self._stream.push(rest)
        self._stream.finish()

    def close(self) -> None:
        self._stream.close()

    def _deliver(self, events: Sequence[EngineEvent]) -> None:
        for event in events:
            match event:
                case Progress():  # by far the most frequent one
                    self._on_progress(event)
                case Partial():
                    self._segments.partial(event)
                    self._emit(event)
                case Word():
                    self._on_word(event)
                case Warning():
                    self._emit(event)
                case Flushed():
                    self._emit_all(self._segments.close())
                    self._owner.on_flushed(event.marker)
                case Finished():
                    self._on_finished()
                case Failed():
                    self._owner.on_end(event.error)

    def _on_word(self, word: Word) -> None:
        received = self.received_seconds
        if word.end > received:  # heard in the zeros that filled up the last frame
            word = replace(word, start=min(word.start, received), end=received)
        self.words += 1
        self._emit_all(self._segments.word(word))
        self._emit_all(self._turns.word(word))
        self._emit(word)

    def _on_progress(self, progress: Progress) -> None:
        self.backlog_frames -= 1
        if progress.time * self._sample_rate > self._received_samples:  # the zeros that filled up the last frame
            progress = Progress(self.received_seconds, progress.pauses)
        if progress.pauses and self._owner.wants_vad:
            self._emit(Vad(progress.time, progress.pauses))
        for segment in self._segments.progress(progress.time):
            self._emit(segment)
        for turn in self._turns.progress(progress):
            self._emit(turn)
        if progress.time >= self._next_lag:
            self._next_lag = progress.time + LAG_EVERY_SECONDS
            received = self.received_seconds
            self._emit(Lag(round(received, 3), round(progress.time, 3), round(received - progress.time, 3)))
        if self._owner.held:
            self._owner.on_progress()

    def _on_finished(self) -> None:
        self._emit_all(self._segments.close())
        self._emit_all(self._turns.finish())
        self._owner.on_end(None)

    def _emit(self, event: Event) -> None:
        self._owner.on_event(self, event)

    def _emit_all(self, events: Sequence[Event]) -> None:
        for event in events:
            self._emit(event)
