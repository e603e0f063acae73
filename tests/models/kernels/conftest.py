"""Runs these tests in Triton's interpreter, and only in the process that `test_model_kernels.py` starts for them.

Triton reads TRITON_INTERPRET when it is imported, so the other tests cannot share the process.
"""

from __future__ import annotations

import importlib
import os

if os.environ.get("TRITON_INTERPRET") == "1":
    importlib.import_module("support.triton_interpreter")
else:
    collect_ignore_glob = ["test_*.py"]
