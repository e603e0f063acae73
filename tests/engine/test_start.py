"""`load` before a snapshot of the process, and the number of slots that `start` settles on."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from random_checkpoint import write_checkpoint
from support.listener import hear
from support.speech import clip

from tympan.config import ModelSettings
from tympan.engine.base import Engine, EngineInfo
from tympan.engine.batching import startup_timer
from tympan.engine.kyutai import capacity, loader
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.engine.registry import create_engine
from tympan.messages import Word


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint("random:tiny", folder)
    return folder


def settings(folder: Path) -> ModelSettings:
    return ModelSettings(model=str(folder), device="cpu", dtype="f32", max_streams=1)


async def words(engine: Engine) -> list[Word]:
    await engine.start()
    try:
        return (await hear(engine, clip("counting").at(engine.info.sample_rate))).words
    finally:
        await engine.stop()


async def test_loaded_files_are_not_read_again(written: Path, tmp_path: Path) -> None:
    expected = await words(create_engine(settings(written)))
    folder = Path(shutil.copytree(written, tmp_path / "model"))
    engine = create_engine(settings(folder))
    engine.load()
    for weights in folder.glob("*.safetensors"):
        weights.write_bytes(b"")  # fails if the engine only mapped the file
    assert await words(engine) == expected != []
    assert list(engine.start_seconds) == ["files", "read", "weights", "quantisation", "state", "warm-up"]


def test_startup_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(startup_timer, "time", clock)
    timer = startup_timer.StartupTimer()
    for name in ("weights", "state", "weights"):
        with timer.timed(name):
            assert timer.current == name
    assert list(timer.seconds) == ["weights", "state"]
    assert timer.seconds["weights"] == 2.0
    timer.seconds["state"] = 3.0
    timer.split("state", "graphs", 1.0)
    assert (timer.seconds["state"], timer.seconds["graphs"]) == (2.0, 1.0)
    assert str(timer).endswith("state 2.0 s, graphs 1.0 s")


def test_load_uses_no_device(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDevice:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"load used torch.cuda.{name}")

    monkeypatch.setattr(torch, "cuda", NoDevice())
    create_engine(ModelSettings(model=str(written))).load()


@pytest.mark.parametrize(("most_streams", "carried", "slots"), [(8, 3, 3), (2, 64, 2), (None, 3, 3)])
def test_slots_are_limited_by_platform_and_speed(
    monkeypatch: pytest.MonkeyPatch, most_streams: int | None, carried: int, slots: int
) -> None:
    def calibrated(model: LoadedModel, info: EngineInfo, architecture: str, most: int) -> KyutaiRunner:
        return KyutaiRunner(model, info, min(carried, most))

    monkeypatch.setattr(loader, "calibrated_runner", calibrated)
    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32"), most_streams)
    assert runner.slots == slots


def test_gpu_slots_are_limited_by_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=1)).program.model
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(capacity, "CudaDevice", lambda: None)
    monkeypatch.setattr(
        capacity, "KyutaiRunner", lambda model, info, slots, device: SimpleNamespace(slots=slots, record_seconds=0)
    )
    info = SimpleNamespace(device="a GPU")
    slots = {most: capacity.allocate(model, info, 2**20, None, most).slots for most in (8, None)}  # type: ignore[arg-type]
    assert slots[8] == 8 < slots[None]


def test_max_streams_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "calibrated_runner", lambda *arguments: pytest.fail("measured"))
    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=2), 8)
    assert runner.slots == 2


@pytest.mark.parametrize("model", ["embedded", "scripted"])
def test_other_engines_are_limited_by_platform(model: str) -> None:
    assert create_engine(ModelSettings(model=model), 1).capacity == 1
    most = create_engine(ModelSettings(model=model)).capacity
    assert create_engine(ModelSettings(model=model), most + 1).capacity == most
