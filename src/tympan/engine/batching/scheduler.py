"""Continuous batching: which streams run in the next step. Independent of models, devices and threads.

There is no fixed tick: whenever the device is free, the engine takes the next batch, which has at most one frame of
each stream. Batches therefore grow with the load. There are three kinds of work, in order of priority:

1. The flush queue: streams that run the silent frames of a flush, an end or a prefix. Clients wait for exactly these
   frames, so they run at once, in small batches of their own. Other work waits for at most `FLUSH_STEPS` such steps in
   a row, which is one whole flush; then every other step is shared, so constant flushing starves nothing. After the
   last frame of a flush the stream's other work waits for the result, which decides whether the flush is extended.
2. Live frames, oldest first if there are more than fit into a batch.
3. Backlog: files, and streams with more than `LIVE_FRAMES` waiting frames, in turn. Backlog fills the bucket of the
   live frames; without live frames it fills the whole batch. If live frames fill their bucket, a small batch grows to
   the next bucket, which costs little; a large batch grows only after backlog has waited for `PATIENCE_STEPS` steps.
   Replays, which run earlier frames again from their codes after a restart of the model, precede other backlog.
   A live frame therefore waits for little more than the one step of backlog that was running when it arrived.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tympan.engine.batching.buckets import bucket
from tympan.engine.batching.work import LIVE_FRAMES, Batch, Marker, PartialFrame, ReplayReason, Row, Slot
from tympan.messages import Finished, Pcm

__all__ = ["LIVE_FRAMES", "Batch", "Marker", "PartialFrame", "Row", "Scheduler", "Slot"]

FLUSH_STEPS = 8
MOST_EXTRA_FRAMES = 12  # by which a flush is extended while words are incomplete
FINAL_FRAMES = 13  # the end of a stream: one second more than a flush, as in Kyutai's scripts
SMALL_BATCH = 16  # below this size, reading the weights takes most of a step, whatever the number of rows
PATIENCE_STEPS = 8
REPLAY_FRAMES = 150  # most frames that are replayed while a stream runs: 12 s
KEPT_FRAMES = 7500  # frames of each slot whose codes are kept: 10 minutes, 470 KiB


class Scheduler:
    """Queues the work of all slots and forms batches of it.

    Args:
        flush_frames: Silent frames that bring the last word through the model's delay.
        largest_batch: Most rows of a batch.
        prefix_frames: Silent frames that run before the first frame of a stream.
    """

    def __init__(self, flush_frames: int, largest_batch: int, prefix_frames: int = 0) -> None:
        self._flush_frames = flush_frames
        self._largest_batch = largest_batch
        self._prefix_frames = prefix_frames
        # Dictionaries serve as ordered sets: a slot that is served moves to the end of its queue.
        self._ready: dict[Slot, None] = {}
        self._flush_queue: dict[Slot, None] = {}
        self._replay_queue: dict[Slot, None] = {}
        self._answers: list[tuple[Slot, Marker]] = []
        self._flush_credit = FLUSH_STEPS
        self._patience = PATIENCE_STEPS
        self.waiting_frames = 0  # of all slots

    @property
    def idle(self) -> bool:
        """Whether there is no work."""
        return not (self._ready or self._flush_queue or self._replay_queue or self._answers)

    def waiting_arrivals(self) -> Iterator[tuple[float, bool]]:
        """Yield the arrival time of each waiting slot's first frame, and whether the slot is in the backlog."""
        return ((slot.arrival, slot.in_backlog) for slot in self._ready)

    def push(self, slot: Slot, arrival: float, frame: Pcm) -> None:
        """Queue a frame that arrived at `arrival`, in seconds of the monotonic clock."""
        slot.work.append((arrival, frame))
        slot.waiting_frames += 1
        self.waiting_frames += 1
        self._enqueue(slot)

    def add_marker(self, slot: Slot, marker: Marker | PartialFrame) -> None:
        """Queue a flush or the end of a stream."""
        slot.work.append(marker)
        self._enqueue(slot)

    def drop(self, slot: Slot) -> None:
        """Discard all work of a slot whose stream is closed."""
        slot.work.clear()
        slot.awaits_result = False
        self.waiting_frames -= slot.waiting_frames
        slot.waiting_frames = 0
        slot.replay_start = slot.number
        self._dequeue(slot)
        self._answers = [(other, marker) for other, marker in self._answers if other is not slot]

    def replay(self, slot: Slot, start: int, reason: ReplayReason = "stall") -> int:
        """Reset the slot's language model and run its frames from `start` on again, before its other work.

        Args:
            slot: The slot.
            start: Number of the first frame.
            reason: Why, for the report of the step.

        Returns:
            The number of frames, at most `REPLAY_FRAMES`. 0: nothing is replayed, because the slot is in the
            middle of a flush, has run no frame since one, or was dropped.
        """
        start = max(start, slot.replay_start, slot.number - REPLAY_FRAMES)
        frames = slot.number - start
        if frames <= 0 or slot in self._replay_queue or 0 < slot.silent_frames < self._flush_frames:
            return 0
        self._start_replay(slot, range(start, slot.number), reason)
        return frames

    def retry(self, slot: Slot) -> int:
        """Run all audio of a stream again that has run the silence of its end, and the silence again after it.

        Call it in place of `end_flush`.

        Returns:
            The number of frames. 0: nothing is run again, because the codes of a frame are not kept, a flush has been
            answered, the stream is live and longer than `REPLAY_FRAMES`, or the slot was dropped.
        """
        frames = range(slot.flushed_frames.stop)
        too_long = slot.number > KEPT_FRAMES or (slot.live and len(frames) > REPLAY_FRAMES)
        if too_long or not slot.awaits_result or slot.flushed_frames.start != self._prefix_frames:
            return 0
        slot.awaits_result = False
        self._start_replay(slot, frames, "retry")
        return len(frames)

    def _start_replay(self, slot: Slot, frames: range, reason: ReplayReason) -> None:
        slot.fresh, slot.replay_reason = True, reason
        slot.replay_cursor, slot.replay_end = frames.start, frames.stop
        slot.waiting_frames += len(frames)
        self.waiting_frames += len(frames)
        self._dequeue(slot)
        self._replay_queue[slot] = None

    def end_flush(self, slot: Slot, missing_frames: int) -> bool:
        """End a flush whose last frame has run, or extend it.

        Args:
            slot: The slot of a row with a marker, whose result is known now.
            missing_frames: Frames of silence that the stream needs before its words are complete.

        Returns:
            Whether the marker is answered now; False if the flush was extended, or the slot was dropped.
        """
        if not slot.awaits_result:
            return False
        slot.awaits_result = False
        slot.silent_frames = min(missing_frames, MOST_EXTRA_FRAMES - slot.extra_frames)
        if slot.silent_frames > 0:
            slot.extra_frames += slot.silent_frames
            self._flush_queue[slot] = None
            return False
        slot.work.popleft()
        slot.needs_flush = False
        self._enqueue(slot)
        return True

    def next_batch(self) -> Batch:
        """Return the next batch; it is empty if there is no work."""
        answers, self._answers = self._answers, []
        others_wait = bool(self._ready or self._replay_queue)
        flush_only = bool(self._flush_queue) and (not others_wait or self._flush_credit > 0)
        if not flush_only:
            self._flush_credit = min(FLUSH_STEPS, self._flush_credit + 1)
        elif others_wait:
            self._flush_credit -= 1
        flushing = list(islice(self._flush_queue, self._largest_batch if flush_only else self._largest_batch - 1))
        others, replaying = ([], []) if flush_only else self._select(self._largest_batch - len(flushing))
        rows = [*map(self._take_flush_row, flushing), *map(self._take_live_row, others)]
        return Batch([*rows, *map(self._take_replay_row, replaying)], answers)

    def _select(self, most: int) -> tuple[list[Slot], list[Slot]]:
        """Return at most `most` slots in all: those that run a waiting frame, and those that replay one."""
        live: list[Slot] = []
        backlog: list[Slot] = []
        for slot in self._ready:
            (backlog if slot.in_backlog else live).append(slot)
        if len(live) > most:
            live.sort(key=lambda slot: slot.arrival)
        if len(live) >= most:
            return live[:most], []
        room = most - len(live)
        if backlog or self._replay_queue:
            room = min(room, self._backlog_room(len(live))) if live else room
            self._patience = PATIENCE_STEPS if room else self._patience - 1
        replaying = list(islice(self._replay_queue, room))
        return live + backlog[: room - len(replaying)], replaying

    def _backlog_room(self, live: int) -> int:
        may_grow = live < SMALL_BATCH or not self._patience
        return bucket(live) - live or (bucket(live + 1) - live if may_grow else 0)

    def _take_live_row(self, slot: Slot) -> Row:
        """Take the frame at the head of the slot's work, live or backlog."""
        in_backlog = slot.in_backlog
        head = slot.work.popleft()
        assert isinstance(head, tuple)
        row = Row(slot, head[1], slot.take_fresh(), arrival=head[0], in_backlog=in_backlog, number=slot.number)
        slot.waiting_frames -= 1
        self.waiting_frames -= 1
        slot.needs_flush = True
        slot.number += 1
        del self._ready[slot]
        self._enqueue(slot)
        return row

    def _take_flush_row(self, slot: Slot) -> Row:
        """Take the next frame of a prefix or a flush: silence, or the partial frame."""
        frame: Pcm | None = None
        marker: Marker | None = None
        number = slot.number
        slot.number = slot.replay_start = number + 1
        if number < self._prefix_frames:
            last = slot.number == self._prefix_frames
        else:
            slot.silent_frames -= 1
            last = slot.silent_frames == 0
            head = slot.work[0]
            if isinstance(head, PartialFrame):
                frame, slot.work[0] = head.frame, head.marker
            elif last:
                assert isinstance(head, Marker)
                marker = head
                slot.awaits_result = True
        row = Row(slot, frame, slot.take_fresh(), marker, injected=True, number=number)
        if last:
            del self._flush_queue[slot]
            self._enqueue(slot)
        return row

    def _take_replay_row(self, slot: Slot) -> Row:
        number = slot.replay_cursor
        is_prefix = number < self._prefix_frames
        row = Row(slot, None, slot.take_fresh(), number=number, replayed=True, injected=is_prefix)
        slot.replay_cursor += 1
        slot.waiting_frames -= 1
        self.waiting_frames -= 1
        del self._replay_queue[slot]
        if slot.replay_cursor < slot.replay_end:
            self._replay_queue[slot] = None
        else:
            self._enqueue(slot)
        return row

    def _enqueue(self, slot: Slot) -> None:
        """Put a slot into the queue of the work at its head. Markers without audio before them are answered at once."""
        if slot.awaits_result or slot in self._flush_queue or slot in self._ready or slot in self._replay_queue:
            return
        while slot.work and not isinstance(slot.work[0], tuple):
            is_partial = isinstance(slot.work[0], PartialFrame)
            if is_partial or slot.needs_flush:
                slot.silent_frames = self._flush_frames + is_partial
                slot.silent_frames += FINAL_FRAMES if isinstance(slot.work[0], Finished) else 0
                slot.extra_frames = 0
                slot.flushed_frames = range(slot.replay_start, slot.number)
                self._flush_queue[slot] = None
                return
            self._answers.append((slot, slot.work.popleft()))  # type: ignore[arg-type]
        if slot.work:
            queue = self._flush_queue if slot.number < self._prefix_frames else self._ready
            queue[slot] = None

    def _dequeue(self, slot: Slot) -> None:
        for queue in (self._ready, self._flush_queue, self._replay_queue):
            queue.pop(slot, None)
