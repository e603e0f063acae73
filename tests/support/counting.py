"""Models whose tokens depend only on the number of frames that their slot has run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tympan.audio.samples import as_float
from tympan.engine.base import EngineInfo
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.transcript.tokenizer import SyntheticTokenizer
from tympan.transcript.words import BOUNDARY, PADDING

COUNTING_INFO = EngineInfo(
    model="counting",
    engine="counting",
    device="none",
    sample_rate=24_000,
    frame_samples=1_920,
    delay_seconds=0.5,
    pause_horizons=(0.5, 1.0, 2.0, 3.0),
    turns_from="model",
    languages=("en",),
)
PAUSES = (0.1, 0.2, 0.3, 0.4)


def counting_token(frame: int) -> int:
    """Return a boundary, two pieces and padding in turn: a word every four frames."""
    return (BOUNDARY, 4 + frame % 97, 6, PADDING)[frame % 4]


class CountingRunner:
    """Raises `broken` if it is set, and waits while `gate` is closed."""

    def __init__(self, slots: int = 4) -> None:
        self.info = COUNTING_INFO
        self.slots = slots
        self.tokenizer = SyntheticTokenizer(200)
        self.frames = [0] * slots
        self.batches: list[int] = []
        self.broken: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def launch(self, rows: Sequence[Row]) -> StepResult:
        self.gate.wait()
        if self.broken is not None:
            raise self.broken
        self.batches.append(len(rows))
        tokens = []
        for row in rows:
            index = row.slot.index
            self.frames[index] = 0 if row.fresh else self.frames[index] + 1
            tokens.append(counting_token(self.frames[index]))
        levels = [0.0 if row.frame is None else float(np.square(as_float(row.frame)).mean()) ** 0.5 for row in rows]
        return StepResult(tokens, [0.5] * len(rows), [PAUSES] * len(rows), levels)


class FreezingRunner(CountingRunner):
    """Stalls at one frame of every stream until its state is reset. Its words depend on the frame number alone."""

    def __init__(self, freezes_at: int, slots: int = 4) -> None:
        super().__init__(slots)
        self._freezes_at = freezes_at
        self._frozen = [False] * slots

    def launch(self, rows: Sequence[Row]) -> StepResult:
        counted = super().launch(rows)
        tokens = []
        for row in rows:
            index = row.slot.index
            self._frozen[index] = not row.fresh and self._frozen[index]
            if row.number == self._freezes_at and not row.replayed:
                self._frozen[index] = True
            tokens.append(PADDING if self._frozen[index] else counting_token(row.number))
        return replace(counted, tokens=tokens)


class LoopingRunner(CountingRunner):
    """Repeats two words from one frame of every stream on, until its state is reset."""

    LOOP = (BOUNDARY, 7, 9, BOUNDARY, 10)

    def __init__(self, loops_at: int, slots: int = 4) -> None:
        super().__init__(slots)
        self._loops_at = loops_at
        self._looping = [False] * slots

    def launch(self, rows: Sequence[Row]) -> StepResult:
        counted = super().launch(rows)
        tokens = []
        for row in rows:
            index = row.slot.index
            self._looping[index] = not row.fresh and self._looping[index]
            if row.number == self._loops_at and not row.replayed:
                self._looping[index] = True
            number = row.number
            tokens.append(self.LOOP[number % len(self.LOOP)] if self._looping[index] else counting_token(number))
        return replace(counted, tokens=tokens)
