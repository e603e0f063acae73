"""The folder of recordings on disk, and the files of one recording.

A folder may be recorded in only if the operator has configured it, only its owner may enter it, and it contains a file
CONSENT that states who has agreed to be recorded, and for what. A copied setting alone therefore enables nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tympan.audio.containers.flac import FlacWriter
from tympan.messages import Pcm

CONSENT = "CONSENT"
MAX_CONSENT_CHARACTERS = 2000  # in the first line of every recording
MIN_FREE_BYTES = 256 << 10  # with less, the disk counts as full

_EXTENSIONS = ("flac", "jsonl")


class RecordingFolder:
    """The folder of a server's recordings.

    Attributes:
        path: The folder.
        bytes: Total size of its files; callers add what they write.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.bytes = 0
        self._max_bytes = max_bytes

    def problem(self) -> str:
        """Return why the folder may not be recorded in, or an empty string."""
        path = self.path
        try:
            if not path.is_dir():
                return f"there is no folder {path}"
            if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
                return f"other users may enter the folder {path}: run chmod 700 on it"
            if not os.access(path, os.W_OK | os.X_OK):
                return f"the folder {path} is not writable"
            if not self.consent():
                return f"{path / CONSENT} does not state who has agreed to be recorded"
        except OSError as error:
            return f"the folder {path} cannot be read: {error.strerror}"
        return ""

    def consent(self) -> str:
        """Return the text of the consent file, or an empty string."""
        try:
            return (self.path / CONSENT).read_text(encoding="utf-8", errors="replace")[:MAX_CONSENT_CHARACTERS].strip()
        except OSError:
            return ""

    def measure(self) -> None:
        """Set `bytes` to the size on disk.

        Raises:
            OSError: The folder cannot be read.
        """
        with os.scandir(self.path) as entries:
            self.bytes = sum(entry.stat().st_size for entry in entries if entry.is_file())

    def size_problem(self) -> str:
        """Return a message if the folder has reached its size limit, or an empty string."""
        if self.bytes < self._max_bytes:
            return ""
        return f"the folder has reached its limit of {self._max_bytes} bytes"

    def disk_is_full(self) -> bool:
        try:
            return shutil.disk_usage(self.path).free < MIN_FREE_BYTES
        except OSError:
            return False


class RecordingFiles:
    """The files `<id>.flac` and `<id>.jsonl` of one recording, with the suffix `.part` until it is complete.

    Methods that write raise `OSError` if the disk is full or fails.
    """

    def __init__(self, folder: Path, id: str, sample_rate: int, channels: int) -> None:
        self._folder = folder
        self._id = id
        self._audio_bytes = self._line_bytes = 0
        with ExitStack() as opened:
            self._audio = opened.enter_context(_create(self._part("flac")))
            self._lines = opened.enter_context(_create(self._part("jsonl")))
            self._flac = FlacWriter(self._audio.fileno(), sample_rate, channels)
            self._opened = opened.pop_all()

    @property
    def bytes(self) -> int:
        """Size of both files so far."""
        return self._audio_bytes + self._line_bytes

    def write_line(self, fields: Mapping[str, Any]) -> None:
        """Append one line of JSON."""
        self._line_bytes += self._lines.write(msgspec.json.encode(fields) + b"\n")

    def write_audio(self, samples: Pcm) -> None:
        """Append samples of shape `[n, channels]`."""
        self._flac.write(samples)
        self._audio_bytes = os.fstat(self._audio.fileno()).st_size

    def complete(self) -> None:
        """Close the files and give them their final names."""
        self._flac.close()
        self._audio_bytes = os.fstat(self._audio.fileno()).st_size
        self._opened.close()
        self._rename("")

    def abandon(self) -> None:
        """Close the files and mark them as incomplete; raise nothing."""
        self._flac.abandon()
        with suppress(OSError):
            self._opened.close()
        with suppress(OSError):
            self._rename(".incomplete")

    def _part(self, extension: str) -> Path:
        return self._folder / f"{self._id}.{extension}.part"

    def _rename(self, suffix: str) -> None:
        for extension in _EXTENSIONS:
            self._part(extension).rename(self._folder / f"{self._id}{suffix}.{extension}")


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb")
