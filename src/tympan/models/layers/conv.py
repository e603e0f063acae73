"""Causal streaming convolutions on channels-last signals, as one matrix product over sliding windows.

A convolution keeps the last ``kernel - stride`` input steps of each slot, its history. At the first call of a stream
the history is silence, whatever the memory holds. In the shapes, C stands for channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models import kernels


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

    @property
    def context_steps(self) -> int:
        """Length of the history in steps."""
        return self.kernel - self.stride

    def init_context(self, slots: int, *, device: torch.device) -> Tensor:
        """Return the history of every slot, ``[slots, kernel - stride, in]`` float32."""
        return torch.zeros(slots, self.context_steps, self.in_channels, device=device)

    def stream(self, x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor, *, elu: bool = False) -> Tensor:
        """Convolve new steps ``x [B, T, in]`` float32, and advance the history: ``[B, T / stride, out]`` float32.

        ``context``, ``rows`` and ``fresh`` are those of :func:`with_history`. With ``elu``, the input passes through
        an ELU; the history is stored before it, and ``x`` is left unchanged.
        """
        if kernels.usable(x.device):
            from tympan.models.kernels.windows import gather_windows

            shape = {"kernel": self.kernel, "stride": self.stride}
            windows = gather_windows(x.contiguous(), context, rows, fresh, **shape, elu=elu)
            return functional.linear(windows, self.weight, self.bias)
        joined = with_history(x, context, rows, fresh)
        out: Tensor = self(functional.elu_(joined) if elu else joined)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x [B, kernel - stride + T, in]``, which begins with the history: ``[B, T / stride, out]``."""
        return functional.linear(self._windows(x), self.weight, self.bias)

    def _windows(self, x: Tensor) -> Tensor:
        """Copy every window of ``x`` to a row, ``[B, T / stride, kernel * in]``, as BLAS needs it."""
        batch, steps, channels = x.shape
        outputs = (steps - self.context_steps) // self.stride
        shape = (batch, outputs, self.kernel * channels)
        return x.as_strided(shape, (x.stride(0), self.stride * channels, 1)).contiguous()


def with_history(x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
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


def with_replicated_history(x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """Do the same as :func:`with_history`, except that the history of a fresh row is its own first step, repeated."""
    return _join(torch.where(fresh, x[:, :1], context.index_select(0, rows)), x, context, rows)


def _join(history: Tensor, x: Tensor, context: Tensor, rows: Tensor) -> Tensor:
    joined = torch.cat((history, x), dim=1)
    context.index_copy_(0, rows, joined[:, joined.shape[1] - context.shape[1] :])
    return joined
