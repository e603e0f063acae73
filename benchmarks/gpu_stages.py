"""The checks of `gpu_run.py`, one per process: `python benchmarks/gpu_stages.py STAGE`; the last line is JSON.

kernels     every Triton kernel against plain PyTorch on the GPU itself: relative errors
exactness   tokens of recorded steps, eager steps and CPU steps in f32, and of each stream alone, under one schedule
agreement   how often other number types choose the token that f32 chooses, given the same past
sweep       rate of attention for ways to cut the work, at 512 rows
moshi       streams that the moshi package's loop carries of the same model

`--device cpu --model random:tiny` runs all but `kernels` and `sweep` on any machine, to see that they work.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from tympan.bench.attention import sweep
from tympan.bench.measure import copy_rate
from tympan.bench.moshi_loop import moshi_streams
from tympan.config import ModelSettings
from tympan.engine.base import EngineInfo
from tympan.engine.graphs import CudaDevice, Device
from tympan.engine.kyutai import describe_engine, load_model, measure_scales, quantize
from tympan.engine.placement import place
from tympan.engine.program import LoadedModel
from tympan.engine.runner import KyutaiRunner
from tympan.engine.scheduler import Slot
from tympan.engine.step import StepResult, scheduler_for
from tympan.messages import Flushed
from tympan.models.attention import FP8, Places, Ring, mix, window
from tympan.models.lm import LM
from tympan.models.load import open_checkpoint
from tympan.models.quantizer import ResidualQuantizer
from tympan.models.randomized import synthetic_voice
from tympan.models.rope import frequencies, rotation

SWEEP_ROWS = 512


@dataclass(frozen=True)
class Options:
    """frames: of the agreement."""

    model: str
    device: torch.device
    frames: int


def check_kernels(options: Options) -> dict[str, object]:
    model, device = options.model, options.device
    from tympan.models.kernels import fused, nearest

    torch.manual_seed(0)
    errors: dict[str, float] = {}
    for steps, heads, capacity, width in ((1, 16, 750, 128), (1, 32, 375, 64), (2, 8, 250, 64)):
        for dtype in (torch.float32, torch.bfloat16, torch.float16, FP8):
            for batch in (1, 5, 64):
                name = f"attention T{steps} D{width} {dtype} B{batch}"
                errors[name] = attention_error(steps, heads, capacity, width, dtype, batch, device)
    x, weight = torch.randn(300, 2048, device=device), torch.randn(2048, device=device)
    expected = x * (weight * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8))
    errors["rms_norm"] = relative(fused.rms_norm(x, weight, 1e-8), expected)
    table = torch.randn(32 * 2049 + 8001, 2048, device=device)
    codes, text = torch.randint(0, 2049, (64, 32), device=device), torch.randint(0, 8001, (64,), device=device)
    places = torch.cat((codes + torch.arange(32, device=device) * 2049, text[:, None] + 32 * 2049), dim=1)
    summed = fused.sum_embeddings(codes, text, table, 2049, torch.float32)
    errors["sum_embeddings"] = relative(summed, table[places].sum(dim=1))
    logits = torch.randn(512, 8000, device=device)
    token, probability = fused.choose_largest(logits)
    errors["choose_largest tokens"] = float((token != logits.argmax(dim=-1)).float().mean())
    errors["choose_largest"] = relative(probability, torch.softmax(logits, dim=-1).amax(dim=-1))
    mimi = open_checkpoint(model).mimi(device=device)
    stack = mimi.quantizer.acoustic
    assert isinstance(stack, ResidualQuantizer)
    latents = torch.randn(16, stack.centroids.shape[-1], device=device) * stack.centroids[0].std()
    found = nearest.nearest_codes(latents, stack.centroids, stack.half_norms, len(stack.centroids))
    errors["nearest codes"] = float((found != plain_codes(stack, latents)).float().mean())
    return {"kernel_errors": {name: float(f"{error:.2e}") for name, error in errors.items()}}


def attention_error(
    steps: int, heads: int, capacity: int, width: int, dtype: torch.dtype, batch: int, device: torch.device
) -> float:
    """Against the plain path in f32 over the same ring."""
    asked = torch.float32 if dtype in {torch.float32, FP8} else dtype
    ring = Ring.empty(2, batch + 1, heads, capacity, width, device=device, dtype=dtype)
    if ring.scales is not None:
        ring.scales.fill_(0.02)
    for cache in (ring.keys, ring.values):
        cache.copy_(torch.randn(cache.shape, device=device) * (50 if dtype == FP8 else 1))
    plain = Ring(ring.keys.clone(), ring.values.clone(), ring.scales)
    rows = torch.randperm(batch + 1, device=device)[:batch]
    last = torch.randint(steps - 1, 3 * capacity, (batch,), device=device)
    positions = last[:, None] - steps + 1 + torch.arange(steps, device=device)
    projected = torch.randn(batch, steps, 3, heads, width, device=device, dtype=asked)
    turn = rotation(positions, frequencies(width, 10_000.0).to(device))
    found = mix(projected, ring, 1, Places(rows, positions), turn)
    return relative(found, mix(projected.float(), plain, 1, window(rows, positions, plain), turn))


def plain_codes(stack: ResidualQuantizer, latents: Tensor) -> Tensor:
    residual, codes = latents, []
    for centroids, half_norms in zip(stack.centroids, stack.half_norms, strict=True):
        codes.append(torch.addmm(half_norms, residual, centroids.t(), alpha=-1.0).argmin(dim=-1))
        residual = residual - centroids[codes[-1]]
    return torch.stack(codes, dim=1)


def relative(found: Tensor, expected: Tensor) -> float:
    assert bool(found.isfinite().all())
    return float((found.float() - expected.float()).norm() / expected.float().norm())


class HostDevice:
    """Where there is no GPU: runs again what it should record."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        return run

    def mark(self) -> Callable[[], None]:
        return lambda: None


def check_exactness(options: Options) -> dict[str, object]:
    model, device = options.model, options.device
    slots, turns = (16, 150) if "tiny" in model else (6, 40)
    recorder: Device = CudaDevice() if device.type == "cuda" else HostDevice()
    there = loaded(ModelSettings(model=model, dtype="f32", device=device.type))
    on_device = KyutaiRunner(*there, slots, device=recorder)
    recorded = follow(on_device, schedule(slots, turns))
    eager = follow(KyutaiRunner(*there, slots), schedule(slots, turns))
    here = loaded(ModelSettings(model=model, dtype="f32", device="cpu"))
    on_cpu = follow(KyutaiRunner(*here, slots), schedule(slots, turns))
    alone: list[list[int]] = []
    for actions in by_stream(schedule(slots, turns)):
        alone += follow(on_device, [{slot: action} for slot, action in actions])
    counted = sum(map(len, recorded))
    return {
        "exactness_tokens": counted,
        "exactness_streams": len(recorded),
        "tokens_differing_graph_eager": differing(recorded, eager),
        "tokens_differing_graph_cpu": differing(recorded, on_cpu),
        "tokens_differing_graph_alone": differing(recorded, alone),
    }


Turn = dict[int, str]


def schedule(slots: int, turns: int) -> list[Turn]:
    """What each slot's stream does at each turn: frames, pauses, flushes, seldom some frames again; some leave and
    others come.
    """
    generator = random.Random(0)
    choices = (["frame"] * 12 + ["flush", "wait", "wait"] + ["leave"] * (turns > 100)) * 4 + ["again"]
    return [{slot: generator.choice(choices) for slot in range(slots)} for _ in range(turns)]


def by_stream(turns: Sequence[Turn]) -> list[list[tuple[int, str]]]:
    """The schedule's streams in the order in which they begin, each with what it does and nothing else."""
    streams: list[list[tuple[int, str]]] = []
    current: dict[int, list[tuple[int, str]]] = {}
    for turn in turns:
        for slot, action in turn.items():
            if action == "leave":
                current.pop(slot, None)
            elif action != "wait" and (slot in current or action != "again"):
                if slot not in current:
                    current[slot] = []
                    streams.append(current[slot])
                current[slot].append((slot, action))
    return streams


def follow(runner: KyutaiRunner, turns: Sequence[Turn]) -> list[list[int]]:
    """Tokens of every stream, in the order in which they begin."""
    voice = synthetic_voice(400 * 1920, 24_000, torch.Generator().manual_seed(5)).view(400, 1920).numpy()
    scheduler = scheduler_for(runner)
    tokens: list[list[int]] = []
    current: dict[int, Slot] = {}
    pushed: dict[Slot, int] = {}

    def step() -> None:
        batch = scheduler.next()
        if batch.rows:
            result = runner.launch(batch.rows)
            if not isinstance(result, StepResult):
                result.wait()
                result = result.read()
            for row, token in zip(batch.rows, result.tokens, strict=True):
                assert isinstance(row.slot.tenant, list)
                row.slot.tenant.append(token)

    for turn in turns:
        for index, action in turn.items():
            if action in ("leave", "again"):
                while not scheduler.idle:  # so that a stream's tokens do not depend on when this happens
                    step()
                if action == "again" and index in current:
                    scheduler.replay(current[index], current[index].number - 20)
                elif action == "leave":
                    current.pop(index, None)
            elif action != "wait":
                if index not in current:
                    tokens.append([])
                    current[index] = Slot(index, tokens[-1])
                    pushed[current[index]] = 0
                slot = current[index]
                if action == "flush":
                    scheduler.mark(slot, Flushed(0))
                else:
                    place = (pushed[slot] + 37 * index) % 400
                    pushed[slot] += 1
                    scheduler.push(slot, 0.0, voice[place])
        step()
    while not scheduler.idle:
        step()
    return tokens


def differing(found: list[list[int]], expected: list[list[int]]) -> int:
    """Tokens that are not the same; after the first difference in a stream its rest may differ too."""
    assert [len(tokens) for tokens in found] == [len(tokens) for tokens in expected]
    pairs = zip(chain.from_iterable(found), chain.from_iterable(expected), strict=True)
    return sum(one != other for one, other in pairs)


def loaded(settings: ModelSettings) -> tuple[LoadedModel, EngineInfo]:
    checkpoint, placement = open_checkpoint(settings.model), place(settings)
    return load_model(checkpoint, placement, settings), describe_engine(checkpoint, placement)


@torch.inference_mode()
def check_agreement(options: Options) -> dict[str, object]:
    model, device = options.model, options.device
    checkpoint, frames = open_checkpoint(model), options.frames
    mimi, lm = checkpoint.mimi(device=device), checkpoint.lm(device=device, dtype=torch.float32)
    voice = synthetic_voice(frames * 1920, 24_000, torch.Generator().manual_seed(1)).to(device)
    state, rows = mimi.init_state(1), torch.zeros(1, dtype=torch.int64, device=device)
    codes = torch.cat([mimi.encode(frame, state, rows) for frame in voice.view(frames, 1, -1)])
    expected = logits_of(lm, codes, torch.float32, None, None)
    past, agreement, last_kind = expected.argmax(dim=-1), {}, "f32"
    half, scales = torch.bfloat16, measure_scales(mimi, lm, device)
    variants: dict[str, tuple[str, torch.dtype, torch.dtype, Tensor | None]] = {
        "f32 weights, fp8 cache": ("f32", torch.float32, FP8, scales),
        "bf16": ("bf16", half, half, None),
        "bf16 weights, fp8 cache": ("bf16", half, FP8, scales),
        "f16": ("f16", torch.float16, torch.float16, None),
        "int8 weights, bf16 cache": ("int8", half, half, None),
    }
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        variants["fp8 weights, bf16 cache"] = ("fp8", half, half, None)
        variants["fp8 weights, fp8 cache"] = ("fp8", half, FP8, scales)
    for name, (kind, wide, cache, cache_scales) in variants.items():
        if kind != last_kind:
            lm, last_kind = checkpoint.lm(device=device, dtype=wide), kind
            quantize(lm, kind)
        logits = logits_of(lm, codes, cache, past, cache_scales)
        same = float((logits.argmax(dim=-1) == past).float().mean())
        agreement[name] = {"same_token": round(same, 4), "logits_error": round(relative(logits, expected), 4)}
        print(name, agreement[name], flush=True)
    return {"agreement": agreement, "agreement_frames": frames}


def logits_of(lm: LM, codes: Tensor, cache: torch.dtype, past: Tensor | None, scales: Tensor | None) -> Tensor:
    """Logits of one stream; with `past`, the token before each step is the one given."""
    state, rows = lm.init_state(1, cache_dtype=cache, scales=scales), torch.zeros_like(codes[0, :1])
    logits = []
    for index, frame in enumerate(codes):
        logits.append(lm.step(frame[None], state, rows).logits[0])
        if past is not None:
            state.token.copy_(past[index : index + 1])
    return torch.stack(logits)


def check_sweep(options: Options) -> dict[str, object]:
    model, device = options.model, options.device
    config = open_checkpoint(model).config.lm.transformer
    rates: dict[str, object] = {"copy_gbps": round(copy_rate(device) / 1e9, 1), "rows": SWEEP_ROWS}
    for dtype in (torch.bfloat16, FP8):
        shape = (4, SWEEP_ROWS, config.heads, config.context, config.head_dimension)
        ring = Ring.empty(*shape, device=device, dtype=dtype)
        for cache in (ring.keys, ring.values):
            for layer in cache:
                layer.copy_(torch.randn(layer.shape, device=device, dtype=torch.bfloat16))
        found = sweep(ring, SWEEP_ROWS, torch.bfloat16)
        rates[str(dtype)] = {name: round(rate / 1e9, 1) for name, rate in found.items()}
    return {"attention_sweep_gbps": rates}


def check_moshi(options: Options) -> dict[str, object]:
    model, device = options.model, options.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    lm = open_checkpoint(model).lm(device=device, dtype=dtype)
    streams, step_ms = moshi_streams(lm, device, most=1024 if device.type == "cuda" else 2)
    return {"moshi_streams": streams, "moshi_step_ms_p99": step_ms}


STAGES = {
    "kernels": check_kernels,
    "exactness": check_exactness,
    "agreement": check_agreement,
    "sweep": check_sweep,
    "moshi": check_moshi,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--model", default="random:1b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=250, help="of the agreement (default: %(default)s)")
    arguments = parser.parse_args()
    options = Options(arguments.model, torch.device(arguments.device), arguments.frames)
    print(json.dumps(STAGES[arguments.stage](options)))


if __name__ == "__main__":
    main()
