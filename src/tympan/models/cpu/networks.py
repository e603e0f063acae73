"""Replacement of the parts of a network by the modules that ONNX Runtime executes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tympan.models.cpu.linear import CpuLinear, WeightType
from tympan.models.cpu.packer import Packer
from tympan.models.cpu.quantizer import CpuQuantizer
from tympan.models.cpu.seanet import CpuSeanet
from tympan.models.cpu.transformer import CpuTransformer
from tympan.models.layers.conv import StreamingConv
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder


class CpuDownsample(nn.Module):
    """Runs the convolution ``source`` on one window per row, with the same state."""

    def __init__(self, source: StreamingConv) -> None:
        super().__init__()
        self._context_shape = (source.context_steps, source.in_channels)
        self._product = CpuLinear(source.weight, source.bias)

    def init_context(self, slots: int, *, device: torch.device) -> Tensor:
        """Return the history of every slot, ``[slots, kernel - stride, in]`` float32."""
        return torch.zeros(slots, *self._context_shape, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x [B, kernel, in]``: ``[B, 1, out]``."""
        out: Tensor = self._product(x.flatten(1)[:, None])
        return out


def run_mimi_on_cpu(mimi: MimiEncoder) -> None:
    """Make ONNX Runtime compute the codec. Its weights move into the sessions, one part at a time."""
    mimi.seanet = CpuSeanet(mimi.seanet, mimi.frame_samples)  # type: ignore[assignment]
    mimi.transformer = CpuTransformer(mimi.transformer, Packer(mimi, "f32"))  # type: ignore[assignment]
    mimi.downsample = CpuDownsample(mimi.downsample)  # type: ignore[assignment]
    mimi.quantizer = CpuQuantizer(mimi.quantizer, mimi.codebooks)  # type: ignore[assignment]


def run_lm_on_cpu(lm: LM, kind: WeightType, folder: Path | None = None) -> None:
    """Make ONNX Runtime compute the language model but for its embeddings.

    Args:
        lm: The model; its weights move into the sessions, one layer at a time.
        kind: Type of the weights. With ``int4``, the output layer is ``int8``: a fiftieth of the weights,
            whose rounding made a tenth of the logits' squared error.
        folder: As for :class:`Packer`.
    """
    packer = Packer(lm, kind, folder)
    lm.transformer = CpuTransformer(lm.transformer, packer, lm.out_norm)  # type: ignore[assignment]
    lm.out_norm = nn.Identity()  # type: ignore[assignment]
    lm.text_linear = CpuLinear(packer(lm.text_linear, "int8" if kind == "int4" else kind))  # type: ignore[assignment]
    if lm.pause_linear is not None:
        lm.pause_linear = CpuLinear(lm.pause_linear.weight.float())  # type: ignore[assignment]
    lm.compute_dtype = torch.float32
    packer.finish()
