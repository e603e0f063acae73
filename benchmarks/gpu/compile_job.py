"""One process of the stage that compiles kernels: runs a part of a step, or of the checks, once.

Weights are zeros. Rows are the numbers between which the kernels differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TypeVar

import torch

from gpu import checks
from gpu.items import Context
from tympan.bench.attention import sweep
from tympan.engine.kyutai import quantize
from tympan.models import kernels
from tympan.models.attention import FP8, Ring
from tympan.models.lm import LM
from tympan.models.load import open_checkpoint
from tympan.models.mimi import MimiEncoder

Module = TypeVar("Module", bound=torch.nn.Module)

# Between these the number of splits, or whether the kernel runs at all, changes.
FEW_ROWS, MANY_ROWS = (1, 4, 8, 16), (32, 64, 128)
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "fp8": FP8}


def compile_job(model: str, device: torch.device, job: str) -> None:
    checkpoint = open_checkpoint(model)
    config = checkpoint.config
    kind, _, dtype = job.partition(" ")
    if dtype == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        return print("left out: fp8 needs compute capability 8.9")
    rows = (1, 2) if device.type == "cpu" else (*FEW_ROWS, *MANY_ROWS)
    if kind == "mimi":
        with torch.device("meta"):
            mimi = MimiEncoder(config.mimi)
        run_mimi(zeros(mimi, torch.float32, device), MANY_ROWS if dtype == "large" else rows[:4])
    elif kind == "checks":
        run_checks(Context(model, device.type, False, Path("nowhere"), 0.0, {}), *map(int, dtype.split("/")))
    elif kind == "tiny":
        tiny = open_checkpoint("random:tiny")
        run_mimi(tiny.mimi(device=device), rows[:4])
        run_lm(tiny.lm(device=device, dtype=torch.float32), rows[:4], torch.float32)
    elif kind == "read":
        transformer = config.lm.transformer
        shape = (1, 64, transformer.heads, transformer.context, transformer.head_dimension)
        print(sweep(Ring.empty(*shape, device=device, dtype=DTYPES[dtype]), 64, torch.bfloat16))
    else:
        wide = DTYPES["bf16" if dtype == "fp8" else dtype]
        with torch.device("meta"):
            lm = LM(config.lm)
        lm = zeros(lm, wide, device)
        if kind == "weights":
            quantize(lm, "fp8")
        run_lm(lm, (*rows[:4], 64) if len(rows) > 4 else rows, DTYPES[dtype] if kind == "lm" else wide)


def zeros(module: Module, dtype: torch.dtype, device: torch.device) -> Module:
    """Give a module that was made on the meta device weights of zeros."""
    module = module.to(dtype=dtype).to_empty(device=device)
    for parameter in module.parameters():
        parameter.data.zero_()
    return module.eval()


def run_checks(context: Context, share: int, shares: int) -> None:
    """Run every so many-th of the checks of kernels, those left out that need the checkpoint's weights."""
    items = [item for check in checks.KERNELS if check is not checks.nearest for item in check(context)]
    for item in items[share::shares]:
        print(item.name, dict(item.run()), flush=True)


def run_mimi(mimi: MimiEncoder, rows: tuple[int, ...]) -> None:
    state = mimi.init_state(max(rows))
    device = state.position.device
    for count in rows:
        mimi.encode(torch.zeros(count, mimi.frame_samples, device=device), state, torch.arange(count, device=device))


def run_lm(lm: LM, rows: tuple[int, ...], cache: torch.dtype) -> None:
    layers, heads = lm.config.transformer.layers, lm.config.transformer.heads
    device = lm.embedding.device
    scales = torch.ones(2, layers, heads, device=device) if cache == FP8 else None
    state = lm.init_state(max(rows), cache_dtype=cache, scales=scales)
    for count in rows:
        codes = torch.zeros(count, lm.codebooks, dtype=torch.int64, device=device)
        lm.step(codes, state, torch.arange(count, device=device))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    on = torch.device(asked["device"])
    kernels.usable(on)  # its trial comes before the rest
    compile_job(asked["model"], on, asked["job"])
    if on.type == "cuda":
        torch.cuda.synchronize()
