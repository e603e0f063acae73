"""Device and data types of a model, and PyTorch's settings for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tympan.engine.kyutai.placement import place
from tympan.errors import ConfigError
from tympan.settings import ModelSettings

LOAD = """
import torch
from tympan.engine.kyutai.loader import load_model
from tympan.engine.kyutai.placement import place
from tympan.models.checkpoints.load import open_checkpoint
from tympan.settings import ModelSettings

settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32")
print(torch.get_float32_matmul_precision(), flush=True)
load_model(open_checkpoint(settings.model), place(settings), settings)
print(torch.get_float32_matmul_precision())
"""


def test_loading_sets_float32_precision() -> None:
    """Also in containers that allow TF32 for all programs, which would change Mimi's codes."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOAD]
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["high", "highest"]


THREADS = """
import torch
from tympan.engine.kyutai.loader import load_model
from tympan.engine.kyutai.placement import place
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu.threads import thread_count
from tympan.settings import ModelSettings

for kind in ("int8", "bf16", "f32"):
    settings = ModelSettings(model="random:tiny", device="cpu", dtype=kind)
    load_model(open_checkpoint(settings.model), place(settings), settings)
    print(torch.get_num_threads(), thread_count())
"""


def test_pytorch_keeps_one_thread_beside_those_of_onnx_runtime() -> None:
    """With more, idle threads take cores from busy ones. PyTorch multiplies weights in bf16, with all threads."""
    command = [sys.executable, "-c", THREADS]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["1 2", "2 2", "1 2"]


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from tympan.engine.kyutai.loader import load_runner
from tympan.settings import ModelSettings

load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f16", max_streams=1))
assert not any(name.startswith("tympan.models.kernels.") for name in sys.modules)
"""


def test_f16_steps_run_without_triton() -> None:
    """As on a T4, which the Triton kernels do not support."""
    command = [sys.executable, "-c", WITHOUT_TRITON]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize(
    ("capability", "instead"),
    [((9, 0), "--dtype bf16 or --dtype fp8"), ((8, 0), "--dtype bf16"), ((7, 5), "--dtype f16")],
)
def test_integer_weights_error_on_gpu(
    monkeypatch: pytest.MonkeyPatch, dtype: str, capability: tuple[int, int], instead: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    with pytest.raises(ConfigError, match=f"^{dtype} weights run on a CPU only; use {instead}, or --device cpu$"):
        place(ModelSettings(dtype=dtype))
    assert place(ModelSettings(device="cpu", dtype=dtype)).kind == dtype


def test_apple_gpu_is_used_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert place(ModelSettings()).device.type == "cpu"
    placement = place(ModelSettings(device="mps"))
    assert (placement.device.type, placement.kind, placement.cache_name) == ("mps", "f16", "f16")
    assert place(ModelSettings(device="mps", dtype="f32")).wide == torch.float32
    for refused in (ModelSettings(device="mps", dtype="int8"), ModelSettings(device="mps", kv_dtype="fp8")):
        with pytest.raises(ConfigError):
            place(refused)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"^--device {device}: this machine has no .*; use --device cpu$"):
        place(ModelSettings(device=device))
