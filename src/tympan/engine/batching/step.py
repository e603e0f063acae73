"""Input and output of one step, and the interface of the model that computes it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Protocol

from tympan.engine.base import EngineInfo, StepReport
from tympan.engine.batching.scheduler import Batch, Row, Scheduler
from tympan.transcript.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class StepResult:
    """Output of a step, one value per row.

    Attributes:
        tokens: Text tokens.
        probabilities: Probability of each token.
        pauses: P(pause) for each horizon.
        levels: Root mean square of the row's samples; of no meaning for rows without samples.
    """

    tokens: Sequence[int]
    probabilities: Sequence[float]
    pauses: Sequence[Sequence[float]]
    levels: Sequence[float]


class PendingStep(Protocol):
    """A step that was launched on a device."""

    def wait(self) -> None:
        """Wait until the device has finished the step. Other threads run meanwhile."""

    def read(self) -> StepResult:
        """Return the result, after `wait` and before the step after the next one is launched."""


class Runner(Protocol):
    """The model on its device. `launch` is called from the engine thread only."""

    info: EngineInfo
    slots: int
    tokenizer: Tokenizer

    def launch(self, rows: Sequence[Row]) -> StepResult | PendingStep:
        """Run one frame of every row.

        A runner that computes in the calling thread returns the result. A runner whose device works asynchronously
        returns a pending step.
        """


def flush_frames(info: EngineInfo) -> int:
    """Return the silent frames that bring the last word through the model's delay, and the token that releases it."""
    return int(info.delay_seconds / info.frame_seconds) + 1


def prefix_frames(info: EngineInfo) -> int:
    """Return the silent frames before a stream's audio.

    Kyutai's scripts use 12.5 frames where this returns 13. Half a frame would delay every word by half a frame.
    """
    return math.ceil(info.silence_prefix_seconds / info.frame_seconds)


def scheduler_for(runner: Runner) -> Scheduler:
    """Return a scheduler for the runner's model and slots."""
    return Scheduler(flush_frames(runner.info), runner.slots, prefix_frames(runner.info))


def step_report(batch: Batch, launched: float, scheduler: Scheduler) -> StepReport:
    """Return the report of a step that has just finished; `launched` is in seconds of the monotonic clock."""
    now = time.monotonic()
    oldest = [now, now]  # arrivals of frames, live ones and those of the backlog
    ran = ((row.arrival, row.in_backlog) for row in batch.rows if row.arrival is not None)
    for arrival, in_backlog in chain(ran, scheduler.waiting_arrivals()):
        oldest[in_backlog] = min(oldest[in_backlog], arrival)
    replayed = takewhile(lambda row: row.replayed, reversed(batch.rows))
    restarted = [row.slot.replay_reason for row in replayed if row.fresh]
    return StepReport(
        seconds=now - launched,
        rows=len(batch.rows),
        waiting_frames=scheduler.waiting_frames,
        lag_seconds=now - oldest[0],
        backlog_lag_seconds=now - oldest[1],
        stalls=restarted.count("stall"),
        repetitions=restarted.count("repetition"),
        retries=restarted.count("retry"),
    )
