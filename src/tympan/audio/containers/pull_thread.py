"""A thread used as a coroutine, for libraries that pull their input.

The thread runs only while its owner waits for it, so the results depend on the input and not on timing. They are handed
over when the thread needs more input, or when there are several.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_AHEAD = 16  # results per hand-over: switching threads costs more than decoding a packet

More = Callable[[], bytes]
"""Waits for the next bytes of the input; empty bytes are its end."""


@dataclass(frozen=True, slots=True)
class _Go:
    """To the thread: continue after a result."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """To the thread: stop."""


@dataclass(frozen=True, slots=True)
class _Pause(Generic[T]):
    """From the thread: results so far, and whether it needs more bytes."""

    values: list[T]
    hungry: bool


@dataclass(frozen=True, slots=True)
class _Over(Generic[T]):
    """From the thread, its last message: the body has returned, or raised `error`."""

    values: list[T]
    error: Exception | None


_Down = bytes | _Go | _Stop
_Up = _Pause[T] | _Over[T]


class _Worker(Generic[T]):
    """The thread's side. It has no reference to the `PullThread`, which could otherwise not be garbage-collected."""

    def __init__(self, body: Callable[[More], Generator[T]]) -> None:
        self.inbox: SimpleQueue[_Down] = SimpleQueue()
        self.outbox: SimpleQueue[_Up[T]] = SimpleQueue()
        self._body = body
        self._values: list[T] = []
        self._stopped = False
        self._ended = False

    def run(self) -> None:
        self._wait()
        error: Exception | None = None
        try:
            with closing(self._body(self._more)) as values:
                for value in values:
                    self._values.append(value)
                    if len(self._values) >= _MOST_AHEAD:
                        self._pause(hungry=False)
                    if self._stopped:
                        break
        except Exception as raised:  # raised in the owner's thread
            error = raised
        self.outbox.put(_Over(self._values, error))

    def _more(self) -> bytes:
        """Wait for input; it ends when the worker is stopped, so that no exception passes through C code."""
        if self._ended:
            return b""
        data = self._pause(hungry=True)
        self._ended = not data
        return data

    def _pause(self, *, hungry: bool) -> bytes:
        self.outbox.put(_Pause(self._values, hungry))
        self._values = []
        return self._wait()

    def _wait(self) -> bytes:
        """Wait for the owner's next message; empty unless it is input."""
        if self._stopped:
            return b""
        match self.inbox.get():
            case bytes(data):
                return data
            case _Stop():
                self._stopped = self._ended = True
        return b""


class PullThread(Generic[T]):
    """Runs `body(more)` in a thread, which starts with the first bytes and ends with the body or `close`.

    Errors of the body are raised by `results`.
    """

    def __init__(self, body: Callable[[More], Generator[T]], name: str) -> None:
        self._worker = _Worker(body)
        self._thread = threading.Thread(target=self._worker.run, name=name, daemon=True)
        self._finalizer = weakref.finalize(self, self._worker.inbox.put, _Stop())
        self._pending: deque[bytes] = deque()
        self._ready: deque[T] = deque()
        self._ended = False
        self._hungry = False
        self._over = False

    def feed(self, data: bytes) -> None:
        """Queue input bytes, which are used while `results` is advanced."""
        if data and not self._over:
            self._pending.append(data)

    def end(self) -> None:
        """Declare the end of the input."""
        self._ended = True

    def results(self) -> Iterator[T]:
        """Run the body until it needs more input, and yield its results."""
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._over or not self._can_go_on():
                return
            match self._resume():
                case _Pause(values, hungry):
                    self._ready += values
                    self._hungry = hungry
                case _Over(values, error):
                    yield from values
                    self.close()
                    if error is not None:
                        raise error

    def close(self) -> None:
        """Stop the thread. May be called more than once."""
        self._over = True
        self._pending.clear()
        self._ready.clear()
        self._finalizer()
        if self._thread.ident:
            self._thread.join()

    def _can_go_on(self) -> bool:
        """Return whether the body can run: it needs input before it starts and when it is hungry."""
        waits_for_input = self._hungry or not self._thread.ident
        return bool(self._pending) or self._ended or not waits_for_input

    def _resume(self) -> _Up[T]:
        """Run the thread until its next message."""
        message: _Down = _Go()
        if self._hungry:
            message = self._pending.popleft() if self._pending else b""
            self._hungry = False
        self._worker.inbox.put(message)
        if not self._thread.ident:
            self._thread.start()
        return self._worker.outbox.get()
