"""Causal streaming convolutions on channels-last signals, as one matrix product over sliding windows.

Shapes: ``B`` rows, ``T`` steps, ``C`` channels. A convolution keeps the last ``kernel - stride`` input steps of each
slot. At a stream's first call they read as its padding, whatever the memory holds.
"""

from __future__ import annotations

import functools
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models import kernels
from tympan.models.layers.fastest import fastest
from tympan.models.layers.linear import Product, multiplies_here

Way = Literal["windows", "convolution"]

_MANY_STEPS = 64  # below that a convolution is little but its weight


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
        self._product: Product | None = None

    @property
    def context_steps(self) -> int:
        return self.kernel - self.stride

    def init_context(self, slots: int, *, device: torch.device) -> Tensor:
        """Past input of every slot, ``[slots, kernel - stride, in]`` float32."""
        return torch.zeros(slots, self.context_steps, self.in_channels, device=device)

    def stream(self, x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor, *, elu: bool = False) -> Tensor:
        """Return the outputs of new steps ``x [B, T, in]``, ``[B, T / stride, out]``, and advance the history.

        Args:
            x: The new steps; left as they are.
            context, rows, fresh: As for :func:`with_past`.
            elu: Whether the input goes through an ELU first; the history is kept as it was before.
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
        """``x [B, kernel - stride + T, in]`` with its past in front; returns ``[B, T / stride, out]``."""
        if not multiplies_here(x):
            return functional.linear(self._windows(x), self.weight, self.bias)
        steps = x.shape[1] - self.context_steps
        way = fastest_way(len(x), steps, self.in_channels, self.out_channels, self.kernel, self.stride)
        return self.by(way, x)

    def by(self, way: Way, x: Tensor) -> Tensor:
        """The same in one of two ways, on a CPU."""
        if way == "convolution":
            return self._convolved(x)
        if self._product is None or self._product.weight is not self.weight:
            self._product = Product(self.weight, self.bias, may_copy=True)
        flat = self._product(self._windows(x).view(-1, self.weight.shape[1]))
        return flat.view(len(x), -1, self.out_channels)

    def _windows(self, x: Tensor) -> Tensor:
        """Every window of ``x`` as a row, ``[B, T / stride, kernel * in]``: the copy that BLAS needs."""
        batch, steps, channels = x.shape
        outputs = (steps - self.context_steps) // self.stride
        shape = (batch, outputs, self.kernel * channels)
        return x.as_strided(shape, (x.stride(0), self.stride * channels, 1)).contiguous()

    def _convolved(self, x: Tensor) -> Tensor:
        """As a picture one pixel high, channels last, which spares the copy."""
        kernel = self.weight.view(self.out_channels, self.kernel, self.in_channels).permute(0, 2, 1).unsqueeze(2)
        y = functional.conv2d(x.transpose(1, 2).unsqueeze(2), kernel, self.bias, stride=(1, self.stride))
        return y.squeeze(2).transpose(1, 2).contiguous()


@functools.cache
def fastest_way(batch: int, steps: int, in_channels: int, out_channels: int, kernel: int, stride: int) -> Way:
    """The faster way for one shape; it is tried on the first call."""
    if batch * steps < _MANY_STEPS or kernel == 1:
        return "windows"
    with torch.inference_mode():
        trial = StreamingConv(in_channels, out_channels, kernel, stride)
        x = torch.zeros(batch, trial.context_steps + steps, in_channels)
        calls = {way: [functools.partial(trial.by, way, x)] for way in get_args(Way)}
        return cast(Way, fastest(calls, margin=1.0))


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
