"""Replayed frames after a restart of the language model, in eager and in recorded steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.harness import run_rows, tiny_runner, voice
from support.recorded import EagerDevice

from tympan.engine.batching.scheduler import REPLAY_FRAMES, Slot
from tympan.engine.batching.step import scheduler_for
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import Flushed, Samples

pytestmark = pytest.mark.usefixtures("one_thread")

SILENCE = np.zeros(1920, np.float32)


def make_runner(recorded: bool, temperature: float = 0.0) -> KyutaiRunner:
    return tiny_runner(3, EagerDevice() if recorded else None, temperature)


def tokens_of_new_stream(model: LoadedModel, frames: list[Samples], start: int, seed: int = 0) -> list[int]:
    """Run the codec on all frames and a new language model on the codes from frame `start` on."""
    rows, codec = torch.zeros(1, dtype=torch.int64), model.mimi.init_state(1)
    codes = [model.mimi.encode(torch.from_numpy(frame)[None], codec, rows) for frame in frames]
    state = model.lm.init_state(1, cache_dtype=model.cache_dtype)
    state.seed.fill_(seed)
    return [int(model.lm.step(each, state, rows).token) for each in codes[start:]]


class ThreeStreams:
    """Three slots of a runner; the first one is under test, the others always have frames."""

    def __init__(self, runner: KyutaiRunner) -> None:
        self.runner = runner
        self.scheduler = scheduler_for(runner)
        self.slots = [Slot(index, None) for index in range(runner.slots)]
        self.tokens: list[int] = []
        self._pushed = 0

    def run(self, frames: list[Samples]) -> None:
        """Push and run one frame at a time."""
        for frame in frames:
            for slot in self.slots[1:]:
                self.scheduler.push(slot, 0.0, voice(slot.index)[self._pushed * 1920 % 190_000 :][:1920])
            self.scheduler.push(self.slots[0], 0.0, frame)
            self._pushed += 1
            self.run_all()

    def run_all(self) -> None:
        while not self.scheduler.idle:
            batch = self.scheduler.next_batch()
            tokens = run_rows(self.runner, batch.rows).tokens
            self.tokens += [token for row, token in zip(batch.rows, tokens, strict=True) if row.slot is self.slots[0]]
            for row in batch.rows:
                if row.marker is not None:
                    self.scheduler.end_flush(row.slot, 0)


def speech(count: int) -> list[Samples]:
    return list(np.resize(voice(5), count * 1920).reshape(count, 1920))


@pytest.mark.parametrize("recorded", [False, True])
def test_replay_equals_new_stream_on_same_codes(recorded: bool) -> None:
    streams, frames = ThreeStreams(make_runner(recorded)), speech(70)
    streams.run(frames[:50])
    before = list(streams.tokens)
    assert streams.scheduler.replay(streams.slots[0], 30) == 20
    streams.run(frames[50:])
    streams.scheduler.add_marker(streams.slots[0], Flushed(0))
    streams.run_all()

    expected = tokens_of_new_stream(streams.runner.program.model, [*frames, *[SILENCE] * 7], 30)
    assert before == tokens_of_new_stream(streams.runner.program.model, frames[:50], 0)
    assert streams.tokens[50:] == expected
    assert streams.tokens[50:70] != before[30:], "the tokens depend on the past"


@pytest.mark.parametrize("recorded", [False, True])
def test_replay_is_limited_to_kept_frames(recorded: bool) -> None:
    streams, frames = ThreeStreams(make_runner(recorded)), speech(REPLAY_FRAMES + 37)
    streams.run(frames)
    assert streams.scheduler.replay(streams.slots[0], 1) == REPLAY_FRAMES
    streams.run_all()
    assert streams.tokens[len(frames) :] == tokens_of_new_stream(streams.runner.program.model, frames, 37)


def test_replay_keeps_seed() -> None:
    streams, frames = ThreeStreams(make_runner(recorded=True, temperature=0.8)), speech(40)
    streams.run(frames)
    streams.scheduler.replay(streams.slots[0], 25)
    streams.run_all()
    model, seed = streams.runner.program.model, 2  # the third stream of the first step
    assert streams.tokens[40:] == tokens_of_new_stream(model, frames, 25, seed)
    assert streams.runner._next_seed == 3, "a replay takes no seed"
