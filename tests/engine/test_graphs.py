"""Recorded steps on a CPU, with devices that run the work instead of recording it."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.harness import run_alone, run_rows, run_schedule, tiny_runner, tiny_settings, voice
from support.recorded import CapturingDevice, EagerDevice

from tympan.engine.batching.buckets import bucket, bucket_sizes
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row, Slot
from tympan.engine.kyutai import loader
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.program import LoadedModel, StepProgram
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.models.checkpoints.randomized import PRESETS
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.session.local import transcribe
from tympan.transcript.tokenizer import SyntheticTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

SLOTS = 12


@cache
def eager() -> KyutaiRunner:
    return load_runner(tiny_settings(max_streams=SLOTS))


@cache
def recorded() -> KyutaiRunner:
    return tiny_runner(SLOTS, EagerDevice())


action = st.sampled_from(["frame"] * 8 + ["flush", "again", "leave", "wait", "wait", "wait"])


@pytest.mark.timeout(300)
@given(st.lists(st.lists(action, min_size=SLOTS, max_size=SLOTS), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_recorded_steps_equal_eager_steps(schedule: list[list[str]]) -> None:
    """Batches of any size up to a bucket that is no power of two; streams come, go and equal themselves alone."""
    found, expected = run_schedule(recorded(), schedule), run_schedule(eager(), schedule)
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens == run_alone(eager(), one).tokens
        np.testing.assert_allclose(one.pauses, other.pauses, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_captured_steps_equal_eager_steps(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    """On a GPU nothing is computed while a step is recorded: only a replay fills what the recorded step reads."""
    without_runtime = SimpleNamespace(run_mimi_on_cpu=lambda mimi: None, run_lm_on_cpu=lambda lm, *arguments: None)
    monkeypatch.setattr(loader, "cpu_networks", lambda: without_runtime)
    tokens: list[list[list[int]]] = []
    for device in (CapturingDevice(), None):
        runner = tiny_runner(3, device, temperature)
        slots = [Slot(index, None) for index in range(3)]
        tokens.append([])
        for number in range(12):
            rows = [
                Row(slots[index], voice(index)[1920 * number :][:1920], fresh=number in (index, 8))
                for index in range(min(number, number % 3) + 1)
            ]
            tokens[-1].append(list(run_rows(runner, rows).tokens))
    assert tokens[0] == tokens[1]


def test_padding_rows_do_not_matter() -> None:
    """The buffers still hold rows of an earlier, larger batch."""
    runner = recorded()
    many = [Row(Slot(index, None), voice(index)[:1920], fresh=True) for index in range(8)]
    few = [Row(Slot(index, None), voice(index)[1920:3840], fresh=True) for index in range(3)]
    run_rows(runner, few)
    clean = run_rows(runner, few)
    run_rows(runner, many)
    runner.program.frames.fill_(1e30)
    assert run_rows(runner, few) == clean


def test_graph_order_and_choice() -> None:
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
def test_bucket_sizes(largest: int, sizes: list[int]) -> None:
    assert bucket_sizes(largest) == sizes


def test_large_buckets() -> None:
    """At most a third of the rows is padding above 128 rows, and at most an eighth above 512."""
    assert bucket_sizes(742) == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 640, 742]
    assert bucket_sizes(128 + 64) == [*(1 << power for power in range(8)), 192]
    for rows in range(1, 2000):
        assert bucket(rows) in bucket_sizes(4096)
        assert rows <= bucket(rows) < (2 * rows if rows <= 128 else rows + 128)


def test_result_is_readable_during_next_step() -> None:
    runner = recorded()
    first = runner.launch([Row(Slot(0, None), voice(0)[:1920], fresh=True)])
    expected = first.read()  # type: ignore[union-attr]
    runner.launch([Row(Slot(1, None), voice(5)[:1920], fresh=True)])
    assert first.read() == expected  # type: ignore[union-attr]


async def test_recorded_engine_equals_eager_engine() -> None:
    events = []
    for make_runner in (recorded, eager):
        engine = BatchedEngine(make_runner)
        await engine.start()
        events.append([event async for event in transcribe(engine, [voice(2)[:96_000]])])
        await engine.stop()
    assert [type(event) for event in events[0]] == [type(event) for event in events[1]]
    assert events[0][-1] == events[1][-1]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_step_needs_no_values_on_host(temperature: float) -> None:
    """On a GPU, reading a value would block or break the recording; on the meta device, it raises."""
    config, meta = PRESETS["tiny"], torch.device("meta")
    with meta:
        lm, mimi = LM(config.lm, temperature=temperature), MimiEncoder(config.mimi, config.lm.codebooks)
    model = LoadedModel(mimi, lm, SyntheticTokenizer(256), meta, torch.bfloat16)
    program = StepProgram(model, slots=5, rows=4)
    for rows in (1, 4):
        program.run(rows)
    with pytest.raises(RuntimeError):
        program.results.tolist()
