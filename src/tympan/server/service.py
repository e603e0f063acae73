"""What all connections of a server share: the engine, admission, open connections, metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

from tympan.audio.budget import ByteBudget
from tympan.audio.containers.launcher import UNDECODED_BYTES, launcher
from tympan.config import Config
from tympan.engine.base import Engine, describe_startup
from tympan.errors import RestartingError, TympanError
from tympan.protocols.base import ServerInfo
from tympan.server.access.admission import Admission
from tympan.server.access.auth import Keyring, MetricsAccess
from tympan.server.access.front import Front
from tympan.server.access.ledger import Counts
from tympan.server.access.quota import Account
from tympan.server.access.shared_account import SharedAccount, report_use
from tympan.server.access.start_checks import read_token_secret
from tympan.server.connections import Connections
from tympan.server.observability.metrics import Metrics
from tympan.server.observability.observers import Observers
from tympan.server.observability.refusals import RefusalLog
from tympan.server.spool import WAITING_BYTES, Spool

CHECK_EVERY_SECONDS = 1.0
BUFFERED_BYTES = 256 << 20  # of the bodies that are kept until they are complete


class Service:
    """One per application. Call `start` before the first connection and `stop` after the last.

    Attributes:
        config: All settings.
        engine: The engine that transcribes.
        front: What this process knows of the other front processes; None if there are no others.
        counts: Counts what clients have in use, in all front processes.
        metrics: The Prometheus metrics.
        keys: The accepted API keys.
        metrics_access: Checks the keys for the metrics.
        connections: The open connections.
        buffered: The budget of the bodies that are kept until they are complete.
        spool: Keeps the messages that wait for the engine.
        admission: Admits clients and opens their sessions.
        observers: Makes the recordings and traces of sessions.
        refusals: Logs refused clients.
        fatal_error: Fatal error that requires a restart of the process; empty while the engine can recover.
    """

    def __init__(self, config: Config, engine: Engine, front: Front | None = None) -> None:
        self.config = config
        self.engine = engine
        self.front = front
        self.counts = Counts() if front is None else front.ledger
        self.metrics = Metrics(engine)
        server = config.server
        file = None if server.api_keys_file is None else Path(server.api_keys_file)
        self.keys = Keyring(
            server.api_keys,
            read_token_secret(server),
            file,
            config.keys,
            accept_foreign_tokens=server.accept_foreign_tokens,
            make_account=Account if front is None else partial(SharedAccount, ledger=front.ledger),
        )
        self.metrics_access = MetricsAccess(server.metrics_keys, public=not server.asks_for_keys)
        self.metrics.show_keys(lambda: self.keys.accounts)
        self.connections = Connections()
        fronts, largest = 1 if front is None else server.fronts, config.limits.upload_bytes
        self.buffered = ByteBudget(max(largest, BUFFERED_BYTES // fronts))
        self.spool = Spool(WAITING_BYTES // fronts)
        launcher().undecoded.most_bytes = max(largest, UNDECODED_BYTES // fronts)
        budgets = {"buffered": self.buffered, "undecoded": launcher().undecoded, "backlog": self.spool.waiting}
        self.metrics.show_budgets(budgets, lambda: self.connections.lost)
        self.admission = Admission(config, engine, self.keys, lambda: self.unavailable_reason, self._evict, self.counts)
        self.observers = Observers(config, lambda outcome: self.metrics.recordings.labels(outcome=outcome).inc())
        self.refusals = RefusalLog()
        self.fatal_error = ""
        self._checks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the engine if it is not ready yet.

        Raises:
            ModelError: The model cannot be loaded.
        """
        if not self.engine.ready:
            await self.engine.start()
        self.observers.start()
        launcher().prepare()  # so that the first container need not wait for it
        self._checks = asyncio.create_task(self._check_regularly())

    async def stop(self) -> None:
        """End all connections, then stop the engine."""
        await self.drain()
        if self._checks is not None:
            self._checks.cancel()
        await self.engine.stop()
        await self.observers.stop()
        self.refusals.report()

    async def drain(self) -> None:
        """Accept no more connections and end the open ones within the grace time."""
        await self.connections.drain(self.config.limits.grace_seconds)

    @property
    def server_info(self) -> ServerInfo:
        """What protocols may report about the server."""
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
    def unavailable_reason(self) -> str:
        """Why no session can be opened; empty if one can, apart from free slots."""
        if self.connections.draining:
            return "the server is restarting"
        if self.fatal_error:
            return self.fatal_error
        if self.engine.ready:
            return ""
        return describe_startup(self.engine) if self.engine.stage else "the engine is not running"

    @property
    def not_ready_reason(self) -> str:
        """Why `/ready` answers 503. A server that leaves may accept clients for a while: see `drain_delay_seconds`."""
        return "draining" if self.connections.leaving else self.unavailable_reason

    def _evict(self, now: float) -> bool:
        evicted = self.connections.evict(now)
        self.metrics.evicted.inc(evicted)
        return evicted

    def count_refusal(self, error: TympanError) -> None:
        """Count a client that was refused, by the code of the error."""
        self.metrics.refused.labels(reason=error.code).inc()

    async def _check_regularly(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_EVERY_SECONDS)
            self.keys.refresh()
            self.fatal_error = self.engine.check(self.config.limits.engine_seconds)
            if self.front is not None:
                self._report_use(self.front)
            self.connections.check_limits(loop.time())
            self.refusals.check(loop.time())

    def _report_use(self, front: Front) -> None:
        with suppress(RestartingError):
            accounts = [*self.keys.accounts, self.keys.shared_account]
            report_use(front.ledger, accounts, asyncio.get_running_loop().time())
        self.fatal_error = self.fatal_error or front.ledger.error
