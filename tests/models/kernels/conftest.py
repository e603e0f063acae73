"""Runs these tests in Triton's interpreter, and only in the process that `test_model_kernels.py` starts for them.

Triton reads TRITON_INTERPRET when it is imported, so the other tests cannot share the process.
"""

from __future__ import annotations

import os
from typing import Any

if os.environ.get("TRITON_INTERPRET") == "1":
    from triton.runtime import interpreter

    _patch_tensor = interpreter._patch_lang_tensor

    def _patch_index_too(tensor: Any, scope: Any) -> None:
        """Convert scalars to integers: Triton 3.6 stores them in arrays, which NumPy 2.4 does not accept as indices."""
        _patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = _patch_index_too
else:
    collect_ignore_glob = ["test_*.py"]
