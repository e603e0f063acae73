"""A slot whose model is started again: what it says then, eagerly and in recorded steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.harness import voice
from support.recorded import EagerDevice

from tympan.config import ModelSettings
from tympan.engine.batching.scheduler import REPLAY_FRAMES, Slot
from tympan.engine.batching.step import StepResult, scheduler_for
from tympan.engine.kyutai.engine import describe_engine, load_model
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import Flushed, Samples
from tympan.models.checkpoints.load import open_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

SILENCE = np.zeros(1920, np.float32)


def make_runner(recorded: bool, temperature: float = 0.0) -> KyutaiRunner:
    settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32", temperature=temperature)
    checkpoint, placement = open_checkpoint(settings.model), place(settings)
    info, model = describe_engine(checkpoint, placement), load_model(checkpoint, placement, settings)
    return KyutaiRunner(model, info, 3, device=EagerDevice() if recorded else None)


def tokens_of_a_new_stream(model: LoadedModel, frames: list[Samples], start: int, seed: int = 0) -> list[int]:
    """The language model on the codes from frame `start` on; the codec hears all frames."""
    rows, codec = torch.zeros(1, dtype=torch.int64), model.mimi.init_state(1)
    codes = [model.mimi.encode(torch.from_numpy(frame)[None], codec, rows) for frame in frames]
    state = model.lm.init_state(1, cache_dtype=model.cache_dtype)
    state.seed.fill_(seed)
    return [int(model.lm.step(each, state, rows).token) for each in codes[start:]]


class Line:
    """Three slots: the one that matters, and others that are always there."""

    def __init__(self, runner: KyutaiRunner) -> None:
        self.runner = runner
        self.scheduler = scheduler_for(runner)
        self.slots = [Slot(index, None) for index in range(runner.slots)]
        self.tokens: list[int] = []
        self._pushed = 0

    def run(self, frames: list[Samples]) -> None:
        """One after the other; nothing else of the slot waits when the next is pushed."""
        for frame in frames:
            for slot in self.slots[1:]:
                self.scheduler.push(slot, 0.0, voice(slot.index)[self._pushed * 1920 % 190_000 :][:1920])
            self.scheduler.push(self.slots[0], 0.0, frame)
            self._pushed += 1
            self.settle()

    def settle(self) -> None:
        while not self.scheduler.idle:
            batch = self.scheduler.next()
            result = self.runner.launch(batch.rows)
            if not isinstance(result, StepResult):
                result = result.read()
            told = zip(batch.rows, result.tokens, strict=True)
            self.tokens += [token for row, token in told if row.slot is self.slots[0]]


def speech(count: int) -> list[Samples]:
    return list(np.resize(voice(5), count * 1920).reshape(count, 1920))


@pytest.mark.parametrize("recorded", [False, True])
def test_it_says_what_a_new_stream_says_of_the_same_codes(recorded: bool) -> None:
    line, frames = Line(make_runner(recorded)), speech(70)
    line.run(frames[:50])
    before = list(line.tokens)
    assert line.scheduler.replay(line.slots[0], 30) == 20
    line.run(frames[50:])
    line.scheduler.add_marker(line.slots[0], Flushed(0))
    line.settle()

    expected = tokens_of_a_new_stream(line.runner.program.model, [*frames, *[SILENCE] * 7], 30)
    assert before == tokens_of_a_new_stream(line.runner.program.model, frames[:50], 0)
    assert line.tokens[50:] == expected
    assert line.tokens[50:70] != before[30:], "the past does matter"


@pytest.mark.parametrize("recorded", [False, True])
def test_no_more_is_heard_again_than_is_kept(recorded: bool) -> None:
    line, frames = Line(make_runner(recorded)), speech(REPLAY_FRAMES + 37)
    line.run(frames)
    assert line.scheduler.replay(line.slots[0], 1) == REPLAY_FRAMES
    line.settle()
    assert line.tokens[len(frames) :] == tokens_of_a_new_stream(line.runner.program.model, frames, 37)


def test_the_seed_of_a_temperature_stays() -> None:
    line, frames = Line(make_runner(recorded=True, temperature=0.8)), speech(40)
    line.run(frames)
    line.scheduler.replay(line.slots[0], 25)
    line.settle()
    model, seed = line.runner.program.model, 2  # the third stream of the first step
    assert line.tokens[40:] == tokens_of_a_new_stream(model, frames, 25, seed)
    assert line.runner._next_seed == 3, "the next stream has the seed that it would have had"
