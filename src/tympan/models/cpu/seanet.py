"""SEANet as one graph, with the histories of its convolutions as inputs and outputs.

Signals are images ``[B, channels, 1, steps]``, for which ONNX Runtime has the fastest kernels. Those read each weight
once per row of the batch. The last convolutions have large weights and few steps, and are matrix products of all rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tympan.models.cpu.graph import Graph, Session, SessionModule
from tympan.models.cpu.linear import multiply
from tympan.models.layers.conv import StreamingConv
from tympan.models.seanet import SeanetEncoder, Stage

_FEW_STEPS = 8  # outputs per row up to which a convolution is a matrix product


class CpuSeanet(SessionModule):
    """Runs the convolutions of ``source`` on frames of ``frame_samples``, with the same state."""

    def __init__(self, source: SeanetEncoder, frame_samples: int) -> None:
        contexts = source.init_contexts(1, device=torch.device("meta"))
        self._context_shapes = [context.shape[1:] for context in contexts]
        self._session = _Builder(frame_samples).compile(source)
        super().__init__([self._session])

    def init_contexts(self, slots: int, *, device: torch.device) -> list[Tensor]:
        """Return the histories of the convolutions, ``[slots, kernel - stride, in]`` float32, in order of use."""
        return [torch.zeros(slots, *shape, device=device) for shape in self._context_shapes]

    def forward(self, x: Tensor, contexts: list[Tensor], rows: Tensor, fresh: Tensor) -> Tensor:
        """Encode one frame of each row and advance the histories; the same as :meth:`SeanetEncoder.forward`."""
        past = [context.index_select(0, rows).masked_fill_(fresh, 0.0) for context in contexts]
        out, *histories = self._session.run(x.contiguous().numpy(), *(history.numpy() for history in past))
        for context, history in zip(contexts, histories, strict=True):
            context.index_copy_(0, rows, torch.from_numpy(history))
        return torch.from_numpy(out)


class _Builder:
    """Builds the graph; the first input is ``[B, samples, 1]``, the others are histories ``[B, steps, channels]``."""

    def __init__(self, frame_samples: int) -> None:
        self._graph = Graph()
        self._frame_samples = frame_samples
        self._steps = frame_samples  # of the signal so far
        self._histories: list[str] = []

    def compile(self, source: SeanetEncoder) -> Session:
        """Return the session; its outputs are the signal ``[B, T, dimension]`` and the new histories."""
        graph = self._graph
        frame = graph.input("batch", self._frame_samples, 1)
        x = self._stream(graph.op("Unsqueeze", self._swapped(frame), graph.constant([2])), source.first, elu=False)
        for stage in source.stages:
            assert isinstance(stage, Stage)
            hidden = self._stream(x, stage.residual.narrow)
            x = graph.op("Add", self._convolve(graph.op("Elu", hidden), stage.residual.widen), x)
            x = self._stream(x, stage.down)
        x = self._stream(x, source.last)
        signal = self._swapped(graph.op("Squeeze", x, graph.constant([2])))
        return graph.compile(signal, *self._histories)

    def _swapped(self, x: str) -> str:
        return self._graph.op("Transpose", x, perm=[0, 2, 1])

    def _stream(self, x: str, conv: StreamingConv, *, elu: bool = True) -> str:
        """Prepend the history to ``x``, keep the end as the new history, and convolve; as `StreamingConv.stream`."""
        graph = self._graph
        past = graph.input("batch", conv.context_steps, conv.in_channels)
        joined = graph.op("Concat", graph.op("Unsqueeze", self._swapped(past), graph.constant([2])), x, axis=3)
        end = graph.slice(joined, 3, -conv.context_steps)
        self._histories.append(self._swapped(graph.op("Squeeze", end, graph.constant([2]))))
        return self._convolve(graph.op("Elu", joined) if elu else joined, conv)

    def _convolve(self, x: str, conv: StreamingConv) -> str:
        """Convolve ``x [B, in, 1, kernel - stride + T]``: ``[B, out, 1, T / stride]``."""
        graph = self._graph
        self._steps //= conv.stride
        assert conv.bias is not None
        if self._steps <= _FEW_STEPS and conv.kernel > 1:
            return self._product(x, conv)
        weight = conv.weight.view(conv.out_channels, conv.kernel, conv.in_channels).transpose(1, 2).unsqueeze(2)
        parameters = (graph.weight(weight), graph.weight(conv.bias))
        return graph.op("Conv", x, *parameters, kernel_shape=[1, conv.kernel], strides=[1, conv.stride])

    def _product(self, x: str, conv: StreamingConv) -> str:
        graph = self._graph
        signal = graph.op("Transpose", x, perm=[0, 2, 3, 1])  # [B, 1, steps, in]
        windows = [
            graph.slice(signal, 2, step * conv.stride, step * conv.stride + conv.kernel) for step in range(self._steps)
        ]
        flat = graph.reshape(graph.op("Concat", *windows, axis=1), -1, conv.kernel * conv.in_channels)
        product = multiply(graph, flat, conv.weight, conv.bias)
        return graph.op("Transpose", graph.reshape(product, -1, 1, self._steps, conv.out_channels), perm=[0, 3, 1, 2])
