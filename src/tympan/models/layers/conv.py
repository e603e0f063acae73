"""Causal streaming convolutions on channels-last signals, as one matrix product over sliding windows.

A convolution keeps the last ``kernel - stride`` input steps of each slot, its history. At the first call of a stream
the history is silence, whatever the memory holds. In the shapes, C stands for channels.
"""

from __future__ import annotations

import functools
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models import kernels
from tympan.models.layers.fastest import fastest
from tympan.models.layers.linear import CpuProduct, has_variants

Variant = Literal["windows", "convolution"]

_MIN_CONVOLUTION_STEPS = 64  # with fewer, reading the weight takes most of the time


class StreamingConv(nn.Module):
    """One convolution. Its weight is ``[out, kernel * in]``: the steps of a window in order, channels innermost."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel = kernel
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(out_channels, kernel * in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self._product: CpuProduct | None = None

    @property
    def context_steps(self) -> int:
        """Length of the history in steps."""
        return self.kernel - self.stride

    def init_context(self, slots: int, *, device: torch.device) -> Tensor:
        """Return the history of every slot, ``[slots, kernel - stride, in]`` float32."""
        return torch.zeros(slots, self.context_steps, self.in_channels, device=device)

    def stream(self, x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor, *, elu: bool = False) -> Tensor:
        """Convolve new steps and advance the history.

        Args:
            x: ``[B, T, in]`` float32, left unchanged.
            context: As for :func:`with_past`.
            rows: As for :func:`with_past`.
            fresh: As for :func:`with_past`.
            elu: Whether to apply an ELU to the input first. The history is stored before it.

        Returns:
            ``[B, T / stride, out]`` float32.
        """
        if kernels.usable(x.device):
            from tympan.models.kernels.windows import gather_windows

            shape = {"kernel": self.kernel, "stride": self.stride}
            windows = gather_windows(x.contiguous(), context, rows, fresh, **shape, elu=elu)
            return functional.linear(windows, self.weight, self.bias)
        joined = with_past(x, context, rows, fresh)
        out: Tensor = self(functional.elu_(joined) if elu else joined)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x [B, kernel - stride + T, in]``, which begins with the history: ``[B, T / stride, out]``."""
        if not has_variants(x):
            return functional.linear(self._windows(x), self.weight, self.bias)
        steps = x.shape[1] - self.context_steps
        return self.run(
            fastest_variant(len(x), steps, self.in_channels, self.out_channels, self.kernel, self.stride), x
        )

    def run(self, variant: Variant, x: Tensor) -> Tensor:
        """Compute :meth:`forward` in float32 on a CPU, by ``variant``."""
        if variant == "convolution":
            return self._convolved(x)
        if self._product is None or self._product.weight is not self.weight:
            self._product = CpuProduct(self.weight, self.bias, may_copy=True)
        flat = self._product(self._windows(x).view(-1, self.weight.shape[1]))
        return flat.view(len(x), -1, self.out_channels)

    def _windows(self, x: Tensor) -> Tensor:
        """Copy every window of ``x`` to a row, ``[B, T / stride, kernel * in]``, as BLAS needs it."""
        batch, steps, channels = x.shape
        outputs = (steps - self.context_steps) // self.stride
        shape = (batch, outputs, self.kernel * channels)
        return x.as_strided(shape, (x.stride(0), self.stride * channels, 1)).contiguous()

    def _convolved(self, x: Tensor) -> Tensor:
        """Convolve an image of height 1, channels last, which needs no copy of the windows."""
        kernel = self.weight.view(self.out_channels, self.kernel, self.in_channels).permute(0, 2, 1).unsqueeze(2)
        y = functional.conv2d(x.transpose(1, 2).unsqueeze(2), kernel, self.bias, stride=(1, self.stride))
        return y.squeeze(2).transpose(1, 2).contiguous()


@functools.cache
def fastest_variant(batch: int, steps: int, in_channels: int, out_channels: int, kernel: int, stride: int) -> Variant:
    """Return the fastest variant for one shape, measured on the first call."""
    if batch * steps < _MIN_CONVOLUTION_STEPS or kernel == 1:
        return "windows"
    with torch.inference_mode():
        trial = StreamingConv(in_channels, out_channels, kernel, stride)
        x = torch.zeros(batch, trial.context_steps + steps, in_channels)
        calls = {variant: [functools.partial(trial.run, variant, x)] for variant in get_args(Variant)}
        return cast(Variant, fastest(calls, margin=1.0))


def with_past(x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """Prepend the history of each row, and store the end of the result as the new history.

    Args:
        x: ``[B, T, C]``.
        context: ``[slots, kernel - stride, C]``, the history of every slot, updated in place.
        rows: ``[B]`` int64, the slot of each row.
        fresh: ``[B, 1, 1]`` bool, rows at the first call of their stream, whose history is silence.

    Returns:
        ``[B, kernel - stride + T, C]``.
    """
    return _join(context.index_select(0, rows).masked_fill_(fresh, 0.0), x, context, rows)


def with_replicated_past(x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """Do the same as :func:`with_past`, except that the history of a fresh row is its own first step, repeated."""
    return _join(torch.where(fresh, x[:, :1], context.index_select(0, rows)), x, context, rows)


def _join(history: Tensor, x: Tensor, context: Tensor, rows: Tensor) -> Tensor:
    joined = torch.cat((history, x), dim=1)
    context.index_copy_(0, rows, joined[:, joined.shape[1] - context.shape[1] :])
    return joined
