"""What all connections of a server share: the engine, the keys, the limits, the doors that close at shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from tympan.config import Config, wants_spans
from tympan.engine.base import Engine, starting
from tympan.errors import CapacityError, MissingPackageError, OriginError, RestartingError, TympanError
from tympan.messages import AudioFormat
from tympan.protocols.base import Request, ServerInfo
from tympan.server.access.auth import Keyring
from tympan.server.access.quota import Account
from tympan.server.observability.metrics import Metrics
from tympan.session.observed import Observer

if TYPE_CHECKING:
    from tympan.server.observability.recording import Recorder
    from tympan.server.observability.tracing import Tracing
    from tympan.server.sessions.connection import Connection

logger = logging.getLogger(__name__)

WATCH_EVERY_SECONDS = 1.0


class ManagedConnection(Protocol):
    """A connection, as the service sees it."""

    def check_limits(self, now: float) -> None:
        """Called about once a second with the event loop's time."""

    def restart(self) -> None:
        """Give the client its last words and ask it to reconnect."""


class Service:
    """Made once per app. `start` before the first connection, `stop` after the last."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self.config = config
        self.engine = engine
        self.metrics = Metrics(engine)
        file = config.server.api_keys_file
        self.keys = Keyring(
            config.server.api_keys, config.server.token_secret, None if file is None else Path(file), config.keys
        )
        self.metrics.show_keys(lambda: self.keys.accounts)
        self.upload_streams = 0
        """Slots that files have."""
        self.resumable: dict[str, Connection] = {}
        """Open streams, by the token that their clients can come back with."""
        self.recorder = _recorder(config, self._count_recording)
        self.tracing = _tracing()
        self.draining = False
        self.lost = ""
        """Why only an end of the process helps, in words; empty while something else does."""
        self._connections: set[ManagedConnection] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._watchdog: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the engine, if nobody did. Raises `ModelError`."""
        if not self.engine.ready:
            await self.engine.start()
        if self.recorder is not None:
            self.recorder.start()
        self._watchdog = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        await self.drain()
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self.engine.stop()
        if self.recorder is not None:
            await self.recorder.stop()
        if self.tracing is not None:
            await self.tracing.stop()

    @property
    def is_watching(self) -> bool:
        """Whether sessions need observers."""
        return self.recorder is not None or self.tracing is not None

    def observers(self, request: Request, protocol: str, audio_format: AudioFormat) -> Iterator[Observer]:
        """Those of a session that has just been opened."""
        info = self.engine.info
        if self.tracing is not None:
            yield self.tracing.begin(request, protocol, info.model)
        if self.recorder is not None:
            recording = self.recorder.begin(request, protocol, info.model, audio_format, info.sample_rate)
            if recording is not None:
                yield recording

    def _count_recording(self, outcome: str) -> None:
        self.metrics.recordings.labels(outcome=outcome).inc()

    @property
    def server_info(self) -> ServerInfo:
        """What protocols may say of the engine."""
        info = self.engine.info
        return ServerInfo(
            model=info.model,
            engine=info.engine,
            sample_rate=info.sample_rate,
            frame_samples=info.frame_samples,
            delay_seconds=info.delay_seconds,
            pause_horizons=info.pause_horizons,
            languages=info.languages,
            session_seconds=self.config.limits.session_seconds,
            strict_model=self.config.server.strict_model,
        )

    @property
    def not_ready_because(self) -> str:
        """Why nobody is let in, in words; empty when clients are, slots aside."""
        if self.draining:
            return "the server is restarting"
        if self.lost:
            return self.lost
        if self.engine.ready:
            return ""
        return starting(self.engine) if self.engine.stage else "the engine is not running"

    def admit(self, credential: str | None, headers: Mapping[str, str]) -> Account:
        """Whether a client may come in, and on whose account; header names in lower case.

        Raises `AccessError` or `RestartingError`.
        """
        self._check_origin(headers)
        account = self.keys.check(credential)
        if reason := self.not_ready_because:
            raise RestartingError(f"{reason}; try again in a moment")
        return account

    def check_upload_room(self, streams: int) -> None:
        """Slots that files have are slots that live callers have not. Raises `CapacityError`."""
        most = self.config.limits.upload_streams or max(1, self.engine.capacity // 2)
        if self.upload_streams and self.upload_streams + streams > most:
            raise CapacityError(f"files have {self.upload_streams} of their {most} streams; try again later")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Only browsers say where a page is from. Without keys, any page that somebody here looks at could connect."""
        origin, allowed = headers.get("origin"), self.config.server.allowed_origins
        if origin is None or "*" in allowed or origin in allowed or (not allowed and self.keys.asked_for):
            return
        if urlsplit(origin).netloc != headers.get("host"):
            raise OriginError(f"pages from {origin:.80} may not connect; the operator can allow them (allowed_origins)")

    def enter(self, connection: ManagedConnection) -> None:
        self._connections.add(connection)
        self._nobody.clear()

    def leave(self, connection: ManagedConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._nobody.set()

    async def drain(self) -> None:
        """Let nobody in, give every open stream its last words, and wait for them to leave: at most the grace time."""
        self.draining = True
        if not self._connections:
            return
        grace = self.config.limits.grace_seconds
        logger.info("restarting: %d connections have %.0f s for their last words", len(self._connections), grace)
        try:
            async with asyncio.timeout(grace):
                for connection in list(self._connections):
                    connection.restart()
                await self._nobody.wait()
        except TimeoutError:
            logger.warning("%d connections did not end within the grace time", len(self._connections))

    def refused(self, error: TympanError) -> None:
        self.metrics.refused.labels(reason=error.code).inc()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_EVERY_SECONDS)
            self.keys.refresh()
            self.lost = self.engine.check(self.config.limits.engine_seconds)
            for connection in list(self._connections):
                connection.check_limits(loop.time())


def _recorder(config: Config, count: Callable[[str], None]) -> Recorder | None:
    """Raises `ConfigError` and `MissingPackageError`: who asked for recordings would not miss them in time."""
    if config.recording.record_folder is None:
        return None
    try:
        from tympan.server.observability.recording import Recorder
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"recording needs the package {error.name}: pip install 'tympan[recording]'"
        ) from None
    return Recorder(config.recording, count)


def _tracing() -> Tracing | None:
    """Where the variables for it are set by whoever runs many programs, not all of them need have the package."""
    if not wants_spans():
        return None
    try:
        from tympan.server.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        logger.warning("no spans: the package %s is missing: pip install 'tympan[otel]'", error.name)
        return None
    return Tracing()
