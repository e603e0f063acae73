"""The transformer of either network: one graph per layer boundary, with attention between them.

Between two attentions everything is one graph for the whole batch: output projection, feed-forward, norms, the next
layer's projection and rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from tympan.models.config import TransformerConfig
from tympan.models.cpu.graph import Graph, Session, SessionModule
from tympan.models.cpu.linear import PackedWeight, least_rows, multiply, repeat_single_row
from tympan.models.cpu.ring import RingAttention
from tympan.models.layers.attention import Ring
from tympan.models.layers.rope import frequencies
from tympan.models.layers.transformer import GatedFeedForward, GeluFeedForward, RMSNorm, Transformer, TransformerLayer

_LINKS_AT_ONCE = 2  # graphs under construction: ONNX Runtime packs the weights of each on one thread

Pack = Callable[[nn.Linear], PackedWeight | Tensor]
"""Returns the weight of a layer as it is multiplied."""


class CpuTransformer(SessionModule):
    """Runs the layers of ``source``, whose weights it takes over, and the norm ``out_norm`` after them if there is one.

    Args:
        source: The transformer; it loses its layers.
        pack: Packs the weight of a layer.
        out_norm: A norm to apply to the output.
    """

    def __init__(self, source: Transformer, pack: Pack, out_norm: nn.Module | None = None) -> None:
        self.config = source.config
        first = source.layers[0]
        assert isinstance(first, TransformerLayer)
        self._least_rows = least_rows(pack(first.in_proj))
        links: list[Future[Session]] = []
        previous: TransformerLayer | None = None
        with ThreadPoolExecutor(_LINKS_AT_ONCE) as pool:
            for _ in range(len(source.layers)):
                layer = source.layers.pop(0)
                assert isinstance(layer, TransformerLayer)
                links.append(pool.submit(_link, self.config, pack, previous, layer, None))
                previous = layer
            links.append(pool.submit(_link, self.config, pack, previous, None, out_norm))
        self._links = [link.result() for link in links]
        super().__init__(self._links)
        self._rings = RingAttention(source.config)

    def init_ring(self, slots: int, *, device: torch.device, dtype: torch.dtype) -> Ring:
        """Return an empty ring for ``slots`` streams."""
        return self._rings.empty(slots, dtype)

    def init_frequency(self, device: torch.device) -> Tensor:
        """Return the rotary frequencies, ``[D / 2]`` float32."""
        return frequencies(self.config.head_dimension, self.config.max_period)

    def forward(self, x: Tensor, ring: Ring, frequency: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Run new steps through all layers; the same as :meth:`Transformer.forward`."""
        batch, steps, dimension = x.shape
        padded = max(batch, self._least_rows)
        angle = repeat_single_row(positions, padded)[..., None].float() * frequency
        cos, sin = torch.cos(angle).numpy(), torch.sin(angle).numpy()  # [B, T, D / 2]
        attention = self._rings.over(ring, rows, positions)
        hidden = repeat_single_row(x, padded).reshape(-1, dimension).numpy()
        mixed = np.empty((padded, steps, dimension), np.float32)
        for layer, link in enumerate(self._links[:-1]):
            past = () if layer == 0 else (mixed.reshape(-1, dimension),)
            hidden, query, key, value = link.run(hidden, *past, cos, sin)
            attention.attend(layer, query[:batch], key[:batch], value[:batch], out=mixed[:batch])
            mixed[batch:] = mixed[0]
        (hidden,) = self._links[-1].run(hidden, mixed.reshape(-1, dimension))
        return torch.from_numpy(hidden).view(padded, steps, dimension)[:batch]


def _link(
    config: TransformerConfig,
    pack: Pack,
    previous: TransformerLayer | None,
    layer: TransformerLayer | None,
    out_norm: nn.Module | None,
) -> Session:
    """Return the graph from the attention of layer ``previous`` to that of ``layer``.

    Inputs: the residual stream ``[B * T, dimension]``; after a layer, its attention, of the same shape; before a layer,
    cosines and sines ``[B, T, D / 2]``. Outputs: the residual stream; before a layer, its query, key and value
    ``[B, H, T, D]``.
    """
    graph = Graph()
    x = graph.input("steps", config.dimension)
    if previous is not None:
        mixed = graph.input("steps", config.dimension)
        x = graph.op("Add", x, multiply(graph, mixed, pack(previous.out_proj)))
        normalized = norm(graph, x, previous.norm2)
        x = graph.op("Add", x, feed_forward(graph, normalized, previous.feed_forward, pack))
    if layer is None:
        return graph.compile(x if out_norm is None else norm(graph, x, out_norm))
    cos = graph.input("batch", "T", config.head_dimension // 2)
    sin = graph.input("batch", "T", config.head_dimension // 2)
    projected = multiply(graph, norm(graph, x, layer.norm1), pack(layer.in_proj))
    return graph.compile(x, *_heads(graph, config, projected, cos, sin))


def _heads(graph: Graph, config: TransformerConfig, projected: str, cos: str, sin: str) -> list[str]:
    """Split ``projected [B * T, 3 * dimension]`` into query, key and value ``[B, H, T, D]``; rotate the first two.

    Values are made finite, because attention multiplies those that a stream must not see by zero.
    """
    heads = config.heads
    sizes = graph.op("Slice", graph.op("Shape", cos), *(graph.constant([value]) for value in (0, 2)))
    shape = graph.op("Concat", sizes, graph.constant([3 * heads, config.head_dimension]), axis=0)
    by_head = graph.op("Transpose", graph.op("Reshape", projected, shape), perm=[0, 2, 1, 3])
    turning, value = graph.split(by_head, 1, [2 * heads, heads])
    turned = graph.op("RotaryEmbedding", turning, cos, sin, interleaved=1)
    zero = graph.constant(0.0)
    is_finite = graph.op("Equal", graph.op("Sub", value, value), zero)
    return [*graph.split(turned, 1, [heads, heads]), graph.op("Where", is_finite, value, zero)]


def norm(graph: Graph, x: str, module: nn.Module) -> str:
    """Add the norm ``module`` of ``x [rows, dimension]``."""
    if isinstance(module, RMSNorm):
        weight = graph.weight(module.weight.float())
        return graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=module.epsilon)
    assert isinstance(module, nn.LayerNorm)
    parameters = (graph.weight(module.weight), graph.weight(module.bias))
    return graph.op("LayerNormalization", x, *parameters, axis=-1, epsilon=module.eps)


def feed_forward(graph: Graph, x: str, module: nn.Module, pack: Pack) -> str:
    """Add the feed-forward ``module`` of ``x [rows, dimension]``."""
    if isinstance(module, GatedFeedForward):
        hidden = module.linear_out.in_features
        both = multiply(graph, x, pack(module.linear_in))
        gate, value = graph.split(both, 1, [hidden, hidden])
        hidden_state = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), value)
    else:
        assert isinstance(module, GeluFeedForward)
        hidden_state = graph.op("Gelu", multiply(graph, x, pack(module.linear_in)))
    return multiply(graph, hidden_state, pack(module.linear_out))
