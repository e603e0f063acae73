"""The options of a load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from tympan.bench.load.dialects import DIALECTS, Dialect
from tympan.errors import ConfigError

FRAME_MS = 80  # of the engines: a session is a whole number of frames, so that no sample waits for the rest of one
CONNECTS_PER_SECOND = 50.0
SHORTEST_SESSION_SECONDS = 1.0


@dataclass(frozen=True)
class LoadSpec:
    """A load: streams that begin over `ramp` and live for `ramp + seconds` each, so all are open for `seconds`.

    Attributes:
        url: The server, without a path.
        protocol: A name in `DIALECTS`.
        streams: Number of live streams.
        seconds: Time during which all streams are open and delays are measured.
        ramp_seconds: Time over which the streams begin; None for `CONNECTS_PER_SECOND`.
        session_seconds: Audio after which a stream ends its session and opens the next one; None for one session.
        flush_every: Seconds of audio between flushes; 0 for none.
        chunk_ms: Audio in each message, in milliseconds.
        seed: Of the streams' offsets.
        token: API key of the server.

    Raises:
        ConfigError: An option is outside its range.
    """

    url: str
    protocol: str = "native"
    streams: int = 1
    seconds: float = 60.0
    ramp_seconds: float | None = None
    session_seconds: float | None = None
    flush_every: float = 10.0
    chunk_ms: int = 80
    seed: int = 0
    token: str | None = None

    def __post_init__(self) -> None:
        if not _is_server(self.url):
            raise ConfigError(f"invalid server URL {self.url!r}: expected ws://host:port, without a path")
        if self.protocol not in DIALECTS:
            raise ConfigError(f"unknown protocol {self.protocol!r}: expected one of {', '.join(DIALECTS)}")
        if self.streams < 1 or self.seconds < SHORTEST_SESSION_SECONDS:
            raise ConfigError("--streams takes at least 1, --duration at least 1 second")
        if not 10 <= self.chunk_ms <= 1000:
            raise ConfigError("--chunk-ms takes 10 to 1000")
        if self.session_seconds is not None and self.session_seconds < SHORTEST_SESSION_SECONDS:
            raise ConfigError("--session takes at least 1 second")
        if self.flush_every < 0 or (self.ramp_seconds or 0.0) < 0:
            raise ConfigError("--flush-every and --ramp take seconds, at least 0")

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.protocol]

    @property
    def base_url(self) -> str:
        """The server's URL without a path: `ws://host:port`."""
        parts = urlsplit(self.url)
        return f"{'wss' if parts.scheme in ('wss', 'https') else 'ws'}://{parts.netloc}"

    @property
    def address(self) -> str:
        """The URL of the protocol's endpoint."""
        return f"{self.base_url}{self.dialect.path}"

    @property
    def ramp(self) -> float:
        return self.streams / CONNECTS_PER_SECOND if self.ramp_seconds is None else self.ramp_seconds

    @property
    def stream_seconds(self) -> float:
        return self.ramp + self.seconds

    @property
    def chunk_seconds(self) -> float:
        return self.chunk_ms / 1000

    @property
    def session_chunks(self) -> int:
        """Chunks of the longest session."""
        return self.whole_chunks(min(self.session_seconds or math.inf, self.stream_seconds))

    def whole_chunks(self, seconds: float) -> int:
        """Return the number of chunks in ``seconds``, rounded down to a boundary of the engine's frames."""
        step = FRAME_MS // math.gcd(FRAME_MS, self.chunk_ms)
        return int(1000 * seconds + 1e-6) // (step * self.chunk_ms) * step


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # validated on access
    except ValueError:
        return False
    return parts.scheme in ("ws", "wss", "http", "https") and bool(parts.hostname) and parts.path in ("", "/")
