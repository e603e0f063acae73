"""The recent audio of one stream, with which it continues in another engine process without losing or repeating a word.

The new process starts with an empty state. If the buffer still has the stream from its beginning, everything is run
again, flushes included, so the state and all later words are those of the lost process; what was delivered before is
dropped by its number. Otherwise the last `REPLAY_FRAMES` are run again, and words are dropped by their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tympan.engine.remote.wire import Kind, frame_item, item
from tympan.messages import EngineEvent, Flushed, Partial, Pcm, Progress, Warning, Word

REPLAY_FRAMES: Final = 150  # 12 s: as many as the engine keeps for a model that stalls


class SentFlush(Struct, gc=False):
    """A flush in its place between the frames; flushes are numbered from 1."""

    number: int
    partial_frame: Pcm | None


class ReplayBuffer:
    """What one stream has sent, as far as it may be needed again, and what was delivered in return.

    Args:
        frame_seconds: Duration of a frame.
    """

    def __init__(self, frame_seconds: float) -> None:
        self._frame_seconds = frame_seconds
        self._sent: deque[Pcm | SentFlush] = deque()
        self._markers: dict[int, int] = {}  # the server's, of the flushes without an answer, by number
        self._flushes = self._answered = 0
        self._first_frame = 0  # number of the first frame that is kept
        self._frames = 0  # that are kept
        self._delivered_frames = self._delivered_words = 0
        self._last_word_end = 0.0
        self._finished = False
        # Since the last replay began:
        self._base_frame = 0
        self._seen_frames = self._seen_words = 0

    def add_frame(self, frame: Pcm) -> None:
        """Keep a frame that is sent, and forget the oldest one if it is no longer needed."""
        self._sent.append(frame)
        self._frames += 1
        while self._frames > REPLAY_FRAMES and self._first_frame < self._delivered_frames:
            if not isinstance(self._sent.popleft(), SentFlush):
                self._frames -= 1
                self._first_frame += 1

    def add_flush(self, marker: int, partial_frame: Pcm | None) -> SentFlush:
        """Keep a flush that is sent."""
        self._flushes += 1
        flush = SentFlush(self._flushes, partial_frame)
        self._markers[flush.number] = marker
        self._sent.append(flush)
        return flush

    def finish(self) -> None:
        """Remember that the stream has ended."""
        self._finished = True

    def replay(self, stream: int, *, live: bool) -> Iterator[bytes | memoryview]:
        """Yield the items that open the stream in another process and bring it to where it was."""
        self._base_frame = self._first_frame
        self._seen_frames = self._seen_words = 0
        yield item(stream, Kind.OPEN, bytes([live]))
        for sent in self._sent:
            yield from flush_items(stream, sent) if isinstance(sent, SentFlush) else frame_item(stream, sent)
        if self._finished:
            yield item(stream, Kind.FINISH)

    def receive(self, events: Sequence[EngineEvent]) -> Sequence[EngineEvent]:
        """Return those of the process's events that were not delivered before, as the server expects them."""
        if not self._base_frame and len(events) == 1 and isinstance(events[0], Progress):  # by far the most frequent
            self._seen_frames += 1
            if self._seen_frames <= self._delivered_frames:
                return ()
            self._delivered_frames = self._seen_frames
            return events
        return [received for event in events if (received := self._receive(event)) is not None]

    def _receive(self, event: EngineEvent) -> EngineEvent | None:
        match event:
            case Progress():
                self._seen_frames += 1
                number = self._base_frame + self._seen_frames
                if number <= self._delivered_frames:
                    return None
                self._delivered_frames = number
                return replace(event, time=self._shift(event.time)) if self._base_frame else event
            case Word():
                return self._receive_word(event)
            case Partial():
                if self._is_behind:
                    return None
                return replace(event, start=self._shift(event.start)) if self._base_frame else event
            case Flushed():
                if event.marker <= self._answered:
                    return None
                self._answered = event.marker
                return Flushed(self._markers.pop(event.marker))
            case Warning():
                return None if self._is_behind else event
        return event

    def _receive_word(self, word: Word) -> Word | None:
        self._seen_words += 1
        if self._base_frame:
            word = replace(word, start=self._shift(word.start), end=self._shift(word.end))
            if (word.start + word.end) / 2 <= self._last_word_end:
                return None
        elif self._seen_words <= self._delivered_words:
            return None
        self._delivered_words += 1
        self._last_word_end = max(self._last_word_end, word.end)
        return word

    @property
    def _is_behind(self) -> bool:
        """Whether frames are run again that were delivered before."""
        return self._base_frame + self._seen_frames < self._delivered_frames

    def _shift(self, time: float) -> float:
        return round(self._base_frame * self._frame_seconds + time, 6)


def flush_items(stream: int, flush: SentFlush) -> Iterator[bytes | memoryview]:
    """Yield the items of a flush."""
    if flush.partial_frame is not None:
        yield from frame_item(stream, flush.partial_frame, partial=True)
    yield item(stream, Kind.FLUSH, flush.number.to_bytes(8, "little"))
