"""Safetensors files: an index of their tensors, and the loading of tensors into the parameters of a network."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tympan.errors import ModelError
from tympan.models.checkpoints.files import FileStart, header_end
from tympan.models.checkpoints.names import WeightRule

_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its shape, its dtype by the name that safetensors uses, and its size in the file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int


def read_header(file: FileStart) -> dict[str, Entry]:
    """Return the tensors of one file by name.

    Raises:
        ModelError: The file is truncated, or of another format.
    """
    name, end = file.name, header_end(file.path)
    if end == 8:
        raise ModelError(f"{name} is not a safetensors file")
    with file.path.open("rb") as stream:
        text = stream.read(end)[8:]
    if len(text) < end - 8 and text[:1] == b"{":
        raise ModelError(f"{name} is truncated: expected a header of {end} bytes, found {file.size_bytes}")
    entries = _parse_header(name, text)
    expected = end + sum(entry.size_bytes for entry in entries.values())
    if file.size_bytes < expected:
        raise ModelError(f"{name} is truncated: expected {expected} bytes, found {file.size_bytes}")
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
    """The tensors of one or several safetensors files, with a record of those that have been loaded.

    Args:
        files: The files; those of which only the header is on the disk can be checked but not loaded.

    Attributes:
        entries: Their tensors by name.
    """

    def __init__(self, files: Iterable[Path | FileStart]) -> None:
        self._files = [file if isinstance(file, FileStart) else FileStart.whole(file) for file in files]
        self.entries: dict[str, Entry] = {}
        for file in self._files:
            self.entries.update(read_header(file))
        self._loaded: set[str] = set()
        self._in_memory: dict[str, Tensor] = {}

    def preload(self, names: Container[str]) -> None:
        """Read the tensors in ``names`` into memory, so that `load` does not access the files."""
        self._in_memory = {name: _map(entry, name).clone() for name, entry in self.entries.items() if name in names}

    def load(self, names: tuple[str, ...], shape: tuple[int, ...]) -> Tensor:
        """Return the tensor with the first of ``names`` that exists, in the dtype of the file, on the CPU.

        Raises:
            ModelError: There is no such tensor, it has another shape, or it does not hold floats.
        """
        name = self.check(names, shape)
        return self._in_memory[name] if name in self._in_memory else _map(self.entries[name], name)

    def check(self, names: tuple[str, ...], shape: tuple[int, ...]) -> str:
        """Return the first of ``names`` that exists, without reading the tensor; errors are those of `load`."""
        name = next((name for name in names if name in self.entries), None)
        if name is None:
            where = ", ".join(str(file.name) for file in self._files)
            raise ModelError(f"{where}: the tensor {names[0]} {list(shape)} is missing")
        entry = self.entries[name]
        if entry.shape != shape:
            raise ModelError(f"{entry.file}: {name} has the shape {list(entry.shape)}, expected {list(shape)}")
        if entry.dtype not in _FLOATS or entry.size_bytes != math.prod(shape) * (4 if entry.dtype == "F32" else 2):
            raise ModelError(f"{entry.file}: {name} has the type {entry.dtype}, expected BF16, F16 or F32")
        self._loaded.add(name)
        return name

    def unused(self) -> list[str]:
        """Return the names of the tensors that have been neither loaded nor checked."""
        return [name for name in self.entries if name not in self._loaded]


def _map(entry: Entry, name: str) -> Tensor:
    """Return a view of the mapped file, whose pages are read when the tensor is used."""
    try:
        with safe_open(entry.file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except SafetensorError as error:
        raise ModelError(f"{entry.file} cannot be read as safetensors: {error}") from None
    return tensor


def fill(
    module: nn.Module, rules: Iterable[WeightRule], files: TensorFiles, *, device: torch.device, dtype: torch.dtype
) -> None:
    """Replace all parameters of ``module``, which are on the meta device, by weights from ``files``.

    Raises:
        ModelError: A tensor is missing, or has another shape or type.
    """
    for rule in rules:
        tensors = [files.load(source.names, source.shape) for source in rule.sources]
        set_parameter(module, rule.target, rule.build(tensors).to(device=device, dtype=dtype).contiguous())
    missing = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    assert not missing, missing


def check(rules: Iterable[WeightRule], files: TensorFiles, ignored: Iterable[str]) -> None:
    """Check that ``files`` contain what ``rules`` need, and nothing else, from the headers alone.

    Raises:
        ModelError: A tensor is missing, unexpected, or has another shape or type.
    """
    for rule in rules:
        for source in rule.sources:
            files.check(source.names, source.shape)
    check_all_used(files, ignored)


def set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace the parameter ``name`` by ``value`` without gradients."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    current = getattr(owner, leaf)
    assert current.shape == value.shape, (name, current.shape, value.shape)
    setattr(owner, leaf, nn.Parameter(value, requires_grad=False))


def check_all_used(files: TensorFiles, ignored: Iterable[str]) -> None:
    """Check that all tensors have been loaded, except those that match a regular expression in ``ignored``.

    Raises:
        ModelError: A tensor has not been loaded.
    """
    pattern = re.compile("|".join(f"(?:{part})" for part in ignored) or r"(?!)")
    unused = [name for name in files.unused() if not pattern.match(name)]
    if unused:
        first = files.entries[unused[0]]
        more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
        raise ModelError(f"{first.file}: unexpected tensor {unused[0]} {list(first.shape)}{more}")
