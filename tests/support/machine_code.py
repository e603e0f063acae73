"""Compilation of kernels ahead of time, and the instruction counts of their inner loops.

Triton's wheel contains NVIDIA's assembler and disassembler, so no GPU is needed. The loop that runs once per block of
the ring is counted: with too many instructions per byte, a kernel cannot use the full memory bandwidth.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z][A-Z0-9_.]*)(.*?);")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_BRANCH = re.compile(r"\(?(\.L_x_\d+)\)?")


@dataclass(frozen=True)
class Kernel:
    """Arguments of one compilation.

    Attributes:
        name: ``module.function`` in ``tympan.models.kernels``.
        types: Triton's type of each argument that is not a constant.
        constants: Values of the compile-time arguments.
        multiples: Integer arguments that are multiples of 16.
        warps: Warps per program.
    """

    name: str
    types: Mapping[str, str]
    constants: Mapping[str, object]
    multiples: tuple[str, ...] = ()
    warps: int = 4


@dataclass(frozen=True)
class LoopCount:
    """Instructions per warp and pass through the longest innermost loop, by kind, and registers per thread."""

    instructions: int
    shuffles: int
    barriers: int
    special_functions: int
    wide_loads: int
    all_loads: int
    registers: int


def compile_kernel(kernel: Kernel, capability: int) -> bytes:
    """Compile for a compute capability such as 90, and return the machine code (a cubin)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, function = kernel.name.partition(".")
    compiled = getattr(importlib.import_module(f"tympan.models.kernels.{module}"), function)
    places = {name: (place,) for place, name in enumerate(compiled.arg_names)}
    signature = {name: "constexpr" if name in kernel.constants else kernel.types[name] for name in compiled.arg_names}
    # Tensors of PyTorch start at multiples of 16 bytes, and Triton assumes so at a launch.
    aligned = {
        places[name]: [["tt.divisibility", 16]]
        for name, kind in signature.items()
        if kind[0] == "*" or name in kernel.multiples
    }
    values = {places[name]: value for name, value in kernel.constants.items()}
    source = ASTSource(fn=compiled, signature=signature, constexprs=values, attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    code: bytes = triton.compile(source, target=target, options={"num_warps": kernel.warps}).asm["cubin"]
    return code


def count_loop(code: bytes) -> LoopCount:
    """Count the instructions of the kernel's loop.

    Raises:
        ValueError: The kernel has no loop.
    """
    lines = _tool("nvdisasm", "-c", code).splitlines()
    body = max(_loops(lines), key=len, default=None)
    if body is None:
        raise ValueError("the kernel has no loop")
    names = [match[1] for line in body if (match := _INSTRUCTION.match(line))]
    return LoopCount(
        instructions=sum(not name.startswith("NOP") for name in names),
        shuffles=sum(name.startswith("SHFL") for name in names),
        barriers=sum(name.startswith("BAR") for name in names),
        special_functions=sum(name.startswith("MUFU") for name in names),
        wide_loads=sum(name.startswith(("LDG.", "LDGSTS")) and ".128" in name for name in names),
        all_loads=sum(name.startswith(("LDG.", "LDGSTS")) for name in names),
        registers=_registers(code),
    )


def _loops(lines: list[str]) -> list[list[str]]:
    """Return the lines between each backward branch and its target, for loops that contain no other."""
    labels: dict[str, int] = {}
    spans: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = number
        instruction = _INSTRUCTION.match(line)
        if instruction and instruction[1].startswith("BRA"):
            target = _BRANCH.search(instruction[2])
            # The endless loop after the last instruction branches to itself and is not counted.
            if target and labels.get(target[1], number) < number - 2:
                spans.append((labels[target[1]], number))
    return [
        lines[start : end + 1]
        for start, end in spans
        if not any((start, end) != other and start <= other[0] and other[1] <= end for other in spans)
    ]


def _registers(code: bytes) -> int:
    found = re.search(r"REG:(\d+)", _tool("cuobjdump", "-res-usage", code))
    return int(found[1]) if found else 0


def _tool(name: str, option: str, code: bytes) -> str:
    import triton

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(code)
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
        result = subprocess.run([tool, option, file], capture_output=True, text=True, check=True, timeout=60)
    return result.stdout + result.stderr
