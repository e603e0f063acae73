"""The interface to the files of a checkpoint, and files in a local folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tympan.errors import ModelError
from tympan.models.checkpoints.download import Report, no_report
from tympan.models.checkpoints.hub_errors import model_error

_MAX_HEADER_BYTES = 100_000_000  # of the safetensors format


@dataclass(frozen=True)
class FileStart:
    """A safetensors file of which at least the header is on the disk.

    Attributes:
        path: Path of what is on the disk.
        name: Path of the file for messages.
        size_bytes: Size of the complete file.
    """

    path: Path
    name: Path
    size_bytes: int

    @staticmethod
    def whole(path: Path) -> FileStart:
        """Return a complete file; raises ModelError if it does not exist."""
        if not path.is_file():
            raise ModelError(f"{path} does not exist")
        return FileStart(path, path, path.stat().st_size)


def header_end(path: Path) -> int:
    """Return the number of bytes up to the end of the header; 8 if the file is of another format."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    return 8 + (header_bytes if 2 <= header_bytes <= _MAX_HEADER_BYTES else 0)


class Files(ABC):
    """The files of one checkpoint."""

    @abstractmethod
    def find(self, name: str, report: Report = no_report) -> Path | None:
        """Return the local path of the file ``name``, or None if the checkpoint has no such file.

        Args:
            name: Name of the file.
            report: Called with the progress of a download.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return whether the checkpoint has the file ``name``, without downloading it."""

    @abstractmethod
    def find_start(self, name: str) -> FileStart | None:
        """Return the part of a safetensors file that contains its header, or None if there is no such file."""

    @abstractmethod
    def check_space(self, names: Iterable[str]) -> None:
        """Raise ModelError if the disk has no room for those of the files ``names`` that must be downloaded."""

    def get(self, name: str, report: Report = no_report) -> Path:
        """Return the local path of the file ``name``; raises ModelError if there is none."""
        file = self.find(name, report)
        if file is None:
            raise model_error(f"{self} has no file {name}")
        return file

    def get_start(self, name: str) -> FileStart:
        """Return the part of a safetensors file that contains its header; raises ModelError if there is no file."""
        start = self.find_start(name)
        if start is None:
            raise model_error(f"{self} has no file {name}")
        return start


@dataclass(frozen=True)
class Folder(Files):
    """A checkpoint in a local folder."""

    path: Path

    def find(self, name: str, report: Report = no_report) -> Path | None:
        """Return the path of the file, or None."""
        file = self.path / name
        return file if file.is_file() else None

    def has(self, name: str) -> bool:
        """Return whether the file exists."""
        return self.find(name) is not None

    def find_start(self, name: str) -> FileStart | None:
        """Return the whole file, or None."""
        file = self.find(name)
        return None if file is None else FileStart.whole(file)

    def check_space(self, names: Iterable[str]) -> None:
        """Do nothing: the files are there."""

    def __str__(self) -> str:
        return str(self.path)
