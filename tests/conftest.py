"""Settings of the whole suite."""

from __future__ import annotations

import os

# Before anything imports torch: threads that wait for each other on two busy cores make tiny models slow.
os.environ["OMP_NUM_THREADS"] = "1"
