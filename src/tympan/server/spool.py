"""Bytes of clients that wait on disk: blocks of one size in a temporary file without a name.

The file is opened with the first block, closed with the last one, and read and written by the event loop's threads, so
that no stream waits for a disk.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import IO, Final

from tympan.audio.budget import ByteBudget

BLOCK_BYTES: Final = 512 * 1024
WAITING_BYTES: Final = 1 << 30  # of all streams, in memory and on disk


class Spool:
    """Used by all streams of a process, on its event loop.

    Args:
        most_bytes: The limit of `waiting`.

    Attributes:
        waiting: The budget of all messages that wait, wherever they are.
    """

    def __init__(self, most_bytes: int = WAITING_BYTES) -> None:
        self.waiting = ByteBudget(most_bytes)
        self._file: IO[bytes] | None = None
        self._free_slots: list[int] = []
        self._slots = 0  # in the file

    def take_slot(self) -> int:
        """Return a place for one block, which must be freed.

        Raises:
            OSError: No temporary file can be created.
        """
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (`free` closes it)
        if self._free_slots:
            return self._free_slots.pop()
        self._slots += 1
        return self._slots - 1

    def write(self, slot: int, block: bytes) -> asyncio.Future[None]:
        """Write a block of `BLOCK_BYTES`; the future may raise `OSError`, for example if the disk is full."""
        assert self._file is not None
        return asyncio.get_running_loop().run_in_executor(None, _write, self._file.fileno(), slot, block)

    def read(self, slot: int) -> asyncio.Future[bytes]:
        """Read a block; the future may raise `OSError`."""
        assert self._file is not None
        return asyncio.get_running_loop().run_in_executor(None, _read, self._file.fileno(), slot)

    def free(self, slot: int) -> None:
        """Return a slot that is neither written nor read at the moment."""
        self._free_slots.append(slot)
        if len(self._free_slots) == self._slots and self._file is not None:
            asyncio.get_running_loop().run_in_executor(None, self._file.close)
            self._file, self._slots = None, 0
            self._free_slots.clear()


def _write(descriptor: int, slot: int, block: bytes) -> None:
    rest, offset = memoryview(block), slot * BLOCK_BYTES
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _read(descriptor: int, slot: int) -> bytes:
    parts, offset = [], slot * BLOCK_BYTES
    while missing := (slot + 1) * BLOCK_BYTES - offset:
        part = os.pread(descriptor, missing, offset)
        if not part:
            raise OSError("a temporary file has become shorter")
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
