"""Split residual vector quantizer, search only.

Residual quantization: Zeghidour et al. 2021 (arXiv:2107.03312); the split: Défossez et al. 2024 (arXiv:2410.00037).

The nearest bin ``e`` minimizes ``|e|**2 / 2 - x . e``, which takes one matrix product per codebook. Of equally near
bins, the one with the lowest index is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tympan.models import kernels
from tympan.models.config import QuantizerConfig


class ResidualQuantizer(nn.Module):
    """A projection and a stack of codebooks; each quantizes what the ones before it left over."""

    def __init__(self, in_dimension: int, codebooks: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(in_dimension, config.dimension, bias=False)
        self.centroids = nn.Parameter(torch.zeros(codebooks, config.bins, config.dimension))
        self.half_norms = nn.Parameter(torch.zeros(codebooks, config.bins))

    def forward(self, x: Tensor, codebooks: int) -> list[Tensor]:
        """Search the first ``codebooks`` codebooks for ``x [B, in]`` float32; returns ``[B]`` int64 for each."""
        residual: Tensor = self.input_proj(x)
        if codebooks and kernels.usable(x.device):
            from tympan.models.kernels.nearest import MOST_ROWS, nearest_codes

            if len(x) <= MOST_ROWS:
                return list(nearest_codes(residual, self.centroids, self.half_norms, codebooks).unbind(dim=1))
        codes: list[Tensor] = []
        for index, centroids in enumerate(self.centroids.unbind()[:codebooks]):
            code = torch.addmm(self.half_norms[index], residual, centroids.t(), alpha=-1.0).argmin(dim=-1)
            codes.append(code)
            if len(codes) < codebooks:
                residual = residual - centroids.index_select(0, code)
        return codes


class SplitQuantizer(nn.Module):
    """Semantic and acoustic codebooks, which quantize the same input; the semantic ones come first."""

    def __init__(self, in_dimension: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.semantic = ResidualQuantizer(in_dimension, config.semantic, config)
        self.acoustic = ResidualQuantizer(in_dimension, config.codebooks - config.semantic, config)

    def forward(self, x: Tensor, codebooks: int) -> Tensor:
        """Quantize ``x [B, in]`` float32 with the first ``codebooks`` codebooks: ``[B, K]`` int64."""
        first = min(codebooks, self.config.semantic)
        codes = self.semantic(x, first) + self.acoustic(x, codebooks - first)
        return torch.stack(codes, dim=1)
