"""Linear layers whose float32 products on a CPU take the way that is fastest there.

PyTorch hands a float32 product to MKL. How well MKL does depends on the processor, the number of rows and the order of
the operands: differences of three times are common. All ways below compute the same sums, in float32, each in an order
of its own. Which one is fastest is tried once per process, number of rows (by powers of two) and shape.
"""

from __future__ import annotations

import functools
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.layers.fastest import Calls, fastest

Way = Literal["plain", "swapped", "packed"]

_SMALLEST_WEIGHT = 1 << 15  # elements; below that nothing is gained
_MOST_ROWS_TO_SWAP = 32
_MARGIN = 1.2  # the way that suits any number of rows may take that much longer than the fastest
_TRIAL_BYTES, _MOST_TRIALS = 16 << 20, 8  # of weights: more than the caches next to a core hold


class Linear(nn.Linear):
    """``x [..., in]`` times the weight ``[out, in]``, plus the bias where there is one.

    may_copy: on a CPU the layer may keep its weight a second time, in another order. The weight must not be changed in
    place once the layer has been used.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, may_copy: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self.may_copy = may_copy
        self._product: Product | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not multiplies_here(x):
            return functional.linear(x, self.weight, self.bias)
        if self._product is None or self._product.weight is not self.weight:
            self._product = Product(self.weight, self.bias, may_copy=self.may_copy)
        flat = self._product(x.reshape(-1, x.shape[-1]))
        return flat.view(*x.shape[:-1], flat.shape[-1])


def multiplies_here(x: Tensor) -> bool:
    """Whether there is a choice of ways for products of ``x``."""
    return x.device.type == "cpu" and x.dtype == torch.float32


class Product:
    """``x [rows, in]`` times ``weight [out, in]``, plus ``bias [out]``; float32 in a CPU's memory."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, may_copy: bool) -> None:
        self.weight = weight
        self.bias = bias
        self.may_copy = may_copy
        self._copy: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        rows = 1 << (len(x) - 1).bit_length()
        return self.by(fastest_way(rows, self.weight.shape[0], self.weight.shape[1], self.may_copy), x)

    def by(self, way: Way, x: Tensor) -> Tensor:
        if way == "plain":
            return functional.linear(x, self.weight, self.bias)
        return self._swapped(x) if way == "swapped" else self._packed(x)

    def _swapped(self, x: Tensor) -> Tensor:
        """With the weight on the left. A lone row goes in twice: MKL's product with a single column is slower."""
        columns = (x if len(x) > 1 else torch.cat((x, x))).t()
        y = self.weight @ columns if self.bias is None else torch.addmm(self.bias[:, None], self.weight, columns)
        return y.t()[: len(x)].contiguous()

    def _packed(self, x: Tensor) -> Tensor:
        """By oneDNN, whose order of the weight suits any number of rows."""
        if self._copy is None:
            self._copy = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), _MOST_ROWS_TO_SWAP)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._copy, self.bias, "none", [], "")
        return y


@functools.cache
def packing_runs() -> bool:
    """Whether oneDNN's product exists here; PyTorch does not promise to keep it."""
    x, weight = torch.ones(2, 64), torch.ones(64, 64)
    try:
        return torch.equal(Product(weight, None, may_copy=True).by("packed", x), x @ weight.t())
    except (AttributeError, RuntimeError, TypeError):  # absent, not for this processor, or another signature
        return False


@functools.cache
def fastest_way(rows: int, out_features: int, in_features: int, may_copy: bool) -> Way:
    """The fastest way to multiply ``[rows, in]`` by a weight ``[out, in]``; it is tried on the first call."""
    if out_features * in_features < _SMALLEST_WEIGHT:
        return "plain"
    ways: list[Way] = ["packed"] if may_copy and packing_runs() else []
    if rows <= _MOST_ROWS_TO_SWAP:
        ways.append("swapped")
    ways.append("plain")
    # Many rows keep the processor busy, few rows its memory: then the weight must come from there.
    fitting = _TRIAL_BYTES // (4 * out_features * in_features)
    count = max(1, min(fitting, _MOST_TRIALS)) if rows <= _MOST_ROWS_TO_SWAP else 1
    with torch.inference_mode():
        x = torch.ones(rows, in_features)
        products = [Product(torch.ones(out_features, in_features), None, may_copy=may_copy) for _ in range(count)]
        calls: dict[str, Calls] = {way: [functools.partial(product.by, way, x) for product in products] for way in ways}
        return cast(Way, fastest(calls, margin=_MARGIN))
