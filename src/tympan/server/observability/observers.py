"""The observers of a server's sessions: recordings and traces, where the operator has asked for them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tympan.config import Config, wants_spans
from tympan.engine.base import EngineInfo
from tympan.errors import missing_package
from tympan.messages import AudioFormat
from tympan.protocols.base import Request
from tympan.session.listener import Observer

logger = logging.getLogger(__name__)


class Observers:
    """Makes the observers of each session.

    Args:
        config: Where to record.
        count_recording: Called with the outcome of each recording, from any thread.

    Attributes:
        recorder: Writes the recordings; `None` without a `record_folder`.

    Raises:
        ConfigError: The folder for recordings is not suitable.
        MissingPackageError: Recording is configured and its package is missing.
    """

    def __init__(self, config: Config, count_recording: Callable[[str], None]) -> None:
        self.recorder = None
        self._tracing = None
        if config.recording.record_folder is not None:
            try:
                from tympan.server.observability.recording import Recorder
            except ModuleNotFoundError as error:
                raise missing_package("recording", error.name, "recording") from None
            self.recorder = Recorder(config.recording, count_recording)
        if wants_spans():
            # OpenTelemetry's variables may be set for every program of a machine: a missing package is no error.
            try:
                from tympan.server.observability.tracing import Tracing
            except ModuleNotFoundError as error:
                logger.warning("no spans: %s", missing_package("OpenTelemetry", error.name, "otel"))
            else:
                self._tracing = Tracing()

    def __bool__(self) -> bool:
        return self.recorder is not None or self._tracing is not None

    def start(self) -> None:
        """Start the thread that writes recordings."""
        if self.recorder is not None:
            self.recorder.start()

    async def stop(self) -> None:
        """Write and send what is pending."""
        if self.recorder is not None:
            await self.recorder.stop()
        if self._tracing is not None:
            await self._tracing.stop()

    def begin(self, request: Request, protocol: str, audio_format: AudioFormat, info: EngineInfo) -> list[Observer]:
        """Return the observers of a session that has just been opened."""
        observers: list[Observer] = []
        if self._tracing is not None:
            observers.append(self._tracing.begin(request, protocol, info.model))
        if self.recorder is not None:
            recording = self.recorder.begin(request, protocol, info.model, audio_format, info.sample_rate)
            if recording is not None:
                observers.append(recording)
        return observers
