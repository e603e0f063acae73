"""Input files, for libav and others, whose bytes are still being received."""

from __future__ import annotations

import os
import select
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO, Final

from tympan.errors import AudioError
from tympan.messages import Warning

More = Callable[[], bytes]
"""Waits for the next bytes of the input; empty bytes mean its end."""

STDIN: Final = "-"
HAS_SELECT: Final = sys.platform != "win32"  # there it accepts sockets only
_POLL_SECONDS = 0.2
_SPOOL_IN_MEMORY = 4 << 20
_SPOOL_LIMIT = 512 << 20
_BLOCK_BYTES = 1 << 20


@dataclass(slots=True)
class Details:
    """What a decoder finds out about its input besides the samples.

    Attributes:
        report: Called with each warning, in the thread that decodes.
        duration_seconds: The declared duration, once the header has been read; None if it is unknown.
    """

    report: Callable[[Warning], None] = lambda warning: None
    duration_seconds: float | None = None

    def warn(self, code: str, message: str) -> None:
        """Report a warning."""
        self.report(Warning(code, message))


class ByteSource:
    """A file that is read sequentially. A read waits for at least one byte, not for all requested ones."""

    def __init__(self, more: More) -> None:
        self._more = more
        self._buffer = bytearray()
        self._ended = False
        self._consumed = 0

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
        self._consumed += len(data)
        return data

    def read_exactly(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        self.peek(0, offset=size)
        return self.read(size)

    def skip(self, size: int) -> None:
        """Discard `size` bytes, or all until the end if there are fewer."""
        while size > 0 and (data := self.read(min(size, _BLOCK_BYTES))):
            size -= len(data)

    def spool(self) -> AbstractContextManager[IO[bytes]]:
        """Return a context with the rest of the input as a seekable file, on disk if it is large.

        Raises:
            AudioError: The input is larger than half a gigabyte, or the disk is full.
        """
        file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_IN_MEMORY)  # noqa: SIM115  (the caller closes it)
        try:
            while data := self.read(_BLOCK_BYTES):
                if file.tell() + len(data) > self._spool_limit():
                    raise AudioError(
                        f"the index of the file is at its end, and the file is larger than {_SPOOL_LIMIT >> 20} MiB; "
                        "write it with the index first (MP4: `-movflags faststart`)"
                    )
                _write_copy(file, data)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _spool_limit(self) -> float:
        return _SPOOL_LIMIT

    def _fetch(self) -> bool:
        if not self._ended:
            data = self._more()
            self._buffer += data
            self._ended = not data
        return not self._ended


def _write_copy(file: IO[bytes], data: bytes) -> None:
    try:
        file.write(data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AudioError(
            f"it must be read twice and cannot be copied to a temporary file in {tempfile.gettempdir()}: {reason}"
        ) from error


class FileSource(ByteSource):
    """A `ByteSource` over an open file, which is seekable unless it is a pipe. It does not close the file."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(lambda: file.read(1 << 16))
        self._file = file
        self._seekable = file.seekable() and file.tell() == 0

    def spool(self) -> AbstractContextManager[IO[bytes]]:
        """Return the file itself if it is seekable, and a copy otherwise."""
        if not self._seekable or self._consumed:
            return super().spool()
        self._file.seek(0)
        return nullcontext(self._file)

    def _spool_limit(self) -> float:
        return float("inf")  # on the user's own machine


class BlockSource:
    """A `ByteSource` for demuxers whose output depends on the size of reads: every read is filled."""

    def __init__(self, source: ByteSource, block_bytes: int) -> None:
        self._source = source
        self._block_bytes = block_bytes

    def read(self, size: int) -> bytes:
        return self._source.read_exactly(min(size, self._block_bytes))


class Pipe:
    """A pipe whose reader ends when it is closed, whereas a plain read waits until the writer ends.

    Args:
        file: A pipe, a terminal or a socket.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._closed = False
        self._reading = threading.Lock()

    def read(self, size: int) -> bytes:
        """Return the next bytes; empty bytes at the end or after `close`, which another thread may call."""
        while not self._closed:
            with self._reading:
                if not self._closed and select.select([self._file], [], [], _POLL_SECONDS)[0]:
                    return os.read(self._file.fileno(), size)
        return b""

    def seekable(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """End a read that waits, and close the file."""
        self._closed = True
        with self._reading:
            self._file.close()


def open_path(name: str) -> IO[bytes]:
    """Open a path, or standard input if it is `-`, without a buffer."""
    if name == STDIN:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    return open(name, "rb", buffering=0)
