"""The words of the embedded recognizer through every WebSocket protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean

import pytest
from support.server import LiveServer
from support.speech import Clip, clip, word_error_rate
from websockets.sync.client import ClientConnection, connect

from tympan.bench.load.dialects import DIALECTS, Dialect

CLIPS = ("counting", "hello_world", "quick_brown_fox")  # the English ones of `pytest-audioeval`
CHUNKS_PER_SECOND = 10
pytestmark = pytest.mark.timeout(120)  # a busy core takes as long as the speech, and longer


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", max_streams=1) as server:
        yield server


@dataclass
class Conversation:
    """The words that a dialect's reader finds in a session."""

    socket: ClientConnection
    words: list[str] = field(default_factory=list)
    is_flushed: bool = False

    def on_word(self, text: str) -> None:
        self.words.append(text)

    def on_flushed(self) -> None:
        self.is_flushed = True

    def on_lag(self, seconds: float) -> None:
        """Ignore how far the server is behind."""

    def on_error(self, message: str) -> None:
        pytest.fail(message)

    def reply(self, message: bytes | str) -> None:
        self.socket.send(message)


def heard(server: LiveServer, dialect: Dialect, spoken: Clip) -> str:
    """Send a clip as fast as the server reads it; return the words."""
    pcm = spoken.pcm(dialect.sample_rate)
    size = 2 * dialect.sample_rate // CHUNKS_PER_SECOND
    with connect(server.url(dialect.path)) as socket:
        conversation = Conversation(socket)
        read = dialect.reader(conversation)
        for message in dialect.setup:
            socket.send(message)
        for start in range(0, len(pcm), size):
            socket.send(dialect.audio(pcm[start : start + size]))
        socket.send(dialect.flush if dialect.finish is None else dialect.finish)
        for received in socket:
            read(received if isinstance(received, bytes) else received.encode())
            if dialect.finish is None and conversation.is_flushed:
                break
    return " ".join(conversation.words)


@pytest.mark.parametrize("protocol", DIALECTS)
def test_word_error_rates(server: LiveServer, protocol: str) -> None:
    texts = {name: heard(server, DIALECTS[protocol], clip(name)) for name in CLIPS}
    rates = [word_error_rate(clip(name).text, text) for name, text in texts.items()]
    assert max(rates) <= 0.25, texts
    assert mean(rates) <= 0.1, texts
