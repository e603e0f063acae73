"""Calls at 8 kHz: the programs for Twilio and Asterisk in `examples/telephony/`, and the requests of jambonz."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from support.clients import KEY, MAX_ERROR_RATE, TEXT, chunks, pcm, speech
from support.ports import free_port
from support.server import LiveServer
from support.speech import word_error_rate
from support.waiting import wait_until
from websockets.sync.client import connect

from tympan.engine.scripted import scripted_words

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
RATE = 8_000
SECONDS = 12.0
SCRIPT = [word.text for word in scripted_words(round(SECONDS / 0.08))]
CALL = "40325ec2-5efd-4bd3-805f-53576e581d13"


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    """A server whose words depend on the duration of the audio only, so that each of them is expected."""
    with LiveServer(api_keys=(KEY,), host="127.0.0.1") as server:
        yield server


@contextmanager
def program(name: str, server: LiveServer) -> Iterator[tuple[int, IO[str]]]:
    """Run a program of `examples/telephony/`; yields its port and its output."""
    port = free_port()
    command = [sys.executable, str(ROOT / "examples" / "telephony" / name), f"--port={port}", f"--key={KEY}"]
    command.append(f"--tympan={server.url('')}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            wait_until(lambda: process.poll() is not None or accepts(port))
            yield port, process.stdout
        finally:
            process.terminate()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def read(output: IO[str], last: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the lines up to the word `last`, and all words in them."""
    lines: list[dict[str, Any]] = []
    for line in output:
        lines.append(json.loads(line))
        if last in lines[-1]["text"].lower():
            break
    return lines, [word for line in lines for word in line["text"].split()]


def test_twilio(scripted: LiveServer) -> None:
    start = {"streamSid": "MZ1", "callSid": "CA1", "tracks": ["inbound"], "customParameters": {}}
    start["mediaFormat"] = {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1}
    with program("twilio.py", scripted) as (port, output), connect(f"ws://127.0.0.1:{port}") as call:

        def send(event: str, **fields: Any) -> None:
            call.send(json.dumps({"event": event, "sequenceNumber": "1", "streamSid": "MZ1", **fields}))

        call.send('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
        send("start", start=start)
        for number, chunk in enumerate(chunks(b"\xff" * round(SECONDS * RATE), RATE // 50)):
            payload = base64.b64encode(chunk).decode()
            media = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(20 * number), "payload": payload}
            send("media", media=media)
        send("stop", stop={"accountSid": "AC1", "callSid": "CA1"})
        lines, words = read(output, SCRIPT[-1])
    assert {(line["call"], line["track"]) for line in lines} == {("CA1", "inbound")}
    assert words == SCRIPT
    assert len(lines) >= 2


def send_call(port: int, kind: int, audio: bytes, frame_bytes: int) -> None:
    """Send what Asterisk sends of a call in which a key is pressed."""
    with socket.create_connection(("127.0.0.1", port)) as call:

        def send(kind: int, contents: bytes = b"") -> None:
            call.sendall(bytes([kind]) + len(contents).to_bytes(2, "big") + contents)

        send(0x01, bytes.fromhex(CALL.replace("-", "")))
        for chunk in chunks(audio, frame_bytes):
            send(kind, chunk)
        send(0x03, b"5")
        send(0x00)


def test_asterisk(scripted: LiveServer) -> None:
    with program("asterisk.py", scripted) as (port, output):
        send_call(port, 0x10, bytes(round(SECONDS * RATE) * 2), 320)
        lines, words = read(output, SCRIPT[-1])
    assert {line["call"] for line in lines} == {CALL}
    assert words == SCRIPT


def test_asterisk_with_speech_at_16_khz(server: LiveServer) -> None:
    with program("asterisk.py", server) as (port, output):
        send_call(port, 0x12, pcm(speech(16_000, pause_seconds=1.5)), 640)
        _, words = read(output, "ten")
    assert word_error_rate(TEXT, " ".join(words)) <= MAX_ERROR_RATE


def test_jambonz(scripted: LiveServer) -> None:
    """The request, the frames and the end of FreeSWITCH's module."""
    query = "&model=nova-2&language=en-US&smart_format=true&no_delay=true&endpointing=500&utterance_end_ms=1000"
    url = f"{scripted.url('/v1/listen')}?{query}&interim_results=true&encoding=linear16&sample_rate=8000"
    with connect(url, additional_headers={"Authorization": f"Token {KEY}"}) as stream:
        stream.send('{"type": "KeepAlive"}')
        for chunk in chunks(bytes(round(SECONDS * RATE) * 2), 320):
            stream.send(chunk)
        stream.send('{"type": "CloseStream"}')
        messages = [json.loads(message) for message in stream]
        assert stream.close_code == 1000
    finals = [message for message in messages if message.get("is_final")]
    words = [final["channel"]["alternatives"][0]["transcript"] for final in finals]
    assert " ".join(filter(None, words)).split() == SCRIPT
    assert any(message.get("speech_final") for message in finals)
    assert "UtteranceEnd" in {message["type"] for message in messages}
