"""These tests run in a process of their own, where Triton interprets (`test_model_kernels.py` starts it)."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
