"""SEANet encoder (Tagliasacchi et al. 2020, arXiv:2009.02095) as in Mimi: causal, ELU, one residual unit per stage.

Signals are float32 with channels last.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.config import SeanetConfig
from tympan.models.layers.conv import StreamingConv


class ResidualUnit(nn.Module):
    """A convolution with fewer channels and a point-wise one, added to the input."""

    def __init__(self, channels: int, config: SeanetConfig) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.narrow = StreamingConv(channels, hidden, config.residual_kernel)
        self.widen = StreamingConv(hidden, channels, 1)

    def forward(self, x: Tensor, history: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
        """Apply the unit to ``x [B, T, channels]``; the other arguments are those of :func:`with_past`."""
        # The history is stored before the activation, which leaves x unchanged for the sum below.
        hidden = self.narrow.stream(x, history, rows, fresh, elu=True)
        out: Tensor = self.widen(functional.elu_(hidden))
        return out.add_(x)


class Stage(nn.Module):
    """A residual unit and a strided convolution that doubles the channels."""

    def __init__(self, channels: int, stride: int, config: SeanetConfig) -> None:
        super().__init__()
        self.residual = ResidualUnit(channels, config)
        self.down = StreamingConv(channels, 2 * channels, 2 * stride, stride)

    def forward(self, x: Tensor, histories: Iterator[Tensor], rows: Tensor, fresh: Tensor) -> Tensor:
        """Return ``[B, T / stride, 2 * channels]`` for ``x [B, T, channels]``; takes two of ``histories``."""
        x = self.residual(x, next(histories), rows, fresh)
        out: Tensor = self.down.stream(x, next(histories), rows, fresh, elu=True)
        return out


class SeanetEncoder(nn.Module):
    """The convolutional front end; its state is one history per convolution, as :meth:`init_contexts` returns them."""

    def __init__(self, config: SeanetConfig) -> None:
        super().__init__()
        self.first = StreamingConv(1, config.filters, config.kernel)
        self.stages = nn.ModuleList(
            Stage(config.filters << index, stride, config) for index, stride in enumerate(config.strides)
        )
        self.last = StreamingConv(config.filters << len(config.strides), config.dimension, config.last_kernel)

    def init_contexts(self, slots: int, *, device: torch.device) -> list[Tensor]:
        """Return the histories of the convolutions, ``[slots, kernel - stride, in]`` float32, in order of use."""
        convolutions = [self.first]
        for stage in self.stages:
            assert isinstance(stage, Stage)
            convolutions += [stage.residual.narrow, stage.down]
        return [conv.init_context(slots, device=device) for conv in (*convolutions, self.last)]

    def forward(self, x: Tensor, contexts: list[Tensor], rows: Tensor, fresh: Tensor) -> Tensor:
        """Encode new samples and advance the histories.

        Args:
            x: ``[B, samples, 1]`` float32.
            contexts: The histories of the convolutions, updated in place.
            rows: ``[B]`` int64, the slot of each row.
            fresh: ``[B, 1, 1]`` bool, whether the row's stream begins with this call.

        Returns:
            ``[B, samples / hop, dimension]`` float32.
        """
        histories = iter(contexts)
        x = self.first.stream(x, next(histories), rows, fresh)
        for stage in self.stages:
            x = stage(x, histories, rows, fresh)
        out: Tensor = self.last.stream(x, next(histories), rows, fresh, elu=True)
        return out
