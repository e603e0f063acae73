"""Linear layers with weights in 8-bit floats (e4m3), which the GPU multiplies by inputs in 8-bit floats.

Each output channel has a scale, and so has each row of the input, so that the result of a row does not depend on the
other rows.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tympan.models import kernels
from tympan.models.layers.attention import FP8, LARGEST_FP8

logger = logging.getLogger(__name__)

_SMALLEST = 1e-12  # avoids a division by zero for rows of zeros
_TRIAL_ROWS, _TRIAL_SHAPE = 3, (64, 256)  # of an input; of a weight
_TRIAL_ERROR = 0.01  # relative; rounding to bf16 alone is 0.002

ScaledProduct = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Fp8Linear(nn.Module):
    """``x [..., in]`` times a weight ``[out, in]``, without a bias.

    Args:
        weight: ``[out, in]`` of any floating-point dtype; both sizes are multiples of 16.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, scale = to_fp8(weight.detach())  # plain attributes: no parameters, no buffers
        self.scale = scale.view(1, -1)  # [1, out]
        self._multiply = product_for(weight.device)
        self.out_features, self.in_features = weight.shape

    @property
    def size_bytes(self) -> int:
        """Memory of the weight and its scales."""
        return self.weight.nbytes + self.scale.nbytes

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` in the dtype of ``x``."""
        rows, scale = quantize_rows(x.reshape(-1, self.in_features))
        product = self._multiply(rows, self.weight.t(), scale, self.scale)
        return product.to(x.dtype).view(*x.shape[:-1], self.out_features)


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Convert ``x [n, m]`` to 8-bit floats and a scale ``[n, 1]`` float32 per row, whose largest value becomes 448."""
    wide = x.float()
    scale = wide.abs().amax(dim=1, keepdim=True).clamp_min(_SMALLEST) / LARGEST_FP8
    return (wide / scale).clamp(-LARGEST_FP8, LARGEST_FP8).to(FP8), scale


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as :func:`to_fp8`, computed by one kernel where Triton works."""
    if not kernels.usable(x.device):
        return to_fp8(x)
    from tympan.models.kernels import fused

    return fused.quantize_rows(x, smallest=_SMALLEST, largest=LARGEST_FP8)


def multiply_scaled(rows: Tensor, columns: Tensor, row_scales: Tensor, column_scales: Tensor) -> Tensor:
    """Return ``(rows * row_scales) @ (columns * column_scales)`` as bf16 ``[B, out]``, computed by one kernel.

    Args:
        rows: ``[B, in]`` float8_e4m3fn.
        columns: ``[in, out]`` float8_e4m3fn, the transpose of a contiguous weight.
        row_scales: ``[B, 1]`` float32.
        column_scales: ``[1, out]`` float32.
    """
    return torch._scaled_mm(rows, columns, row_scales, column_scales, out_dtype=torch.bfloat16)


def multiply_then_scale(
    rows: Tensor, columns: Tensor, row_scales: Tensor, column_scales: Tensor, *, one: Tensor
) -> Tensor:
    """Return the same as :func:`multiply_scaled`, in float32 and by several kernels; ``one`` is a float32 scalar."""
    product = torch._scaled_mm(rows, columns, one, one, out_dtype=torch.bfloat16)
    return product.float() * row_scales * column_scales


@functools.cache
def product_for(device: torch.device) -> ScaledProduct:
    """Return :func:`multiply_scaled` if it works on ``device``, else :func:`multiply_then_scale`.

    A small trial decides, because the GPUs that support a scale per row differ between versions of PyTorch and cuBLAS:
    compute capability 9.0 supports it in all of them, 8.9 through CUTLASS, 12.0 not with PyTorch 2.10.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_TRIAL_ROWS, _TRIAL_SHAPE[1], generator=generator)
    weight = torch.randn(_TRIAL_SHAPE, generator=generator)
    try:
        if all(_is_correct(x[:count], weight, device) for count in (1, _TRIAL_ROWS)):
            return multiply_scaled
        reason = "wrong results"
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
    logger.info("8-bit products with a scale per row are not available on %s: %s", device, reason)
    return functools.partial(multiply_then_scale, one=torch.ones((), device=device))


def _is_correct(x: Tensor, weight: Tensor, device: torch.device) -> bool:
    (rows, row_scales), (channels, channel_scales) = to_fp8(x), to_fp8(weight)
    expected = (rows.float() * row_scales) @ (channels.float() * channel_scales).t()
    on_device = [part.to(device) for part in (rows, channels, row_scales, channel_scales)]
    found = multiply_scaled(on_device[0], on_device[1].t(), on_device[2], on_device[3].view(1, -1))
    return bool((found.float().cpu() - expected).norm() < _TRIAL_ERROR * expected.norm())


def replace_with_fp8(module: nn.Module) -> None:
    """Replace every ``nn.Linear`` inside ``module``, none of which may have a bias, by an `Fp8Linear`."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Fp8Linear(child.weight))
        else:
            replace_with_fp8(child)
