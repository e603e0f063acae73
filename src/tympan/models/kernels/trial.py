"""A small kernel that is compiled, launched and checked to find out whether Triton works on a device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_LANES = 32


@triton.jit
def _add_one(x, LANES: tl.constexpr):
    lane = tl.arange(0, LANES)
    tl.store(x + lane, tl.load(x + lane) + 1.0)


def launch(device: torch.device) -> None:
    """Run the kernel on ``device``.

    Raises:
        RuntimeError: The result is wrong.
        Exception: Any error of Triton's compiler, assembler or launcher.
    """
    # The kernels are written for fused multiply-adds. Triton 3.9 warns that these will no longer be the default.
    triton.knobs.language.default_fp_fusion = True
    x = torch.zeros(_LANES, device=device)
    _add_one[(1,)](x, LANES=_LANES)
    if not bool((x == 1.0).all()):
        raise RuntimeError("the trial kernel computed a wrong result")
