"""Matrix products of the graphs, with float32, 8-bit or 4-bit weights.

Low-bit weights are rounded to nearest in blocks of an input's channels, without calibration data. The scale of a 4-bit
block comes from its extreme values, and then twice from a least-squares fit to the levels that it gave:

====  =====  ==============================================================================
bits  block  weight
====  =====  ==============================================================================
8     128    ``(level - 128) * scale`` with a float32 scale per block
4     32     ``(level - zero) * scale`` with a float32 scale and a 4-bit zero point per block
====  =====  ==============================================================================

ONNX Runtime's ``MatMulNBits`` multiplies them by inputs that it rounds to 8 bits, with a scale per row and block. This
costs as much accuracy as rounding the weights to 8 bits. An input of 8-bit weights is therefore passed as two rows: its
rounded values, and what the rounding left over. The weights are read once for both, and reading takes most of the time.

The kernel depends on the instruction set, on the sizes of the weight and, with 4 bits, on whether there is a single
row: that is summed in another order, so a single row is computed as two (:func:`least_rows`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tympan.models.cpu.graph import Array, Graph, SessionModule

WeightType = Literal["f32", "int8", "int4"]

_BLOCKS = {8: 128, 4: 32}  # input channels per scale
_INTEGER_INPUTS = 4  # MatMulNBits' accuracy_level for inputs of 8 bits
_BLOCK_CHANNELS = 256  # quantized at once, so that intermediate results stay in the processor's cache
_REFITS = 2  # of a 4-bit block's scale
_SMALLEST = 1e-30  # avoids a division by zero for blocks of zeros


class PackedWeight(NamedTuple):
    """A low-bit weight ``[out, in]``; nb is the number of blocks of ``in``.

    Attributes:
        bits: 8 or 4.
        in_features: Size of the input; the last block of ``levels`` may be padded.
        levels: ``[out, nb, bytes per block]`` uint8; of two 4-bit levels in a byte, the low one is the first.
        scale: ``[out, nb]`` float32.
        zero: ``[out, (nb + 1) / 2]`` uint8, two zero points per byte; None for 8 bits.
    """

    bits: int
    in_features: int
    levels: Array
    scale: Array
    zero: Array | None = None


def least_rows(weight: Tensor | PackedWeight) -> int:
    """Return the smallest number of rows whose results do not depend on the number of rows."""
    return 2 if isinstance(weight, PackedWeight) and weight.bits == 4 else 1


def pack(weight: Tensor, kind: WeightType) -> PackedWeight | Tensor:
    """Round ``weight [out, in]`` of any floating-point dtype to ``kind``; float32 stays a tensor."""
    if kind == "f32":
        return weight.detach().float()
    bits = 8 if kind == "int8" else 4
    quantize = _quantize_8_bits if bits == 8 else _quantize_4_bits
    parts = [quantize(channels.detach().float()) for channels in torch.split(weight, _BLOCK_CHANNELS)]
    levels, scale, *zero = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    return PackedWeight(bits, weight.shape[1], levels, scale, *zero)


def _in_blocks(weight: Tensor, bits: int) -> Tensor:
    """Pad ``weight [out, in]`` with zeros, and return its blocks ``[out, nb, block]``."""
    block = _BLOCKS[bits]
    return functional.pad(weight, (0, -weight.shape[1] % block)).view(len(weight), -1, block)


def _quantize_8_bits(weight: Tensor) -> tuple[Tensor, ...]:
    blocks = _in_blocks(weight, 8)
    scale = blocks.abs().amax(dim=2).div_(127).clamp_min_(_SMALLEST)
    levels = (blocks / scale[..., None]).round_().add_(128).to(torch.uint8)
    return levels, scale


def _quantize_4_bits(weight: Tensor) -> tuple[Tensor, ...]:
    blocks = _in_blocks(weight, 4)
    low, high = blocks.aminmax(dim=2)
    low, high = low.clamp_max_(0), high.clamp_min_(0)
    scale = (high - low).div_(15).clamp_min_(_SMALLEST)
    zero = (-low / scale).round_().clamp_(0, 15)
    for _ in range(_REFITS):
        steps = _steps_of(blocks, scale, zero)
        scale = ((steps * blocks).sum(2) / steps.square().sum(2).clamp_min_(_SMALLEST)).clamp_min_(_SMALLEST)
    levels = _steps_of(blocks, scale, zero).add_(zero[..., None]).to(torch.uint8)
    zeros = functional.pad(zero.to(torch.uint8), (0, zero.shape[1] % 2))
    return levels[..., ::2] | levels[..., 1::2] << 4, scale, zeros[:, ::2] | zeros[:, 1::2] << 4


def _steps_of(blocks: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return how many steps of ``scale [out, nb]`` each 4-bit weight of ``blocks`` is from ``zero``."""
    zero = zero[..., None]
    return (blocks / scale[..., None]).round_().add_(zero).clamp_(0, 15).sub_(zero)


def multiply(graph: Graph, x: str, weight: Tensor | PackedWeight, bias: Tensor | None = None) -> str:
    """Add the product of ``x [rows, in]`` and ``weight [out, in]``, plus ``bias [out]``: ``[rows, out]``.

    Only a float32 weight may have a bias.
    """
    if isinstance(weight, Tensor):
        inputs = [x, graph.weight(weight), *([] if bias is None else [graph.weight(bias)])]
        return graph.op("Gemm", *inputs, transB=1)
    assert bias is None
    block, blocks = _BLOCKS[weight.bits], weight.scale.shape[1]
    padding = blocks * block - weight.in_features
    padded = graph.op("Pad", x, graph.constant([0, 0, 0, padding])) if padding else x
    if weight.bits == 4:
        return _low_bit_product(graph, padded, weight)
    high, low = _rounded_and_rest(graph, graph.reshape(padded, -1, blocks, block))
    both = graph.reshape(graph.op("Concat", high, low, axis=0), -1, blocks * block)
    return graph.op("Add", *graph.halves(_low_bit_product(graph, both, weight)))


def _rounded_and_rest(graph: Graph, blocks: str) -> tuple[str, str]:
    """Add the rounding of ``blocks [rows, nb, block]`` to 8 bits, and the remainder, which is rounded later."""
    largest = graph.op("ReduceMax", graph.op("Abs", blocks), graph.constant([2]), keepdims=1)
    scale = graph.op("Mul", graph.op("Max", largest, graph.constant(_SMALLEST)), graph.constant(1 / 127))
    rounded = graph.op("Mul", graph.op("Round", graph.op("Div", blocks, scale)), scale)
    return rounded, graph.op("Sub", blocks, rounded)


def _low_bit_product(graph: Graph, x: str, weight: PackedWeight) -> str:
    inputs = [x, graph.weight(weight.levels), graph.weight(weight.scale)]
    if weight.zero is not None:
        inputs.append(graph.weight(weight.zero))
    return graph.own_op(
        "MatMulNBits",
        *inputs,
        K=weight.scale.shape[1] * _BLOCKS[weight.bits],
        N=len(weight.levels),
        bits=weight.bits,
        block_size=_BLOCKS[weight.bits],
        accuracy_level=_INTEGER_INPUTS,
    )


class CpuLinear(SessionModule):
    """``x [..., in]`` float32 times one weight, plus the bias if there is one."""

    def __init__(self, weight: Tensor | PackedWeight, bias: Tensor | None = None) -> None:
        self.in_features = weight.in_features if isinstance(weight, PackedWeight) else weight.shape[1]
        self._least_rows = least_rows(weight)
        graph = Graph()
        self._session = graph.compile(multiply(graph, graph.input("rows", self.in_features), weight, bias))
        super().__init__([self._session])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]``."""
        rows = x.reshape(-1, self.in_features)
        padded = repeat_single_row(rows, self._least_rows)
        (out,) = self._session.run(padded.numpy())
        return torch.from_numpy(out[: len(rows)]).view(*x.shape[:-1], -1)


def repeat_single_row(rows: Tensor, least: int) -> Tensor:
    """Return ``rows`` or, if there are fewer than ``least``, copies of the only one."""
    return rows if len(rows) >= least else rows.expand(least, *rows.shape[1:]).contiguous()
