"""Linear layers that hold their weights in fewer bits.

On a CPU a step of the language model costs about what it costs to read the weights once, so fewer bytes are less time.
Weights are rounded to nearest and no calibration data is needed; activations are never rounded to 8 bits alone.

A layer takes ``[..., in_features]`` and gives ``[..., out_features]`` in the same element type, without a bias, on the
device of the weight it was made from. It has no parameters and no buffers, so it never appears in a state dict. With
"int8" and "int4" a row's result does not depend, to the bit, on the rows beside it. With the floating point types it
may differ in the last bits, because matrix libraries sum a lone row in another order than a row among others.

The products of "int8" and "int4" are made for a CPU. On a GPU they widen the whole weight and multiply row by row, so
`tympan.engine.kyutai.placement.place` refuses them there: bf16 and 8-bit floats are faster.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.layers.quantized_int4 import Int4Linear
from tympan.models.layers.quantized_int8 import Int8Linear

WeightType = Literal["f32", "bf16", "f16", "int8", "int4"]

_DENSE = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class DenseLinear(nn.Module):
    """A layer whose weight is stored, and multiplied, in one floating point type."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = weight.detach().to(dtype)  # [out, in]; a plain attribute: not a parameter, not a buffer
        self.out_features, self.in_features = weight.shape

    @property
    def size_bytes(self) -> int:
        """Memory that the weight takes."""
        return self.weight.nbytes

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight).to(x.dtype)


WeightLinear = DenseLinear | Int8Linear | Int4Linear


def linear_for(weight: Tensor, kind: WeightType) -> WeightLinear:
    """The layer that multiplies by ``weight [out, in]`` (any floating point type) and stores it as ``kind``."""
    if kind == "int8":
        return Int8Linear.from_weight(weight)
    if kind == "int4":
        return Int4Linear.from_weight(weight)
    return DenseLinear(weight, _DENSE[kind])


def replace_linears(module: nn.Module, kind: WeightType) -> None:
    """Put ``linear_for(layer.weight, kind)`` in the place of every ``nn.Linear`` inside ``module``.

    One layer at a time, so that both copies exist of one layer only. The layers must have no bias.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            assert len(list(child.parameters())) == 1, "a low-bit layer has no bias"
            setattr(module, name, linear_for(child.weight, kind))
        else:
            replace_linears(child, kind)
