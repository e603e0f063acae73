"""Linear layers whose weights are stored in fewer bits.

On a CPU, a step of the language model takes about as long as reading its weights once, so that fewer bytes take less
time. Weights are rounded to nearest, without calibration data. Activations keep at least the precision of bf16.

A layer maps ``[..., in]`` to ``[..., out]`` of the same dtype, without a bias, on the device of the weight from which
it was made. It has no parameters and no buffers, and is therefore absent from state dicts. With "int8" and "int4" the
result of a row does not depend on the other rows, to the bit. With the floating-point types it may differ in the last
bits, because matrix libraries sum a single row in another order.

"int8" and "int4" are for CPUs. On a GPU they would widen the whole weight and multiply row by row, so
`tympan.engine.kyutai.placement.place` rejects them there.
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
    """A layer that stores its weight, and multiplies, in one floating-point dtype."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = weight.detach().to(dtype)  # [out, in]; a plain attribute: not a parameter, not a buffer
        self.out_features, self.in_features = weight.shape

    @property
    def size_bytes(self) -> int:
        """Memory of the weight."""
        return self.weight.nbytes

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` in the dtype of ``x [..., in]``."""
        return functional.linear(x.to(self.weight.dtype), self.weight).to(x.dtype)


WeightLinear = DenseLinear | Int8Linear | Int4Linear


def linear_for(weight: Tensor, kind: WeightType) -> WeightLinear:
    """Return a layer that stores ``weight [out, in]``, of any floating-point dtype, as ``kind``."""
    if kind == "int8":
        return Int8Linear.from_weight(weight)
    if kind == "int4":
        return Int4Linear.from_weight(weight)
    return DenseLinear(weight, _DENSE[kind])


def replace_linears(module: nn.Module, kind: WeightType) -> None:
    """Replace every ``nn.Linear`` inside ``module``, none of which may have a bias, by one that stores ``kind``.

    Layers are replaced one at a time, so that only one layer's weight is in memory twice.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            assert len(list(child.parameters())) == 1, "a low-bit layer has no bias"
            setattr(module, name, linear_for(child.weight, kind))
        else:
            replace_linears(child, kind)
