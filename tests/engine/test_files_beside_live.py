"""Latency of live streams beside files: the real scheduler in simulated time, with the step times of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest

from tympan.engine.batching.buckets import bucket
from tympan.engine.batching.scheduler import PATIENCE_STEPS, SMALL_BATCH, Scheduler, Slot

FRAME = np.zeros(1, np.float32)
FRAME_SECONDS = 0.08
SLOTS = 64
FLUSH_FRAMES = 7
SECONDS = 30.0
HIGH_WATER_FRAMES = 50  # most frames of a file that wait in the engine: 4 s


def step_seconds(rows: int) -> float:
    """Return the time of a step: a fixed part for the weights, and 64 ms for a full batch, as calibration allows."""
    return 0.008 + 0.056 * bucket(rows) / SLOTS


@dataclass
class Machine:
    """A server with live streams, which send a frame every 80 ms, and files.

    Attributes:
        supply: Most frames of each file that arrive between two steps.
        in_phase: Whether the frames of all live streams arrive at the same time.
        known_as_files: Whether the scheduler knows which streams are files.
    """

    live: int
    files: int
    supply: int = HIGH_WATER_FRAMES
    in_phase: bool = False
    known_as_files: bool = True
    latencies: list[float] = field(default_factory=list)
    file_frames: int = 0
    longest_step: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(FLUSH_FRAMES, SLOTS)
        self.slots = [Slot(index, None) for index in range(self.live)]
        self.file_slots = [Slot(self.live + index, None, live=not self.known_as_files) for index in range(self.files)]
        random = Random(0)
        phases = [0.0 if self.in_phase else random.uniform(0, FRAME_SECONDS) for _ in self.slots]
        self.arrivals = sorted(
            (phase + number * FRAME_SECONDS, index)
            for index, phase in enumerate(phases)
            for number in range(int(SECONDS / FRAME_SECONDS))
        )
        self.run()

    def run(self) -> None:
        now, arrived = 0.0, 0
        while arrived < len(self.arrivals):
            while arrived < len(self.arrivals) and self.arrivals[arrived][0] <= now:
                arrival, index = self.arrivals[arrived]
                self.scheduler.push(self.slots[index], arrival, FRAME)
                arrived += 1
            for slot in self.file_slots:
                for _ in range(min(self.supply, HIGH_WATER_FRAMES - slot.waiting_frames)):
                    self.scheduler.push(slot, now, FRAME)
            rows = self.scheduler.next_batch().rows
            if not rows:
                now = self.arrivals[arrived][0]
                continue
            self.longest_step = max(self.longest_step, step_seconds(len(rows)))
            now += step_seconds(len(rows))
            self.latencies += [now - (row.arrival or 0.0) for row in rows if row.slot.index < self.live]
            self.file_frames += sum(row.slot.index >= self.live for row in rows)

    @property
    def p99(self) -> float:
        """99th percentile of the time from the arrival of a live frame to its token."""
        return float(np.quantile(self.latencies, 0.99))

    @property
    def speed(self) -> float:
        """Seconds of audio per second of each file."""
        return self.file_frames * FRAME_SECONDS / SECONDS / self.files


@pytest.mark.parametrize("supply", [HIGH_WATER_FRAMES, 1], ids=["whole", "slow"])
@pytest.mark.parametrize("in_phase", [False, True])
@pytest.mark.parametrize("live", [1, 4, 8, 16, 30, 32, 48])
def test_live_p99_beside_four_files(live: int, in_phase: bool, supply: int) -> None:
    """Files delay a frame by at most one step of files and, in a small live batch, by one bucket more."""
    bucket_more = step_seconds(2 * live) - step_seconds(live) if live < SMALL_BATCH else 0.0
    alone = Machine(live, 0, in_phase=in_phase)
    beside = Machine(live, 4, supply, in_phase)
    assert len(beside.latencies) == pytest.approx(len(alone.latencies), abs=2 * live)
    assert beside.p99 <= FRAME_SECONDS
    assert beside.p99 <= alone.p99 + step_seconds(4) + bucket_more + 1e-3
    assert beside.speed > 1.0, "the files are faster than real time"


@pytest.mark.parametrize("in_phase", [False, True])
def test_live_p99_beside_files_in_half_of_slots(in_phase: bool) -> None:
    beside = Machine(SLOTS // 2, SLOTS // 2, in_phase=in_phase)
    assert beside.p99 <= FRAME_SECONDS
    assert beside.longest_step <= 0.8 * FRAME_SECONDS
    assert beside.speed > 0.5


def test_slow_file_is_backlog() -> None:
    """Without `live=False`, a slow file would count as live by its waiting frames, and all steps would be long."""
    assert Machine(32, 24, supply=1).p99 <= FRAME_SECONDS
    assert Machine(32, 24, supply=1, known_as_files=False).p99 > FRAME_SECONDS


def test_full_batch_grows_after_patience() -> None:
    scheduler = Scheduler(FLUSH_FRAMES, SLOTS)
    live, file = [Slot(index, None) for index in range(16)], Slot(16, None, live=False)
    for _ in range(40):
        scheduler.push(file, 0.0, FRAME)

    def rows() -> int:
        for slot in live:
            scheduler.push(slot, 0.0, FRAME)
        return len(scheduler.next_batch().rows)

    expected: Sequence[int] = [16] * PATIENCE_STEPS + [17]
    assert [rows() for _ in range(2 * len(expected))] == [*expected, *expected]
    assert len(scheduler.next_batch().rows) == 1, "no live frame waits"
    assert [rows() for _ in expected] == expected, "the patience starts anew"
