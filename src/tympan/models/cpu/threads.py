"""The threads that compute on a CPU: those of ONNX Runtime's pool, beside which PyTorch has one.

Threads of PyTorch wait for more work in a loop, and so do those of ONNX Runtime. With several of each there are more
busy threads than cores, and one that has work waits until the system's scheduler interrupts one that has none: in each
step in which PyTorch splits a single small operation, for up to 4 ms with Linux' usual 250 ticks a second.
"""

from __future__ import annotations

import functools

import torch


@functools.cache
def thread_count() -> int:
    """Return how many threads compute: as many as PyTorch used at the first call, which `OMP_NUM_THREADS` sets."""
    return torch.get_num_threads()


def give_threads_to_pytorch() -> None:
    """Let PyTorch use all threads, to build networks or to run those that it computes."""
    torch.set_num_threads(thread_count())


def give_threads_to_sessions() -> None:
    """Let only the sessions of ONNX Runtime use several threads."""
    torch.set_num_threads(1)
