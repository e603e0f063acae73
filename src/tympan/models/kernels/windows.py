"""One kernel that gathers the input windows of a streaming convolution, with its history and activation.

Plain PyTorch needs three passes over the signal: it concatenates history and input, applies the ELU in place, and
copies the windows. The product with the weight remains PyTorch's own, in float32.

In the shapes, C stands for channels, ``P = kernel - stride`` for steps of history and ``O = T / stride`` for outputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096  # elements per program


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
    """Program (row, OUTPUTS consecutive outputs): gather their windows.

    The first program of a row also stores the new history. HISTORY, WINDOW and HOP are the elements of the history, of
    a window, and between the starts of two windows. WIDTH is WINDOW rounded up to a power of two.
    """
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    output, place = tile * OUTPUTS + tl.arange(0, OUTPUTS), tl.arange(0, WIDTH)
    inside = (output < outputs)[:, None] & (place < WINDOW)[None, :]
    at = output[:, None] * HOP + place[None, :]  # in the history followed by the input
    x += row * length
    value = tl.load(x + (at - HISTORY), mask=inside & (at >= HISTORY), other=0.0)
    history = context + tl.load(rows + row) * HISTORY
    if tile == 0:
        old = inside & (at < HISTORY) & (tl.load(fresh + row) == 0)  # the history of a new stream is silence
        value += tl.load(history + at, mask=old, other=0.0)
    if ELU:
        value = _elu(value)
    tl.store(windows + (row * outputs + output[:, None]) * WINDOW + place[None, :], value, mask=inside)
    if tile == 0:
        # All windows that reach into the history belong to this program, which has read it at this point.
        tl.debug_barrier()
        kept = tl.arange(0, WIDTH)
        tl.store(history + kept, tl.load(x + length - HISTORY + kept, mask=kept < HISTORY), mask=kept < HISTORY)


def gather_windows(
    x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor, *, kernel: int, stride: int, elu: bool
) -> Tensor:
    """Return every window of the history followed by ``x``, and store the end of ``x`` as the new history.

    Args:
        x: ``[B, T, C]`` float32, contiguous; T is a multiple of ``stride`` and at least P.
        context: ``[slots, P, C]`` float32, the history of each slot; that of ``rows`` is replaced.
        rows: ``[B]`` int64, the slot of each row.
        fresh: ``[B, 1, 1]`` bool, rows at the first call of their stream, whose history is silence.
        kernel: Kernel size of the convolution in steps, greater than ``stride``.
        stride: Stride of the convolution in steps.
        elu: Whether to apply the ELU to the windows. The history is stored before it.

    Returns:
        ``[B, O, kernel * C]`` float32, the steps of a window in order.
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
    sizes = {"HISTORY": history * channels, "WINDOW": kernel * channels, "HOP": stride * channels, "WIDTH": width}
    _gather_windows[(batch, triton.cdiv(outputs, per_program))](
        x, context, rows, fresh, windows, outputs, steps * channels, **sizes, OUTPUTS=per_program, ELU=elu
    )
    return windows
