"""One channel of a session: samples become frames for an engine slot, the engine's events become the session's.

A channel adds what the engine's words and progress imply: turns, segments, lag, and warnings about the audio.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tympan.audio.checks import AudioChecks
from tympan.audio.frames import Framer
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
from tympan.session.listener import SessionListener
from tympan.transcript.segments import Segmenter
from tympan.transcript.turns import TurnDetector

LAG_EVERY_SECONDS = 1.0


class Channel:
    """Holds an engine slot from its creation until its last event or `close`.

    Args:
        engine: The engine that transcribes this channel.
        audio_format: The declared format, for warnings about audio that does not look like it.
        turns: When a turn ends.
        listener: Receives the events, a `Flushed` for every flush included.
        most_frames: Backlog in frames above which `is_full` is true.
        number: The channel's number within the session.
        wants_vad: Whether to report `Vad`, of which there is one per frame.
        live: Whether the audio arrives in real time; a file yields to live streams.

    Raises:
        CapacityError: All slots of the engine are in use.
    """

    def __init__(
        self,
        engine: Engine,
        audio_format: AudioFormat,
        turns: TurnSettings,
        listener: SessionListener,
        most_frames: float,
        number: int = 0,
        *,
        wants_vad: bool = True,
        live: bool = True,
    ) -> None:
        self.number = number
        self.words = 0
        info = engine.info
        self._sample_rate = info.sample_rate
        self._listener = listener
        self._most_frames = most_frames
        self._wants_vad = wants_vad
        self._framer = Framer(info.frame_samples)
        self._sanity = AudioChecks(audio_format, info.sample_rate)
        self._turns = TurnDetector(turns, info.pause_horizons)
        self._segments = Segmenter(info.delay_seconds)
        self._received_samples = 0
        self._backlog_frames = 0  # pushed to the engine and not yet transcribed
        self._next_lag = LAG_EVERY_SECONDS
        self._stream = engine.open(self._on_engine_events, live=live)

    @property
    def received_seconds(self) -> float:
        """Audio received, in seconds; exact to the sample."""
        return round(self._received_samples / self._sample_rate, 6)

    @property
    def is_full(self) -> bool:
        """Whether the backlog is above its limit; the listener's `on_room` reports when it no longer is."""
        return self._backlog_frames > self._most_frames

    @property
    def has_backlog(self) -> bool:
        """Whether frames have not been transcribed."""
        return self._backlog_frames > 0

    def set_format(self, audio_format: AudioFormat) -> None:
        """Replace the declared format before any audio has been received."""
        self._sanity = AudioChecks(audio_format, self._sample_rate)

    def push(self, samples: Pcm) -> None:
        """Send more audio, `[n]` at the engine's sample rate."""
        self._received_samples += len(samples)
        for warning in self._sanity.push(samples):
            self._emit(warning)
        for frame in self._framer.push(samples):
            self._backlog_frames += 1
            self._stream.push(frame)

    def flush(self, marker: int, *, with_partial_frame: bool) -> None:
        """Request all pending words, then `Flushed(marker)`.

        Args:
            marker: Identifies the flush in its answer.
            with_partial_frame: Whether to include the frame that is not complete yet. The engine transcribes it in
                addition to the frames, so word times do not move. A flush at an endpoint does not need it.
        """
        self._stream.flush(marker, self._framer.take_partial() if with_partial_frame else None)

    def finish(self) -> None:
        """Send the last frame, padded with zeros, and request all pending words."""
        last = self._framer.pad()
        if last is not None:
            self._backlog_frames += 1
            self._stream.push(last)
        self._stream.finish()

    def close(self) -> None:
        """Release the slot; no further events follow."""
        self._stream.close()

    def _on_engine_events(self, events: Sequence[EngineEvent]) -> None:
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
                    self._emit(event)
                case Finished():
                    self._emit_all(self._segments.close())
                    self._emit_all(self._turns.finish())
                    self._listener.on_end(None)
                case Failed():
                    self._listener.on_end(event.error)

    def _on_word(self, word: Word) -> None:
        received = self.received_seconds
        if word.end > received:  # in the zeros that pad the last frame
            word = replace(word, start=min(word.start, received), end=received)
        self.words += 1
        self._emit_all(self._segments.word(word))
        self._emit_all(self._turns.word(word))
        self._emit(word)

    def _on_progress(self, progress: Progress) -> None:
        backlog_frames = self._backlog_frames
        self._backlog_frames = backlog_frames - 1
        if progress.time * self._sample_rate > self._received_samples:  # in the zeros that pad the last frame
            progress = replace(progress, time=self.received_seconds)
        if progress.pauses and self._wants_vad:
            self._emit(Vad(progress.time, progress.pauses, progress.speech))
        for segment in self._segments.progress(progress.time):
            self._emit(segment)
        for turn in self._turns.progress(progress):
            self._emit(turn)
        if progress.time >= self._next_lag:
            self._next_lag = progress.time + LAG_EVERY_SECONDS
            received = self.received_seconds
            self._emit(Lag(round(received, 3), round(progress.time, 3), round(received - progress.time, 3)))
        if backlog_frames > self._most_frames and not self.is_full:
            self._listener.on_room()

    def _emit(self, event: Event) -> None:
        self._listener.on_event(event, self.number)

    def _emit_all(self, events: Sequence[Event]) -> None:
        for event in events:
            self._emit(event)
