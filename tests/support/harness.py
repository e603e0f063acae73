"""Scheduler and runner of the Kyutai engine without its thread, driven by schedules of actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from support.speech import clip
from tympan.config import ModelSettings
from tympan.engine.batching.scheduler import Row, Slot
from tympan.engine.batching.step import StepResult, scheduler_for
from tympan.engine.kyutai.graphs import Device
from tympan.engine.kyutai.loader import describe_engine, load_model
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import Flushed, Samples
from tympan.models.checkpoints.load import open_checkpoint

REPLAYED_FRAMES = 20


def voice(stream: int) -> Samples:
    """8 s of speech that differs from stream to stream: the tiny LM's ring of 100 frames wraps."""
    spoken = np.concatenate([clip(name).at(24_000) for name in ("counting", "quick_brown_fox", "hello_world")])
    return np.resize(np.roll(spoken, 7919 * stream), 8 * 24_000).astype(np.float32) * (0.4 + 0.1 * (stream % 7))


def tiny_settings(temperature: float = 0.0, max_streams: int | None = None) -> ModelSettings:
    return ModelSettings(
        model="random:tiny", device="cpu", dtype="f32", temperature=temperature, max_streams=max_streams
    )


def tiny_runner(slots: int, device: Device | None = None, temperature: float = 0.0) -> KyutaiRunner:
    """The tiny random model, eager or recorded on a device."""
    settings = tiny_settings(temperature)
    checkpoint, placement = open_checkpoint(settings.model), place(settings)
    model = load_model(checkpoint, placement, settings)
    return KyutaiRunner(model, describe_engine(checkpoint, placement), slots, device=device)


def run_rows(runner: KyutaiRunner, rows: Sequence[Row]) -> StepResult:
    result = runner.launch(rows)
    if isinstance(result, StepResult):
        return result
    result.wait()
    return result.read()


@dataclass
class StreamLog:
    """A stream of a schedule: its actions and its results."""

    number: int
    actions: list[str] = field(default_factory=list)
    replays: list[tuple[int, int]] = field(default_factory=list)
    """For each replay, the frames that had run before it and the first frame that ran again."""
    tokens: list[int] = field(default_factory=list)
    pauses: list[Sequence[float]] = field(default_factory=list)


class RunnerHarness:
    """Runs one schedule on a runner, which serves one schedule after the other, as slots are reused."""

    def __init__(self, runner: KyutaiRunner, replays: Sequence[tuple[int, int]] = ()) -> None:
        """`replays` are repeated at the same frames as in the schedule of another harness with one stream."""
        self.runner = runner
        self.replays = list(replays)
        self.scheduler = scheduler_for(runner)
        self.slots: dict[int, Slot] = {}

    def act(self, index: int, action: str) -> None:
        if action == "leave":
            if index in self.slots:
                self.scheduler.drop(self.slots.pop(index))
            return
        if action == "again":
            if index in self.slots:
                self._replay(self.slots[index], self.slots[index].number - REPLAYED_FRAMES)
            return
        if index not in self.slots:
            self.slots[index] = Slot(index, StreamLog(number=index))
        slot = self.slots[index]
        log: StreamLog = slot.stream
        frames_so_far = log.actions.count("frame")
        log.actions.append(action)
        if action == "flush":
            self.scheduler.add_marker(slot, Flushed(0))
        else:
            self.scheduler.push(slot, 0.0, voice(log.number)[frames_so_far * 1920 :][:1920])

    def _replay(self, slot: Slot, start: int) -> bool:
        started = self.scheduler.replay(slot, start) > 0
        if started:
            slot.stream.replays.append((slot.number, start))
        return started

    def step(self) -> None:
        for slot in self.slots.values() if self.replays else ():
            number, start = self.replays[0]
            if slot.number == number and self._replay(slot, start):
                self.replays.pop(0)
                break
        batch = self.scheduler.next_batch()
        if not batch.rows:
            return
        result = run_rows(self.runner, batch.rows)
        for row, token, pauses in zip(batch.rows, result.tokens, result.pauses, strict=True):
            row.slot.stream.tokens.append(token)
            row.slot.stream.pauses.append(pauses)
            if row.marker is not None:
                self.scheduler.end_flush(row.slot, 0)

    def finish(self) -> list[StreamLog]:
        while self.replays or not self.scheduler.idle:
            self.step()
        return [slot.stream for slot in self.slots.values()]


def run_schedule(runner: KyutaiRunner, schedule: list[list[str]]) -> list[StreamLog]:
    """Run one action of every slot per turn; return the streams that did not leave."""
    harness = RunnerHarness(runner)
    for turn in schedule:
        for slot, action in enumerate(turn):
            if action != "wait":
                harness.act(slot, action)
        harness.step()
    return harness.finish()


def run_alone(runner: KyutaiRunner, stream: StreamLog) -> StreamLog:
    """Run the actions of one stream without others."""
    harness = RunnerHarness(runner, stream.replays)
    for action in stream.actions:
        harness.act(stream.number, action)
        harness.step()
    return harness.finish()[0]
