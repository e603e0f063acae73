"""Before and after a snapshot: what `load` reads needs no device, what `start` finds out limits what it was told."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.listener import hear
from support.speech import clip

from tympan.bench.disk import write_checkpoint
from tympan.config import ModelSettings
from tympan.engine.base import Engine, EngineInfo
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.kyutai import engine as kyutai
from tympan.engine.kyutai.engine import load_runner
from tympan.engine.kyutai.program import LoadedModel
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
        weights.write_bytes(b"")  # a mapped file would show it
    assert await words(engine) == expected != []
    assert list(engine.start_seconds) == ["read", "weights", "quantisation", "state", "warm-up"]


def test_startup_timer() -> None:
    stages = StartupTimer()
    for name in ("weights", "state", "weights"):
        with stages.timed(name):
            time.sleep(0.01)
    assert list(stages.seconds) == ["weights", "state"]
    assert stages.seconds["weights"] >= 0.02
    stages.seconds["state"] = 3.0
    stages.split("state", "graphs", 1.0)
    assert (stages.seconds["state"], stages.seconds["graphs"]) == (2.0, 1.0)
    assert str(stages).endswith("state 2.0 s, graphs 1.0 s")


def test_load_uses_no_device(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDevice:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"torch.cuda.{name} before the snapshot")

    monkeypatch.setattr(torch, "cuda", NoDevice())
    create_engine(ModelSettings(model=str(written))).load()


@pytest.mark.parametrize(("told", "carried", "admitted"), [(8, 3, 3), (2, 64, 2), (None, 3, 3)])
def test_slots_are_limited_by_platform_and_speed(
    monkeypatch: pytest.MonkeyPatch, told: int | None, carried: int, admitted: int
) -> None:
    def measured(model: LoadedModel, info: EngineInfo, most: int) -> int:
        return min(carried, most)

    monkeypatch.setattr(kyutai, "measure_capacity", measured)
    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32"), told)
    assert runner.slots == admitted


def test_gpu_slots_are_limited_by_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=1)).program.model
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(kyutai, "CudaDevice", lambda: None)
    monkeypatch.setattr(
        kyutai, "KyutaiRunner", lambda model, info, slots, device: SimpleNamespace(slots=slots, record_seconds=0)
    )
    info = SimpleNamespace(device="a GPU")
    slots = {told: kyutai.allocate(model, info, 2**20, None, told).slots for told in (8, None)}  # type: ignore[arg-type]
    assert slots[8] == 8 < slots[None]


def test_max_streams_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kyutai, "measure_capacity", lambda *arguments: pytest.fail("measured"))
    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=2), 8)
    assert runner.slots == 2


@pytest.mark.parametrize("model", ["embedded", "scripted"])
def test_other_engines_are_limited_by_platform(model: str) -> None:
    assert create_engine(ModelSettings(model=model), 1).capacity == 1
    most = create_engine(ModelSettings(model=model)).capacity
    assert create_engine(ModelSettings(model=model), most + 1).capacity == most
