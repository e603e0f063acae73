"""One process of the stage that compiles kernels: run a part of a step, or of the checks, once.

Weights are zeros. Rows are the numbers between which the kernels differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TypeVar

import torch
from sustained.attention import sweep

from gpu import checks
from gpu.items import Context
from tympan.engine.kyutai.loader import quantize
from tympan.engine.kyutai.tuning import select_read_config
from tympan.models import kernels
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.config import TransformerConfig
from tympan.models.layers.attention import FP8, Ring
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

Module = TypeVar("Module", bound=torch.nn.Module)

# Between these the number of splits, or whether the kernel runs at all, changes.
FEW_ROWS, MANY_ROWS = (1, 4, 8, 16), (32, 64, 128)
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "fp8": FP8}


def compile_job(model: str, device: torch.device, job: str) -> None:
    checkpoint = open_checkpoint(model)
    config = checkpoint.config
    kind, _, dtype = job.partition(" ")
    rows = (1, 2) if device.type == "cpu" else FEW_ROWS
    if "fp8" in job and device.type == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        print("left out: fp8 needs compute capability 8.9")
    elif kind == "mimi":
        with torch.device("meta"):
            mimi = MimiEncoder(config.mimi)
        run_mimi(zeros(mimi, torch.float32, device), MANY_ROWS if dtype == "large" else rows)
    elif kind == "checks":
        run_checks(Context(model, device.type, False, Path("nowhere"), 0.0, {}), *map(int, dtype.split("/")))
    elif kind == "tiny":
        tiny = open_checkpoint("random:tiny")
        run_mimi(tiny.mimi(device=device), rows)
        run_lm(tiny.lm(device=device, dtype=torch.float32), rows, torch.float32)
        read(tiny.config.lm.transformer, torch.float32, device, (1,))
    elif kind == "read":
        name, _, counts = dtype.partition(" ")
        read(config.lm.transformer, DTYPES[name], device, tuple(map(int, counts.split(","))))
    else:
        wide = DTYPES["bf16" if dtype == "fp8" else dtype]
        with torch.device("meta"):
            lm = LM(config.lm)
        lm = zeros(lm, wide, device)
        if kind == "weights":
            quantize(lm, "fp8")
        run_lm(lm, (*rows, 64) if device.type == "cuda" else rows, DTYPES[dtype] if kind == "lm" else wide)


def read(config: TransformerConfig, dtype: torch.dtype, device: torch.device, rows: tuple[int, ...]) -> None:
    """Compile all ways to read the ring that a choice at start, or a sweep, tries."""
    shape = (1, max(rows), config.heads, config.context, config.head_dimension)
    ring = Ring.empty(*shape, device=device, dtype=dtype)
    queries = torch.float32 if dtype == torch.float32 else torch.bfloat16
    for count in rows:
        select_read_config(ring, count, queries)
    if max(rows) >= 64:
        print(sweep(ring, max(rows), queries))


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
