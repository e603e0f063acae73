"""The search of all codebooks as one graph."""

from __future__ import annotations

import torch
from torch import Tensor

from tympan.models.cpu.graph import Graph, SessionModule
from tympan.models.cpu.linear import multiply
from tympan.models.layers.quantizer import ResidualQuantizer, SplitQuantizer


class CpuQuantizer(SessionModule):
    """Searches the first ``codebooks`` codebooks of ``source``."""

    def __init__(self, source: SplitQuantizer, codebooks: int) -> None:
        self.codebooks = codebooks
        graph = Graph()
        x = graph.input("batch", source.semantic.input_proj.in_features)
        first = min(codebooks, source.config.semantic)
        codes = _search(graph, x, source.semantic, first) + _search(graph, x, source.acoustic, codebooks - first)
        self._session = graph.compile(graph.op("Concat", *codes, axis=1))
        super().__init__([self._session])

    def forward(self, x: Tensor, codebooks: int) -> Tensor:
        """Quantize ``x [B, in]`` float32: ``[B, K]`` int64."""
        assert codebooks == self.codebooks
        (codes,) = self._session.run(x.numpy())
        return torch.from_numpy(codes)


def _search(graph: Graph, x: str, stack: ResidualQuantizer, codebooks: int) -> list[str]:
    """Add the search of the first codebooks of one stack: codes ``[B, 1]`` int64 of each."""
    codes: list[str] = []
    if not codebooks:
        return codes
    residual = multiply(graph, x, stack.input_proj.weight)
    for centroids, half_norms in zip(stack.centroids[:codebooks], stack.half_norms[:codebooks], strict=True):
        scores = multiply(graph, residual, centroids, -half_norms)
        codes.append(graph.op("ArgMax", scores, axis=1, keepdims=1))
        if len(codes) < codebooks:
            nearest = graph.op("Gather", graph.weight(centroids), graph.op("Squeeze", codes[-1], graph.constant([1])))
            residual = graph.op("Sub", residual, nearest)
    return codes
