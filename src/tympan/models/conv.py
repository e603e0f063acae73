"""Causal streaming convolutions on channels-last signals, as one matrix product over sliding windows.

Shapes: ``B`` rows, ``T`` steps, ``C`` channels. A convolution keeps the last ``kernel - stride`` input steps of each
slot. At a stream's first call they read as its padding, whatever the memory holds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.linear import product


class StreamingConv(nn.Module):
    """One convolution. Its weight is ``[out, kernel * in]``: the window's steps one after another, channels inside."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel = kernel
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(out_channels, kernel * in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    @property
    def context_steps(self) -> int:
        return self.kernel - self.stride

    def init_context(self, slots: int, *, device: torch.device) -> Tensor:
        """Past input of every slot, ``[slots, kernel - stride, in]`` float32."""
        return torch.zeros(slots, self.context_steps, self.in_channels, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, kernel - stride + T, in]`` with its past in front; returns ``[B, T / stride, out]``."""
        if x.shape[0] == 1 and self.kernel % self.stride == 0 and self.kernel <= 3 * self.stride:
            return self._by_taps(x[0])[None]
        batch, steps, channels = x.shape
        outputs = (steps - self.context_steps) // self.stride
        windows = x.as_strided(
            (batch, outputs, self.kernel * channels),
            (x.stride(0), self.stride * channels, 1),
        )
        flat = windows.reshape(batch * outputs, -1)  # the copy that BLAS needs of overlapping windows
        return product(flat, self.weight, self.bias).view(batch, outputs, self.out_channels)

    def _by_taps(self, x: Tensor) -> Tensor:
        """One row ``[steps, in]`` without copying windows: a sum of products over blocks of ``stride`` steps."""
        outputs = (x.shape[0] - self.context_steps) // self.stride
        width = self.stride * self.in_channels
        y: Tensor | None = None
        for tap in range(self.kernel // self.stride):
            weight = self.weight[:, tap * width : (tap + 1) * width]
            blocks = x[tap * self.stride : (tap + outputs) * self.stride].view(outputs, width)
            if y is None:
                y = functional.linear(blocks, weight, self.bias)
            else:
                y.addmm_(blocks, weight.t())
        assert y is not None
        return y


def with_past(x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """Put each row's past in front of ``x [B, T, C]`` and keep the end of the result as its new past.

    fresh: ``[B, 1, 1]`` bool, rows at their first call: their past is silence.
    """
    past = context.index_select(0, rows).masked_fill_(fresh, 0.0)
    joined = torch.cat((past, x), dim=1)
    context.index_copy_(0, rows, joined[:, joined.shape[1] - context.shape[1] :])
    return joined


def with_replicated_past(x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """Like :func:`with_past`, but the past of a fresh row is its own first step, repeated."""
    past = torch.where(fresh, x[:, :1], context.index_select(0, rows))
    joined = torch.cat((past, x), dim=1)
    context.index_copy_(0, rows, joined[:, joined.shape[1] - context.shape[1] :])
    return joined
