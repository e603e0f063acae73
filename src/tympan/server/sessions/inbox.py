"""Messages on their way from a client to its session, which may have no room for them yet.

The socket is read while they wait: a client that sends a whole file at once would otherwise get no answer to its pings,
which follow the audio, and close the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from tympan.protocols.base import WireMessage
from tympan.server.sessions.backlog import Backlog
from tympan.server.spool import Spool

BURST_MESSAGES: Final = 250
BURST_SECONDS: Final = 0.05  # between bursts of messages that have waited, so that other clients are served


class Inbox:
    """Passes messages on in order, as long as there is room.

    Args:
        spool: Keeps messages that wait.
        most_bytes: Bytes that wait above which the socket is not read.
        handle: Handles a message; it calls `hold` if there is no room for more.
        set_reading: Stops or continues to read the socket.
        fail: Ends the session, because messages are lost.
    """

    def __init__(
        self,
        spool: Spool,
        most_bytes: int,
        handle: Callable[[WireMessage], None],
        set_reading: Callable[[bool], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._handle = handle
        self._set_reading = set_reading
        self._fail = fail
        self._backlog = Backlog(spool, most_bytes, self._pass_on)
        self._is_held = self._is_reading_paused = self._is_closed = False
        self._waits = False  # whether the backlog may have messages
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether messages wait."""
        return bool(self._backlog)

    def put(self, message: WireMessage) -> None:
        """Pass on a message, or keep it until those before it have been passed on."""
        if self._is_closed:
            return
        if self._is_held or self._waits:
            self._waits = True
            self._backlog.put(message)
            self._update_reading()
        else:
            self._handle(message)

    def hold(self) -> None:
        """Keep further messages until `on_room`."""
        self._is_held = True

    def on_room(self) -> None:
        """Pass on the messages that wait, as far as there is room."""
        self._is_held = False
        self._pass_on()

    def restart(self) -> None:
        """Discard the messages that wait; those of a new transport follow."""
        self._discard()
        self._is_reading_paused = False

    def close(self) -> None:
        """Discard the messages that wait and those that follow; the socket is read."""
        self._is_closed = True
        self._discard()
        self._update_reading()

    def _discard(self) -> None:
        self._backlog.clear()
        self._waits = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_on(self) -> None:
        if self._timer is not None:
            return
        for _ in range(BURST_MESSAGES):
            if self._is_held or self._is_closed:
                break
            try:
                message = self._backlog.take()
            except OSError as error:
                self._fail(error)
                return
            if message is None:
                self._waits = bool(self._backlog)  # blocks that are being read from the disk
                break
            self._handle(message)
        else:
            self._timer = asyncio.get_running_loop().call_later(BURST_SECONDS, self._on_timer)
        self._update_reading()

    def _on_timer(self) -> None:
        self._timer = None
        self._pass_on()

    def _update_reading(self) -> None:
        if self._is_reading_paused != self._backlog.is_full:
            self._is_reading_paused = not self._is_reading_paused
            self._set_reading(not self._is_reading_paused)
