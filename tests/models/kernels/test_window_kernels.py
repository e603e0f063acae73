"""The window kernel of the convolutions, compared with plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tympan.models.kernels.windows import gather_windows
from tympan.models.layers.conv import StreamingConv, with_past

SLOTS = 6
# Channels, kernel, stride, steps: SEANet's convolutions with fewer channels, the last with its fewest steps.
SHAPES = [(1, 7, 1, 48), (4, 3, 1, 48), (4, 8, 4, 48), (8, 10, 5, 20), (8, 12, 6, 12), (8, 16, 8, 16), (64, 3, 1, 2)]


@pytest.mark.parametrize(("channels", "kernel", "stride", "steps"), SHAPES)
@pytest.mark.parametrize("elu", [False, True])
def test_windows_and_history(channels: int, kernel: int, stride: int, steps: int, elu: bool) -> None:
    """Two calls with new and old streams in any order; the second reads the history that the first stored."""
    torch.manual_seed(kernel)
    conv = StreamingConv(channels, 3, kernel, stride)
    context = torch.randn(SLOTS, kernel - stride, channels)
    context[4] = torch.nan  # a slot with a new stream
    plain = context.clone()
    rows = torch.tensor([3, 4, 0])
    for call, fresh in enumerate(([False, True, False], [False, False, True])):
        new = torch.tensor(fresh)[:, None, None]
        x = torch.randn(3, steps, channels)
        x[0, : steps // 2] *= 1e-4  # where exp(x) - 1 would lose precision
        kept = x.clone()
        found = gather_windows(x, context, rows, new, kernel=kernel, stride=stride, elu=elu)
        joined = with_past(x, plain, rows, new)
        expected = conv._windows(functional.elu_(joined) if elu else joined)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, msg=f"call {call}")
        torch.testing.assert_close(context, plain, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(x, kept)


def test_elu() -> None:
    """From far below zero to far above, including the transition between the polynomial and the exponential."""
    x = torch.cat((torch.linspace(-40, 40, 4001), torch.linspace(-0.31, -0.29, 100), -torch.logspace(-30, 0, 155)))
    x = x[: x.numel() // 4 * 4].view(1, -1, 4)
    context, rows = torch.zeros(1, 1, 4), torch.zeros(1, dtype=torch.int64)
    fresh = torch.zeros(1, 1, 1, dtype=torch.bool)
    found = gather_windows(x, context, rows, fresh, kernel=2, stride=1, elu=True)[0, :, 4:]
    torch.testing.assert_close(found, functional.elu(x[0].double()).float(), rtol=4e-7, atol=0)
