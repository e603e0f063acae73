"""`tympan serve` with a model that recognizes marks, and one fault that SIGUSR1 triggers.

    python -m support.faults.serve FAULT [options of `tympan serve`]

The model runs in the server's process, or in the engine process of a server with several fronts. Those processes have
the same fault (`support.faults.child`), and the supervisor passes the signal on to them.

memory  the next step allocates more memory than there is
hang    the next step blocks in native code for ever
clock   the wall clock jumps an hour ahead, and two hours back at the next signal
broken  the next step fails, and no other runner can be made
load    the model never finishes to load, without a signal
none    nothing
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from support.counting import COUNTING_INFO, PAUSES
from support.faults.marks import MarkDetector, text_of
from tympan.audio.samples import as_integers
from tympan.cli.main import main
from tympan.config import ModelSettings
from tympan.engine import registry
from tympan.engine.base import Engine
from tympan.engine.batching import restarts
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.transcript.words import BOUNDARY, PADDING

BOUNDARY_AFTER_FRAMES = 4  # gives words the times of their marks
FIRST_PIECE = 4
SLOTS = 128
JUMPS_SECONDS = (3600.0, -7200.0)


class Tokenizer:
    """A tokenizer with one token per word."""

    size = 1 << 15

    def piece(self, token: int) -> str:
        return f"▁{text_of(token - FIRST_PIECE)}"


class Runner:
    """Returns a boundary, a word's token and padding, half a second late, as the real model does.

    Attributes:
        fault: Name of the fault.
        faults: Faults that the next step triggers.
        broken: Whether no runner can be made.
    """

    fault = "none"
    faults: list[Callable[[], None]]
    broken = False

    def __init__(self) -> None:
        if self.broken:
            raise RuntimeError("the device is broken")
        if self.fault == "load":
            hang()
        self.info = COUNTING_INFO
        self.slots = SLOTS
        self.tokenizer = Tokenizer()
        self._detectors: dict[int, MarkDetector] = {}
        self._frames: dict[int, int] = {}
        self._pending: dict[int, dict[int, int]] = {}

    def launch(self, rows: Sequence[Row]) -> StepResult:
        while self.faults:
            self.faults.pop()()
        count = len(rows)
        return StepResult([self._step(row) for row in rows], [0.5] * count, [PAUSES] * count, [0.0] * count)

    def _step(self, row: Row) -> int:
        slot = row.slot.index
        if row.fresh:
            self._detectors[slot], self._frames[slot], self._pending[slot] = MarkDetector(self.info.sample_rate), 0, {}
        self._frames[slot] += 1
        frame, pending = self._frames[slot], self._pending[slot]
        if row.frame is not None:
            for number, _ in self._detectors[slot].detect(as_integers(row.frame).astype(int)):
                pending[frame + BOUNDARY_AFTER_FRAMES] = BOUNDARY
                pending[frame + BOUNDARY_AFTER_FRAMES + 1] = FIRST_PIECE + number
        return pending.pop(frame, PADDING)


def exhaust_memory() -> None:
    np.empty(1 << 60, np.uint8)


def hang() -> None:
    os.read(os.pipe()[0], 1)


def shift_clock() -> None:
    offset = time.time() + jumps.pop(0) - time.monotonic()
    time.time = lambda: offset + time.monotonic()


jumps = list(JUMPS_SECONDS)


def break_device() -> None:
    Runner.broken = True
    raise RuntimeError("the device is broken")


FAULTS = {
    "memory": exhaust_memory,
    "hang": hang,
    "clock": shift_clock,
    "broken": break_device,
    "load": hang,
    "none": lambda: None,
}


def create_engine(settings: ModelSettings, most_streams: int | None = None) -> Engine:
    return BatchedEngine(Runner)


def install(fault: str) -> None:
    """Give this process the model, and the fault that SIGUSR1 triggers."""
    Runner.fault, Runner.faults = fault, []
    restarts.RESTART_SECONDS = (1.0, 0.1)
    registry.create_engine = create_engine
    signal.signal(signal.SIGUSR1, lambda number, frame: on_signal(fault))


def on_signal(fault: str) -> None:
    if fault == "clock":  # of every process; the other faults happen in a step
        shift_clock()
    else:
        Runner.faults.append(FAULTS[fault])
    for child in psutil.Process().children():
        if "support.faults.child" in child.cmdline():
            child.send_signal(signal.SIGUSR1)


def give_fault_to_children(fault: str) -> None:
    """Have the processes that this one starts run `support.faults.child`."""
    start = asyncio.create_subprocess_exec

    async def start_child(program: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        if arguments[:1] == ("-m",):
            arguments = ("-m", "support.faults.child", fault, *arguments[1:])
        return await start(program, *arguments, **options)

    asyncio.create_subprocess_exec = start_child  # type: ignore[assignment]


if __name__ == "__main__":
    _, fault, *options = sys.argv
    install(fault)
    if any(option.startswith("--fronts=") and option != "--fronts=1" for option in options):
        give_fault_to_children(fault)
    else:
        options.append("--engine-processes=0")
    sys.exit(main(["serve", *options]))
