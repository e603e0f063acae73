"""Settings of the whole suite."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

# Before anything imports torch: threads that wait for each other on two busy cores make tiny models slow.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module", autouse=True)
def own_logging() -> Iterator[None]:
    """Undo what the tests of a module and their servers configured: levels and handlers would stay for good."""
    loggers = [logging.getLogger(), logging.getLogger("tympan")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        for handler in set(logger.handlers).difference(handlers):
            logger.removeHandler(handler)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tests of engines, which set the number themselves. They leave it as it was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
