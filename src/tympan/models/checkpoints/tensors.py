"""Reading safetensors files: what is in them without loading, then one tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tympan.errors import ModelError

_LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its shape, its element type by safetensors' name, its size in the file."""

    file: Path
    shape: tuple[int, ...]
    kind: str
    size_bytes: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file by name. Raises ModelError when the file is missing, truncated, or of another format."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 2 <= header_bytes <= _LONGEST_HEADER_BYTES:
            raise ModelError(f"{path} is not a safetensors file")
        text = file.read(header_bytes)
    if len(text) < header_bytes and text[:1] == b"{":
        raise ModelError(
            f"{path} is truncated: its header alone takes {header_bytes + 8} bytes, the file has {file_bytes}"
        )
    entries = _parse_header(path, text)
    expected = 8 + header_bytes + sum(entry.size_bytes for entry in entries.values())
    if file_bytes < expected:
        raise ModelError(f"{path} is truncated: its tensors take {expected} bytes, the file has {file_bytes}")
    return entries


def _parse_header(path: Path, text: bytes) -> dict[str, Entry]:
    try:
        header: dict[str, Any] = json.loads(text)
        entries = {}
        for name, fields in header.items():
            if name != "__metadata__":
                start, end = fields["data_offsets"]
                entries[name] = Entry(path, tuple(fields["shape"]), fields["dtype"], end - start)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{path} is not a safetensors file") from None
    return entries


class TensorFiles:
    """The tensors of one or several safetensors files, with a record of which have been asked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        self.entries: dict[str, Entry] = {}
        for path in self.paths:
            self.entries.update(read_header(path))
        self._asked: set[str] = set()
        self._in_memory: dict[str, Tensor] = {}

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries.values())

    def read(self, names: Container[str]) -> None:
        """Bring the tensors in ``names`` into memory, so that `take` does not touch the files."""
        self._in_memory = {name: _map(entry, name).clone() for name, entry in self.entries.items() if name in names}

    def take(self, names: tuple[str, ...], shape: tuple[int, ...]) -> Tensor:
        """The tensor that goes by one of ``names``, in the file's own element type, on the CPU.

        Raises ModelError when there is none, when its shape is another, or when it does not hold floats.
        """
        name = next((name for name in names if name in self.entries), None)
        if name is None:
            where = ", ".join(str(path) for path in self.paths)
            raise ModelError(f"{where}: the tensor {names[0]} {list(shape)} is missing")
        entry = self.entries[name]
        if entry.shape != shape:
            found = list(entry.shape)
            raise ModelError(f"{entry.file}: the tensor {name} should have the shape {list(shape)}, but has {found}")
        if entry.kind not in _FLOATS or entry.size_bytes != math.prod(shape) * (4 if entry.kind == "F32" else 2):
            raise ModelError(f"{entry.file}: the tensor {name} should hold BF16, F16 or F32, but holds {entry.kind}")
        self._asked.add(name)
        return self._in_memory[name] if name in self._in_memory else _map(entry, name)

    def unasked(self) -> list[str]:
        """Names of the tensors nobody asked for."""
        return [name for name in self.entries if name not in self._asked]


def _map(entry: Entry, name: str) -> Tensor:
    """A view of the mapped file: pages are read when the tensor is used."""
    try:
        with safe_open(entry.file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except SafetensorError as error:
        raise ModelError(f"{entry.file} cannot be read as safetensors: {error}") from None
    return tensor
