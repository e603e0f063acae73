"""Split residual vector quantizer, search only.

RVQ: Zeghidour et al. 2021 (arXiv:2107.03312); split: Défossez et al. 2024 (arXiv:2410.00037).

The nearest of the bins minimises ``|e|**2 / 2 - x . e``: one matrix product per codebook, no square roots. Among equal
values the lowest index wins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tympan.models import kernels
from tympan.models.config import QuantizerConfig
from tympan.models.layers.linear import Linear, Product, multiplies_here


class ResidualQuantizer(nn.Module):
    """A projection and a stack of codebooks, each searched with what the ones before left over."""

    def __init__(self, in_dimension: int, codebooks: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.input_proj = Linear(in_dimension, config.dimension, bias=False, may_copy=True)
        self.centroids = nn.Parameter(torch.zeros(codebooks, config.bins, config.dimension))
        self.half_norms = nn.Parameter(torch.zeros(codebooks, config.bins))
        self._products: list[Product] = []

    def forward(self, x: Tensor, codebooks: int) -> list[Tensor]:
        """Codes of ``x [B, in]``: ``codebooks`` tensors ``[B]`` int64."""
        residual: Tensor = self.input_proj(x)
        if codebooks and kernels.usable(x.device):
            from tympan.models.kernels.nearest import MOST_ROWS, nearest_codes

            if len(x) <= MOST_ROWS:
                return list(nearest_codes(residual, self.centroids, self.half_norms, codebooks).unbind(dim=1))
        codes: list[Tensor] = []
        for index, centroids in enumerate(self.centroids.unbind()[:codebooks]):
            code = self._nearest(residual, index)
            codes.append(code)
            if len(codes) < codebooks:
                residual = residual - centroids.index_select(0, code)
        return codes

    def _nearest(self, residual: Tensor, index: int) -> Tensor:
        """The nearest bins of codebook ``index`` to ``residual [B, dimension]``: ``[B]`` int64."""
        if not multiplies_here(residual):
            centroids, half_norms = self.centroids[index], self.half_norms[index]
            return torch.addmm(half_norms, residual, centroids.t(), alpha=-1.0).argmin(dim=-1)
        if not self._products:
            pairs = zip(self.centroids, -self.half_norms, strict=True)
            self._products = [Product(centroids, bias, may_copy=True) for centroids, bias in pairs]
        return self._products[index](residual).argmax(dim=-1)


class SplitQuantizer(nn.Module):
    """Semantic codebooks first, then the acoustic ones; both quantize the same input."""

    def __init__(self, in_dimension: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.semantic = ResidualQuantizer(in_dimension, config.semantic, config)
        self.acoustic = ResidualQuantizer(in_dimension, config.codebooks - config.semantic, config)

    def forward(self, x: Tensor, codebooks: int) -> Tensor:
        """Codes of ``x [B, in]`` float32: ``[B, codebooks]`` int64."""
        first = min(codebooks, self.config.semantic)
        codes = self.semantic(x, first) + self.acoustic(x, codebooks - first)
        return torch.stack(codes, dim=1)
