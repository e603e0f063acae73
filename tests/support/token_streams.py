"""The batching engine's parts without a thread and without a model: a source of tokens takes the model's place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from tympan.engine.base import EngineInfo
from tympan.engine.batching.scheduler import Batch, Row, Scheduler
from tympan.engine.batching.step import StepResult, flush_frames, prefix_frames
from tympan.engine.batching.stream import BatchedStream, step_events
from tympan.messages import EngineEvent, Finished, Flushed
from tympan.transcript.tokenizer import Tokenizer

FRAME = np.zeros(4, np.float32)


def engine_double(info: EngineInfo, tokenizer: Tokenizer, **settings: Any) -> Any:
    """Return what a `BatchedStream` reads of its engine."""
    return SimpleNamespace(info=info, tokenizer=tokenizer, **{"stall_seconds": 0.0, **settings})


@dataclass
class TokenStream:
    """One stream whose tokens are those of `next_token`, called once for each row.

    Attributes:
        asynchronous: Whether the next batch is formed before the result of the last one is known, as on a GPU.
        level: Root mean square of a row's samples.
        pauses: Pause probabilities of a row.
        tokens: The tokens of all rows so far.
    """

    info: EngineInfo
    tokenizer: Tokenizer
    next_token: Callable[[Row], int]
    asynchronous: bool = False
    level: Callable[[Row], float] = lambda row: 0.0
    pauses: Callable[[Row], tuple[float, ...]] = lambda row: ()
    settings: dict[str, Any] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    events: list[EngineEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(flush_frames(self.info), 4, prefix_frames(self.info))
        self.stream = BatchedStream(
            engine_double(self.info, self.tokenizer, **self.settings), 0, self.events.extend, live=True
        )
        self.slot = self.stream.slot
        self._unread: deque[tuple[Batch, StepResult]] = deque()

    def push(self, frames: int) -> None:
        for _ in range(frames):
            self.scheduler.push(self.slot, 0.0, FRAME)

    def flush(self, marker: int) -> None:
        self.scheduler.add_marker(self.slot, Flushed(marker))

    def finish(self) -> None:
        self.scheduler.add_marker(self.slot, Finished())

    def run(self) -> int:
        """Run all work; return the number of rows."""
        rows = len(self.tokens)
        while self.step():
            pass
        return len(self.tokens) - rows

    def step(self) -> bool:
        """Run one batch; return whether there was work."""
        if not self._unread and self.scheduler.idle:
            return False
        batch = self.scheduler.next_batch()
        if not self.asynchronous or not batch.rows:
            self._launch(batch)
            self._read()
        else:
            self._read()
            self._launch(batch)
        return True

    def _launch(self, batch: Batch) -> None:
        self.events += [marker for _, marker in batch.answers]
        if batch.rows:
            (row,) = batch.rows
            self.tokens.append(self.next_token(row))
            result = StepResult([self.tokens[-1]], [0.9], [self.pauses(row)], [self.level(row)])
            self._unread.append((batch, result))

    def _read(self) -> None:
        if self._unread:
            for _, events in step_events(*self._unread.popleft(), self.scheduler):
                self.events += events
