"""Transcribe calls that Asterisk sends over AudioSocket; prints one line of JSON per utterance.

    python examples/telephony/asterisk.py --port 9092 --tympan ws://127.0.0.1:8000 --key KEY

In the dialplan, `AudioSocket(UUID,127.0.0.1:9092)` connects a call to this program; UUID identifies the call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from functools import partial

from websockets.asyncio.client import ClientConnection, connect

HANGUP, ID = 0x00, 0x01
RATES = {0x10: 8_000, 0x11: 12_000, 0x12: 16_000, 0x13: 24_000, 0x14: 32_000, 0x15: 44_100, 0x16: 48_000}
"""Sample rate of the 16-bit samples by the kind of their frame."""


async def handle_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tympan: str, key: str) -> None:
    """Handle one connection of Asterisk. A frame is its kind, the length of its contents (two bytes), its contents."""
    call = ""
    stream: ClientConnection | None = None
    async with asyncio.TaskGroup() as printers:
        try:
            while (kind := (await reader.readexactly(1))[0]) != HANGUP:
                contents = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                if kind == ID:
                    call = str(uuid.UUID(bytes=contents))
                elif kind in RATES:
                    if stream is None:
                        query = f"encoding=linear16&sample_rate={RATES[kind]}&endpointing=500"
                        headers = {"Authorization": f"Token {key}"}
                        stream = await connect(f"{tympan}/v1/listen?{query}", additional_headers=headers)
                        printers.create_task(print_utterances(stream, call))
                    await stream.send(contents)
        except asyncio.IncompleteReadError:
            pass  # the call has ended
        writer.close()
        if stream is not None:
            await stream.send('{"type": "CloseStream"}')  # the last words follow


async def print_utterances(stream: ClientConnection, call: str) -> None:
    """Print every final result up to the end of the stream."""
    async for text in stream:
        result = json.loads(text)
        if result["type"] == "Results" and (words := result["channel"]["alternatives"][0]["transcript"]):
            print(json.dumps({"call": call, "start": result["start"], "text": words}), flush=True)


async def main() -> None:
    """Serve until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9092, help="port to which Asterisk connects")
    parser.add_argument("--tympan", default="ws://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--key", default="", help="API key of the server")
    options = parser.parse_args()
    handler = partial(handle_call, tympan=options.tympan, key=options.key)
    async with await asyncio.start_server(handler, "127.0.0.1", options.port) as server:
        await server.serve_forever()


asyncio.run(main())
