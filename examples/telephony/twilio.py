"""Transcribe calls that Twilio sends as Media Streams; prints one line of JSON per utterance.

    python examples/telephony/twilio.py --port 8765 --tympan ws://127.0.0.1:8000 --key KEY

Twilio connects to this program: `<Start><Stream url="wss://calls.example" track="both_tracks"/></Start>`, with a proxy
that terminates TLS in front of the port. Each track of a call is a stream of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from functools import partial

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

QUERY = "encoding=mulaw&sample_rate=8000&endpointing=500"  # the format of all Media Streams


async def handle_call(call: ServerConnection, tympan: str, key: str) -> None:
    """Handle one connection of Twilio, from `start` to `stop`."""
    sid = ""
    tracks: dict[str, ClientConnection] = {}
    async with asyncio.TaskGroup() as printers:
        async for text in call:
            message = json.loads(text)
            if message["event"] == "start":
                sid = message["start"]["callSid"]
            elif message["event"] == "media":
                track = message["media"]["track"]
                if track not in tracks:
                    headers = {"Authorization": f"Token {key}"}
                    tracks[track] = await connect(f"{tympan}/v1/listen?{QUERY}", additional_headers=headers)
                    printers.create_task(print_utterances(tracks[track], sid, track))
                await tracks[track].send(base64.b64decode(message["media"]["payload"]))
            elif message["event"] == "stop":
                break
        for stream in tracks.values():  # the last words follow
            await stream.send('{"type": "CloseStream"}')


async def print_utterances(stream: ClientConnection, sid: str, track: str) -> None:
    """Print every final result up to the end of the stream."""
    async for text in stream:
        result = json.loads(text)
        if result["type"] == "Results" and (words := result["channel"]["alternatives"][0]["transcript"]):
            print(json.dumps({"call": sid, "track": track, "start": result["start"], "text": words}), flush=True)


async def main() -> None:
    """Serve until the program is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765, help="port to which Twilio connects")
    parser.add_argument("--tympan", default="ws://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--key", default="", help="API key of the server")
    options = parser.parse_args()
    async with serve(partial(handle_call, tympan=options.tympan, key=options.key), "127.0.0.1", options.port) as server:
        await server.serve_forever()


asyncio.run(main())
