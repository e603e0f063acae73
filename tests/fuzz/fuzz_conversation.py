"""A connection with its service and engine, and a client in this process instead of a socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import fuzz_frames as frames
import msgspec

from tympan.config import Config, load_config
from tympan.engine.registry import create_engine
from tympan.protocols.base import Refusal, WireMessage
from tympan.server.app import PROTOCOLS
from tympan.server.routes.responses import opening_request
from tympan.server.service import Service
from tympan.server.sessions.connection import Connection

PATHS = {make.name: path for path, make in PROTOCOLS.items()} | {"vllm": "/v1/realtime"}  # type: ignore[attr-defined]
NAMES = tuple(frames.VALID)
QUERIES: dict[str, dict[str, Sequence[str]]] = {
    "native": {
        "events": ("", "all", "word,partial"),
        "channels": ("1", "2"),
        "encoding": ("s16le", "mulaw", "f32le", "auto"),
    },
    "deepgram": {
        "encoding": ("linear16",),
        "sample_rate": ("8000", "16000"),
        "interim_results": ("true", "false"),
        "utterance_end_ms": ("1000",),
        "vad_events": ("true",),
        "channels": ("1", "2"),
        "multichannel": ("true", "false"),
        "endpointing": ("10", "300", "false"),
    },
    "flux": {"encoding": ("linear16",), "sample_rate": ("16000",), "eager_eot_threshold": ("0.4",)},
}
ODD_TEXTS = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e9",
    "9" * 400,
    "é",
    "\x00",
    "\ufffd",
    "١٦٠٠٠",
    "true",
    "auto",
    "opus",
    "x" * 999,
)
GOOD_ENDS = {1000, 1003, 1006, 1007, 1008, 1009, 1013}
SECRETS = ("Traceback", "tympan.", ".py", " object at 0x", "<class", "msgspec.", "line ")


@dataclass
class Client:
    """The transport of a connection. It is not writable for some of the time."""

    writable: bool = True
    paused: bool = False
    messages: list[WireMessage] = field(default_factory=list)
    code: int | None = None
    reason: str = ""

    def send(self, message: WireMessage) -> None:
        assert self.code is None, "message after the close"
        self.messages.append(message)

    def close(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.code = 1006


class Server:
    """A service with its engine, on its own event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        overrides = {"model": "scripted:0", "outbox_messages": 40}
        self.config: Config = load_config(environment={}, overrides=overrides)
        self.frames = self.conversations = 0
        self.codes: dict[object, int] = {}
        self._runner.run(self._start())

    async def _start(self) -> None:
        self.service = Service(self.config, create_engine(self.config.model))
        await self.service.start()

    def close(self) -> None:
        self._runner.run(self.service.stop())
        self._runner.close()

    def converse(self, name: str, seed: int, most: int) -> None:
        """Run a client that sends up to `most` frames, and check the state of the server after it."""
        self._runner.run(self._converse(name, Random(seed), most))

    async def _converse(self, name: str, random: Random, most: int) -> None:
        client = Client()
        query = opening_query(name, random)
        request = opening_request(PATHS[name], query, {"openai-beta": "realtime=v1"} if random.random() < 0.2 else {})
        make_protocol = PROTOCOLS[PATHS[name]]
        connection = Connection(client, self.service, make_protocol(request, self.service.server_info), request)
        answer = connection.open()
        self.conversations += 1
        if isinstance(answer, Refusal):
            assert answer.status in (400, 401), answer
            check_text(answer.body.decode())
            self._count(answer.status)
        else:
            connection.start()
            await self._talk(connection, client, name, random, most)
            assert client.code in GOOD_ENDS, (client.code, client.messages[-1:])
            check_text(client.reason)
            kinds = [check_message(message) for message in client.messages]
            if client.code not in (1000, 1006):
                assert "rror" in kinds.pop(), "the error must be the last message"
            earlier = zip(kinds, client.messages, strict=False)
            assert not any("rror" in kind for kind, message in earlier if not is_continued(message))
            self._count(client.code)
        await settled(lambda: self.service.engine.active == 0)
        assert not self.service.connections._open, "the connection was not released"

    def _count(self, outcome: object) -> None:
        self.codes[outcome] = self.codes.get(outcome, 0) + 1

    async def _talk(self, connection: Connection, client: Client, name: str, random: Random, most: int) -> None:
        opening = frames.OPENINGS.get(name)
        if opening is not None and random.random() < 0.95:
            connection.on_message(opening)
        wildness = random.choice((0.01, 0.1, 0.5))
        for _ in range(most):
            if client.code is not None:
                break
            if random.random() < 0.02:
                client.writable = not client.writable
                if client.writable:
                    connection.on_writable()
            if client.paused:
                await settled(lambda: not client.paused)
            connection.on_message(frames.frame(name, random, wildness))
            self.frames += 1
            if random.random() < 0.2:
                await asyncio.sleep(0)
        if not client.writable:
            client.writable = True
            connection.on_writable()
        ending = frames.ENDINGS.get(name)
        if ending is not None:
            for _ in range(random.choice((1, 1, 1, 3))):
                connection.on_message(ending)
            await settled(lambda: client.code is not None)
        elif random.random() < 0.5:
            connection.restart()  # these protocols have no message that ends the stream
            await settled(lambda: client.code is not None)
            client.code = 1000 if client.code == 1012 else client.code
        connection.on_gone()
        client.code = client.code or 1006


async def settled(condition: Any) -> None:
    """Run the event loop until the condition holds; only messages that wait on disk or in bursts take time."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0)
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the session hangs")


def opening_query(name: str, random: Random) -> dict[str, str]:
    """Return the query of a client; in one of ten conversations a parameter is invalid."""
    query = {key: random.choice(values) for key, values in QUERIES.get(name, {}).items() if random.random() < 0.7}
    if name in ("deepgram", "flux") and random.random() < 0.9:
        query |= {"encoding": "linear16", "sample_rate": "16000"}
    if random.random() < 0.1:
        wrong = (*QUERIES.get(name, {"model": ()}), "sample_rate", "eot_threshold", "model", "token")
        query[random.choice(wrong)] = random.choice(ODD_TEXTS)
    return query


def check_message(message: WireMessage) -> str:
    """Return the type of a message, which must be well formed and must not reveal internals in an error."""
    fields = msgspec.msgpack.decode(message) if isinstance(message, bytes) else msgspec.json.decode(message)
    assert isinstance(fields, dict)
    kind = str(fields.get("type", ""))
    if "rror" in kind or "Failure" in kind:
        check_text(str(fields))
    return kind


def is_continued(message: WireMessage) -> bool:
    """Return whether the stream continues after this error."""
    text = message if isinstance(message, str) else message.decode(errors="replace")
    return any(phrase in text for phrase in ("the audio begins like a", "string of base64", "buffer is empty"))


def check_text(text: str) -> None:
    found = [secret for secret in SECRETS if secret in text]
    assert not found, text[:500]
    assert len(text) < 2000


class ErrorLog(logging.Handler):
    """The records that the server logs as errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
