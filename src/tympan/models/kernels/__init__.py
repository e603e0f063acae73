"""Triton kernels for the steps where PyTorch would start many small kernels or copy the ring.

Each has a plain PyTorch equal in the models, which runs on a CPU and where Triton is missing; tests compare the two in
Triton's interpreter. This module imports no Triton: `usable` says whether the others can be imported.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil

import torch

_OLDEST_CAPABILITY = (8, 0)  # what Triton compiles for; older cards take the plain path


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether kernels can run on tensors of ``device``: a GPU new enough, or a CPU under Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        return False
    from triton import knobs

    if device.type == "cuda":
        # Triton compiles what calls a kernel in C, on first use.
        compiler = knobs.build.cc or shutil.which("clang") or shutil.which("gcc")
        return bool(compiler) and torch.cuda.get_device_capability(device) >= _OLDEST_CAPABILITY
    return device.type == "cpu" and bool(knobs.runtime.interpret)
