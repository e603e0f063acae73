"""Recordings of streams: what was heard and what was told, on disk, where the operator has asked for it.

A stream never waits for the disk. The event loop leaves what goes by in a queue, and one thread writes it, ten times a
second. When the disk is full or fails, the folder has reached its size, or its consent is taken back, recording stops:
what was open is left incomplete, one line in the log says why, and the streams go on. Later it is tried again.
Nothing is ever deleted: what an operator asked to keep is the operator's to remove.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
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
from tympan.server.observability.recording_files import RecordingFiles, consent, size_of, unfit
from tympan.session.listener import Observer, Outcome

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.1
RETRY_SECONDS = 60.0
STOP_SECONDS = 10.0  # for what waits at the end; a disk that hangs must not keep the server from stopping
MOST_WAITING_BYTES = 64 << 20
LEAST_FREE_BYTES = 256 << 10  # on a disk that is not full
LINE_BYTES = 256  # what one waiting line is counted for

COMMAND_NAMES: Mapping[type[Command], str] = {Flush: "flush", Finish: "finish", Reset: "reset", SetFormat: "format"}


@dataclass(frozen=True, slots=True)
class Opening:
    """The first of a recording: make its files."""

    head: Mapping[str, Any]
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class Note:
    """One line of JSON: these fields, then those of `what`."""

    fields: Mapping[str, Any]
    what: Command | Event | Outcome


class End(Enum):
    """The last of a recording."""

    COMPLETE = auto()
    GIVE_UP = auto()


Work = Opening | Pcm | Note | End


def declines(request: Request) -> bool:
    """Whether this client does not want to be recorded. Deepgram's clients have a word of their own for it."""
    return request.query.get("record") == "no" or request.query.get("mip_opt_out", "").lower() == "true"


class Recording(Observer):
    """One session's; leaves everything to the recorder's thread."""

    def __init__(self, recorder: Recorder, id: str, sample_rate: int) -> None:
        self.id = id
        self.wanted = True
        """False once it is given up: what still comes is thrown away."""
        self._recorder = recorder
        self._sample_rate = sample_rate
        self._samples = 0
        self._began = time.monotonic()

    def on_audio(self, samples: Pcm) -> None:
        self._samples += len(samples)
        self._recorder.put(self, samples, samples.nbytes)

    def on_command(self, command: Command) -> None:
        if not isinstance(command, Audio | KeepAlive):
            self._note({"command": COMMAND_NAMES[type(command)]}, command)

    def on_event(self, event: Event, channel: int) -> None:
        self._note({"event": TYPE_NAMES[type(event)], "channel": channel}, event)

    def on_end(self, outcome: Outcome) -> None:
        self._note({"event": "closed"}, outcome)
        self._recorder.put(self, End.COMPLETE, 0)

    def _note(self, fields: Mapping[str, Any], what: Command | Event | Outcome) -> None:
        """`at` is seconds since the session was opened, `heard` where in the audio file that is."""
        at = round(time.monotonic() - self._began, 3)
        heard = round(self._samples / self._sample_rate, 3)
        self._recorder.put(self, Note({"at": at, "heard": heard, **fields}, what), LINE_BYTES)


class Recorder:
    """All recordings of a server."""

    def __init__(self, settings: RecordingSettings, count: Callable[[str], None]) -> None:
        """`count` is called with each outcome, from any thread. Raises `ConfigError` for a folder that is not fit."""
        assert settings.record_folder is not None
        self.folder = Path(settings.record_folder)
        self._most_bytes = settings.record_bytes
        self._count = count
        if reason := unfit(self.folder):
            raise ConfigError(f"record_folder: {reason}")
        self.stopped_because = ""
        """Why nothing is recorded at the moment; empty if it is."""
        self._waiting: deque[tuple[Recording, Work, int]] = deque()
        self._put_bytes = 0  # the loop's count …
        self._written_bytes = 0  # … and the thread's: no lock is needed
        self._open: dict[Recording, RecordingFiles] = {}
        self._folder_bytes = size_of(self.folder)
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tympan-recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Write what waits."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def begin(self, request: Request, protocol: str, model: str, given: AudioFormat, rate: int) -> Recording | None:
        """A recording of a session of which this is known, in files at `rate`; `None` if it is not recorded."""
        if declines(request):
            self._count("declined")
            return None
        if self.stopped_because or self._is_full:
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
        return self._put_bytes - self._written_bytes > MOST_WAITING_BYTES

    def put(self, recording: Recording, work: Work, size: int) -> None:
        """Leave this for the thread. A recording for which there is no room is given up."""
        if recording.wanted and self._is_full:
            recording.wanted = False
            self._waiting.append((recording, End.GIVE_UP, 0))
            fields = {"session": recording.id}
            logger.warning("%s: the disk is too slow, its recording is incomplete", recording.id, extra=fields)
        elif recording.wanted:
            self._put_bytes += size
            self._waiting.append((recording, work, size))

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            self._beat()
        self._beat()
        for recording in list(self._open):
            self._give_up(recording)

    def _beat(self) -> None:
        if not self.stopped_because:
            if reason := unfit(self.folder):
                self._stop_recording(reason)
        elif time.monotonic() >= self._retry_at:
            self._try_again()
        while self._waiting:
            recording, work, size = self._waiting.popleft()
            self._written_bytes += size
            try:
                self._work_off(recording, work)
            except OSError as error:
                self._stop_recording("the disk is full" if self._disk_is_full() else error.strerror or str(error))
            except Exception:
                logger.exception("a recording broke")
                self._stop_recording("internal error")
            if self._folder_bytes >= self._most_bytes and not self.stopped_because:
                self._stop_recording(f"the folder has reached its size of {self._most_bytes} bytes")

    def _work_off(self, recording: Recording, work: Work) -> None:
        """Raises `OSError`."""
        if isinstance(work, Opening):
            self._open_files(recording, work)
        files = self._open.get(recording)
        if files is None:  # it was given up
            return
        before = files.bytes
        match work:
            case Opening():
                files.write_line({**work.head, "consent": consent(self.folder)})
            case Note():
                files.write_line({**work.fields, **msgspec.to_builtins(work.what)})
            case np.ndarray():
                files.write_audio(work)
            case End.COMPLETE:
                files.complete()
                del self._open[recording]
                self._count("complete")
            case End.GIVE_UP:
                self._give_up(recording)
        self._folder_bytes += files.bytes - before

    def _open_files(self, recording: Recording, opening: Opening) -> None:
        if self.stopped_because:
            recording.wanted = False
            self._count("skipped")
            return
        try:
            self._open[recording] = RecordingFiles(self.folder, recording.id, opening.sample_rate, opening.channels)
        except OSError:
            recording.wanted = False
            self._count("incomplete")
            raise

    def _give_up(self, recording: Recording) -> None:
        recording.wanted = False
        self._open.pop(recording).give_up()
        self._count("incomplete")

    def _stop_recording(self, reason: str) -> None:
        self.stopped_because = reason
        self._retry_at = time.monotonic() + RETRY_SECONDS
        broken = list(self._open)
        for recording in broken:
            self._give_up(recording)
        logger.error("recording has stopped, %d recordings are incomplete, streams go on: %s", len(broken), reason)

    def _try_again(self) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        try:
            self._folder_bytes = size_of(self.folder)
        except OSError:
            return
        if not (self._disk_is_full() or unfit(self.folder) or self._folder_bytes >= self._most_bytes):
            self.stopped_because = ""
            logger.info("recording goes on")

    def _disk_is_full(self) -> bool:
        try:
            return shutil.disk_usage(self.folder).free < LEAST_FREE_BYTES
        except OSError:
            return False
