"""Who runs next. Moves work between queues; knows no model, no device and no thread.

There is no tick: whenever the runner is free it asks for a batch, and gets at most one frame of every slot that has
one. So batches grow by themselves as load grows. Three kinds of work, in this order:

1. *The flush lane*: slots that run the silent frames of a flush or an end. Somebody waits for exactly these, so they
   run in batches of their own, small and at once. The lane may keep the others waiting for `LANE_STEPS` steps, which
   is one whole flush; then for one more after each step that it shared with them or left to them. So a flush now and
   then is as fast as the model, and where somebody always flushes, every other of its steps costs nothing extra.
2. *Live frames*, oldest first, when there are more than a batch holds.
3. *Backlog*: files, and slots with more than `LIVE_FRAMES` waiting, which catch up. They share, in turn, what room the
   live frames leave in their bucket; without live frames they have it all. Where live frames fill their bucket, a
   small one grows to the next, which costs little; a large one is left as it is for up to `PATIENCE_STEPS`. Before
   them come slots whose model is started again: they run frames a second time, from codes, ahead of their other work.

So files add to a live caller's wait a step of backlog alone, which was running when the frame came, and hardly more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from msgspec import Struct

from tympan.engine.kyutai.buckets import bucket
from tympan.messages import Finished, Flushed, Pcm

LANE_STEPS = 8
LIVE_FRAMES = 13  # a client that sends a second of audio at a time is still live
SMALL_BATCH = 16  # below it most of a step's time goes into reading the weights, however many rows there are
PATIENCE_STEPS = 8  # that backlog waits for a row, at most
REPLAY_FRAMES = 150  # the codes of so many are kept of each slot: 12 s, 9 KiB

Marker = Flushed | Finished


@dataclass(frozen=True, slots=True)
class PartialFrame:
    """A frame that has only begun, to be heard beside the clock, and the flush that it is for."""

    frame: Pcm
    marker: Flushed


@dataclass(slots=True, eq=False)
class Slot:
    """One stream's work, in order: frames with the time they came, and the marks between them."""

    index: int
    stream: object
    live: bool = True
    """Not a file, however few of its frames have come."""
    work: deque[tuple[float, Pcm] | PartialFrame | Marker] = field(default_factory=deque)
    waiting_frames: int = 0
    fresh: bool = True
    silent_frames: int = 0
    unflushed: bool = False
    number: int = 0
    """Of the next frame, of audio or of silence: how many the codec has been given."""
    oldest: int = 0
    """The first frame that may be run again: none from before a flush, whose words are all told."""
    again: int = 0
    """The next frame to run again."""

    @property
    def in_backlog(self) -> bool:
        return not self.live or self.waiting_frames > LIVE_FRAMES

    @property
    def arrival(self) -> float:
        """When the frame at the head came."""
        head = self.work[0]
        assert isinstance(head, tuple)
        return head[0]


class Row(Struct, frozen=True, gc=False):
    """One row of a batch. `frame` is `None` for a silent frame; `mark` is answered once this row's result is known.
    `injected`: of a flush or the prefix, and not of the stream's clock.

    `arrival` is when a live frame came; `None` for silence and for backlog, which nobody waits for frame by frame.
    `number` is the frame's among all of its slot. A `replayed` row is that frame once more: the language model runs on
    the codes it had, the codec not at all; a fresh one starts the language model anew.
    """

    slot: Slot
    frame: Pcm | None
    fresh: bool
    marker: Marker | None = None
    arrival: float | None = None
    injected: bool = False
    number: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What to run, replayed rows last, and the marks that can be answered without running anything."""

    rows: Sequence[Row]
    answers: Sequence[tuple[Slot, Marker]]


class Scheduler:
    """`flush_frames` silent frames push a word through the model's delay; a batch has `largest_batch` rows at most.
    `prefix_frames` silent frames go before the first that a slot hears.
    """

    def __init__(self, flush_frames: int, largest_batch: int, prefix_frames: int = 0) -> None:
        self._flush_frames = flush_frames
        self._largest_batch = largest_batch
        self._prefix_frames = prefix_frames
        self._ready: dict[Slot, None] = {}
        self._lane: dict[Slot, None] = {}
        self._replaying: dict[Slot, None] = {}
        self._answers: list[tuple[Slot, Marker]] = []
        self._lane_credit = LANE_STEPS
        self._patience = PATIENCE_STEPS
        self.waiting_frames = 0
        """Of all slots."""

    @property
    def idle(self) -> bool:
        return not (self._ready or self._lane or self._replaying or self._answers)

    def push(self, slot: Slot, arrival: float, frame: Pcm) -> None:
        slot.work.append((arrival, frame))
        slot.waiting_frames += 1
        self.waiting_frames += 1
        self._settle(slot)

    def add_marker(self, slot: Slot, marker: Marker | PartialFrame) -> None:
        slot.work.append(marker)
        self._settle(slot)

    def drop(self, slot: Slot) -> None:
        """The stream is gone: none of its work runs from the next batch on."""
        slot.work.clear()
        self.waiting_frames -= slot.waiting_frames
        slot.waiting_frames = 0
        slot.oldest = slot.number
        self._leave_queues(slot)
        self._answers = [(other, marker) for other, marker in self._answers if other is not slot]

    def replay(self, slot: Slot, start: int) -> int:
        """Start the slot's model anew: before its other work, the frames it has run from `start` on, or as many as are
        kept, run once more.

        Returns how many that is. 0: nothing is done, because the slot is in the middle of a flush, or after one, or
        gone.
        """
        start = max(start, slot.oldest, slot.number - REPLAY_FRAMES)
        frames = slot.number - start
        if frames <= 0 or slot in self._replaying or 0 < slot.silent_frames < self._flush_frames:
            return 0
        slot.fresh, slot.again = True, start
        slot.waiting_frames += frames
        self.waiting_frames += frames
        self._leave_queues(slot)
        self._replaying[slot] = None
        return frames

    def next(self) -> Batch:
        """The next batch; empty when there is nothing to do."""
        answers, self._answers = self._answers, []
        others_wait = bool(self._ready or self._replaying)
        alone = bool(self._lane) and (not others_wait or self._lane_credit > 0)
        if not alone:
            self._lane_credit = min(LANE_STEPS, self._lane_credit + 1)
        elif others_wait:
            self._lane_credit -= 1
        hurried = list(islice(self._lane, self._largest_batch if alone else self._largest_batch - 1))
        others, again = ([], []) if alone else self._choose(self._largest_batch - len(hurried))
        rows = [*map(self._hurry, hurried), *map(self._take, others), *map(self._repeat, again)]
        return Batch(rows, answers)

    def _choose(self, most: int) -> tuple[list[Slot], list[Slot]]:
        """At most `most` slots: those that have a frame, and those that run one again."""
        live: list[Slot] = []
        backlog: list[Slot] = []
        for slot in self._ready:
            (backlog if slot.in_backlog else live).append(slot)
        if len(live) > most:
            live.sort(key=lambda slot: slot.arrival)
        if len(live) >= most:
            return live[:most], []
        room = most - len(live)
        if backlog or self._replaying:
            room = min(room, self._room_beside(len(live))) if live else room
            self._patience = PATIENCE_STEPS if room else self._patience - 1
        again = list(islice(self._replaying, room))
        return live + backlog[: room - len(again)], again

    def _room_beside(self, live: int) -> int:
        """Rows for backlog."""
        padding = bucket(live) - live
        may_grow = live < SMALL_BATCH or not self._patience
        return padding or (bucket(live + 1) - live if may_grow else 0)

    def _take(self, slot: Slot) -> Row:
        """The frame at the head of the slot's work; the slot goes to the end of the row."""
        in_backlog = slot.in_backlog
        head = slot.work.popleft()
        assert isinstance(head, tuple)
        arrival, frame = head
        slot.waiting_frames -= 1
        self.waiting_frames -= 1
        slot.unflushed = True
        waited_for = None if in_backlog else arrival
        row = Row(slot, frame, self._is_fresh(slot), arrival=waited_for, number=slot.number)
        slot.number += 1
        del self._ready[slot]
        self._settle(slot)
        return row

    def _hurry(self, slot: Slot) -> Row:
        """The next frame of a prefix or a flush: silence, or what has only begun."""
        number = slot.number
        slot.oldest = slot.number = number + 1
        if number < self._prefix_frames:
            row = Row(slot, None, self._is_fresh(slot), injected=True, number=number)
            if slot.number == self._prefix_frames:
                del self._lane[slot]
                self._settle(slot)
            return row
        slot.silent_frames -= 1
        head = slot.work[0]
        if isinstance(head, PartialFrame):
            slot.work[0] = head.marker
            return Row(slot, head.frame, self._is_fresh(slot), injected=True, number=number)
        if slot.silent_frames:
            return Row(slot, None, self._is_fresh(slot), injected=True, number=number)
        marker = slot.work.popleft()
        assert isinstance(marker, Marker)
        slot.unflushed = False
        row = Row(slot, None, self._is_fresh(slot), marker, injected=True, number=number)
        del self._lane[slot]
        self._settle(slot)
        return row

    def _repeat(self, slot: Slot) -> Row:
        """The next frame that runs again; the slot goes to the end of the row."""
        row = Row(slot, None, self._is_fresh(slot), number=slot.again, replayed=True)
        slot.again += 1
        slot.waiting_frames -= 1
        self.waiting_frames -= 1
        del self._replaying[slot]
        if slot.again < slot.number:
            self._replaying[slot] = None
        else:
            self._settle(slot)
        return row

    @staticmethod
    def _is_fresh(slot: Slot) -> bool:
        fresh, slot.fresh = slot.fresh, False
        return fresh

    def _settle(self, slot: Slot) -> None:
        """Put the slot where its head belongs. Marks with no audio before them are answered at once."""
        if slot in self._lane or slot in self._ready or slot in self._replaying:
            return
        while slot.work and not isinstance(slot.work[0], tuple):
            rest = isinstance(slot.work[0], PartialFrame)
            if rest or slot.unflushed:
                slot.silent_frames = self._flush_frames + rest
                self._lane[slot] = None
                return
            self._answers.append((slot, slot.work.popleft()))  # type: ignore[arg-type]
        if slot.work:
            queue = self._lane if slot.number < self._prefix_frames else self._ready
            queue[slot] = None

    def _leave_queues(self, slot: Slot) -> None:
        for queue in (self._ready, self._lane, self._replaying):
            queue.pop(slot, None)
