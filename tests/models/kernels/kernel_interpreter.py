"""Switches Triton's interpreter on: kernels then run on a CPU. Import it before anything that imports Triton."""

from __future__ import annotations

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_patch_tensor = interpreter._patch_lang_tensor


def _patch_index_too(tensor: Any, scope: Any) -> None:
    """The interpreter of Triton 3.6 keeps scalars in arrays of one element, which NumPy 2.4 no longer takes as ints."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = _patch_index_too
