"""Streams end in order before the platform's time limit, and ask the client to reconnect."""

from __future__ import annotations

import json

import pytest
from support.server import LiveServer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def test_handover_completes_stream_with_1012() -> None:
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


async def test_restarting_precedes_a_cut_word() -> None:
    """`word1` begins at 0.4 s and is four frames long; the audio contains two of them."""
    with LiveServer(max_streams=1, handover_seconds=0.5) as server:
        async with connect(server.url(events="word")) as client:
            await client.send(bytes(7 * 3840))
            messages = [json.loads(await client.recv())]
            with pytest.raises(ConnectionClosed):
                while True:
                    messages.append(json.loads(await client.recv()))
    assert [message["type"] for message in messages] == ["restarting", "word", "word", "complete"]
    assert messages[2]["end"] == 0.56
