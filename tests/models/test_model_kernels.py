"""The GPU kernels, tested without a GPU: interpreted and compared with plain PyTorch, and compiled for several GPUs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.machine_code import Kernel, compile_kernel, count_loop

FOLDER = Path(__file__).parent / "kernels"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_kernels_in_interpreter() -> None:
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", "--timeout=280"]
    command = [sys.executable, "-m", "pytest", *options, str(FOLDER)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=FOLDER, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def attention(ring: str, steps: int, width: int, splits: int = 1, config: tuple[int, int, int] = (32, 4, 3)) -> Kernel:
    """Return the attention kernel of the language model (one query per row) or of Mimi (two queries)."""
    queries, scaled = "*fp32" if steps == 2 else "*bf16", ring == "fp8e4nv"
    scales = "*fp32" if scaled else "*" + ring
    types = {"query": queries, "keys": "*" + ring, "values": "*" + ring, "key_scales": scales, "value_scales": scales}
    types |= {"rows": "*i64", "positions": "*i64", "out": queries, "parts": "*fp32", "sums": "*fp32"}
    block, warps, stages = config
    constants = {"STEPS": steps, "HEADS": 16 if steps == 1 else 8, "WIDTH": width, "SCALED": scaled}
    constants |= {"BLOCK": block, "SPLITS": splits, "STAGES": stages}
    return Kernel("attention._read_window", types | {"capacity": "i32", "scale": "fp32"}, constants, warps=warps)


def joining(steps: int, width: int) -> Kernel:
    constants = {"STEPS": steps, "HEADS": 8, "WIDTH": width, "SPLITS": 4}
    return Kernel("attention._join_parts", {"parts": "*fp32", "sums": "*fp32", "out": "*bf16"}, constants, warps=1)


def writing(ring: str) -> Kernel:
    scales = "*fp32" if ring == "fp8e4nv" else "*" + ring
    types = {
        "projected": "*bf16",
        "cos": "*fp32",
        "sin": "*fp32",
        "rows": "*i64",
        "positions": "*i64",
        "query": "*bf16",
    }
    types |= {"keys": "*" + ring, "values": "*" + ring, "key_scales": scales, "value_scales": scales, "capacity": "i32"}
    constants = {"STEPS": 1, "HEADS": 16, "WIDTH": 128, "SCALED": ring == "fp8e4nv"}
    return Kernel("ring_write._rotate_and_write", types, constants, warps=1)


def windows(channels: int, kernel: int, stride: int, outputs: int) -> Kernel:
    """Return the window kernel of one of SEANet's convolutions; ``outputs`` per program."""
    window = kernel * channels
    types = {"x": "*fp32", "context": "*fp32", "rows": "*i64", "fresh": "*i1", "windows": "*fp32"}
    constants = {"HISTORY": (kernel - stride) * channels, "WINDOW": window, "HOP": stride * channels}
    constants |= {"OUTPUTS": outputs, "WIDTH": 1 << (window - 1).bit_length(), "ELU": channels > 1}
    multiples = ("length",) if channels > 1 else ()
    return Kernel(
        "windows._gather_windows", types | {"outputs": "i32", "length": "i32"}, constants, multiples=multiples
    )


def start(integer: str) -> Kernel:
    rings = dict.fromkeys(("keys", "values", "start_keys", "start_values"), "*" + integer)
    types = rings | {"frames": "*i64", "rows": "*i64", "slots": "i32", "capacity": "i32"}
    return Kernel("fused._store_start", types, {"WIDTH": 128, "VECTORS": 16})


SEARCH = Kernel(
    "nearest._search",
    dict.fromkeys(("residuals", "next_residuals", "values", "next_values", "centroids", "half_norms"), "*fp32")
    | {"indices": "*i32", "next_indices": "*i32", "codes": "*i64", "stage": "i32", "codebooks": "i32"},
    {"BINS": 2048, "WIDTH": 256, "PARTS": 16, "SHARE": 128, "BLOCK": 32, "FIRST": False},
)
SUM = Kernel(
    "fused._sum_embeddings",
    {"codes": "*i64", "text": "*i64", "table": "*bf16", "out": "*bf16", "card": "i32", "width": "i32"},
    {"CODEBOOKS": 32, "BLOCK": 512},
)
NORM = Kernel(
    "fused._rms_norm",
    {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "width": "i32", "epsilon": "fp32"},
    {"BLOCK": 2048},
    warps=8,
)


def choice(temperature: float) -> Kernel:
    types = {"logits": "*fp32", "seeds": "*i64", "positions": "*i64", "token": "*i64", "probability": "*fp32"}
    constants = {"TEMPERATURE": temperature, "RETRY_SEED": -2, "RETRY_TEMPERATURE": 0.4, "BLOCK": 8192}
    return Kernel("fused._choose_token", types | {"width": "i32", "stride": "i32"}, constants, warps=8)


QUANTIZE = Kernel(
    "fused._quantize_rows",
    {"x": "*bf16", "out": "*fp8e4nv", "scale": "*fp32", "width": "i32"},
    {"SMALLEST": 1e-12, "LARGEST": 448.0, "BLOCK": 2048},
    warps=8,
)
TRIAL = Kernel("trial._add_one", {"x": "*fp32"}, {"LANES": 32})


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, so that Triton compiles every kernel."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("capability", "kernel"),
    [
        (80, attention("fp32", 2, 64, splits=4)),
        (90, attention("bf16", 1, 128, splits=4)),
        (90, attention("fp16", 1, 128, config=(16, 2, 3))),
        (89, attention("fp8e4nv", 1, 64, splits=2)),
        (80, joining(2, 64)),
        (90, writing("bf16")),
        (90, writing("fp8e4nv")),
        (80, windows(1, 7, 1, 512)),
        (90, windows(64, 3, 1, 16)),
        (90, windows(512, 16, 8, 2)),
        (80, start("i16")),
        (90, start("i8")),
        (80, SEARCH),
        (80, SUM),
        (80, NORM),
        (80, choice(0.0)),
        (90, choice(0.25)),
        (89, QUANTIZE),
        (90, QUANTIZE),
        (80, TRIAL),
    ],
    ids=lambda value: value.name if isinstance(value, Kernel) else str(value),
)
@pytest.mark.usefixtures("fresh_cache")
def test_kernels_compile(capability: int, kernel: Kernel) -> None:
    """Compile to machine code, with the assembler in Triton's wheel."""
    assert compile_kernel(kernel, capability)


# Limits for the warp instructions of the loop per cache entry (one key and one value). An H100 copies at 3 TB/s, or
# 5.9e9 entries of bf16 per second; its 132 multiprocessors issue 927e9 instructions per second. Half of that is 79
# instructions per entry, and 40 for entries of 8 bits.
LIMITS = {"bf16": 48, "fp16": 48, "fp8e4nv": 39, "fp32": 48}


@pytest.mark.parametrize("capability", [80, 89, 90])
@pytest.mark.parametrize(
    ("ring", "steps", "width"),
    [("bf16", 1, 128), ("fp16", 1, 128), ("fp32", 1, 128), ("fp8e4nv", 1, 128), ("fp32", 2, 64)],
    ids=["bf16", "f16", "f32", "fp8", "mimi"],
)
@pytest.mark.usefixtures("fresh_cache")
def test_attention_is_bound_by_memory(capability: int, ring: str, steps: int, width: int) -> None:
    """Few instructions per entry, only the exchanges between threads that a dot product needs, copies of 16 bytes."""
    if ring == "fp8e4nv" and capability < 89:
        pytest.skip("8-bit floats need compute capability 8.9")
    kernel = attention(ring, steps, width)
    block = int(str(kernel.constants["BLOCK"]))
    loop = count_loop(compile_kernel(kernel, capability))
    per_entry = loop.instructions * kernel.warps / block
    print(f"sm_{capability} {ring} T={steps} D={width}: {per_entry:.1f} warp instructions per entry; {loop}")
    assert per_entry <= LIMITS[ring]
    entries = block // kernel.warps  # per warp and pass
    threads = width * {"fp8e4nv": 1, "bf16": 2, "fp16": 2, "fp32": 4}[ring] // 16  # that share an entry
    exchanges = (threads - 1).bit_length()  # to add up their partial sums
    assert loop.shuffles <= steps * exchanges * entries * threads / 32
    assert loop.barriers <= 2, "one before a tile is read, one before it is overwritten"
    assert loop.wide_loads == loop.all_loads > 0
    assert loop.registers <= 128, "at least 16 warps per multiprocessor"
