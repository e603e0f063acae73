"""The end of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NoReturn

import msgspec
import pytest
from support.slow_transport import SlowTransport

from tympan.config import load_config
from tympan.engine.base import Deliver
from tympan.engine.registry import create_engine
from tympan.errors import EngineError
from tympan.protocols.kyutai import KyutaiProtocol
from tympan.server.routes.responses import opening_request
from tympan.server.service import Service
from tympan.server.sessions.connection import Connection


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    config = load_config(environment={}, overrides={"model": "scripted", "max_streams": 1})
    service = Service(config, create_engine(config.model))
    await service.start()
    yield service
    await service.stop()


async def test_nothing_is_sent_after_the_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(deliver: Deliver) -> NoReturn:
        raise EngineError("the engine is not running")

    request = opening_request("/api/asr-streaming", {}, {})
    transport = SlowTransport()
    connection = Connection(transport, service, KyutaiProtocol(request, service.server_info), request)
    connection.open()
    connection.start()
    monkeypatch.setattr(service.engine, "open", broken)  # `Init` opens a new engine stream
    connection.on_message(msgspec.msgpack.encode({"type": "Init"}))
    transport.read(connection)
    types = [msgspec.msgpack.decode(message)["type"] for message in transport.sent]  # type: ignore[arg-type]
    assert types == ["Ready", "Error"]
    assert transport.code == 1011
