"""Clients that read too slowly: droppable messages are dropped first, then the connection is closed.

Words are never dropped. Without a socket, the tests know the exact state of the outbox.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from support.slow_transport import SlowTransport

from tympan.config import load_config
from tympan.engine.registry import create_engine
from tympan.engine.scripted import scripted_words
from tympan.protocols.native import NativeProtocol
from tympan.server.routes.responses import opening_request
from tympan.server.service import Service
from tympan.server.sessions.connection import Connection

CAPACITY = 100
DROPPABLE = {"vad", "lag", "partial"}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    settings = {"model": "scripted:0", "outbox_messages": CAPACITY, "max_streams": 1}
    config = load_config(environment={}, overrides=settings)
    service = Service(config, create_engine(config.model))
    await service.start()
    yield service
    await service.stop()


async def converse(service: Service, frames: int) -> tuple[SlowTransport, Connection]:
    """Send everything without reading anything."""
    request = opening_request("/v1/stream", {"events": "all"}, {})
    transport = SlowTransport()
    connection = Connection(transport, service, NativeProtocol(request, service.server_info), request)
    connection.open()
    connection.start()
    for _ in range(frames):
        connection.on_message(bytes(3840))
    connection.on_message("EOS")
    async with asyncio.timeout(10):
        while service.engine.active:
            await asyncio.sleep(0.001)
    return transport, connection


async def test_droppable_messages_are_dropped_first(service: Service) -> None:
    transport, connection = await converse(service, 200)
    transport.read(connection)
    kinds = [json.loads(message)["type"] for message in transport.sent]
    assert set(kinds[CAPACITY // 2 :]).isdisjoint(DROPPABLE), "none is accepted once the outbox is half full"
    assert set(kinds[: CAPACITY // 2]) >= DROPPABLE
    words = [json.loads(message)["text"] for message in transport.sent if json.loads(message)["type"] == "word"]
    assert words == [word.text for word in scripted_words(200)]
    assert (kinds[-1], transport.code) == ("complete", 1000)


async def test_full_outbox_closes_with_1013(service: Service) -> None:
    transport, connection = await converse(service, 1000)
    transport.read(connection)
    messages = [json.loads(message) for message in transport.sent]
    assert len(messages) == CAPACITY + 1
    words = [message["text"] for message in messages if message["type"] == "word"]
    assert words == [word.text for word in scripted_words(1000)][: len(words)]
    assert 20 < len(words) < len(scripted_words(1000))
    assert (messages[-1]["type"], messages[-1]["code"], transport.code) == ("error", "slow_reader", 1013)
