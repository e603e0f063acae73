"""`tympan serve`, all of it, with a model that hears marks, and one fault that SIGUSR1 sets off.

    python fault_serve.py FAULT [options of `tympan serve`]

memory  the next step wants more memory than there is
hang    the next step waits in native code for what never comes
clock   the wall clock jumps an hour ahead; at the next signal, two hours back
none    nothing
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from fault_marks import Ear, text_of
from support.counting import COUNTING_INFO, PAUSES

from tympan.audio.samples import as_integers
from tympan.cli.main import main
from tympan.config import ModelSettings
from tympan.engine import registry
from tympan.engine.base import Engine
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.transcript.words import BOUNDARY, PADDING

BOUNDARY_AFTER_FRAMES = 4  # words then get the times that their marks have
FIRST_PIECE = 4
SLOTS = 128
JUMPS_SECONDS = (3600.0, -7200.0)


class Tokenizer:
    """A word is one piece."""

    size = 1 << 15

    def piece(self, token: int) -> str:
        return f"▁{text_of(token - FIRST_PIECE)}"


class Runner:
    """As the real model does, it gives a boundary, then a word's piece, then padding, half a second late."""

    faults: list[Callable[[], None]]
    """Each is had once, by the next step."""

    def __init__(self) -> None:
        self.info = COUNTING_INFO
        self.slots = SLOTS
        self.tokenizer = Tokenizer()
        self._ears: dict[int, Ear] = {}
        self._frames: dict[int, int] = {}
        self._coming: dict[int, dict[int, int]] = {}

    def launch(self, rows: Sequence[Row]) -> StepResult:
        while self.faults:
            self.faults.pop()()
        count = len(rows)
        return StepResult([self._step(row) for row in rows], [0.5] * count, [PAUSES] * count, [0.0] * count)

    def _step(self, row: Row) -> int:
        slot = row.slot.index
        if row.fresh:
            self._ears[slot], self._frames[slot], self._coming[slot] = Ear(self.info.sample_rate), 0, {}
        self._frames[slot] += 1
        frame, coming = self._frames[slot], self._coming[slot]
        if row.frame is not None:
            for number, _ in self._ears[slot].hear(as_integers(row.frame).astype(int)):
                coming[frame + BOUNDARY_AFTER_FRAMES] = BOUNDARY
                coming[frame + BOUNDARY_AFTER_FRAMES + 1] = FIRST_PIECE + number
        return coming.pop(frame, PADDING)


def want_too_much() -> None:
    np.empty(1 << 60, np.uint8)


def hang() -> None:
    os.read(os.pipe()[0], 1)


def jump_the_clock() -> None:
    jumped = time.time() + jumps.pop(0) - time.monotonic()
    time.time = lambda: jumped + time.monotonic()


jumps = list(JUMPS_SECONDS)
FAULTS = {"memory": want_too_much, "hang": hang, "clock": jump_the_clock, "none": lambda: None}


def create_engine(settings: ModelSettings, most_streams: int | None = None) -> Engine:
    return BatchedEngine(Runner)


if __name__ == "__main__":
    Runner.faults = []
    registry.create_engine = create_engine
    signal.signal(signal.SIGUSR1, lambda number, frame: Runner.faults.append(FAULTS[sys.argv[1]]))
    sys.exit(main(["serve", *sys.argv[2:]]))
