"""The scheduler by itself: no model, no thread, no clock."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tympan.engine.batching.scheduler import (
    FINAL_FRAMES,
    FLUSH_STEPS,
    LIVE_FRAMES,
    MOST_EXTRA_FRAMES,
    PATIENCE_STEPS,
    REPLAY_FRAMES,
    Batch,
    PartialFrame,
    Scheduler,
    Slot,
)
from tympan.messages import Finished, Flushed

FRAME = np.zeros(4, np.float32)


class SchedulerHarness:
    """A scheduler with numbered slots and a clock that counts pushes."""

    def __init__(self, slots: int, flush_frames: int = 3, largest_batch: int = 8, prefix_frames: int = 0) -> None:
        self.scheduler = Scheduler(flush_frames, largest_batch, prefix_frames)
        self.slots = [Slot(index, None) for index in range(slots)]
        self.clock = 0.0

    def push(self, index: int, count: int = 1) -> None:
        for _ in range(count):
            self.clock += 1
            self.scheduler.push(self.slots[index], self.clock, FRAME)

    def add_marker(self, index: int, marker: Flushed | Finished | PartialFrame) -> None:
        self.scheduler.add_marker(self.slots[index], marker)

    def replay(self, index: int, start: int) -> int:
        return self.scheduler.replay(self.slots[index], start)

    def next_batch(self, missing_frames: int = 0) -> Batch:
        """Return the next batch, whose results extend a flush that ends in it by `missing_frames`."""
        batch = self.scheduler.next_batch()
        for row in batch.rows:
            if row.marker is not None:
                self.scheduler.end_flush(row.slot, missing_frames)
        return batch

    def replayed(self) -> list[tuple[int, int, bool]]:
        """Return slot, frame number and freshness of the replayed rows of the next batch."""
        rows = [row for row in self.next_batch().rows if row.replayed]
        return [(row.slot.index, row.number, row.fresh) for row in rows]

    def run(self) -> list[int]:
        return slots_of(self.next_batch())


def slots_of(batch: Batch) -> list[int]:
    """Return the slot of each row, and `-slot - 1` for a silent row."""
    return [row.slot.index if row.frame is not None else -row.slot.index - 1 for row in batch.rows]


def test_batch_has_one_frame_per_slot() -> None:
    harness = SchedulerHarness(4)
    harness.push(0, 2)
    harness.push(2)
    assert harness.run() == [0, 2]
    assert harness.run() == [0]
    assert harness.run() == []
    assert harness.scheduler.idle


def test_full_batch_takes_oldest_frames() -> None:
    harness = SchedulerHarness(4, largest_batch=2)
    for index in (3, 1, 0, 2):
        harness.push(index)
    assert harness.run() == [3, 1]
    assert harness.run() == [0, 2]


def test_backlog_fills_bucket_of_live_rows() -> None:
    harness = SchedulerHarness(8)
    for index in range(5):
        harness.push(index, LIVE_FRAMES * 2)  # files
    for index in (5, 6, 7):
        harness.push(index)
    assert harness.run() == [5, 6, 7, 0]  # a bucket of four


def test_backlog_slots_alternate() -> None:
    harness = SchedulerHarness(4)
    harness.push(0, 40)
    harness.push(1, 40)
    served: Counter[int] = Counter()
    for _ in range(20):
        harness.push(2)
        harness.push(3)
        served.update(index for index in harness.run() if index < 2)
    assert served == {0: 20, 1: 20}


def test_backlog_fills_batch_without_live_frames() -> None:
    harness = SchedulerHarness(3)
    for index in range(3):
        harness.push(index, 40)
    assert harness.run() == [0, 1, 2]


def test_flush_runs_first_and_alone() -> None:
    harness = SchedulerHarness(3)
    harness.push(0)
    harness.add_marker(0, Flushed(7))
    assert harness.run() == [0]
    harness.push(1)
    harness.push(2)
    assert [harness.run() for _ in range(3)] == [[-1], [-1], [-1]]
    assert harness.run() == [1, 2]


def test_marker_is_on_last_silent_row() -> None:
    harness = SchedulerHarness(1)
    harness.push(0)
    harness.add_marker(0, Flushed(7))
    markers = [row.marker for _ in range(4) for row in harness.next_batch().rows]
    assert markers == [None, None, None, Flushed(7)]


def test_partial_frame_runs_before_silence() -> None:
    harness = SchedulerHarness(1)
    partial = np.ones(4, np.float32)
    harness.add_marker(0, PartialFrame(partial, Flushed(1)))
    harness.push(0)
    harness.add_marker(0, Flushed(2))
    rows = [row for _ in range(9) for row in harness.next_batch().rows]
    assert [row.frame is not None for row in rows] == [True, False, False, False, True, False, False, False]
    assert [row.injected for row in rows] == [True, True, True, True, False, True, True, True]
    assert [row.marker for row in rows] == [None, None, None, Flushed(1), None, None, None, Flushed(2)]
    assert rows[0].frame is partial
    assert rows[0].fresh
    assert harness.scheduler.idle


def test_flushes_do_not_starve_others() -> None:
    harness = SchedulerHarness(3, flush_frames=FLUSH_STEPS * 2)
    for index in (0, 1):
        harness.push(index)
    harness.run()
    for index in (0, 1):
        harness.add_marker(index, Flushed(index))
    harness.push(2, 3)
    assert [harness.run() for _ in range(FLUSH_STEPS)] == [[-1, -2]] * FLUSH_STEPS
    assert [harness.run() for _ in range(4)] == [[-1, -2, 2], [-1, -2]] * 2, "every other step is shared"
    harness.run()
    assert [harness.run() for _ in range(3)] == [[-1, -2]] * 3, "no other work waits"


def test_flush_queue_leaves_room_for_others() -> None:
    harness = SchedulerHarness(3, flush_frames=FLUSH_STEPS * 2, largest_batch=1)
    harness.push(0)
    harness.run()
    harness.add_marker(0, Flushed(0))
    harness.push(2)
    assert [harness.run() for _ in range(FLUSH_STEPS)] == [[-1]] * FLUSH_STEPS
    assert harness.run() == [2]
    assert harness.run() == [-1]


def test_markers_without_audio_need_no_step() -> None:
    harness = SchedulerHarness(1)
    harness.add_marker(0, Flushed(1))
    harness.add_marker(0, Finished())
    batch = harness.next_batch()
    assert (list(batch.rows), list(batch.answers)) == (
        [],
        [(harness.slots[0], Flushed(1)), (harness.slots[0], Finished())],
    )
    assert harness.scheduler.idle


def test_audio_waits_for_flush_before_it() -> None:
    harness = SchedulerHarness(1)
    harness.push(0)
    harness.add_marker(0, Flushed(1))
    harness.push(0)
    assert [harness.run() for _ in range(6)] == [[0], [-1], [-1], [-1], [0], []]


def test_dropped_slot_does_not_run() -> None:
    harness = SchedulerHarness(2)
    harness.push(0, 5)
    harness.push(1)
    harness.add_marker(0, Flushed(1))
    harness.scheduler.drop(harness.slots[0])
    assert harness.run() == [1]
    assert harness.scheduler.idle


def test_first_row_of_slot_is_fresh() -> None:
    harness = SchedulerHarness(1)
    harness.push(0, 2)
    harness.add_marker(0, Finished())
    assert [row.fresh for _ in range(5) for row in harness.next_batch().rows] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_replay_precedes_other_work_of_slot() -> None:
    harness = SchedulerHarness(1)
    harness.push(0, 4)
    for _ in range(3):
        harness.run()
    assert harness.replay(0, 1) == 2
    assert harness.scheduler.waiting_frames == 3
    assert [harness.replayed() for _ in range(2)] == [[(0, 1, True)], [(0, 2, False)]]
    (row,) = harness.next_batch().rows
    assert (row.number, row.fresh, row.replayed) == (3, False, False)
    assert harness.scheduler.idle


def test_replay_is_between_live_frames_and_files() -> None:
    harness = SchedulerHarness(8)
    for index in range(6):
        harness.push(index)
    harness.run()
    harness.replay(4, 0)
    harness.replay(5, 0)
    harness.push(3, 40)  # a file
    for index in (0, 1, 2):
        harness.push(index)
    batch = harness.next_batch()
    assert [(row.slot.index, row.replayed) for row in batch.rows] == [(0, False), (1, False), (2, False), (4, True)]
    batch = harness.next_batch()
    assert [(row.slot.index, row.replayed) for row in batch.rows] == [(3, False), (5, True)], "replayed rows are last"


def test_replays_alternate() -> None:
    harness = SchedulerHarness(3, largest_batch=2)
    harness.push(0, 4)
    harness.push(1, 4)
    for _ in range(4):
        harness.run()
    harness.replay(0, 0)
    harness.replay(1, 0)
    order: list[int] = []
    while harness.scheduler.waiting_frames:
        harness.push(2)
        order += [index for index, _, _ in harness.replayed()]
    assert order == [0, 1] * 4


def test_replay_and_flush_of_same_slot() -> None:
    harness = SchedulerHarness(1)
    harness.push(0, 2)
    harness.run()
    harness.run()
    harness.add_marker(0, Flushed(7))
    assert harness.replay(0, 0) == 2, "the flush has not started"
    assert harness.replay(0, 0) == 0, "it is replaying already"
    assert [len(harness.replayed()) for _ in range(2)] == [1, 1]
    assert harness.run() == [-1]
    assert harness.replay(0, 0) == 0
    assert [row.marker for _ in range(2) for row in harness.next_batch().rows] == [None, Flushed(7)]
    assert harness.replay(0, 0) == 0, "the words before the flush are final"
    harness.push(0)
    harness.run()
    assert harness.replay(0, 0) == 1


def test_replay_is_limited_to_kept_frames() -> None:
    harness = SchedulerHarness(1)
    harness.push(0, REPLAY_FRAMES + 20)
    while not harness.scheduler.idle:
        harness.run()
    assert harness.replay(0, 3) == REPLAY_FRAMES
    harness.scheduler.drop(harness.slots[0])
    assert harness.scheduler.idle
    assert harness.scheduler.waiting_frames == 0
    assert harness.replay(0, 3) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["frame", "burst", "flush", "again", "run", "run", "drop"])),
        max_size=120,
    ),
    st.integers(1, 8),
)
def test_every_frame_and_marker_in_order(actions: list[tuple[int, str]], largest_batch: int) -> None:
    harness = SchedulerHarness(6, largest_batch=largest_batch)
    pushed: Counter[int] = Counter()
    asked: dict[int, list[Flushed | Finished]] = {index: [] for index in range(6)}
    ran: Counter[int] = Counter()
    answered: dict[int, list[Flushed | Finished]] = {index: [] for index in range(6)}
    dropped: set[int] = set()
    expected: dict[int, int] = dict.fromkeys(range(6), 0)
    """The frame number of each slot's next row."""

    def run() -> None:
        batch = harness.next_batch()
        indices = [row.slot.index for row in batch.rows]
        replayed = [row.replayed for row in batch.rows]
        assert replayed == sorted(replayed)
        for row in batch.rows:
            assert row.number == expected[row.slot.index]
            expected[row.slot.index] += 1
        assert len(indices) == len(set(indices)) <= largest_batch
        assert not dropped & set(indices)
        for slot, marker in batch.answers:
            answered[slot.index].append(marker)
        for row in batch.rows:
            ran[row.slot.index] += row.frame is not None
            answered[row.slot.index] += [row.marker] if row.marker is not None else []

    for index, action in actions:
        if action == "run":
            run()
        elif index in dropped:
            continue
        elif action == "drop":
            dropped.add(index)
            harness.scheduler.drop(harness.slots[index])
        elif action == "again":
            expected[index] -= harness.replay(index, expected[index] - 5)
        elif action == "flush":
            asked[index].append(Flushed(len(asked[index])))
            harness.add_marker(index, asked[index][-1])
        else:
            count = 1 if action == "frame" else 30
            pushed[index] += count
            harness.push(index, count)
    while not harness.scheduler.idle:
        run()
    for index in set(range(6)) - dropped:
        assert ran[index] == pushed[index]
        assert answered[index] == asked[index]
    assert harness.scheduler.waiting_frames == 0


def test_large_batch_grows_by_one_bucket() -> None:
    """192 live frames fill a bucket; 100 files get the 64 rows up to the next one after they have waited."""
    scheduler = Scheduler(7, 1000)
    files = [Slot(1000 + index, None, live=False) for index in range(100)]
    for slot in files:
        for _ in range(20):
            scheduler.push(slot, 0.0, FRAME)
    sizes = []
    for _ in range(PATIENCE_STEPS + 1):
        for index in range(192):
            scheduler.push(Slot(index, None), 0.0, FRAME)
        sizes.append(len(scheduler.next_batch().rows))
    assert sizes == [192] * PATIENCE_STEPS + [256]


def test_arrival_and_waiting_frames() -> None:
    harness = SchedulerHarness(2)
    harness.push(0)
    harness.push(1, 2 * LIVE_FRAMES)
    assert harness.scheduler.waiting_frames == 1 + 2 * LIVE_FRAMES
    rows = harness.next_batch().rows
    assert [(row.arrival, row.in_backlog) for row in rows] == [(1.0, False), (2.0, True)]
    assert harness.scheduler.waiting_frames == 2 * LIVE_FRAMES - 1
    assert list(harness.scheduler.waiting_arrivals()) == [(3.0, True)], "the next frame of the stream that is behind"
    harness.scheduler.drop(harness.slots[1])
    assert harness.scheduler.waiting_frames == 0


def test_prefix_precedes_first_frame_only() -> None:
    harness = SchedulerHarness(2, prefix_frames=2)
    harness.push(0, 2)
    harness.push(1)
    first = harness.next_batch()
    assert slots_of(first) == [-1, -2]
    assert all(row.fresh and row.injected and row.marker is None and row.arrival is None for row in first.rows)
    assert [harness.run() for _ in range(4)] == [[-1, -2], [0, 1], [0], []]
    harness.push(1)
    assert harness.run() == [1]
    assert [slot.number for slot in harness.slots] == [4, 4]
    assert harness.replay(0, 0) == 2, "the silence is not replayed"


def test_prefix_precedes_partial_frame() -> None:
    harness = SchedulerHarness(2, flush_frames=3, prefix_frames=2)
    harness.add_marker(0, PartialFrame(FRAME, Flushed(7)))
    harness.add_marker(1, Flushed(8))
    batch = harness.next_batch()
    assert slots_of(batch) == [-1]
    assert batch.answers == [(harness.slots[1], Flushed(8))]
    batches = [harness.next_batch() for _ in range(5)]
    assert [slots_of(batch) for batch in batches] == [[-1], [0], [-1], [-1], [-1]]
    assert [batch.rows[0].marker for batch in batches] == [None, None, None, None, Flushed(7)]
    assert harness.scheduler.idle


def test_drop_during_prefix() -> None:
    harness = SchedulerHarness(1, prefix_frames=2)
    harness.push(0, 3)
    harness.run()
    harness.scheduler.drop(harness.slots[0])
    assert harness.scheduler.idle
    assert harness.scheduler.waiting_frames == 0


def test_flush_is_extended_while_words_are_incomplete() -> None:
    harness = SchedulerHarness(2)
    harness.push(0)
    harness.add_marker(0, Flushed(1))
    harness.push(0)
    assert [slots_of(harness.next_batch(3)) for _ in range(4)] == [[0], [-1], [-1], [-1]]
    extended = [slots_of(harness.next_batch(3)) for _ in range(MOST_EXTRA_FRAMES)]
    assert extended == [[-1]] * MOST_EXTRA_FRAMES
    assert slots_of(harness.next_batch(3)) == [0], "the flush has a limit"
    harness.add_marker(0, Flushed(2))
    assert [slots_of(harness.next_batch(3)) for _ in range(4)] == [[-1]] * 4, "each flush has its own"


def test_work_waits_for_result_of_flush() -> None:
    """On an asynchronous device, the next batch may be formed before the result of the last one is known."""
    harness = SchedulerHarness(2)
    scheduler, slot = harness.scheduler, harness.slots[0]
    harness.push(0)
    harness.add_marker(0, Flushed(1))
    batches = [scheduler.next_batch() for _ in range(4)]
    assert batches[-1].rows[0].marker == Flushed(1)
    harness.push(0)
    harness.push(1)
    assert slots_of(scheduler.next_batch()) == [1]
    assert not scheduler.end_flush(slot, 2)
    assert [slots_of(scheduler.next_batch()) for _ in range(3)] == [[-1], [-1], []]
    assert scheduler.end_flush(slot, 0)
    assert slots_of(scheduler.next_batch()) == [0]


def test_drop_before_result_of_flush() -> None:
    harness = SchedulerHarness(1)
    harness.push(0)
    harness.add_marker(0, Flushed(1))
    for _ in range(4):
        harness.scheduler.next_batch()
    harness.scheduler.drop(harness.slots[0])
    assert not harness.scheduler.end_flush(harness.slots[0], 3)
    assert harness.scheduler.idle


def test_end_of_stream_runs_a_second_more() -> None:
    harness = SchedulerHarness(1)
    harness.push(0)
    harness.add_marker(0, Finished())
    rows = [row for _ in range(4 + FINAL_FRAMES) for row in harness.next_batch().rows]
    assert [row.marker for row in rows] == [None] * (3 + FINAL_FRAMES) + [Finished()]
    assert harness.scheduler.idle
