"""What a step of a batched engine takes and gives; between the engine thread and the model on its device."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from tympan.engine.base import EngineInfo, StepReport
from tympan.engine.batching.scheduler import Batch, Row, Scheduler
from tympan.transcript.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gave, a value per row: text token, its probability, P(pause) for each horizon; and the root mean
    square of the row's samples, where it has any.
    """

    tokens: Sequence[int]
    probabilities: Sequence[float]
    pauses: Sequence[Sequence[float]]
    levels: Sequence[float]


class Pending(Protocol):
    """A step that a device has been given."""

    def wait(self) -> None:
        """Until the device has done it. Other threads run meanwhile."""

    def read(self) -> StepResult:
        """Its result, once `wait` has returned; the next step may run already, but not the one after that."""


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """A step that the device has done; `result` is what to read, or what was read on the spot."""

    batch: Batch
    result: StepResult | Pending
    report: StepReport


class Runner(Protocol):
    """The model on its device. All but the attributes is called from the engine thread only."""

    info: EngineInfo
    slots: int
    tokenizer: Tokenizer

    def launch(self, rows: Sequence[Row]) -> StepResult | Pending:
        """Run one frame of every row; a fresh row starts its slot anew.

        A runner that computes on the spot returns the result; one whose device works beside it, what to wait for.
        """


def flush_frames(info: EngineInfo) -> int:
    """Silent frames that bring the last word through the model's delay, and the token after it that releases it."""
    return int(info.delay_seconds / info.frame_seconds) + 1


def prefix_frames(info: EngineInfo) -> int:
    """Silent frames before a stream's audio. Kyutai's scripts put half a frame less there, where it is 12.5 frames:
    a stream would wait half a frame longer for every word.
    """
    return math.ceil(info.silence_prefix_seconds / info.frame_seconds)


def scheduler_for(runner: Runner) -> Scheduler:
    """For its model and its slots."""
    return Scheduler(flush_frames(runner.info), runner.slots, prefix_frames(runner.info))


def step_report(batch: Batch, began: float, waiting_frames: int) -> StepReport:
    """Of a step that began at `began`, in seconds of the monotonic clock, and is done now."""
    now = time.monotonic()
    lag = max((now - row.arrival for row in batch.rows if row.arrival is not None), default=0.0)
    replayed = takewhile(lambda row: row.replayed, reversed(batch.rows))
    return StepReport(now - began, len(batch.rows), waiting_frames, lag, sum(row.fresh for row in replayed))
