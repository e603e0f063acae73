"""Measure the 1B language model's linear layers on a CPU, for each weight format.

    python benchmarks/low_bit_linear.py [--types bf16,int8,int4] [--batches 1,4,8] [--threads 2] [--quick]

Builds every linear layer of the model (16 layers and the text head) with random weights, all of them, so that no cache
holds them from one pass to the next, and times passes over the stack at each batch size. The types take turns within
each repetition, so a busy machine slows all of them alike: trust the ratios before the milliseconds. All types are in
memory at once: 3.4 GB for f32, 1.7 for bf16 and f16, 0.9 for int8, 0.6 for int4.

Prints a table, then one line of JSON. `gb_s` is the weights' size over the median time, `copy_gb_s` what this machine
reads and writes when it copies a large block. `error` is the relative error of the outputs against float64.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import get_args

import psutil
import torch
from torch import Tensor

from tympan.models.layers.quantized import WeightLinear, WeightType, linear_for

LAYER_SHAPES = [(6144, 2048), (2048, 2048), (11264, 2048), (2048, 5632)]  # [out, in]: in_proj, out_proj, gating
HEAD_SHAPE = (8000, 2048)  # text_linear
ACTIVATIONS = {"bf16": torch.bfloat16, "f16": torch.float16}  # the others take float32
BIT_EXACT_BATCH = 8


@dataclass(frozen=True)
class Stack:
    """Every linear layer of the model in one weight format; `resident_bytes` is measured by the system."""

    kind: WeightType
    layers: list[WeightLinear]
    resident_bytes: int
    build_seconds: float

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)

    def inputs(self, batch: int) -> dict[int, Tensor]:
        """Return activations by width, in the data type of this stack."""
        dtype = ACTIVATIONS.get(self.kind, torch.float32)
        return {layer.in_features: torch.randn(batch, layer.in_features).to(dtype) for layer in self.layers}

    def run(self, inputs: dict[int, Tensor]) -> None:
        for layer in self.layers:
            layer(inputs[layer.in_features])


@dataclass(frozen=True)
class Row:
    """One line of the table; `rows_alone_equal` is whether each row of a batch equals that row alone, bit for bit."""

    type: str
    batch: int
    ms_p50: float
    ms_min: float
    gb_s: float
    speedup: float
    size_mb: float
    resident_mb: float
    error: float
    rows_alone_equal: bool


def build(kind: WeightType, layers: int) -> Stack:
    """Build the layers one at a time, so that only one matrix exists as a float32 copy."""
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    shapes = [*(LAYER_SHAPES * layers), HEAD_SHAPE]
    stack = [linear_for(torch.randn(shape) * shape[1] ** -0.5, kind) for shape in shapes]
    return Stack(kind, stack, process.memory_info().rss - before, time.perf_counter() - start)


def copy_rate(gigabytes: float = 1.0) -> float:
    """Return the bytes read and written per second, in GB/s: the best of five copies."""
    source = torch.ones(int(gigabytes * 1e9 / 4))
    target = torch.zeros_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(5)) / 1e9


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def accuracy(kind: WeightType) -> tuple[float, bool]:
    """Return the relative error of one layer's output against float64, and whether rows equal themselves alone."""
    weight, dtype = torch.randn(6144, 2048) / 2048**0.5, ACTIVATIONS.get(kind, torch.float32)
    x = torch.randn(BIT_EXACT_BATCH, 2048).to(dtype)
    layer = linear_for(weight, kind)
    found, expected = layer(x), x.double() @ weight.double().T
    alone = torch.cat([layer(row[None]) for row in x])
    return float((found.double() - expected).norm() / expected.norm()), torch.equal(found, alone)


def time_stacks(stacks: Iterable[Stack], batch: int, repeats: int) -> dict[WeightType, list[float]]:
    """Return the seconds per pass; the formats alternate, and the first, cold pass is dropped."""
    inputs = {stack.kind: stack.inputs(batch) for stack in stacks}
    times: dict[WeightType, list[float]] = {stack.kind: [] for stack in stacks}
    for _ in range(repeats + 1):
        for stack in stacks:
            given = inputs[stack.kind]
            times[stack.kind].append(seconds(lambda stack=stack, given=given: stack.run(given)))  # type: ignore[misc]
    return {kind: taken[1:] for kind, taken in times.items()}


def measure(stacks: list[Stack], batches: list[int], repeats: int) -> list[Row]:
    checks = {stack.kind: accuracy(stack.kind) for stack in stacks}
    rows = []
    for batch in batches:
        times = time_stacks(stacks, batch, repeats)
        baseline = statistics.median(times[stacks[0].kind])
        for stack in stacks:
            median, (error, alone) = statistics.median(times[stack.kind]), checks[stack.kind]
            rows.append(
                Row(
                    type=stack.kind,
                    batch=batch,
                    ms_p50=round(median * 1e3, 2),
                    ms_min=round(min(times[stack.kind]) * 1e3, 2),
                    gb_s=round(stack.size_bytes / median / 1e9, 2),
                    speedup=round(baseline / median, 2),
                    size_mb=round(stack.size_bytes / 1e6, 1),
                    resident_mb=round(stack.resident_bytes / 1e6, 1),
                    error=float(f"{error:.3g}"),
                    rows_alone_equal=alone,
                )
            )
            print_row(rows[-1])
    return rows


def print_row(row: Row) -> None:
    print(
        f"{row.type:5} {row.batch:5} {row.ms_p50:9.1f} {row.ms_min:9.1f} {row.gb_s:7.1f} {row.speedup:8.2f}"
        f" {row.size_mb:8.0f} {row.resident_mb:11.0f} {row.error:9.2g}  {'yes' if row.rows_alone_equal else 'no'}",
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="bf16,int8,int4", help="comma list of " + ", ".join(get_args(WeightType)))
    parser.add_argument("--batches", default="1,4,8", help="comma list of rows per pass")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two layers and three repeats, to test the script")
    options = parser.parse_args()
    if unknown := set(options.types.split(",")) - set(get_args(WeightType)):
        parser.error(f"unknown type {', '.join(sorted(unknown))}")
    return options


@torch.inference_mode()
def main() -> None:
    options = parse()
    layers, repeats = (2, 3) if options.quick else (options.layers, options.repeats)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    load_before = os.getloadavg()[0]
    rate = copy_rate(0.1 if options.quick else 1.0)
    print(f"copy rate {rate:.1f} GB/s, {options.threads} threads, load {load_before:.2f}, torch {torch.__version__}")
    stacks = [build(kind, layers) for kind in options.types.split(",")]
    for stack in stacks:
        print(f"{stack.kind}: {len(stack.layers)} layers built in {stack.build_seconds:.1f} s")
    print("type  batch    ms p50    ms min    GB/s  speedup  size MB resident MB     error  row = alone")
    rows = measure(stacks, [int(batch) for batch in options.batches.split(",")], repeats)
    summary = {
        "copy_gb_s": round(rate, 2),
        "threads": options.threads,
        "layers": layers,
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
