"""Enables Triton's interpreter, which runs kernels on a CPU. Import it before any module that imports Triton."""

from __future__ import annotations

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_patch_tensor = interpreter._patch_lang_tensor


def _patch_index_too(tensor: Any, scope: Any) -> None:
    """Convert scalars to integers: Triton 3.6 stores them in arrays, which NumPy 2.4 does not accept as indices."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = _patch_index_too
