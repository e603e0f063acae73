"""A hundred thousand frames of every protocol, against the real connection, session and engine.

Whatever a client sends must be valid or an error of the client: the connection ends with a documented code, the slots
are released, no error is logged and no message reveals internals.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from fuzz_conversation import NAMES, ErrorLog, Server
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(300)]

FRAMES = 100_000
EXAMPLES = 150
SHORT, LONG = 40, 400  # frames; short conversations have more errors in their first messages


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def error_log() -> Iterator[ErrorLog]:
    handler = ErrorLog()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("name", NAMES)
def test_random_conversations(name: str, server: Server, error_log: ErrorLog) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**64 - 1), most=st.integers(1, LONG))
    def conversation(seed: int, most: int) -> None:
        error_log.records.clear()
        server.converse(name, seed, most)
        assert not error_log.records, [record.getMessage() for record in error_log.records]

    conversation()
    seed = 0
    while server.frames < FRAMES:  # without the overhead of Hypothesis
        seed += 1
        try:
            server.converse(name, seed, SHORT if seed % 2 else LONG)
            assert not error_log.records, [record.getMessage() for record in error_log.records]
        except BaseException:
            print(f"{name}: seed {seed}")
            raise
    print(f"{name}: {server.frames} frames, {server.conversations} conversations, ends {server.codes}")
    assert server.frames >= FRAMES
    assert threading.active_count() < 20, "threads of decoders are left"
