"""Comparison of every Triton kernel with plain PyTorch on the GPU, and of Mimi's codes with a CPU's.

`KERNELS` lists the checks: functions that yield items. Under Triton's interpreter they run on a CPU, with fewer and
smaller shapes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu.items import Context, Item, Values, at_most
from tympan.models import kernels
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.randomized import synthetic_voice
from tympan.models.layers import fp8
from tympan.models.layers.attention import FP8, Ring, StepPositions, as_indexable, make_window, update_and_attend
from tympan.models.layers.conv import StreamingConv, with_history
from tympan.models.layers.quantizer import ResidualQuantizer
from tympan.models.layers.rope import Rotation, frequencies, rotation
from tympan.models.sampling import RETRY_SEED, sample_token, token_probability

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 5e-3, FP8: 5e-2}
_ROWS_AT_ONCE = 64  # of the reference, which copies the rings of its rows


class Shape(NamedTuple):
    """Shape of an attention call: new steps, heads, ring capacity, head dimension."""

    steps: int
    heads: int
    capacity: int
    width: int


LM_1B, LM_2B, MIMI = Shape(1, 16, 750, 128), Shape(1, 32, 375, 64), Shape(2, 8, 250, 64)


def check_kernels(context: Context) -> Iterator[Item]:
    if not context.cuda:
        sys.path.append(str(Path(__file__).parents[2] / "tests"))
        importlib.import_module("support.triton_interpreter")
    if not kernels.usable(torch.device(context.device)):
        raise RuntimeError("the kernels do not run here: see the warning in the log")
    torch.manual_seed(0)
    for check in KERNELS:
        yield from check(context)


def error_item(name: str, error: Callable[[], float], bound: float) -> Item:
    """Return the item for a check that computes one error."""

    def run() -> Values:
        return {"error": float(f"{error():.2e}")}

    return Item(name, run, {"error": at_most(bound)})


def attention(context: Context) -> Iterator[Item]:
    """Check writes and reads of the ring with ragged and wrapped lengths, slots in any order, and 512 full contexts."""
    device = torch.device(context.device)
    shapes: tuple[Shape, ...] = (LM_1B, LM_2B, MIMI)
    many = 512
    if context.quick:
        shapes, many = (Shape(1, 2, 20, 16), Shape(2, 2, 20, 16)), 4
    for shape in shapes:
        for dtype, bound in LIMITS.items():
            if shape.steps == 2 and dtype != torch.float32:
                continue  # Mimi is always f32
            cases = [(batch, False) for batch in ((3,) if context.quick else (1, 5, 64))]
            if shape is not LM_2B:
                cases.append((many, True))
            for batch, full in cases:
                name = f"attention T{shape.steps} D{shape.width} {str(dtype)[6:]} B{batch}{' full' if full else ''}"
                run = AttentionCase(shape, dtype, batch, full, device)
                # Triton's interpreter cuts floats to bf16 where a GPU rounds them.
                yield error_item(name, run, 2 * bound if context.quick and dtype == torch.bfloat16 else bound)


@dataclass(frozen=True)
class AttentionCase:
    """The relative error of one call, compared with the plain path in f32 on the same ring."""

    shape: Shape
    dtype: torch.dtype
    batch: int
    full: bool
    device: torch.device

    def __call__(self) -> float:
        steps, heads, capacity, width = self.shape
        dtype, batch, device = self.dtype, self.batch, self.device
        asked = torch.float32 if dtype in {torch.float32, FP8} else dtype
        ring = Ring.empty(1, batch + 1, heads, capacity, width, device=device, dtype=dtype)
        if ring.scales is not None:
            ring.scales.fill_(0.02)
        for cache in (ring.keys, ring.values):
            cache.copy_(torch.randn(cache.shape, device=device) * (50 if dtype == FP8 else 1))
        plain = Ring(ring.keys.clone(), ring.values.clone(), ring.scales)
        rows = torch.randperm(batch + 1, device=device)[:batch]
        first = 2 * capacity if self.full else steps - 1
        last = torch.randint(first, 3 * capacity, (batch,), device=device)
        positions = last[:, None] - steps + 1 + torch.arange(steps, device=device)
        projected = torch.randn(batch, steps, 3, heads, width, device=device, dtype=asked)
        turn = rotation(positions, frequencies(width, 10_000.0).to(device))
        found = update_and_attend(projected, ring, 0, StepPositions(rows, positions), turn)
        expected = []
        for part in torch.split(torch.arange(batch, device=device), _ROWS_AT_ONCE):
            seen = make_window(rows[part], positions[part], plain)
            turned = Rotation(*(each[part] for each in turn))
            with sdpa_kernel(SDPBackend.MATH):  # the others may round f32 products
                expected.append(update_and_attend(projected[part].float(), plain, 0, seen, turned))
        return relative(found, torch.cat(expected))


def fused(context: Context) -> Iterator[Item]:
    from tympan.models.kernels import fused as fused_kernels

    device = torch.device(context.device)
    rows, width, card, codebooks = (4, 64, 65, 4) if context.quick else (300, 2048, 2049, 32)

    def norm() -> float:
        x, weight = torch.randn(rows, width, device=device), torch.randn(width, device=device)
        expected = x * (weight * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8))
        return relative(fused_kernels.rms_norm(x, weight, 1e-8), expected)

    def embeddings() -> float:
        table = torch.randn(codebooks * card + 8001, width, device=device)
        codes = torch.randint(0, card, (64, codebooks), device=device)
        text = torch.randint(0, 8001, (64,), device=device)
        offsets = torch.arange(codebooks, device=device) * card
        places = torch.cat((codes + offsets, text[:, None] + codebooks * card), dim=1)
        summed = fused_kernels.sum_embeddings(codes, text, table, card, torch.float32)
        return relative(summed, table[places].sum(dim=1))

    def choice() -> Values:
        logits = torch.randn(8 if context.quick else 512, 8000, device=device)
        zero = torch.zeros(len(logits), dtype=torch.int64, device=device)
        token, probability = fused_kernels.choose_token(logits, zero, zero, 0.0)
        error = relative(probability, torch.softmax(logits, dim=-1).amax(dim=-1))
        return {"error": error, "tokens_differing": int((token != logits.argmax(dim=-1)).sum())}

    def invalid() -> Values:
        logits = torch.randn(3, 8000, device=device)
        logits[1, 5000] = torch.nan
        zero = torch.zeros(3, dtype=torch.int64, device=device)
        token, probability = fused_kernels.choose_token(logits, zero, zero, 0.0)
        wrong = probability.isnan().tolist() != [False, True, False]
        return {"wrong": int(wrong), "largest_token": int(token.max())}

    def sampled() -> Values:
        logits = torch.randn(64, 8000, device=device) * 2
        seed = torch.tensor([0, 7, RETRY_SEED, RETRY_SEED], device=device).repeat(16)
        position = torch.arange(64, device=device)
        token, probability = fused_kernels.choose_token(logits, seed, position, 0.0)
        error = relative(probability, token_probability(token, logits))
        return {"error": error, "tokens_differing": int((token != sample_token(logits, 0.0, seed, position)).sum())}

    yield error_item("rms_norm", norm, 1e-5)
    yield error_item("sum_embeddings", embeddings, 1e-5)
    yield Item("choose_token", choice, {"error": at_most(1e-5), "tokens_differing": at_most(0)})
    yield Item("choose_token, NaN", invalid, {"wrong": at_most(0), "largest_token": at_most(7999)})
    yield Item("choose_token, retried rows", sampled, {"error": at_most(1e-5), "tokens_differing": at_most(1)})
    for dtype in (torch.bfloat16, FP8):
        yield error_item(f"store_initial_step {str(dtype)[6:]}", partial(start_error, dtype, device), 0.0)


def start_error(dtype: torch.dtype, device: torch.device) -> float:
    """Count the bytes of two rings that differ: position 0 of new rows is written, and nothing else is."""
    from tympan.models.kernels.fused import store_initial_step

    ring = Ring.empty(2, 5, 2, 3, 16, device=device, dtype=dtype)
    frames, rows = torch.tensor([0, 4, 0], device=device), torch.tensor([3, 1, 4], device=device)
    new = torch.randn(2, 2, 2, 16, device=device).to(dtype)
    store_initial_step(frames, rows, ring.keys, ring.values, new[0], new[1])
    different = 0
    for cache, start in ((ring.keys, new[0]), (ring.values, new[1])):
        expected = torch.zeros_like(cache)
        for row in (3, 4):
            as_indexable(expected)[:, row, :, 0] = as_indexable(start)
        different += int((cache.view(torch.uint8) != expected.view(torch.uint8)).sum())
    return float(different)


def windows(context: Context) -> Iterator[Item]:
    """Check the shapes of SEANet's convolutions: channels, kernel, stride, steps of a frame."""
    from tympan.models.kernels.windows import gather_windows

    device = torch.device(context.device)
    config = open_checkpoint(context.model).config.mimi
    shapes = [(1, config.seanet.kernel, 1, config.frame_samples)]
    steps, channels = config.frame_samples, config.seanet.filters
    for stride in config.seanet.strides:
        shapes += [(channels, config.seanet.residual_kernel, 1, steps), (channels, 2 * stride, stride, steps)]
        steps, channels = steps // stride, 2 * channels
    shapes.append((channels, config.seanet.last_kernel, 1, steps))
    if context.quick:
        shapes = shapes[-3:]

    def error(channels: int, kernel: int, stride: int, steps: int) -> float:
        conv = StreamingConv(channels, 1, kernel, stride)
        context, rows = torch.randn(4, kernel - stride, channels, device=device), torch.tensor([2, 0, 3], device=device)
        plain, fresh = context.clone(), torch.tensor([False, True, False], device=device)[:, None, None]
        x = torch.randn(3, steps, channels, device=device)
        found = gather_windows(x, context, rows, fresh, kernel=kernel, stride=stride, elu=True)
        expected = conv._windows(functional.elu_(with_history(x, plain, rows, fresh)))
        return relative(found, expected) + relative(context, plain)

    for shape in dict.fromkeys(shapes):
        name = "windows C{} K{} S{} T{}".format(*shape)
        yield error_item(name, lambda shape=shape: error(*shape), 1e-5)  # type: ignore[misc]


def nearest(context: Context) -> Iterator[Item]:
    from tympan.models.kernels.nearest import nearest_codes

    def differing() -> float:
        stack = open_checkpoint(context.checkpoint).mimi(device=context.device).quantizer.acoustic
        assert isinstance(stack, ResidualQuantizer)
        rows = 16 if context.cuda else 2
        latents = torch.randn(rows, stack.centroids.shape[-1], device=context.device) * stack.centroids[0].std()
        found = nearest_codes(latents, stack.centroids, stack.half_norms, len(stack.centroids))
        residual, expected = latents, []
        for centroids, half_norms in zip(stack.centroids, stack.half_norms, strict=True):
            expected.append(torch.addmm(half_norms, residual, centroids.t(), alpha=-1.0).argmin(dim=-1))
            residual = residual - centroids[expected[-1]]
        return float((found != torch.stack(expected, dim=1)).float().mean())

    yield error_item("nearest_codes", differing, 0.02)  # a near-tie also changes the row's later codes


def eight_bit_linear(context: Context) -> Iterator[Item]:
    """Check 8-bit weights and inputs against f32: the error must be that of rounding."""

    def error(rows: int) -> float:
        weight = torch.randn(5632, 2048, device=context.device, dtype=torch.bfloat16)
        x = torch.randn(rows, 2048, device=context.device, dtype=torch.bfloat16)
        return relative(fp8.Fp8Linear(weight)(x), x.float() @ weight.float().t())

    def rows_differing() -> float:
        x = torch.randn(64, 2048, device=context.device, dtype=torch.bfloat16)
        (rows, scales), (plain, plain_scales) = fp8.quantize_rows(x), fp8.to_fp8(x)
        different = (rows.view(torch.uint8) != plain.view(torch.uint8)).float().mean()
        return float(different) + relative(scales, plain_scales)

    if context.cuda and torch.cuda.get_device_capability() >= (8, 9):
        yield error_item("quantize_rows", rows_differing, 1e-5)
        for rows in (1, 64, 512):
            yield error_item(f"fp8 linear B{rows}", lambda rows=rows: error(rows), 5e-2)  # type: ignore[misc]


def check_mimi(context: Context) -> Iterator[Item]:
    """Compare codes and latents of whole streams, with kernels on the GPU and in plain f32 on a CPU."""
    limits = {"codes_differing": at_most(0.02), "latent_error": at_most(1e-4)}
    # Rows below and above what `nearest_codes` takes.
    for rows, frames in ((3, 20), (24, 5)) if context.cuda else ((2, 2),):

        def run(rows: int = rows, frames: int = frames) -> Values:
            voice = synthetic_voice((frames + rows) * 1920, 24_000, torch.Generator().manual_seed(2)).view(-1, 1920)
            codes, latents = encode(context, context.device, rows, frames, voice)
            cpu_codes, cpu_latents = encode(context, "cpu", rows, frames, voice)
            differing = float((codes != cpu_codes).float().mean())
            return {
                "codes_differing": differing,
                "latent_error": relative(latents, cpu_latents),
                "codes": codes.numel(),
            }

        yield Item(f"Mimi on the GPU and on a CPU, {rows} rows", run, limits, shown=("codes_differing", "latent_error"))


@torch.inference_mode()
def encode(context: Context, device: str, rows: int, frames: int, voice: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes and the latents of ``rows`` streams, each one frame behind the one before, on the host."""
    mimi = open_checkpoint(context.checkpoint).mimi(device=device)
    state, slots = mimi.init_state(rows), torch.arange(rows, device=device)
    latents = [mimi.latent(voice[frame : frame + rows].to(device), state, slots) for frame in range(frames)]
    codes = [mimi.quantizer(latent, mimi.codebooks) for latent in latents]
    return torch.cat(codes).cpu(), torch.cat(latents).cpu()


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference by the norm of what is expected. Raises ValueError for what is not finite."""
    if not bool(found.isfinite().all()):
        raise ValueError("there are results that are not finite")
    return float((found.float() - expected.float()).norm() / expected.float().norm())


Check = Callable[[Context], Iterator[Item]]
KERNELS: tuple[Check, ...] = (attention, fused, windows, nearest, eight_bit_linear)
