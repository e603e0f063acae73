"""The files of recordings, and the folder that they may be made in.

A folder is fit only if three things are so: the operator has named it, only its owner may enter it, and it holds a file
CONSENT with a text: who has agreed to be recorded, and for what. A setting that was copied along with others switches
nothing on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tympan.audio.containers.flac import FlacWriter
from tympan.messages import Pcm

CONSENT = "CONSENT"
MOST_CONSENT = 2000  # characters of it, in every recording's first line

_ENDINGS = ("flac", "jsonl")


def unfit(folder: Path) -> str:
    """Why nothing may be recorded there, in words; empty if it may."""
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}"
        if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            return f"others may enter the folder {folder}: chmod 700 it"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"the folder {folder} cannot be written to"
        if not consent(folder):
            return f"{folder / CONSENT} does not say who has agreed to be recorded"
    except OSError as error:
        return f"the folder {folder} cannot be looked at: {error.strerror}"
    return ""


def consent(folder: Path) -> str:
    """What the operator has written; empty if nothing."""
    try:
        return (folder / CONSENT).read_text(encoding="utf-8", errors="replace")[:MOST_CONSENT].strip()
    except OSError:
        return ""


def size_of(folder: Path) -> int:
    """Bytes of all files in it. Raises `OSError`."""
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())


class RecordingFiles:
    """`<id>.flac` and `<id>.jsonl`; with `.part` behind it while the session goes on. What writes raises `OSError`."""

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
        """Of both files so far."""
        return self._audio_bytes + self._line_bytes

    def write_line(self, fields: Mapping[str, Any]) -> None:
        """One line of JSON."""
        self._line_bytes += self._lines.write(msgspec.json.encode(fields) + b"\n")

    def write_audio(self, samples: Pcm) -> None:
        """`[n, channels]`."""
        self._flac.write(samples)
        self._audio_bytes = os.fstat(self._audio.fileno()).st_size

    def complete(self) -> None:
        """The session has ended, and everything is there."""
        self._flac.close()
        self._audio_bytes = os.fstat(self._audio.fileno()).st_size
        self._opened.close()
        self._rename("")

    def give_up(self) -> None:
        """Keep what is there, by a name that says that something is missing. Raises nothing."""
        self._flac.abandon()
        with suppress(OSError):
            self._opened.close()
        with suppress(OSError):
            self._rename(".incomplete")

    def _part(self, ending: str) -> Path:
        return self._folder / f"{self._id}.{ending}.part"

    def _rename(self, mark: str) -> None:
        for ending in _ENDINGS:
            self._part(ending).rename(self._folder / f"{self._id}{mark}.{ending}")


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb")
