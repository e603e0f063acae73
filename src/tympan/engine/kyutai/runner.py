"""The model on its device: writes rows into the step program's buffers and reads its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tympan.audio.samples import join_as_float
from tympan.engine.base import EngineInfo
from tympan.engine.batching.scheduler import KEPT_FRAMES, Row
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.graphs import Device, Graphs
from tympan.engine.kyutai.program import CONTINUE, LoadedModel, StepProgram
from tympan.engine.kyutai.tuning import select_read_config
from tympan.messages import Pcm
from tympan.models.sampling import RETRY_SEED


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """A step whose results are being copied to the host, ``[B, 3 + pause heads]`` float32."""

    results: Tensor
    wait: Callable[[], None]

    def read(self) -> StepResult:
        """Return the results as Python numbers."""
        tokens, probabilities, levels = self.results[:, 0].to(torch.int64), self.results[:, 1], self.results[:, 2]
        return StepResult(tokens.tolist(), probabilities.tolist(), self.results[:, 3:].tolist(), levels.tolist())


class KyutaiRunner:
    """Codec and language model for `slots` streams, one frame of each row per step.

    A `device` records one graph per bucket and runs them asynchronously. Without one, steps run eagerly.

    Attributes:
        begin: Frame number that new streams start at; above 0 to measure the cost of old streams.
        record_seconds: Time that recording the graphs took.
    """

    def __init__(self, model: LoadedModel, info: EngineInfo, slots: int, *, device: Device | None = None) -> None:
        self.info = info
        self.slots = slots
        self.tokenizer = model.tokenizer
        self.program = StepProgram(model, slots if device is None else slots + 1, slots)
        self.reset_counters()
        pinned = model.device.type == "cuda"
        self._frames, self._control = self.program.frames, self.program.control
        if model.device.type != "cpu":
            self._frames = torch.zeros(self._frames.shape, pin_memory=pinned)
            self._control = torch.zeros(self._control.shape, dtype=torch.int64, pin_memory=pinned)
        # Two buffers: the results of one step are read while those of the next one arrive.
        self._results = torch.zeros((2, *self.program.results.shape), pin_memory=pinned)
        self._turn = 0
        self._spare = slots
        self._padding = torch.tensor([slots, 0, 0, slots, 0])  # a new stream in the spare slot
        self._silence: dict[np.dtype[Any], Pcm] = {
            np.dtype(np.int16): np.zeros(info.frame_samples, np.int16),
            np.dtype(np.float32): np.zeros(info.frame_samples, np.float32),
        }
        self._device = device
        start = time.perf_counter()
        self._graphs = None if device is None else self._record(device)
        self.record_seconds = time.perf_counter() - start

    def reset_counters(self) -> None:
        """Start the next streams at frame 0 and with seeds from 0, as in a new runner."""
        self.start_frame = 0
        self._next_seed = 0

    def launch(self, rows: Sequence[Row]) -> StepResult | LaunchedStep:
        """Run one frame of every row, as `Runner.launch`."""
        size = self.fill(rows)
        if self._graphs is None or self._device is None:
            self.program.run(size, sum(not row.replayed for row in rows))
            return LaunchedStep(self.program.results[:size], lambda: None).read()
        self._graphs.run(size)
        self._turn = 1 - self._turn
        results = self._results[self._turn, : len(rows)]
        results.copy_(self.program.results[: len(rows)], non_blocking=True)
        return LaunchedStep(results, self._device.record_event())

    def fill(self, rows: Sequence[Row]) -> int:
        """Write the rows into the program's buffers; return the number of rows to run, padding included."""
        silence = self._silence_like(rows)
        frames = [silence if row.frame is None else row.frame for row in rows]
        join_as_float(frames, self._frames.numpy()[: len(rows)])
        control = []
        for row in rows:
            slot, seed = row.slot.index, CONTINUE
            if row.fresh and row.slot.replay_reason == "retry":
                seed = RETRY_SEED
            elif row.fresh and not row.replayed:
                seed = self._next_seed
                self._next_seed += 1
            begin, codec_slot = self.start_frame if row.fresh else CONTINUE, self._spare if row.replayed else slot
            control.append((slot, begin, seed, codec_slot, row.number % KEPT_FRAMES))
        size = len(rows) if self._graphs is None else self._graphs.bucket(len(rows))
        self._control.numpy()[: len(rows)] = control
        self._control[len(rows) : size] = self._padding
        self.program.frames[:size].copy_(self._frames[:size], non_blocking=True)
        self.program.control[:size].copy_(self._control[:size], non_blocking=True)
        return size

    def _silence_like(self, rows: Sequence[Row]) -> Pcm:
        """Return a silent frame with the data type of the first frame of audio, so that most batches have one type."""
        first = next((row.frame for row in rows if row.frame is not None), None)
        return self._silence[np.dtype(np.float32) if first is None else first.dtype]

    def _record(self, device: Device) -> Graphs:
        """Record a step per bucket. All rows are padding meanwhile, so no stream's state changes."""
        lm = self.program.model.lm
        select_read_config(self.program.ring, self.slots, lm.compute_dtype or lm.embedding.dtype)
        self.program.control.copy_(self._padding.expand_as(self.program.control))
        return Graphs(self.program, device, self.slots)
