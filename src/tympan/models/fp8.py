"""Linear layers whose weights are 8-bit floats (e4m3), multiplied by the GPU's own 8-bit product.

Each output channel has a scale, and so has each row of the input, so that a row never depends on the rows beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tympan.models.attention import FP8, LARGEST_FP8

_SMALLEST = 1e-12  # keeps the division defined for rows of zeros


class Fp8Linear(nn.Module):
    """``x [..., in]`` times a weight ``[out, in]``, both multiples of 16, without a bias; the result has x's dtype."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.scale = to_fp8(weight.detach())  # plain attributes: no parameters, no buffers
        self.scale = self.scale.t()
        self.one = torch.ones((), device=weight.device)
        self.out_features, self.in_features = weight.shape

    @property
    def size_bytes(self) -> int:
        """Memory that the weight takes."""
        return self.weight.nbytes + self.scale.nbytes

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = to_fp8(x.reshape(-1, self.in_features))
        product = torch._scaled_mm(rows, self.weight.t(), self.one, self.one, out_dtype=torch.bfloat16)
        return (product.float() * scale * self.scale).to(x.dtype).view(*x.shape[:-1], self.out_features)


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x [n, m]`` as 8-bit floats, and the scale ``[n, 1]`` float32 of each row: its largest becomes 448."""
    wide = x.float()
    scale = wide.abs().amax(dim=1, keepdim=True).clamp_min(_SMALLEST) / LARGEST_FP8
    return (wide / scale).clamp(-LARGEST_FP8, LARGEST_FP8).to(FP8), scale


def replace_with_fp8(module: nn.Module) -> None:
    """Put an `Fp8Linear` in the place of every ``nn.Linear`` inside ``module``. The layers must have no bias."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Fp8Linear(child.weight))
        else:
            replace_with_fp8(child)
