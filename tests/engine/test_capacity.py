"""Number of streams that a machine carries, by time and by memory, and the errors for too many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tympan.config import ModelSettings, cache_folder
from tympan.engine.kyutai import capacity, loader
from tympan.engine.kyutai.capacity import (
    GIB,
    HEADROOM,
    full_context_rows,
    slots_for,
    streams_in_real_time,
    streams_that_fit,
)
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.engine.kyutai.step_times import StepTimes
from tympan.errors import ConfigError
from tympan.models.checkpoints.load import open_checkpoint

KEY = {"gpu": "a", "model": "b"}


class Machine:
    """Step times of 2 ms and some microseconds per row; logs which numbers of rows were measured."""

    def __init__(self, row_us: float) -> None:
        self.row_us = row_us
        self.measured: list[int] = []

    def __call__(self, rows: int) -> float:
        self.measured.append(rows)
        return 0.002 + rows * self.row_us * 1e-6


@pytest.mark.parametrize("row_us", [1.0, 40.0, 55.0, 120.0, 1000.0, 9000.0])
def test_most_streams_with_headroom(row_us: float) -> None:
    machine = Machine(row_us)
    streams, seconds = streams_in_real_time(machine, 1280)
    exact = int((HEADROOM * 0.08 - 0.002) / row_us * 1e6)
    assert seconds <= HEADROOM * 0.08
    assert min(exact, 1280) * 0.85 - 16 <= streams <= min(exact, 1280)
    assert len(machine.measured) < 20


def test_slow_machine_carries_one_stream() -> None:
    assert streams_in_real_time(Machine(200_000), 64) == (1, pytest.approx(0.202))


def test_step_times_are_measured_once(tmp_path: Path) -> None:
    first, second = Machine(40), Machine(40)
    expected = streams_in_real_time(StepTimes(KEY, tmp_path).measured_by(first), 1000)
    assert streams_in_real_time(StepTimes(KEY, tmp_path).measured_by(second), 1000) == expected
    assert first.measured
    assert not second.measured


def test_step_times_depend_on_key(tmp_path: Path) -> None:
    StepTimes(KEY, tmp_path).measured_by(Machine(40))(1)
    assert not StepTimes({**KEY, "gpu": "c"}, tmp_path).seconds


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"key": {"gpu": "a", "model": "b"}, "step_seconds": {"x": 1}}'])
def test_broken_file_of_step_times_is_written_again(tmp_path: Path, content: str) -> None:
    StepTimes(KEY, tmp_path).measured_by(Machine(40))(1)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    machine = Machine(40)
    StepTimes(KEY, tmp_path).measured_by(machine)(1)
    assert machine.measured == [1]
    assert StepTimes(KEY, tmp_path).seconds == {1: machine(1)}


def test_unwritable_folder_of_step_times_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert StepTimes(KEY, tmp_path / "file").measured_by(Machine(0))(1) == pytest.approx(0.002)


def test_cache_folder_follows_xdg() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/tympan")
    assert cache_folder({}) == Path.home() / ".cache" / "tympan"


@pytest.mark.parametrize("free_gib", [1, 3, 12, 24, 80, 139])
def test_streams_and_their_step_fit(free_gib: int) -> None:
    stream = int(101.6 * 2**20)
    fit = streams_that_fit(free_gib * GIB, stream)
    assert fit * stream < free_gib * GIB
    assert (fit + 40) * (stream + 2**20) > free_gib * GIB - 4 * GIB
    assert fit <= streams_that_fit((free_gib + 1) * GIB, stream)


def test_too_many_streams_error() -> None:
    assert slots_for(None, 57, "a GPU", 2**20) == 57
    assert slots_for(57, 57, "a GPU", 2**20) == 57
    with pytest.raises(ConfigError, match=r"64 streams of 1\.0 MiB do not fit .* a GPU; use --max-streams 57"):
        slots_for(64, 57, "a GPU", 2**20)
    with pytest.raises(ConfigError, match="no room for even one stream"):
        slots_for(None, 0, "a GPU", 2**20)


def test_out_of_memory_at_start_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …")

    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(capacity, "CudaDevice", lambda: None)
    monkeypatch.setattr(capacity, "KyutaiRunner", run_out)
    with pytest.raises(ConfigError, match=r"^100 streams of .* use --max-streams 90$"):
        capacity.allocate(runner.program.model, runner.info, 2**20, 100)
    monkeypatch.setattr(loader, "load_model", run_out)
    with pytest.raises(ConfigError, match="the weights of random:tiny as f32 do not fit"):
        load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32"))


class OldGpu:
    """`torch.cuda` on a T4."""

    is_available = staticmethod(lambda: True)
    is_bf16_supported = staticmethod(lambda including_emulation: False)
    get_device_capability = staticmethod(lambda: (7, 5))


def test_old_gpu_uses_f16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", OldGpu)
    assert place(ModelSettings()).kind == "f16"
    assert place(ModelSettings()).cache == torch.float16
    for wrong in (ModelSettings(dtype="fp8"), ModelSettings(kv_dtype="fp8")):
        with pytest.raises(ConfigError, match=r"compute capability 8\.9"):
            place(wrong)


def test_cache_types_on_cpu() -> None:
    assert place(ModelSettings(device="cpu", dtype="f32")).cache == torch.float32
    assert place(ModelSettings(device="cpu", dtype="int8")).cache == torch.float32
    assert place(ModelSettings(device="cpu", dtype="int8", kv_dtype="bf16")).cache == torch.bfloat16
    assert place(ModelSettings(device="cpu", kv_dtype="fp8")).cache_name == "fp8"
    with pytest.raises(ConfigError, match="--dtype bf16"):
        place(ModelSettings(device="cpu", dtype="fp8"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tympan" / "step-times"


class Steps:
    """Stands for the measurement of steps at full context: those of one row take the given seconds in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.one_row: list[float] = [0.01]
        self.measured: list[int] = []
        monkeypatch.setattr(capacity, "full_context_steps", self._steps)

    def _steps(self, runner: KyutaiRunner, rows: int) -> Iterator[float]:
        self.measured.append(rows)
        yield from itertools.cycle(self.one_row if rows == 1 else [max(self.one_row[-1], 0.01 if rows <= 4 else 0.1)])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def start_on_cpu() -> KyutaiRunner:
    return load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32"), 8)


def test_next_start_on_a_cpu_uses_the_step_times(own_cache: Path, steps: Steps) -> None:
    assert start_on_cpu().slots == 4
    assert steps.measured == [1, 2, 4, 8]
    (file,) = own_cache.iterdir()
    steps.measured.clear()
    assert start_on_cpu().slots == 4
    assert steps.measured == [1]
    assert list(own_cache.iterdir()) == [file]


@pytest.mark.parametrize(
    ("one_row", "is_as_fast"),
    [
        ([0.012], True),
        ([0.008], True),
        ([0.014], False),
        ([0.007], False),
        ([0.9, 0.2, 0.05, 0.04, 0.02, 0.0101], True),
        ([0.9, 0.2, 0.05, 0.04, 0.02, 0.02, 0.01], False),
    ],
)
def test_one_of_the_first_steps_must_agree(
    own_cache: Path, steps: Steps, one_row: list[float], is_as_fast: bool
) -> None:
    start_on_cpu()
    steps.measured.clear()
    steps.one_row = one_row
    start_on_cpu()
    assert steps.measured == ([1] if is_as_fast else [1, 1, 2, 4, 8])


@pytest.mark.parametrize("slots", [None, 2])
def test_steps_of_a_start_take_no_seed(own_cache: Path, slots: int | None) -> None:
    """Else the tokens of a model with a temperature would depend on the number of steps that were checked."""
    settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=slots)
    for _ in range(2):
        runner = load_runner(settings, 2)
        runner.launch(full_context_rows(runner, 1))
        assert runner._next_seed == 1


def test_slower_machine_has_fewer_slots(own_cache: Path, steps: Steps) -> None:
    start_on_cpu()
    steps.one_row = [0.1]
    assert start_on_cpu().slots == 1


def test_step_times_on_a_gpu_are_stored(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=4)
    monkeypatch.setattr(capacity, "full_context_step_seconds", lambda runner, rows: 0.01 * rows)
    for _ in range(2):
        runner = load_runner(settings)
        capacity.limit_to_real_time(runner, open_checkpoint(settings.model), place(settings))
        assert runner.slots == 4
        assert len(list(own_cache.iterdir())) == 1
