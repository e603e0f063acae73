"""Input files for libav over bytes that are still being received."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO

from tympan.errors import AudioError

More = Callable[[], bytes]
"""Waits for the next bytes of the input; empty bytes mean its end."""

_SPOOL_IN_MEMORY = 4 << 20
_SPOOL_LIMIT = 512 << 20


class ByteSource:
    """A file that is read sequentially. A read waits for at least one byte, not for all requested ones."""

    def __init__(self, more: More) -> None:
        self._more = more
        self._buffer = bytearray()
        self._ended = False

    def peek(self, size: int, offset: int = 0) -> bytes:
        """Return `size` bytes at `offset` from the position without consuming them; fewer at the end."""
        while len(self._buffer) < offset + size and self._fetch():
            pass
        return bytes(self._buffer[offset : offset + size])

    def read(self, size: int) -> bytes:
        if not self._buffer:
            self._fetch()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_exactly(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        self.peek(0, offset=size)
        return self.read(size)

    def spool(self) -> IO[bytes]:
        """Return the whole input as a seekable file, on disk if it is large.

        Raises:
            AudioError: The input is larger than half a gigabyte.
        """
        file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_IN_MEMORY)  # noqa: SIM115  (the caller closes it)
        try:
            while data := self.read(1 << 20):
                if file.tell() + len(data) > _SPOOL_LIMIT:
                    raise AudioError(
                        f"the index of the MP4 is at its end, and the file is larger than {_SPOOL_LIMIT >> 20} MiB; "
                        "write it with the index first (`-movflags faststart`)"
                    )
                file.write(data)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _fetch(self) -> bool:
        if not self._ended:
            data = self._more()
            self._buffer += data
            self._ended = not data
        return not self._ended


class BlockSource:
    """A `ByteSource` for demuxers whose output depends on the size of reads: every read is filled."""

    def __init__(self, source: ByteSource, block_bytes: int) -> None:
        self._source = source
        self._block_bytes = block_bytes

    def read(self, size: int) -> bytes:
        return self._source.read_exactly(min(size, self._block_bytes))
