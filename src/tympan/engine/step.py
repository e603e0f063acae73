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
    """What one step gave, a value per row: text token, its probability, P(pause) for each horizon."""

    tokens: Sequence[int]
    probabilities: Sequence[float]
    pauses: Sequence[Sequence[float]]


class Runner(Protocol):
    """The model on its device. All but the attributes is called from the engine thread only."""

    info: EngineInfo
    slots: int
    tokenizer: Tokenizer

    def step(self, rows: Sequence[Row]) -> StepResult:
        """Run one frame of every row; a fresh row starts its slot anew."""


def flush_frames(info: EngineInfo) -> int:
    """Silent frames that bring the last word through the model's delay, and the token after it that releases it."""
    return int(info.delay_seconds / info.frame_seconds) + 1
