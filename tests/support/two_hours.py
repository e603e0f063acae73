"""Hours of one stream, alone or in a busy batch, through the real engine, as fast as it runs."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import psutil
import torch

from support.speech import clip
from tympan.config import ModelSettings
from tympan.engine.base import EngineStream, StepReport
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.loader import describe_engine, load_model
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import EngineEvent, Finished, Progress, Samples
from tympan.models.checkpoints.randomized import RandomCheckpoint
from tympan.models.config import (
    LMConfig,
    MimiConfig,
    ModelConfig,
    QuantizerConfig,
    SeanetConfig,
    TransformerConfig,
)

MINUTE = 750  # frames
SLOTS = 4
# Small, but both rings still wrap every few seconds.
SMALLEST = ModelConfig(
    LMConfig(
        TransformerConfig(dimension=32, layers=1, heads=2, hidden=88, context=100, max_period=100_000.0),
        codebooks=2,
        audio_card=64,
        text_card=64,
        pause_heads=4,
    ),
    MimiConfig(
        seanet=SeanetConfig(dimension=32, filters=2, strides=(30, 32)),
        transformer=TransformerConfig(dimension=32, layers=1, heads=2, hidden=64, context=50, max_period=10_000.0),
        quantizer=QuantizerConfig(codebooks=2, bins=64, dimension=16),
    ),
    delay_seconds=0.5,
)


@dataclass(frozen=True)
class Outcome:
    """Result of a run: the tokens of the last minute, and one value per minute of each figure."""

    tokens: list[int]
    memory_bytes: list[int]
    step_seconds: list[float]
    waiting_frames: list[int]
    others: int


class RecordingRunner(KyutaiRunner):
    """Keeps the tokens of one slot's last minute."""

    recorded_slot: int = -1

    def launch(self, rows: Sequence[Row]) -> StepResult:
        result = super().launch(rows)
        assert isinstance(result, StepResult)
        for row, token in zip(rows, result.tokens, strict=True):
            if row.slot.index == self.recorded_slot and row.frame is not None:
                self.tokens.append(token)
        return result

    tokens: deque[int]


def load() -> RecordingRunner:
    settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32")
    checkpoint, placement = RandomCheckpoint("random:smallest", SMALLEST), place(settings)
    runner = RecordingRunner(load_model(checkpoint, placement, settings), describe_engine(checkpoint, placement), SLOTS)
    runner.tokens = deque(maxlen=MINUTE)
    return runner


class Speech:
    """Speech that never repeats: clips one after the other, at varying levels and offsets."""

    def __init__(self) -> None:
        spoken = np.concatenate([clip(name).at(24_000) for name in ("counting", "quick_brown_fox", "hello_world")])
        self._spoken = np.tile(spoken, 2).astype(np.float32)

    def frame(self, number: int) -> Samples:
        place = number * 1920 * 7919 % (len(self._spoken) // 2)
        return self._spoken[place : place + 1920] * (0.3 + 0.05 * (number // 53 % 17))


class OtherStreams:
    """Streams that open, pause, flush and end beside the one under test."""

    def __init__(self, engine: BatchedEngine, speech: Speech) -> None:
        self._engine, self._speech = engine, speech
        self._random = random.Random(1)
        self._streams: list[EngineStream] = []
        self.opened = 0

    def act(self, number: int) -> None:
        if number % 3 or not self._streams:
            if len(self._streams) < SLOTS - 1 and self._engine.active < SLOTS and self._random.random() < 0.05:
                self._streams.append(self._engine.open(lambda events: None))
                self.opened += 1
            return
        for stream in list(self._streams):
            chance = self._random.random()
            if chance < 0.6:
                stream.push(self._speech.frame(number + 1 + self._random.randrange(1000)))
            elif chance < 0.61:
                stream.flush(0)
            elif chance < 0.62:
                self._streams.remove(stream)
                stream.close() if chance < 0.615 else stream.finish()


async def transcribe(minutes: int, busy: bool) -> Outcome:
    runner = load()
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    reports: list[StepReport] = []
    engine.observe = reports.append
    speech, done = Speech(), asyncio.Event()
    outcome = Outcome([], [], [], [], 0)

    def on_events(events: Sequence[EngineEvent]) -> None:
        if any(isinstance(event, Progress | Finished) for event in events):
            done.set()

    stream = engine.open(on_events)
    runner.recorded_slot = stream.slot.index
    others = OtherStreams(engine, speech)
    for number in range(minutes * MINUTE):
        if busy:
            others.act(number)
        done.clear()
        stream.push(speech.frame(number))
        await done.wait()
        if number % MINUTE == MINUTE - 1:
            gc.collect()
            outcome.memory_bytes.append(psutil.Process().memory_info().rss)
            outcome.step_seconds.append(median(report.seconds for report in reports))
            outcome.waiting_frames.append(max(report.waiting_frames for report in reports))
            reports.clear()
    await engine.stop()
    return Outcome(
        list(runner.tokens), outcome.memory_bytes, outcome.step_seconds, outcome.waiting_frames, others.opened
    )


def run(minutes: int, busy: bool) -> Outcome:
    torch.set_num_threads(1)
    return asyncio.run(transcribe(minutes, busy))
