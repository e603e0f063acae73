"""Input windows of a streaming convolution in one kernel: history, activation and gather.

Plain PyTorch joins history and input, applies the ELU in place and copies the windows: three passes over the signal
where one suffices. The product that follows is PyTorch's own, in float32.

Shapes: ``B`` rows, ``T`` new steps, ``C`` channels, ``P = kernel - stride`` steps of history, ``O = T / stride``
outputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096  # elements of a program


@triton.jit
def _elu(x):
    """Return the ELU (alpha 1). Near zero, where ``exp(x) - 1`` cancels, it is computed by a polynomial."""
    tail = x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x * (1 / 5040))))
    near = x + x * x * (0.5 + x * (1 / 6 + tail))
    negative = tl.where(x > -0.3, near, tl.exp(x) - 1.0)
    return tl.where(x > 0, x, negative)


@triton.jit
def _gather_windows(
    x,
    context,
    rows,
    fresh,
    windows,
    outputs,
    length,
    HISTORY: tl.constexpr,
    WINDOW: tl.constexpr,
    HOP: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ELU: tl.constexpr,
):
    """Program (row, OUTPUTS consecutive outputs): their windows. The row's first program also keeps its new history.

    HISTORY, WINDOW, HOP: elements of the history, of a window, and between two windows. WIDTH: WINDOW, rounded up.
    """
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    output, place = tile * OUTPUTS + tl.arange(0, OUTPUTS), tl.arange(0, WIDTH)
    inside = (output < outputs)[:, None] & (place < WINDOW)[None, :]
    at = output[:, None] * HOP + place[None, :]  # in the history followed by the input
    x += row * length
    value = tl.load(x + (at - HISTORY), mask=inside & (at >= HISTORY), other=0.0)
    history = context + tl.load(rows + row) * HISTORY
    if tile == 0:
        old = inside & (at < HISTORY) & (tl.load(fresh + row) == 0)  # a new stream's history is silence
        value += tl.load(history + at, mask=old, other=0.0)
    if ELU:
        value = _elu(value)
    tl.store(windows + (row * outputs + output[:, None]) * WINDOW + place[None, :], value, mask=inside)
    if tile == 0:
        # Windows that reach into the history all belong to this program, which has read it by now.
        tl.debug_barrier()
        kept = tl.arange(0, WIDTH)
        tl.store(history + kept, tl.load(x + length - HISTORY + kept, mask=kept < HISTORY), mask=kept < HISTORY)


def gather_windows(
    x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor, *, kernel: int, stride: int, elu: bool
) -> Tensor:
    """Return every window of the history followed by ``x``, and keep the end of ``x`` as the new history.

    Args:
        x: ``[B, T, C]`` float32, contiguous; T is a multiple of ``stride`` and at least P.
        context: ``[slots, P, C]`` float32, the history of each slot; that of ``rows`` is replaced.
        rows: ``[B]`` int64, the slot of each row.
        fresh: ``[B, 1, 1]`` bool, rows at their first call: their history is silence.
        kernel, stride: Of the convolution, in steps; P is at least 1.
        elu: Whether to apply the ELU to what is gathered. The history is kept as it was before.

    Returns:
        ``[B, O, kernel * C]`` float32, the steps of a window one after another.
    """
    batch, steps, channels = x.shape
    history = kernel - stride
    assert 1 <= history <= steps, "the new history is the end of x"
    outputs = steps // stride
    width = triton.next_power_of_2(kernel * channels)
    # The first program of a row must hold all windows that reach into the history.
    per_program = max(triton.next_power_of_2(triton.cdiv(history, stride)), _TILE // width)
    per_program = min(per_program, triton.next_power_of_2(outputs))
    windows = torch.empty(batch, outputs, kernel * channels, device=x.device)
    _gather_windows[(batch, triton.cdiv(outputs, per_program))](
        x,
        context,
        rows,
        fresh,
        windows,
        outputs,
        steps * channels,
        HISTORY=history * channels,
        WINDOW=kernel * channels,
        HOP=stride * channels,
        OUTPUTS=per_program,
        WIDTH=width,
        ELU=elu,
    )
    return windows
