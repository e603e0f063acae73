"""The signals that stop a server: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal was closed).

Their effect does not depend on the default action, which the kernel withholds from process 1 of a container. SIGHUP
stays ignored if it was ignored when the process started, as `nohup` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, Self

from tympan.server.observability.stderr_writer import stderr_handler

logger = logging.getLogger(__name__)

SAME_SIGNAL_SECONDS: Final = 0.5  # a wrapper that forwards a signal to the process group makes it arrive twice

_NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP")  # Windows has no SIGHUP


class StopSignals:
    """Context manager that handles the signals, in the main thread.

    Until `forward` is called, a signal ends the process at once: it has no streams yet, and the load of a model cannot
    be interrupted. After it, the first signal stops the server, the second one cuts the shutdown short, and the third
    one ends the process at once.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._received_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] = lambda: None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue
            self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def received(self) -> int:
        """The number of the first signal; 0 before it."""
        return self._numbers[0] if self._numbers else 0

    def forward(self, stop: Callable[[], None]) -> None:
        """Call `stop` on the running event loop at the first signal, and again at the second one."""
        self._loop, self._stop = asyncio.get_running_loop(), stop

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._loop is None or self._loop.is_closed():
            logger.info("%s: the process ends before it has served", name)
            end_process(number)
        now, before = time.monotonic(), self._received_at
        if self._numbers and (now - before < SAME_SIGNAL_SECONDS or name == "SIGHUP"):
            return  # a closed terminal sends SIGHUP twice: from the shell and from the kernel
        self._received_at = now
        self._numbers.append(number)
        if len(self._numbers) > 2:
            end_process(number)
        again = " without waiting for its streams" if len(self._numbers) > 1 else ""
        logger.info("%s: the server stops%s", name, again)
        self._loop.call_soon_threadsafe(self._stop)


def end_process(number: int) -> NoReturn:
    """Write the log, and end the process by the signal; process 1 exits with 128 plus its number instead."""
    stderr_handler().wait()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def end_server(fatal_error: str, signals: StopSignals) -> None:
    """End the process of a server that has stopped.

    It ends here, because the interpreter's shutdown may wait for a thread that hangs in a library.

    Args:
        fatal_error: Why it has stopped; empty after a signal.
        signals: The signals.
    """
    if fatal_error:
        logger.critical("%s: restart the server", fatal_error)
        stderr_handler().wait()
        os._exit(1)
    if signals.received:
        end_process(signals.received)
