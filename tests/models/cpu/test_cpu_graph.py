"""Graphs for ONNX Runtime."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tympan.models.cpu import graph


def compile_sum(term: float) -> graph.Session:
    """Return a session that adds ``term``."""
    sum_ = graph.Graph()
    return sum_.compile(sum_.op("Add", sum_.input(1), sum_.constant(term)))


def test_threads_are_started_once_by_graphs_compiled_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime refuses a second start, and then the model would not load."""
    starts: list[float] = []
    start_threads = graph._start_threads

    @functools.cache
    def start() -> None:
        starts.append(time.monotonic())
        time.sleep(0.1)
        start_threads()

    monkeypatch.setattr(graph, "_start_threads", start)
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(compile_sum, (1.0, 2.0, 3.0, 4.0)))
    assert len(starts) == 1
    assert [session.run(np.ones(1, np.float32))[0].item() for session in sessions] == [2, 3, 4, 5]
