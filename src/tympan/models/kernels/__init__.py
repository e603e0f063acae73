"""Triton kernels for the steps where PyTorch would start many small kernels or copy the ring.

Each has a plain PyTorch equal in the models, which runs on a CPU and where Triton does not work; tests compare the two
in Triton's interpreter. This module imports no Triton: `usable` says whether the others can be imported.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

_OLDEST_CAPABILITY = (8, 0)  # what Triton compiles for; older cards take the plain path


@functools.cache
def usable(device: torch.device) -> bool:
    """Return whether kernels run on tensors of ``device``; never raises.

    The first call for a GPU compiles and launches a small kernel, so it must come before any CUDA graph is recorded:
    `tympan.engine.kyutai.placement.prepare` makes it when a model is loaded. If it fails, one warning names the cause.
    On a CPU kernels run under Triton's interpreter only, and only if something else has already imported Triton.
    """
    if device.type != "cuda":
        knobs: Any = getattr(sys.modules.get("triton"), "knobs", None)
        return device.type == "cpu" and knobs is not None and bool(knobs.runtime.interpret)
    if device == torch.device("cuda") and torch.cuda.is_available():
        return usable(torch.device("cuda", torch.cuda.current_device()))  # so that each GPU is tried once
    try:
        cause = _missing(device)
        if not cause:
            from tympan.models.kernels.trial import launch

            launch(device)
    except Exception as error:  # whatever it is, the model also runs without the kernels
        cause = _explain(error)
    if cause:
        logger.warning("Triton kernels are disabled, steps are slower: %s", cause)
    return not cause


def _missing(device: torch.device) -> str:
    """Return what is known to be missing without a trial, or an empty string."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST_CAPABILITY:
        needed = ".".join(map(str, _OLDEST_CAPABILITY))
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, Triton needs {needed} or later"
    return ""


def _explain(error: Exception) -> str:
    """Return the cause of a failed trial. Triton compiles each kernel's launcher in C, with Python's headers."""
    if isinstance(error, RuntimeError) and "C compiler" in str(error):
        return "no C compiler (install gcc, or set CC)"
    if isinstance(error, subprocess.CalledProcessError) and not _has_python_header():
        return "no Python.h (install python3-dev)"
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _has_python_header() -> bool:
    folder = sysconfig.get_path("include", "posix_prefix")  # where Triton looks
    return Path(folder, "Python.h").exists()
