"""SEANet encoder (Tagliasacchi et al. 2020, arXiv:2009.02095) as Mimi uses it: causal, ELU, one residual unit a stage.

Input ``[B, samples, 1]``, output ``[B, samples / hop, dimension]``, float32, channels last.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.config import SeanetConfig
from tympan.models.layers.conv import StreamingConv


class Residual(nn.Module):
    """A narrow convolution and a point-wise one beside an identity."""

    def __init__(self, channels: int, config: SeanetConfig) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.narrow = StreamingConv(channels, hidden, config.residual_kernel)
        self.widen = StreamingConv(hidden, channels, 1)

    def forward(self, x: Tensor, context: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
        # The history is kept before the activation: its few steps go through it again, and x stays as it is.
        hidden = self.narrow.stream(x, context, rows, fresh, elu=True)
        out: Tensor = self.widen(functional.elu_(hidden))
        return out.add_(x)


class Stage(nn.Module):
    """A residual unit and the convolution that lowers the rate."""

    def __init__(self, channels: int, stride: int, config: SeanetConfig) -> None:
        super().__init__()
        self.residual = Residual(channels, config)
        self.down = StreamingConv(channels, 2 * channels, 2 * stride, stride)

    def forward(self, x: Tensor, contexts: Iterator[Tensor], rows: Tensor, fresh: Tensor) -> Tensor:
        x = self.residual(x, next(contexts), rows, fresh)
        out: Tensor = self.down.stream(x, next(contexts), rows, fresh, elu=True)
        return out


class SeanetEncoder(nn.Module):
    """The whole front end. Its state is one past per convolution, in the order of :meth:`init_contexts`."""

    def __init__(self, config: SeanetConfig) -> None:
        super().__init__()
        self.first = StreamingConv(1, config.filters, config.kernel)
        self.stages = nn.ModuleList(
            Stage(config.filters << index, stride, config) for index, stride in enumerate(config.strides)
        )
        self.last = StreamingConv(config.filters << len(config.strides), config.dimension, config.last_kernel)

    def init_contexts(self, slots: int, *, device: torch.device) -> list[Tensor]:
        """The past of each convolution that has one, ``[slots, kernel - stride, in]``."""
        convolutions = [self.first]
        for stage in self.stages:
            assert isinstance(stage, Stage)
            convolutions += [stage.residual.narrow, stage.down]
        convolutions.append(self.last)
        return [conv.init_context(slots, device=device) for conv in convolutions]

    def forward(self, x: Tensor, contexts: list[Tensor], rows: Tensor, fresh: Tensor) -> Tensor:
        """``x [B, samples, 1]``; ``rows [B]`` and ``fresh [B, 1, 1]`` as for :func:`with_past`."""
        past = iter(contexts)
        x = self.first.stream(x, next(past), rows, fresh)
        for stage in self.stages:
            x = stage(x, past, rows, fresh)
        out: Tensor = self.last.stream(x, next(past), rows, fresh, elu=True)
        return out
