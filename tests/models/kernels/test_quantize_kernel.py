"""The kernel that converts rows to 8-bit floats, compared with plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tympan.models.layers.attention import FP8, LARGEST_FP8
from tympan.models.layers.fp8 import quantize_rows, to_fp8


def representable(rows: int, width: int) -> Tensor:
    """Return values that need no rounding to 8 bits, because the interpreter rounds some values incorrectly."""
    x = torch.randn(rows, width).clamp(-3, 3).to(FP8).float()
    x[:, width // 2] = LARGEST_FP8 / 64
    return x * 2.0 ** torch.randint(-9, 9, (rows, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (7, 100), (300, 16)])
def test_quantize_rows(rows: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    x = representable(rows, width).to(dtype)
    expected, expected_scale = to_fp8(x)
    found, scale = quantize_rows(x)
    assert found.dtype == FP8
    assert torch.equal(scale, expected_scale)
    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))
    torch.testing.assert_close(found.float() * scale, x.float(), rtol=1e-6, atol=0)


def test_scales() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 200) * torch.logspace(-14, 9, 20)[:, None]
    assert torch.equal(quantize_rows(x)[1], to_fp8(x)[1])


def test_zeros_and_nan() -> None:
    torch.manual_seed(0)
    x = representable(4, 64)
    x[0] = 0
    expected = to_fp8(x)
    x[2, 5] = torch.nan
    found, scale = quantize_rows(x)
    assert not found[0].float().any()
    for row in (0, 1, 3):
        assert torch.equal(found[row].view(torch.uint8), expected[0][row].view(torch.uint8))
        assert torch.equal(scale[row], expected[1][row])


def test_strided_input() -> None:
    x = representable(6, 32)
    assert torch.equal(quantize_rows(x[::2])[0].view(torch.uint8), to_fp8(x[::2])[0].view(torch.uint8))
