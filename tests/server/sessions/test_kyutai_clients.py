"""Kyutai's public clients as they appear on the wire: the file script, the microphone script and unmute.

All of them use the defaults of the `websockets` package: a ping every 20 s, whose pong must arrive within 20 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import numpy as np
import pydantic
import pytest
from support.kyutai_wire import audio, closed_union, decode, message
from support.server import LiveServer
from support.speech import clip, word_error_rate
from websockets.asyncio.client import ClientConnection, connect

from tympan.engine.scripted import scripted_words
from tympan.messages import Samples

PATH = "/api/asr-streaming"
RATE, FRAME = 24_000, 1_920
OUTBOX_MESSAGES = 4_000  # so that a client that is slow because the machine is busy loses no Steps
SECOND_OF_SILENCE = audio(np.zeros(RATE, np.float32))


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", outbox_messages=OUTBOX_MESSAGES) as server:
        yield server


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


# --- The file script --------------------------------------------------------------------------------------------------


class FileScript:
    """Does not wait for Ready, reads until the first Marker, and sends 35 s of silence after it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.words: list[dict[str, Any]] = []
        self.steps = 0
        self.max_buffered = 0

    async def run(self, samples: Samples) -> None:
        await asyncio.gather(self._send(samples), self._read())

    async def _send(self, samples: Samples) -> None:
        await self._socket.send(SECOND_OF_SILENCE)
        for start in range(0, len(samples), FRAME):
            await self._socket.send(audio(samples[start : start + FRAME]))
        for _ in range(5):
            await self._socket.send(SECOND_OF_SILENCE)
        await self._socket.send(message(type="Marker", id=0))
        for _ in range(35):
            await self._socket.send(SECOND_OF_SILENCE)

    async def _read(self) -> None:
        async for packed in self._socket:
            fields = decode(packed)
            match fields["type"]:
                case "Step":
                    self.steps += 1
                    self.max_buffered = max(self.max_buffered, fields["buffered_pcm"])
                case "Word":
                    self.words.append({"text": fields["text"], "from": fields["start_time"]})
                case "EndWord":
                    self.words[-1]["to"] = fields["stop_time"]
                case "Marker":
                    return

    async def read_on(self, seconds: float) -> None:
        """Read on, unlike the actual script, until all audio has been processed."""
        while self.steps < int(seconds * 12.5):
            self.steps += decode(await self._socket.recv())["type"] == "Step"

    @property
    def text(self) -> str:
        return " ".join(word["text"] for word in self.words)


@pytest.mark.timeout(180)
async def test_file_script_word_times(embedded: LiveServer) -> None:
    speech = clip("counting")
    samples = speech.at(RATE)
    headers = {"kyutai-api-key": "public_token"}
    # Without pings: 46 s of audio may take longer than their timeout on a busy machine; the next test has them.
    async with connect(embedded.url(PATH), additional_headers=headers, ping_interval=None) as socket:
        script = FileScript(socket)
        await script.run(samples)
        await script.read_on(1 + len(samples) / RATE + 5 + 35 - 0.08)
    assert socket.close_code == 1000
    assert word_error_rate(speech.text, script.text) <= 0.1
    assert all(1 <= word["from"] <= word["to"] <= 1 + len(samples) / RATE for word in script.words)


async def test_file_script_backpressure_and_pings() -> None:
    """81 s of audio are processed at 16 times their speed, so pings are sent more often than by default."""
    frames = 500
    with LiveServer(step_ms=5, outbox_messages=OUTBOX_MESSAGES) as server:
        async with connect(server.url(PATH), ping_interval=0.5, ping_timeout=5) as socket:
            script = FileScript(socket)
            await script.run(np.zeros(frames * FRAME, np.float32))
            await script.read_on(1 + frames * 0.08 + 5 + 35)
    assert socket.close_code == 1000
    words = [word.text for word in scripted_words(frames + 75)]
    assert script.text.split() == words
    assert script.max_buffered <= (server.config.limits.backlog_seconds + 2) * RATE


# --- The microphone script --------------------------------------------------------------------------------------------


async def test_microphone_script(embedded: LiveServer) -> None:
    """The script sends frames and no Marker, and displays `prs[2]`."""
    speech = clip("one_to_five")
    samples = np.concatenate((speech.at(RATE), np.zeros(3 * RATE, np.float32)))
    words, pauses = [], []
    async with connect(embedded.url(PATH)) as socket:
        for start in range(0, len(samples) - FRAME, FRAME):
            await socket.send(audio(samples[start : start + FRAME]))
        while len(pauses) < len(samples) // FRAME - 2:
            fields = decode(await socket.recv())
            if fields["type"] == "Step":
                pauses.append(fields["prs"][2])
            elif fields["type"] == "Word":
                words.append(fields["text"])
    assert word_error_rate(speech.text, " ".join(words)) <= 0.1
    assert min(pauses) < 0.5 < pauses[-1]


# --- Unmute -----------------------------------------------------------------------------------------------------------


class AtCapacityError(Exception):
    """Raised by unmute for any first message but Ready."""


class Unmute:
    """A client whose clock counts Steps, 80 ms each, from -0.5 s on; unknown messages raise."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.time = -0.5

    @staticmethod
    async def start_up(url: str) -> Unmute:
        async with asyncio.timeout(0.5):
            socket = await connect(url, additional_headers={"kyutai-api-key": "public_token"})
            first = closed_union.validate_python(decode(await socket.recv()))
        if first.type == "Ready":
            return Unmute(socket)
        await socket.close()
        raise AtCapacityError(first.message)

    async def send(self, samples: Sequence[float] | Samples) -> None:
        await self._socket.send(audio(samples))

    async def send_marker(self, id: int) -> None:
        await self._socket.send(message(type="Marker", id=id))

    async def messages(self) -> AsyncIterator[Any]:
        async for packed in self._socket:
            fields = closed_union.validate_python(decode(packed))
            if fields.type == "Step":
                assert len(fields.prs) >= 3
                self.time += 0.08
            yield fields

    async def shut_down(self) -> int | None:
        await self._socket.close()
        return self._socket.close_code


def test_unknown_message_types_raise() -> None:
    with pytest.raises(pydantic.ValidationError):
        closed_union.validate_python({"type": "Segment", "text": "hello"})


async def test_unmute_clock_counts_steps(scripted: LiveServer) -> None:
    """Unmute sends chunks of 20 ms; it flushes with silence for its delay and one more frame."""
    unmute = await Unmute.start_up(scripted.url(PATH))
    chunk = np.zeros(480, np.float32)
    for _ in range(50 * 4):
        await unmute.send(chunk)
    words = []
    flush_ends_at = None
    async for fields in unmute.messages():
        if fields.type == "Word":
            words.append(fields.text)
        if len(words) == 9 and flush_ends_at is None:
            flush_ends_at = 50 * 0.08 - 0.5 + 8 * 0.08
            for _ in range(8):
                await unmute.send(np.zeros(FRAME, np.float32))
            await unmute.send_marker(7)
        if fields.type == "Marker":
            break
    assert fields.id == 7
    assert unmute.time == pytest.approx(flush_ends_at)
    assert words == [word.text for word in scripted_words(58)]
    assert await unmute.shut_down() == 1000


async def test_unmute_at_capacity() -> None:
    with LiveServer(max_streams=1) as server:
        first = await Unmute.start_up(server.url(PATH))
        with pytest.raises(AtCapacityError, match="no free channels"):
            await Unmute.start_up(server.url(PATH))
        await first.shut_down()
        async with asyncio.timeout(10):
            while server.service.engine.active:
                await asyncio.sleep(0.01)
        second = await Unmute.start_up(server.url(PATH))
        await second.shut_down()
