"""What a step of a batched engine takes and gives; between the engine thread and the model on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tympan.engine.base import EngineInfo
from tympan.engine.scheduler import Row
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
