"""Recorded steps on a CPU: a device that runs what it should record stands in for the GPU, everything else is real."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.harness import SchedulerHarness, Tenant, voice
from support.recorded import CapturingDevice, EagerDevice

from tympan.config import ModelSettings
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row, Slot
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.buckets import bucket, bucket_sizes
from tympan.engine.kyutai.engine import describe_engine, load_model, load_runner
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.program import LoadedModel, StepProgram
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.randomized import PRESETS
from tympan.models.layers import attention
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.session.local import transcribe
from tympan.transcript.tokenizer import SyntheticTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

SLOTS = 12
SETTINGS = ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=SLOTS)


@cache
def eager() -> KyutaiRunner:
    return load_runner(SETTINGS)


@cache
def recorded() -> KyutaiRunner:
    checkpoint, placement = open_checkpoint(SETTINGS.model), place(SETTINGS)
    model = load_model(checkpoint, placement, SETTINGS)
    return KyutaiRunner(model, describe_engine(checkpoint, placement), SLOTS, device=EagerDevice())


def alone(stream: Tenant) -> Tenant:
    harness = SchedulerHarness(eager(), stream.replays)
    for action in stream.actions:
        harness.act(stream.number, action)
        harness.step()
    return harness.finish()[0]


def follow(runner: KyutaiRunner, schedule: list[list[str]]) -> list[Tenant]:
    harness = SchedulerHarness(runner)
    for turn in schedule:
        for slot, action in enumerate(turn):
            if action != "wait":
                harness.act(slot, action)
        harness.step()
    return harness.finish()


action = st.sampled_from(["frame"] * 8 + ["flush", "again", "leave", "wait", "wait", "wait"])


@pytest.mark.timeout(300)
@given(st.lists(st.lists(action, min_size=SLOTS, max_size=SLOTS), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_recorded_steps_equal_eager_ones_and_each_stream_alone(schedule: list[list[str]]) -> None:
    """Batches of any size up to a bucket that is no power of two, with churn; padding rows change nothing."""
    found, expected = follow(recorded(), schedule), follow(eager(), schedule)
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens == alone(one).tokens
        np.testing.assert_allclose(one.pauses, other.pauses, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_steps_recorded_without_being_computed_equal_eager_ones(
    monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """On a GPU nothing is computed while a step is recorded, so only a replay fills what the recorded step reads."""
    monkeypatch.setattr(attention, "sums_in_bags", lambda keys: False)  # a CPU's own path asks for values
    asked = ModelSettings(model="random:tiny", device="cpu", dtype="f32", temperature=temperature)
    checkpoint, placement = open_checkpoint(asked.model), place(asked)
    model = load_model(checkpoint, placement, asked)
    tokens: list[list[list[int]]] = []
    for device in (CapturingDevice(), None):
        runner = KyutaiRunner(model, describe_engine(checkpoint, placement), 3, device=device)
        slots = [Slot(index, None) for index in range(3)]
        tokens.append([])
        for number in range(12):
            rows = [
                Row(slots[index], voice(index)[1920 * number :][:1920], fresh=number in (index, 8))
                for index in range(min(number, number % 3) + 1)
            ]
            result = runner.launch(rows)
            step = result if isinstance(result, StepResult) else result.read()
            tokens[-1].append(list(step.tokens))
    assert tokens[0] == tokens[1]


def test_padding_rows_may_hold_anything() -> None:
    """What an earlier, larger batch left in the buffers is not seen."""
    runner = recorded()
    many = [Row(Slot(index, None), voice(index)[:1920], fresh=True) for index in range(8)]
    few = [Row(Slot(index, None), voice(index)[1920:3840], fresh=True) for index in range(3)]
    runner.launch(few)
    clean = runner.launch(few).read()  # type: ignore[union-attr]
    runner.launch(many)
    runner.program.frames.fill_(1e30)
    assert runner.launch(few).read() == clean  # type: ignore[union-attr]


def test_graphs_are_recorded_from_the_largest_down_and_the_smallest_that_holds_is_replayed() -> None:
    runner = recorded()
    device = runner._device
    assert isinstance(device, EagerDevice)
    assert device.recorded == [12, 8, 4, 2, 1]
    device.replayed.clear()
    for count in (1, 2, 3, 5, 8, 9, 12):
        runner.launch([Row(Slot(index, None), None, fresh=True) for index in range(count)])
    assert device.replayed == [1, 2, 4, 8, 8, 12, 12]


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])],
)
def test_buckets(largest: int, sizes: list[int]) -> None:
    assert bucket_sizes(largest) == sizes


def test_large_buckets_are_fine() -> None:
    """Few rows are computed for nothing: at most an eighth above 512 rows, a third above 128."""
    assert bucket_sizes(742) == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 640, 742]
    assert bucket_sizes(128 + 64) == [*(1 << power for power in range(8)), 192]
    for rows in range(1, 2000):
        assert bucket(rows) in bucket_sizes(4096)
        assert rows <= bucket(rows) < (2 * rows if rows <= 128 else rows + 128)


def test_a_result_can_be_read_while_the_next_step_is_in_its_buffers() -> None:
    runner = recorded()
    first = runner.launch([Row(Slot(0, None), voice(0)[:1920], fresh=True)])
    expected = first.read()  # type: ignore[union-attr]
    runner.launch([Row(Slot(1, None), voice(5)[:1920], fresh=True)])
    assert first.read() == expected  # type: ignore[union-attr]


async def test_an_engine_of_recorded_steps_tells_what_an_eager_one_tells() -> None:
    told = []
    for load in (recorded, eager):
        engine = BatchedEngine(load)
        await engine.start()
        told.append([event async for event in transcribe(engine, [voice(2)[:96_000]])])
        await engine.stop()
    assert [type(event) for event in told[0]] == [type(event) for event in told[1]]
    assert told[0][-1] == told[1][-1]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_step_on_a_gpu_reads_nothing_back_and_decides_nothing_on_the_host(temperature: float) -> None:
    """With tensors that have a device but no values, anything that would need a value raises."""
    config, nowhere = PRESETS["tiny"], torch.device("meta")
    with nowhere:
        lm, mimi = LM(config.lm, temperature=temperature), MimiEncoder(config.mimi, config.lm.codebooks)
    model = LoadedModel(mimi, lm, SyntheticTokenizer(256), nowhere, torch.bfloat16)
    program = StepProgram(model, slots=5, rows=4)
    for rows in (1, 4):
        program.run(rows)
    with pytest.raises(RuntimeError):
        program.results.tolist()
