"""The whole engine with the tiny random model: no stream changes the tokens of another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_fields
from support.harness import run_alone, run_schedule, tiny_settings, voice

from tympan.audio.samples import as_float, as_integers
from tympan.config import ModelSettings
from tympan.engine.batching.scheduler import Scheduler, Slot
from tympan.engine.kyutai import engine as kyutai
from tympan.engine.kyutai.engine import create_kyutai_engine
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import ConfigError
from tympan.messages import Complete, Event, Pcm, Word
from tympan.models.checkpoints import randomized
from tympan.session.local import transcribe

pytestmark = pytest.mark.usefixtures("one_thread")

SLOTS = 16
SETTINGS = tiny_settings(max_streams=SLOTS)


@cache
def tiny() -> KyutaiRunner:
    return load_runner(SETTINGS)


action = st.sampled_from(["frame"] * 12 + ["flush", "again", "leave", "wait"])


@pytest.mark.timeout(300)  # 25 s on an idle machine
@given(st.lists(st.lists(action, min_size=SLOTS, max_size=SLOTS), min_size=1, max_size=25))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_stream_in_batch_equals_stream_alone(schedule: list[list[str]]) -> None:
    for stream in run_schedule(tiny(), schedule):
        expected = run_alone(tiny(), stream)
        assert stream.tokens == expected.tokens
        np.testing.assert_allclose(stream.pauses, expected.pauses, atol=1e-5)


@pytest.mark.long
def test_wrapped_ring_equals_stream_alone() -> None:
    schedule = [
        ["frame" if turn >= slot and (turn + slot) % 11 else "wait" for slot in range(SLOTS)] for turn in range(99)
    ]
    streams = run_schedule(tiny(), schedule)
    assert max(len(stream.tokens) for stream in streams) > 80
    assert len({tuple(stream.tokens[:20]) for stream in streams}) > 8, "the streams are not all the same"
    for stream in streams:
        assert stream.tokens == run_alone(tiny(), stream).tokens


async def events_of(blocks: Sequence[Pcm], seen: list[int]) -> list[Event]:
    engine = create_kyutai_engine(SETTINGS, lambda token, pauses: seen.append(token))
    await engine.start()
    events = [event async for event in transcribe(engine, blocks)]
    await engine.stop()
    return events


async def test_silence_prefix_not_in_word_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix is one second, as for the 2.6B model: 13 whole frames, so no frame of the audio is shifted."""
    samples = voice(3)[:99_000]
    plain: list[int] = []
    silence = np.zeros(13 * 1920, np.float32)
    expected = await events_of([silence, samples], plain)
    monkeypatch.setitem(randomized.PRESETS, "tiny", replace(randomized.PRESETS["tiny"], silence_prefix_seconds=1.0))
    tokens: list[int] = []
    found = await events_of([samples], tokens)
    assert tokens == plain
    words = [event for event in found if isinstance(event, Word)]
    of_audio = [word for word in words if word.start >= 1.0]  # a random model finds words in silence, too
    shifted = [
        replace_fields(event, start=round(event.start - 1.04, 3), end=round(event.end - 1.04, 3))
        for event in expected
        if isinstance(event, Word) and event.start >= 2.04
    ]
    assert of_audio == shifted
    assert len(of_audio) > 3
    assert found[-1] == Complete(round(len(samples) / 24_000, 6), len(words))


@pytest.mark.parametrize("size", [1, 77, 1919, 1920, 24_000])
async def test_chunk_size_does_not_change_events(size: int) -> None:
    samples = voice(3)[:20_000] if size == 1 else voice(3)[:60_000]
    whole: list[int] = []
    cut: list[int] = []
    expected = await events_of([samples], whole)
    found = await events_of([samples[start : start + size] for start in range(0, len(samples), size)], cut)
    assert cut == whole
    kinds = ("Word", "Segment", "Turn", "Complete")
    assert [event for event in found if type(event).__name__ in kinds] == [
        event for event in expected if type(event).__name__ in kinds
    ]


async def test_integer_samples_equal_floats() -> None:
    integers = as_integers(voice(3)[:60_000])
    floats: list[int] = []
    from_integers: list[int] = []
    await events_of([as_float(integers)], floats)
    await events_of([integers[:1_000], integers[1_000:]], from_integers)
    assert from_integers == floats


async def test_temperature_is_seeded_per_stream() -> None:
    warm = tiny_settings(temperature=0.8, max_streams=4)
    runs: list[list[int]] = []
    for _ in range(2):
        seen: list[int] = []
        engine = create_kyutai_engine(warm, lambda token, pauses, seen=seen: seen.append(token))
        await engine.start()
        _ = [event async for event in transcribe(engine, [voice(1)[:48_000]])]
        await engine.stop()
        runs.append(seen)
    cold: list[int] = []
    await events_of([voice(1)[:48_000]], cold)
    assert runs[0] == runs[1] != cold


def test_auto_dtype_on_cpu_is_int8() -> None:
    assert place(ModelSettings(device="cpu")).kind == "int8"
    assert place(ModelSettings(device="cpu", dtype="f32")).kind == "f32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_gpu_error() -> None:
    with pytest.raises(ConfigError, match="--device cpu"):
        place(ModelSettings(device="cuda"))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8", "int4"])
def test_every_weight_type_runs(dtype: str) -> None:
    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype=dtype, max_streams=1))
    slot = Slot(0, None)
    scheduler = Scheduler(7, 1)
    for start in range(0, 19_200, 1920):
        scheduler.push(slot, 0.0, voice(0)[start : start + 1920])
    tokens = [runner.launch(scheduler.next_batch().rows).tokens[0] for _ in range(10)]
    assert all(0 <= token < 256 for token in tokens)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("no/such-model", "--model embedded"),
        ("random:5b", "random:1b"),
        ("{folder}", "config.json"),
    ],
)
def test_unavailable_model_error_is_one_line(model: str, sentence: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tympan", "serve", "--model", model.format(folder=tmp_path), "--port", "0"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr


def _out_of_memory() -> Exception:
    """Return the error that PyTorch raises on a CPU."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error.with_traceback(None)
    raise AssertionError("2**60 bytes were allocated")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), _out_of_memory()])
def test_start_out_of_memory_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(kyutai, "load_runner", too_much)
    with pytest.raises(ConfigError, match="not enough memory to start random:tiny"):
        kyutai.RunnerSource(SETTINGS).make_runner()
