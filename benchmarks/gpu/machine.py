"""The machine, and the preparation of later stages: the drawn checkpoint and compiled kernels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from conditions import conditions
from random_checkpoint import write_checkpoint

from gpu.items import Context, Item, Values, at_least, at_most
from tympan.engine.kyutai.placement import prepare
from tympan.models import kernels

# What each process compiles: see `compile_job`.
CHECK_JOBS = tuple(f"checks {share}/6" for share in range(6))
LM_JOBS = ("lm bf16", "lm fp8", "lm f32", "lm f16", "weights fp8")
READ_JOBS = tuple(f"read {kind} {rows}" for kind in ("bf16", "fp8") for rows in ("1,4", "8,16", "64"))
JOBS = (*LM_JOBS, "mimi", "mimi large", "tiny", *READ_JOBS, "read f32 1,4", *CHECK_JOBS)
QUICK_JOBS = ("lm bf16", "mimi")


def machine(context: Context) -> Iterator[Item]:
    """Describe the machine, and check that f32 products are exact."""
    cuda = context.cuda
    yield Item(
        "versions", lambda: versions(context), shown=("gpu", "driver", "torch", "triton", "compiler", "python_h")
    )
    yield Item("nvidia-smi", nvidia_smi, skip="" if shutil.which("nvidia-smi") else "not installed")
    yield Item("kernels are used", lambda: kernels_used(context), {"usable": at_least(1)} if cuda else {})
    yield Item(
        "f32 products", lambda: f32_products(context), {"relative_error": at_most(1e-5)}, shown=("relative_error",)
    )


def versions(context: Context) -> Values:
    compiler = os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc")
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    memory = shutil.disk_usage(context.scratch.parent)
    found: dict[str, object] = {
        **conditions(torch.device(context.device)),
        "cuda": torch.version.cuda,
        "compiler": compiler,
        "compiler_version": _first_line(compiler, "--version") if compiler else None,
        "python_h": header.exists(),
        "cores": os.cpu_count(),
        "scratch_free_bytes": memory.free,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_override": os.environ.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
    }
    if context.cuda:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "capability": torch.cuda.get_device_capability(0),
            "processors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
        }
    return found


def nvidia_smi() -> Values:
    result = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=True)
    return {"text": result.stdout}


def kernels_used(context: Context) -> Values:
    return {"usable": int(kernels.usable(torch.device(context.device)))}


def f32_products(context: Context) -> Values:
    """Compare with f64. TF32, which some containers switch on, would give 1e-4 to 1e-3."""
    prepare(torch.device(context.device))
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
    found = (left.to(context.device) @ right.to(context.device)).cpu().double()
    expected = left.double() @ right.double()
    error = float((found - expected).norm() / expected.norm())
    return {"relative_error": float(f"{error:.2e}"), "float32_matmul_precision": torch.get_float32_matmul_precision()}


def _first_line(*command: str) -> str | None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return result.stdout.partition("\n")[0] or None


def draw(context: Context) -> Iterator[Item]:
    """Write the random weights to files in memory, so that later processes need not draw them."""
    yield Item("draw", lambda: drawn(context), shown=("seconds", "bytes"))


def drawn(context: Context) -> Values:
    start = time.monotonic()
    folder, unfinished = context.folder, context.folder.with_suffix(f".{os.getpid()}")
    there = folder.is_dir()
    if not there:
        unfinished.mkdir(parents=True)
        write_checkpoint(context.model, unfinished)
        unfinished.rename(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"already_there": there, "bytes": size, "seconds": round(time.monotonic() - start, 1)}


def compiling(context: Context) -> Iterator[Item]:
    """Compile every kernel, in processes side by side. Triton keeps what it compiles in files that all share."""
    start = time.monotonic()
    jobs = QUICK_JOBS if context.quick else JOBS
    about = [json.dumps({"model": context.model, "device": context.device, "job": job}) for job in jobs]
    command = (sys.executable, "-m", "gpu.compile_job")
    processes = [
        subprocess.Popen([*command, each], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for each in about
    ]
    for job, process in zip(jobs, processes, strict=True):
        yield Item(job, lambda process=process: compiled(process, context, start), shown=("seconds",))  # type: ignore[misc]


def compiled(process: subprocess.Popen[str], context: Context, start: float) -> Values:
    try:
        output, _ = process.communicate(timeout=max(1.0, context.left() - 1.0))
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise TimeoutError(f"compiling took too long:\n{output[-3000:]}") from None
    print(output, flush=True)
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}:\n{output[-3000:]}")
    return {"seconds": round(time.monotonic() - start, 1)}
