"""Admission: whether a client may open a session, checked in one place.

In this order: host and origin of the request, the API key, whether the server is ready, the share of the slots that
files may take, free slots, the limits of the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tympan.config import Config
from tympan.engine.base import Engine
from tympan.errors import CapacityError, RestartingError, TympanError
from tympan.messages import AudioFormat
from tympan.server.access.auth import Keyring
from tympan.server.access.ledger import Counts
from tympan.server.access.ledger_client import LedgerClient
from tympan.server.access.origins import check_host, check_origin
from tympan.server.access.quota import Account, Usage
from tympan.session.listener import SessionListener
from tympan.session.session import Session

FILES = "files"  # the name of their count


class Admission:
    """Admits clients (`check_client`) and opens their sessions (`open_session`).

    Args:
        config: Origins and limits.
        engine: The engine whose slots sessions take.
        keys: The accepted API keys.
        unavailable_reason: Returns why no session can be opened at the moment, or an empty string.
        evict: Releases a stream whose client is gone, given the event loop's time; returns whether there was one.
        counts: Counts the slots that files take.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        keys: Keyring,
        unavailable_reason: Callable[[], str],
        evict: Callable[[float], bool],
        counts: Counts | LedgerClient,
    ) -> None:
        self._config = config
        self._engine = engine
        self._keys = keys
        self._unavailable_reason = unavailable_reason
        self._evict = evict
        self._counts = counts

    def check_client(self, credential: str | None, headers: Mapping[str, str]) -> Account:
        """Return the account of a client that may connect; header names are in lower case.

        Raises:
            HostError: The request was sent to a host name that is not allowed.
            OriginError: The request comes from a web page that is not allowed.
            AccessError: The key is missing or unknown, or the token has expired or its key was removed.
            RestartingError: The server is starting or shutting down.
        """
        check_host(headers, self._config.server.allowed_hosts, self._keys.asked_for)
        check_origin(headers, self._config.server.allowed_origins, self._keys.asked_for)
        account = self._keys.check(credential)
        self.check_available()
        return account

    def check_available(self) -> None:
        """Check that sessions can be opened at the moment.

        Raises:
            RestartingError: The server is starting or shutting down.
        """
        if reason := self._unavailable_reason():
            raise RestartingError(f"{reason}; try again in a moment")

    def open_session(
        self,
        account: Account,
        id: str,
        audio_format: AudioFormat,
        listener: SessionListener,
        *,
        wants_vad: bool,
        live: bool = True,
    ) -> tuple[Session, Usage]:
        """Return a session with its slots taken, and its usage of the account, which must be ended with `end`.

        Raises:
            CapacityError: Too few slots are free, or files have used their share of them.
            QuotaError: The key has reached one of its limits.
            EngineError: The engine is not running.
        """
        if live:
            return self._open(account, id, audio_format, listener, wants_vad=wants_vad, live=True)
        streams = audio_format.streams
        most = self._config.limits.upload_streams or max(1, self._engine.capacity // 2)
        used = self._counts.take(FILES, streams, most)
        if used is not None:
            raise CapacityError(f"upload capacity is in use ({used} of {most} streams); try again later")
        try:
            return self._open(account, id, audio_format, listener, wants_vad=wants_vad, live=False)
        except TympanError:
            self.end_upload(streams)
            raise

    def end_upload(self, streams: int) -> None:
        """Return the slots of a file to the share that files may take."""
        self._counts.give(FILES, streams)

    def _open(
        self,
        account: Account,
        id: str,
        audio_format: AudioFormat,
        listener: SessionListener,
        *,
        wants_vad: bool,
        live: bool,
    ) -> tuple[Session, Usage]:
        now = asyncio.get_running_loop().time()
        while True:
            try:
                session = Session(
                    id, self._engine, audio_format, self._config, listener, wants_vad=wants_vad, live=live
                )
                break
            except CapacityError:
                if not (live and self._evict(now)):
                    raise
        try:
            return session, account.open(session, audio_format.streams, now)
        except TympanError:
            session.close()
            raise
