"""Recordings of sessions: received audio, commands and events, written to disk if the operator enables it.

A stream never waits for the disk. The event loop puts work into a queue, and one thread writes it ten times a second.
When the disk is full or fails, the folder has reached its size limit, or the consent is withdrawn, recording stops:
open recordings are marked as incomplete, one line in the log gives the reason, and the streams continue. The recorder
retries once a minute. It never deletes a file: recordings are the operator's to remove.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tympan.config import RecordingSettings
from tympan.errors import ConfigError
from tympan.messages import Audio, AudioFormat, Command, Event, Finish, Flush, KeepAlive, Pcm, Reset, SetFormat
from tympan.protocols.base import Request
from tympan.protocols.native import TYPE_NAMES
from tympan.server.observability.recording_files import RecordingFiles, RecordingFolder
from tympan.session.listener import Observer, Outcome

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.1
RETRY_SECONDS = 60.0
STOP_SECONDS = 10.0  # to write the rest of the queue; a disk that hangs must not prevent the server from stopping
MAX_QUEUED_BYTES = 64 << 20
LINE_BYTES = 256  # what a queued line counts as

COMMAND_NAMES: Mapping[type[Command], str] = {Flush: "flush", Finish: "finish", Reset: "reset", SetFormat: "format"}


@dataclass(frozen=True, slots=True)
class Opening:
    """The first work item of a recording: create its files."""

    head: Mapping[str, Any]
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of JSON: `fields`, then the fields of `content`."""

    fields: Mapping[str, Any]
    content: Command | Event | Outcome


class End(Enum):
    """The last work item of a recording."""

    COMPLETE = auto()
    ABANDON = auto()


Work = Opening | Pcm | LogLine | End


def declines(request: Request) -> bool:
    """Return whether the client declines to be recorded; Deepgram's clients use `mip_opt_out`."""
    return request.query.get("record") == "no" or request.query.get("mip_opt_out", "").lower() == "true"


class Recording(Observer):
    """The recording of one session; passes everything to the recorder's thread.

    Attributes:
        id: The session's id.
        active: False once the recording is abandoned; later work is discarded.
    """

    def __init__(self, recorder: Recorder, id: str, sample_rate: int) -> None:
        self.id = id
        self.active = True
        self._recorder = recorder
        self._sample_rate = sample_rate
        self._samples = 0
        self._began = time.monotonic()

    def on_audio(self, samples: Pcm) -> None:
        self._samples += len(samples)
        self._recorder.put(self, samples, samples.nbytes)

    def on_command(self, command: Command) -> None:
        if not isinstance(command, Audio | KeepAlive):
            self._put_line({"command": COMMAND_NAMES[type(command)]}, command)

    def on_event(self, event: Event, channel: int) -> None:
        self._put_line({"event": TYPE_NAMES[type(event)], "channel": channel}, event)

    def on_end(self, outcome: Outcome) -> None:
        self._put_line({"event": "closed"}, outcome)
        self._recorder.put(self, End.COMPLETE, 0)

    def _put_line(self, fields: Mapping[str, Any], content: Command | Event | Outcome) -> None:
        # `at` is the time since the session was opened, `heard` the length of the recorded audio, both in seconds.
        at = round(time.monotonic() - self._began, 3)
        heard = round(self._samples / self._sample_rate, 3)
        self._recorder.put(self, LogLine({"at": at, "heard": heard, **fields}, content), LINE_BYTES)


class Recorder:
    """Writes the recordings of a server, in a thread.

    Attributes:
        folder: The folder of the recordings.
        stop_reason: Why recording has stopped for now; empty while it works.
    """

    def __init__(self, settings: RecordingSettings, count: Callable[[str], None]) -> None:
        """Check the folder; `count` is called with the outcome of each recording, from any thread.

        Raises:
            ConfigError: The folder may not be recorded in.
        """
        assert settings.record_folder is not None
        self.folder = Path(settings.record_folder)
        self.stop_reason = ""
        self._storage = RecordingFolder(self.folder, settings.record_bytes)
        self._count = count
        if problem := self._storage.problem():
            raise ConfigError(f"record_folder: {problem}")
        self._storage.measure()
        self._queue: deque[tuple[Recording, Work, int]] = deque()
        self._put_bytes = 0  # written by the event loop only …
        self._written_bytes = 0  # … and by the thread only, so that no lock is needed
        self._open: dict[Recording, RecordingFiles] = {}
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tympan-recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Write the rest of the queue and stop the thread."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def begin(self, request: Request, protocol: str, model: str, given: AudioFormat, rate: int) -> Recording | None:
        """Start the recording of a session whose audio arrives at `rate` Hz; `given` is the client's format.

        Returns:
            The recording, or `None` if the client declines or recording is not possible.
        """
        if declines(request):
            self._count("declined")
            return None
        if self.stop_reason or self._is_full:
            self._count("skipped")
            return None
        recording = Recording(self, request.id, rate)
        head = {
            "session": request.id,
            "opened": datetime.fromtimestamp(request.opened_at, UTC).isoformat(timespec="milliseconds"),
            "protocol": protocol,
            "path": request.path,
            "model": model,
            "format": given,
            "sample_rate": rate,
        }
        self.put(recording, Opening(head, rate, given.streams), LINE_BYTES)
        return recording

    @property
    def _is_full(self) -> bool:
        return self._put_bytes - self._written_bytes > MAX_QUEUED_BYTES

    def put(self, recording: Recording, work: Work, size: int) -> None:
        """Queue work of `size` bytes for the thread; abandon the recording if the queue is full."""
        if recording.active and self._is_full:
            recording.active = False
            self._queue.append((recording, End.ABANDON, 0))
            fields = {"session": recording.id}
            logger.warning("%s: the disk is too slow; its recording is incomplete", recording.id, extra=fields)
        elif recording.active:
            self._put_bytes += size
            self._queue.append((recording, work, size))

    # --- The thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            self._tick()
        self._tick()
        for recording in list(self._open):
            self._abandon(recording)

    def _tick(self) -> None:
        if not self.stop_reason:
            if problem := self._storage.problem():
                self._stop_recording(problem)
        elif time.monotonic() >= self._retry_at:
            self._retry()
        while self._queue:
            recording, work, size = self._queue.popleft()
            self._written_bytes += size
            try:
                self._process(recording, work)
            except OSError as error:
                full = self._storage.disk_is_full()
                self._stop_recording("the disk is full" if full else error.strerror or str(error))
            except Exception:
                logger.exception("internal error in a recording")
                self._stop_recording("internal error")
            if (problem := self._storage.size_problem()) and not self.stop_reason:
                self._stop_recording(problem)

    def _process(self, recording: Recording, work: Work) -> None:
        if isinstance(work, Opening):
            self._create_files(recording, work)
        files = self._open.get(recording)
        if files is None:  # the recording was abandoned
            return
        bytes_before = files.bytes
        match work:
            case Opening():
                files.write_line({**work.head, "consent": self._storage.consent()})
            case LogLine():
                files.write_line({**work.fields, **msgspec.to_builtins(work.content)})
            case np.ndarray():
                files.write_audio(work)
            case End.COMPLETE:
                files.complete()
                del self._open[recording]
                self._count("complete")
            case End.ABANDON:
                self._abandon(recording)
        self._storage.bytes += files.bytes - bytes_before

    def _create_files(self, recording: Recording, opening: Opening) -> None:
        if self.stop_reason:
            recording.active = False
            self._count("skipped")
            return
        try:
            self._open[recording] = RecordingFiles(self.folder, recording.id, opening.sample_rate, opening.channels)
        except OSError:
            recording.active = False
            self._count("incomplete")
            raise

    def _abandon(self, recording: Recording) -> None:
        recording.active = False
        self._open.pop(recording).abandon()
        self._count("incomplete")

    def _stop_recording(self, reason: str) -> None:
        self.stop_reason = reason
        self._retry_at = time.monotonic() + RETRY_SECONDS
        incomplete = list(self._open)
        for recording in incomplete:
            self._abandon(recording)
        logger.error(
            "recording has stopped, %d recordings are incomplete, streams continue: %s", len(incomplete), reason
        )

    def _retry(self) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        try:
            self._storage.measure()
        except OSError:
            return
        if not (self._storage.disk_is_full() or self._storage.problem() or self._storage.size_problem()):
            self.stop_reason = ""
            logger.info("recording has resumed")
