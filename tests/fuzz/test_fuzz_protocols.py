"""A hundred thousand frames and more of every protocol, against the real connection, session and engine.

Nothing that a client sends may be more than an error of its own: the connection ends with a code of the table, the
slots are free, nothing is logged as our mistake and no word tells of our insides.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from fuzz_conversation import NAMES, Complaints, Server
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(300)]

FRAMES = 100_000
EXAMPLES = 150
SHORT, LONG = 40, 400  # frames: in short conversations the first messages are wrong more often


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    handler = Complaints()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_clients_send_is_more_than_their_own_mistake(
    name: str, server: Server, complaints: Complaints
) -> None:
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
        complaints.records.clear()
        server.converse(name, seed, most)
        assert not complaints.records, [record.getMessage() for record in complaints.records]

    conversation()
    seed = 0
    while server.frames < FRAMES:  # the same, without what hypothesis costs
        seed += 1
        try:
            server.converse(name, seed, SHORT if seed % 2 else LONG)
            assert not complaints.records, [record.getMessage() for record in complaints.records]
        except BaseException:
            print(f"{name}: seed {seed}")
            raise
    print(f"{name}: {server.frames} frames, {server.conversations} conversations, ends {server.codes}")
    assert server.frames >= FRAMES
    assert threading.active_count() < 20, "decoders' threads are gone"
