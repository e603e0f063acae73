"""The interfaces of whatever receives a session's events: one listener, any number of observers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tympan.messages import Command, Event, Pcm


class SessionListener(Protocol):
    """Receives the events of a session, on the event loop. A `Session` is in turn the listener of its channels."""

    def on_event(self, event: Event, channel: int) -> None:
        """Handle one event; `channel` counts from 0."""

    def on_room(self) -> None:
        """Continue to send audio: the backlog has fallen to its limit after it was above it."""

    def on_end(self, error: Exception | None) -> None:
        """Handle the end, which is the last call: `None` after the last word, else the error that caused it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        code: The WebSocket close code; for a file in a request `ok`, `failed` or `cancelled`.
        error: The code of the error; empty after a normal end.
        seconds: Wall-clock time since the session was opened.
        audio_seconds: Audio received, in seconds.
        words: Number of words sent.
    """

    code: str
    error: str
    seconds: float
    audio_seconds: float
    words: int


class Observer:
    """Sees everything that passes through one session: a recording, a trace.

    The methods are called on the event loop; they must neither block nor raise.
    """

    def on_audio(self, samples: Pcm) -> None:
        """Handle decoded audio, `[n, channels]` at the engine's sample rate, which must not be changed."""

    def on_command(self, command: Command) -> None:
        """Handle a command before the session executes it; audio is a command, too."""

    def on_event(self, event: Event, channel: int) -> None:
        """Handle an event before the client's protocol sees it."""

    def on_end(self, outcome: Outcome) -> None:
        """Handle the end of the session, which is the last call."""
