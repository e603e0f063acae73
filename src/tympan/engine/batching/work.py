"""The work of the streams, as the scheduler orders it: slots, rows and batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from tympan.messages import Finished, Flushed, Pcm

LIVE_FRAMES = 13  # a client that sends one second of audio at a time is still live

Marker = Flushed | Finished

ReplayReason = Literal["stall", "repetition", "retry"]


@dataclass(frozen=True, slots=True)
class PartialFrame:
    """An incomplete frame, padded with zeros, which runs before a flush and does not advance the stream's clock."""

    frame: Pcm
    marker: Flushed


@dataclass(slots=True, eq=False)
class Slot:
    """The work of one stream, in order.

    Attributes:
        index: Index of the slot in the model's state.
        stream: The engine's object for the stream.
        live: Whether the stream is live; False for a file, even if few of its frames are waiting.
        work: Frames with their arrival times, and markers.
        waiting_frames: Frames to run, replays included.
        fresh: Whether the model's state is reset in the next row.
        silent_frames: Frames of the current flush that remain, a partial frame included.
        extra_frames: Frames by which the current flush has been extended.
        awaits_result: Whether the last frame of the flush has been taken, but its result is not known.
        needs_flush: Whether audio ran since the last flush.
        number: Number of the next frame; counts all frames that the codec got, audio or silence.
        replay_start: First frame that may be replayed; the words before it are final.
        replay_cursor: Next frame to replay.
        replay_end: Frame at which the replay ends.
        replay_reason: Why frames were replayed last.
        flushed_frames: Frames before the current flush and after the one before it.
    """

    index: int
    stream: Any
    live: bool = True
    work: deque[tuple[float, Pcm] | PartialFrame | Marker] = field(default_factory=deque)
    waiting_frames: int = 0
    fresh: bool = True
    silent_frames: int = 0
    extra_frames: int = 0
    awaits_result: bool = False
    needs_flush: bool = False
    number: int = 0
    replay_start: int = 0
    replay_cursor: int = 0
    replay_end: int = 0
    replay_reason: ReplayReason = "stall"
    flushed_frames: range = range(0)

    @property
    def in_backlog(self) -> bool:
        """Whether the stream is a file or behind."""
        return not self.live or self.waiting_frames > LIVE_FRAMES

    @property
    def arrival(self) -> float:
        """Arrival time of the frame at the head."""
        return self.work[0][0]  # type: ignore[index]  # a frame: the slot is ready

    def take_fresh(self) -> bool:
        """Return whether the model's state is reset in the row that is made now."""
        fresh, self.fresh = self.fresh, False
        return fresh


class Row(Struct, frozen=True, gc=False):
    """One row of a batch.

    Attributes:
        slot: The slot that runs.
        frame: Samples, `[frame_samples]`; None for a silent frame.
        fresh: Whether the model's state is reset first; in a replayed row, only that of the language model.
        marker: Marker to answer once the result of this row is known, unless `Scheduler.end_flush` extends the flush.
        arrival: Arrival time of a frame; None for silence and replays.
        in_backlog: Whether the frame is one of a file or of a stream that is behind.
        injected: Whether the frame belongs to a flush or a prefix, which do not advance the stream's clock.
        number: The frame's number in its slot.
        replayed: Whether the frame runs again: the language model on its stored codes, the codec not at all.
    """

    slot: Slot
    frame: Pcm | None
    fresh: bool
    marker: Marker | None = None
    arrival: float | None = None
    in_backlog: bool = False
    injected: bool = False
    number: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to run, replayed rows last, and markers that are answered without a step."""

    rows: Sequence[Row]
    answers: Sequence[tuple[Slot, Marker]]
