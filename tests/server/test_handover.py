"""A stream that a platform would cut is ended before, in order: last words, and a request to reconnect."""

from __future__ import annotations

import json

import pytest
from support.server import LiveServer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def test_an_old_stream_gets_its_last_words_and_1012() -> None:
    with LiveServer(max_streams=1, handover_seconds=0.5) as server:
        async with connect(server.url()) as client:
            await client.send(bytes(2 * 24_000))
            messages = []
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    messages.append(json.loads(await client.recv()))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert any(message.get("final") for message in messages)
    assert messages[-1] == {"status": "complete"}
