"""What loading a model sets in PyTorch, and what a GPU is refused for."""

from __future__ import annotations

import os
import subprocess
import sys

LOAD = """
import torch
from tympan.engine.kyutai import load_model
from tympan.engine.placement import place
from tympan.models.load import open_checkpoint
from tympan.settings import ModelSettings

settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32")
print(torch.get_float32_matmul_precision(), flush=True)
load_model(open_checkpoint(settings.model), place(settings), settings)
print(torch.get_float32_matmul_precision())
"""


def test_loading_pins_float32_products() -> None:
    """Containers that allow TF32 for all programs change neither Mimi's codes nor anything else."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOAD]
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["high", "highest"]


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from tympan.engine.kyutai import load_runner
from tympan.settings import ModelSettings

load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f16", max_streams=1))
assert not any(name.startswith("tympan.models.kernels.") for name in sys.modules)
"""


def test_f16_steps_run_without_triton() -> None:
    """As on a T4, which Triton's kernels do not serve."""
    command = [sys.executable, "-c", WITHOUT_TRITON]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
