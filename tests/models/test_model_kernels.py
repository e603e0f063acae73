"""The GPU's kernels on a machine without one: interpreted against plain PyTorch, and compiled for the GPUs they serve.

Whether Triton interprets is decided when it is imported, so the tests in `kernels/` run in a process of their own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "kernels"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_kernels_equal_plain_pytorch() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=280", str(FOLDER)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=FOLDER, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def attention(ring: str, steps: int, width: int, splits: int) -> tuple[str, dict[str, str], dict[str, object]]:
    asked, scales = ("*fp32" if steps == 2 else "*bf16"), ("*fp32" if ring == "fp8e4nv" else "*" + ring)
    pointers = {"query": asked, "keys": "*" + ring, "values": "*" + ring, "key_scales": scales, "value_scales": scales}
    pointers |= {"rows": "*i64", "positions": "*i64", "out": asked, "parts": "*fp32", "sums": "*fp32"}
    shape = {
        "STEPS": steps,
        "HEADS": 8,
        "WIDTH": width,
        "BLOCK": 16,
        "SPLITS": splits,
        "STAGES": 3,
        "SCALED": ring == "fp8e4nv",
    }
    return "attention._read_window", pointers | {"capacity": "i32", "scale": "fp32"}, shape


def writing(ring: str) -> tuple[str, dict[str, str], dict[str, object]]:
    scales = "*fp32" if ring == "fp8e4nv" else "*" + ring
    pointers = {
        "projected": "*bf16",
        "cos": "*fp32",
        "sin": "*fp32",
        "rows": "*i64",
        "positions": "*i64",
        "query": "*bf16",
    }
    pointers |= {
        "query": "*bf16",
        "keys": "*" + ring,
        "values": "*" + ring,
        "key_scales": scales,
        "value_scales": scales,
    }
    shape = {"STEPS": 1, "HEADS": 16, "WIDTH": 128, "SCALED": ring == "fp8e4nv"}
    return "attention._rotate_and_write", pointers | {"capacity": "i32"}, shape


SEARCH = (
    "nearest._search",
    dict.fromkeys(("residuals", "next_residuals", "values", "next_values", "centroids", "half_norms"), "*fp32")
    | {"indices": "*i32", "next_indices": "*i32", "codes": "*i64", "stage": "i32", "codebooks": "i32"},
    {"BINS": 2048, "WIDTH": 256, "PARTS": 16, "SHARE": 128, "BLOCK": 32, "FIRST": False},
)
SUM = (
    "fused._sum_embeddings",
    {"codes": "*i64", "text": "*i64", "table": "*bf16", "out": "*bf16", "card": "i32", "width": "i32"},
    {"CODEBOOKS": 32, "BLOCK": 512},
)
NORM = (
    "fused._rms_norm",
    {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "width": "i32", "epsilon": "fp32"},
    {"BLOCK": 2048},
)
CHOICE = (
    "fused._choose_largest",
    {"logits": "*fp32", "token": "*i64", "probability": "*fp32", "width": "i32"},
    {"BLOCK": 8192},
)


@pytest.mark.parametrize(
    ("capability", "kernel"),
    [
        (80, attention("bf16", 1, 128, 1)),
        (80, attention("fp32", 2, 64, 4)),
        (90, attention("bf16", 1, 128, 1)),
        (90, attention("fp8e4nv", 1, 128, 4)),
        (90, attention("fp32", 2, 64, 1)),
        (90, writing("bf16")),
        (90, writing("fp8e4nv")),
        (80, SEARCH),
        (80, SUM),
        (80, NORM),
        (80, CHOICE),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_kernels_compile(
    capability: int, kernel: tuple[str, dict[str, str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to machine code, with the assembler that Triton's wheel carries."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name, types, constants = kernel
    module, _, function = name.partition(".")
    compiled = getattr(importlib.import_module(f"tympan.models.kernels.{module}"), function)
    places = {name: (place,) for place, name in enumerate(compiled.arg_names)}
    signature = {name: "constexpr" if name in constants else types[name] for name in compiled.arg_names}
    aligned = {places[name]: [["tt.divisibility", 16]] for name, kind in signature.items() if kind[0] == "*"}
    values = {places[name]: value for name, value in constants.items()}
    source = ASTSource(fn=compiled, signature=signature, constexprs=values, attrs=aligned)
    assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
