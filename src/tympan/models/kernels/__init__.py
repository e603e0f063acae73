"""Triton kernels for operations that would take PyTorch many small kernels or a copy of the ring.

Each has a plain PyTorch equivalent in the models, for CPUs and for GPUs where Triton does not work. The tests compare
the two in Triton's interpreter. This module does not import Triton; :func:`usable` returns whether the modules beside
it can be imported.
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

_OLDEST_CAPABILITY = (8, 0)  # the oldest that Triton supports


@functools.cache
def usable(device: torch.device) -> bool:
    """Return whether kernels work on tensors of ``device``; never raises.

    The first call for a GPU compiles and launches a small kernel, and logs a warning with the cause if that fails. It
    must precede the recording of any CUDA graph; `tympan.engine.kyutai.placement.prepare` makes it when a model is
    loaded. On a CPU, kernels work in Triton's interpreter only, and only if another module has imported Triton before.
    """
    if device.type != "cuda":
        knobs: Any = getattr(sys.modules.get("triton"), "knobs", None)
        return device.type == "cpu" and knobs is not None and bool(knobs.runtime.interpret)
    if device == torch.device("cuda") and torch.cuda.is_available():
        return usable(torch.device("cuda", torch.cuda.current_device()))  # one trial per GPU
    try:
        cause = _missing(device)
        if not cause:
            from tympan.models.kernels.trial import launch

            launch(device)
    except Exception as error:  # the model also works without the kernels
        cause = _explain(error)
    if cause:
        logger.warning("Triton kernels are disabled, which makes steps slower: %s", cause)
    return not cause


def _missing(device: torch.device) -> str:
    """Return the name of a missing requirement, or an empty string."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < _OLDEST_CAPABILITY:
        needed = ".".join(map(str, _OLDEST_CAPABILITY))
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, but Triton needs {needed} or later"
    return ""


def _explain(error: Exception) -> str:
    """Return the cause of a failed trial. Triton compiles the launcher of each kernel as a C extension of Python."""
    if isinstance(error, RuntimeError) and "C compiler" in str(error):
        return "no C compiler (install gcc, or set CC)"
    if isinstance(error, subprocess.CalledProcessError) and not _has_python_header():
        return "no Python.h (install python3-dev)"
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _has_python_header() -> bool:
    folder = sysconfig.get_path("include", "posix_prefix")  # as in Triton
    return Path(folder, "Python.h").exists()
