"""The time limits of one stream."""

from __future__ import annotations

from tympan.config import LimitSettings
from tympan.errors import IdleError, LimitError, SessionTooLongError
from tympan.server.access.quota import AudioMeter


class StreamTimer:
    """Measures how long a stream is open, and how long nothing, or no audio, has been received.

    Args:
        limits: The limits.
        idle_factor: By how much the protocol multiplies the limit of the time without a message.
        now: When the stream was opened; all times are the event loop's.

    Attributes:
        opened_at: When the stream was opened.
        received: Whether a message was received since the last check; reading the clock for each message costs more.
    """

    def __init__(self, limits: LimitSettings, idle_factor: float, now: float) -> None:
        self.opened_at = self._received_at = self._audio_at = now
        self.received = False
        self._limits = limits
        self._idle_seconds = idle_factor * limits.idle_seconds
        self._audio_seconds = 0.0

    def check(self, now: float, session: AudioMeter | None, *, owes_answer: bool) -> LimitError | None:
        """Return an error if a limit is reached; called about once a second.

        Args:
            now: The time of this call.
            session: The session, whose audio is measured.
            owes_answer: Whether the client may be waiting for an answer to what it has sent.
        """
        limits, audio_seconds = self._limits, 0.0 if session is None else session.heard_seconds
        if self.received or owes_answer:
            self.received, self._received_at = False, now
        if audio_seconds != self._audio_seconds or owes_answer:
            self._audio_seconds, self._audio_at = audio_seconds, now
        if now - self.opened_at > limits.session_seconds:
            return SessionTooLongError(f"the session reached its limit of {limits.session_seconds:g} s")
        if now - self._received_at > self._idle_seconds:
            return IdleError(f"no message was received for {self._idle_seconds:g} s")
        if now - self._audio_at > limits.silent_seconds:
            return IdleError(f"no audio was received for {limits.silent_seconds:g} s")
        return None
