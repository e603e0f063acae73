"""What all connections of a server share: the engine, the keys, the limits, the doors that close at shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from tympan.config import Config
from tympan.engine.base import Engine
from tympan.errors import OriginError, RestartingError, TympanError
from tympan.protocols.base import Offer
from tympan.server.auth import Keyring
from tympan.server.metrics import Metrics

if TYPE_CHECKING:
    from tympan.server.connection import Connection

logger = logging.getLogger(__name__)

WATCH_EVERY_SECONDS = 1.0


class Guest(Protocol):
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
        self.keys = Keyring(config.server.api_keys, config.server.token_secret, None if file is None else Path(file))
        self.resumable: dict[str, Connection] = {}
        """Open streams, by the token that their clients can come back with."""
        self.draining = False
        self.lost = ""
        """Why only an end of the process helps, in words; empty while something else does."""
        self._guests: set[Guest] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._watchdog: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the engine, if nobody did. Raises `ModelError`."""
        if not self.engine.ready:
            await self.engine.start()
        self._watchdog = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        await self.drain()
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self.engine.stop()

    @property
    def offer(self) -> Offer:
        """What protocols may say of the engine."""
        info = self.engine.info
        return Offer(
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
        return "" if self.engine.ready else "the engine is not running"

    def admit(self, credential: str | None, headers: Mapping[str, str]) -> None:
        """Whether a client may open a stream, slots aside; header names in lower case.

        Raises `AccessError` or `RestartingError`.
        """
        self._check_origin(headers)
        self.keys.check(credential)
        if self.draining:
            raise RestartingError("the server is restarting; try again in a moment")
        if not self.engine.ready:
            raise RestartingError("the engine is starting; try again in a moment")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Only browsers say where a page is from. Without keys, any page that somebody here looks at could connect."""
        origin, allowed = headers.get("origin"), self.config.server.allowed_origins
        if origin is None or "*" in allowed or origin in allowed or (not allowed and self.keys.asked_for):
            return
        if urlsplit(origin).netloc != headers.get("host"):
            raise OriginError(f"pages from {origin:.80} may not connect; the operator can allow them (allowed_origins)")

    def enter(self, guest: Guest) -> None:
        self._guests.add(guest)
        self._nobody.clear()

    def leave(self, guest: Guest) -> None:
        self._guests.discard(guest)
        if not self._guests:
            self._nobody.set()

    async def drain(self) -> None:
        """Let nobody in, give every open stream its last words, and wait for them to leave: at most the grace time."""
        self.draining = True
        if not self._guests:
            return
        grace = self.config.limits.grace_seconds
        logger.info("restarting: %d connections have %.0f s for their last words", len(self._guests), grace)
        try:
            async with asyncio.timeout(grace):
                for guest in list(self._guests):
                    guest.restart()
                await self._nobody.wait()
        except TimeoutError:
            logger.warning("%d connections did not end within the grace time", len(self._guests))

    def refused(self, error: TympanError) -> None:
        self.metrics.refused.labels(reason=error.code).inc()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_EVERY_SECONDS)
            self.keys.refresh()
            self.lost = self.engine.check(self.config.limits.engine_seconds)
            for guest in list(self._guests):
                guest.check_limits(loop.time())
