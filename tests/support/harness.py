"""Scheduler and runner of the Kyutai engine without threads, streams of speech, and what each of them is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from support.speech import clip
from tympan.engine.batching.scheduler import Slot
from tympan.engine.batching.step import StepResult, scheduler_for
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import Flushed, Samples

FRAMES_AGAIN = 20


def voice(stream: int) -> Samples:
    """8 s of speech that differs from stream to stream: the tiny LM's ring of 100 frames wraps."""
    spoken = np.concatenate([clip(name).at(24_000) for name in ("counting", "quick_brown_fox", "hello_world")])
    return np.resize(np.roll(spoken, 7919 * stream), 8 * 24_000).astype(np.float32) * (0.4 + 0.1 * (stream % 7))


@dataclass
class Tenant:
    """A stream of a schedule: what it pushed, and what it was told."""

    number: int
    actions: list[str] = field(default_factory=list)
    replays: list[tuple[int, int]] = field(default_factory=list)
    """Where its model was started again: the frames that had run, and the first that ran again."""
    tokens: list[int] = field(default_factory=list)
    pauses: list[Sequence[float]] = field(default_factory=list)


class SchedulerHarness:
    """The runner serves one schedule after the other, as slots are reused."""

    def __init__(self, runner: KyutaiRunner, replays: Sequence[tuple[int, int]] = ()) -> None:
        """`replays` are to happen where they happened to the only stream of another schedule."""
        self.runner = runner
        self.replays = list(replays)
        self.scheduler = scheduler_for(runner)
        self.slots: dict[int, Slot] = {}

    def act(self, slot: int, action: str) -> None:
        if action == "leave":
            if slot in self.slots:
                self.scheduler.drop(self.slots.pop(slot))
            return
        if action == "again":
            if slot in self.slots:
                self._replay(self.slots[slot], self.slots[slot].number - FRAMES_AGAIN)
            return
        if slot not in self.slots:
            self.slots[slot] = Slot(slot, Tenant(number=slot))
        stream = self.slots[slot].stream
        assert isinstance(stream, Tenant)
        frames_so_far = sum(each == "frame" for each in stream.actions)
        stream.actions.append(action)
        if action == "flush":
            self.scheduler.add_marker(self.slots[slot], Flushed(0))
        else:
            frame = voice(stream.number)[frames_so_far * 1920 :][:1920]
            self.scheduler.push(self.slots[slot], 0.0, frame)

    def _replay(self, slot: Slot, start: int) -> bool:
        assert isinstance(slot.stream, Tenant)
        begun = self.scheduler.replay(slot, start) > 0
        if begun:
            slot.stream.replays.append((slot.number, start))
        return begun

    def step(self) -> None:
        for slot in self.slots.values() if self.replays else ():
            number, start = self.replays[0]
            if slot.number == number and self._replay(slot, start):
                self.replays.pop(0)
                break
        batch = self.scheduler.next()
        if not batch.rows:
            return
        result = self.runner.launch(batch.rows)
        if not isinstance(result, StepResult):
            result.wait()
            result = result.read()
        for row, token, pauses in zip(batch.rows, result.tokens, result.pauses, strict=True):
            stream = row.slot.stream
            assert isinstance(stream, Tenant)
            stream.tokens.append(token)
            stream.pauses.append(pauses)

    def finish(self) -> list[Tenant]:
        while self.replays or not self.scheduler.idle:
            self.step()
        return [slot.stream for slot in self.slots.values() if isinstance(slot.stream, Tenant)]
