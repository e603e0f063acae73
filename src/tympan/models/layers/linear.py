"""Linear layers that compute float32 products on a CPU in the fastest of several variants.

PyTorch computes a float32 product with MKL, whose speed varies by up to three times with the processor, the number of
rows and the order of the operands. All variants below compute the same sums in float32, in different orders. The
fastest is measured once per process, shape, and number of rows rounded up to a power of two.
"""

from __future__ import annotations

import functools
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.layers.fastest import Calls, fastest

Variant = Literal["plain", "swapped", "packed"]

_MIN_WEIGHT_ELEMENTS = 1 << 15  # all variants take the same time for smaller weights
_MAX_SWAPPED_ROWS = 32
_MARGIN = 1.2  # the variant that suits any number of rows may take this much longer than the fastest
_TRIAL_BYTES, _MAX_TRIAL_WEIGHTS = 16 << 20, 8  # more than the caches of a core hold


class Linear(nn.Linear):
    """``x [..., in]`` times the weight ``[out, in]``, plus the bias if there is one.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether there is a bias.
        may_copy: Whether the layer may keep a reordered copy of its weight on a CPU. The weight must not be changed in
            place after the first call.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, may_copy: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self.may_copy = may_copy
        self._product: CpuProduct | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` in the dtype of ``x``."""
        if not has_variants(x):
            return functional.linear(x, self.weight, self.bias)
        if self._product is None or self._product.weight is not self.weight:
            self._product = CpuProduct(self.weight, self.bias, may_copy=self.may_copy)
        flat = self._product(x.reshape(-1, x.shape[-1]))
        return flat.view(*x.shape[:-1], flat.shape[-1])


def has_variants(x: Tensor) -> bool:
    """Return whether there is a choice of variants for products of ``x``."""
    return x.device.type == "cpu" and x.dtype == torch.float32


class CpuProduct:
    """``x [rows, in]`` times ``weight [out, in]``, plus ``bias [out]``; float32 on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, may_copy: bool) -> None:
        self.weight = weight
        self.bias = bias
        self.may_copy = may_copy
        self._packed_weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[rows, out]``, computed by the fastest variant."""
        rows = 1 << (len(x) - 1).bit_length()
        return self.run(fastest_variant(rows, self.weight.shape[0], self.weight.shape[1], self.may_copy), x)

    def run(self, variant: Variant, x: Tensor) -> Tensor:
        """Return ``[rows, out]``, computed by ``variant``."""
        if variant == "plain":
            return functional.linear(x, self.weight, self.bias)
        return self._swapped(x) if variant == "swapped" else self._packed(x)

    def _swapped(self, x: Tensor) -> Tensor:
        """Put the weight on the left. A single row is doubled, because MKL's product with one column is slower."""
        columns = (x if len(x) > 1 else torch.cat((x, x))).t()
        y = self.weight @ columns if self.bias is None else torch.addmm(self.bias[:, None], self.weight, columns)
        return y.t()[: len(x)].contiguous()

    def _packed(self, x: Tensor) -> Tensor:
        """Use oneDNN, whose order of the weight suits any number of rows."""
        if self._packed_weight is None:
            self._packed_weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), _MAX_SWAPPED_ROWS)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed_weight, self.bias, "none", [], "")
        return y


@functools.cache
def packed_available() -> bool:
    """Return whether oneDNN's product works here. It is not part of PyTorch's public API."""
    x, weight = torch.ones(2, 64), torch.ones(64, 64)
    try:
        return torch.equal(CpuProduct(weight, None, may_copy=True).run("packed", x), x @ weight.t())
    except (AttributeError, RuntimeError, TypeError):  # absent, not for this processor, or another signature
        return False


@functools.cache
def fastest_variant(rows: int, out_features: int, in_features: int, may_copy: bool) -> Variant:
    """Return the fastest variant for a product of ``[rows, in]`` and ``[out, in]``, measured on the first call."""
    if out_features * in_features < _MIN_WEIGHT_ELEMENTS:
        return "plain"
    variants: list[Variant] = ["packed"] if may_copy and packed_available() else []
    if rows <= _MAX_SWAPPED_ROWS:
        variants.append("swapped")
    variants.append("plain")
    # Few rows are bound by memory, so the trial must read its weights from memory and not from a cache.
    fitting = _TRIAL_BYTES // (4 * out_features * in_features)
    count = max(1, min(fitting, _MAX_TRIAL_WEIGHTS)) if rows <= _MAX_SWAPPED_ROWS else 1
    with torch.inference_mode():
        x = torch.ones(rows, in_features)
        products = [CpuProduct(torch.ones(out_features, in_features), None, may_copy=may_copy) for _ in range(count)]
        calls: dict[str, Calls] = {
            variant: [functools.partial(product.run, variant, x) for product in products] for variant in variants
        }
        return cast(Variant, fastest(calls, margin=_MARGIN))
