"""Small operations of the language model as one kernel each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tympan.models.sampling import RETRY_SEED, RETRY_TEMPERATURE

_SUM_BLOCK = 512


@triton.jit
def _sum_embeddings(codes, text, table, out, card, width, CODEBOOKS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < width
    index = tl.load(text + row) + CODEBOOKS * card
    total = tl.load(table + index * width + lane, mask=inside, other=0.0).to(tl.float32)
    for book in range(CODEBOOKS):
        index = tl.load(codes + row * CODEBOOKS + book) + book * card
        total += tl.load(table + index * width + lane, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + lane, total.to(out.dtype.element_ty), mask=inside)


def sum_embeddings(codes: Tensor, text: Tensor, table: Tensor, card: int, dtype: torch.dtype) -> Tensor:
    """Sum the embeddings of the codes and of the text token in float32.

    Args:
        codes: ``[B, K]`` int64.
        text: ``[B]`` int64.
        table: ``[K * card + text rows, dimension]``.
        card: Rows of the table per codebook.
        dtype: Data type of the result.

    Returns:
        ``[B, dimension]``.
    """
    batch, codebooks = codes.shape
    width = table.shape[1]
    out = torch.empty(batch, width, device=table.device, dtype=dtype)
    grid = (batch, triton.cdiv(width, _SUM_BLOCK))
    _sum_embeddings[grid](codes.contiguous(), text, table, out, card, width, CODEBOOKS=codebooks, BLOCK=_SUM_BLOCK)
    return out


@triton.jit
def _rms_norm(x, weight, out, width, epsilon, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < width
    wide = tl.load(x + row * width + lane, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 / tl.sqrt(epsilon + tl.sum(wide * wide, axis=0) / width)
    gain = tl.load(weight + lane, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + lane, (wide * (gain * factor)).to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return the root-mean-square norm of ``x [..., dimension]``, computed in float32; same shape and dtype."""
    width = x.shape[-1]
    x = x.contiguous()
    out = torch.empty_like(x)
    _rms_norm[(x.numel() // width,)](x, weight, out, width, epsilon, BLOCK=triton.next_power_of_2(width), num_warps=8)
    return out


@triton.jit
def _hash32(x):
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


@triton.jit
def _gumbel_noise(seed, position, lane):
    """The noise of `sampling.gumbel_noise`, from the same bits."""
    stream = _hash32((seed ^ (seed >> 32)) & 0xFFFFFFFF)
    step = _hash32((stream + position * 0x9E3779B9) & 0xFFFFFFFF)
    bits = _hash32((step + lane.to(tl.int64) * 0x27D4EB2F) & 0xFFFFFFFF)
    uniform = ((bits >> 8).to(tl.float32) + 0.5) * 5.9604644775390625e-08
    return -tl.log(-tl.log(uniform))


@triton.jit
def _choose_token(
    logits,
    seeds,
    positions,
    token,
    probability,
    width,
    stride,
    TEMPERATURE: tl.constexpr,
    RETRY_SEED: tl.constexpr,
    RETRY_TEMPERATURE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    value = tl.load(logits + row * stride + lane, mask=lane < width, other=float("-inf"))
    top = tl.max(value, axis=0)
    seed = tl.load(seeds + row)
    score = value
    if seed == RETRY_SEED:
        score = value / RETRY_TEMPERATURE + _gumbel_noise(seed, tl.load(positions + row), lane)
    elif TEMPERATURE > 0:
        score = value / TEMPERATURE + _gumbel_noise(seed, tl.load(positions + row), lane)
    # If a logit is NaN, none may equal the largest: the token is kept in range, and the probability is NaN.
    first = tl.min(tl.where(score == tl.max(score, axis=0), lane, BLOCK), axis=0)
    first = tl.minimum(first, width - 1)
    tl.store(token + row, first.to(tl.int64))
    chosen = tl.max(tl.where(lane == first, value, float("-inf")), axis=0)
    tl.store(probability + row, tl.exp(chosen - top) / tl.sum(tl.exp(value - top), axis=0))


def choose_token(logits: Tensor, seed: Tensor, position: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose a token per row as `sampling.sample_token`; return it with its softmax probability at temperature 1.

    Args:
        logits: ``[B, V]`` float32; the rows may be the same memory.
        seed: ``[B]`` int64.
        position: ``[B]`` int64.
        temperature: 0 selects the largest logit, but for rows with `RETRY_SEED`.

    Returns:
        Tokens ``[B]`` int64, the first of equal ones and always within the vocabulary; and probabilities ``[B]``
        float32, NaN if any logit of the row is NaN.
    """
    batch, width = logits.shape
    token = torch.empty(batch, device=logits.device, dtype=torch.int64)
    probability = torch.empty(batch, device=logits.device)
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    _choose_token[(batch,)](
        logits,
        seed.contiguous(),
        position.contiguous(),
        token,
        probability,
        width,
        logits.stride(0),
        TEMPERATURE=temperature,
        RETRY_SEED=RETRY_SEED,
        RETRY_TEMPERATURE=max(temperature, RETRY_TEMPERATURE),
        BLOCK=triton.next_power_of_2(width),
        num_warps=8,
    )
    return token, probability


@triton.jit
def _store_start(
    frames, rows, keys, values, start_keys, start_values, slots, capacity, WIDTH: tl.constexpr, VECTORS: tl.constexpr
):
    """Program (row, layer): write position 0 of all VECTORS heads if the row is at its first frame."""
    row, layer = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if tl.load(frames + row) == 0:
        lane = tl.arange(0, VECTORS * WIDTH)
        vector = (layer * slots + tl.load(rows + row)) * VECTORS + lane // WIDTH
        target, source = vector * capacity * WIDTH + lane % WIDTH, layer * VECTORS * WIDTH + lane
        tl.store(keys + target, tl.load(start_keys + source))
        tl.store(values + target, tl.load(start_values + source))


def store_initial_step(
    frames: Tensor, rows: Tensor, keys: Tensor, values: Tensor, start_keys: Tensor, start_values: Tensor
) -> None:
    """Write the keys and values of position 0 to the rings of rows at their first frame.

    Args:
        frames: ``[B]`` int64, frames processed in the stream of each row; 0 for a new one.
        rows: ``[B]`` int64, the slot of each row.
        keys: ``[layers, slots, H, C, D]`` of any dtype, updated in place; H * D is a power of two.
        values: ``[layers, slots, H, C, D]``, updated in place.
        start_keys: ``[layers, H, D]`` of the same dtype.
        start_values: ``[layers, H, D]`` of the same dtype.
    """
    layers, slots, heads, capacity, width = keys.shape
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32}[keys.element_size()]  # copies bytes
    tensors = (tensor.view(integer) for tensor in (keys, values, start_keys, start_values))
    _store_start[(len(rows), layers)](frames, rows, *tensors, slots, capacity, WIDTH=width, VECTORS=heads)


@triton.jit
def _quantize_rows(x, out, scale, width, SMALLEST: tl.constexpr, LARGEST: tl.constexpr, BLOCK: tl.constexpr):
    # Divisions round as PyTorch's do. No clamp is needed: the largest quotient rounds to LARGEST.
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < width
    wide = tl.load(x + row * width + lane, mask=inside, other=0.0).to(tl.float32)
    factor = tl.div_rn(tl.maximum(tl.max(tl.abs(wide), axis=0), SMALLEST), LARGEST)
    tl.store(out + row * width + lane, tl.div_rn(wide, factor).to(out.dtype.element_ty), mask=inside)
    tl.store(scale + row, factor)


def quantize_rows(x: Tensor, *, smallest: float, largest: float) -> tuple[Tensor, Tensor]:
    """Convert rows to 8-bit floats (e4m3) with one scale each.

    Args:
        x: ``[B, width]`` float32, bf16 or f16.
        smallest: Lower bound of the largest absolute value of a row, which avoids a division by zero.
        largest: Absolute value of the largest element of each converted row.

    Returns:
        The rows ``[B, width]`` as float8_e4m3fn, and the float32 factors ``[B, 1]`` that restore them.
    """
    rows, width = x.shape
    x = x.contiguous()
    out = torch.empty(rows, width, device=x.device, dtype=torch.float8_e4m3fn)
    scale = torch.empty(rows, 1, device=x.device)
    block = triton.next_power_of_2(width)
    _quantize_rows[(rows,)](x, out, scale, width, SMALLEST=smallest, LARGEST=largest, BLOCK=block, num_warps=8)
    return out, scale
