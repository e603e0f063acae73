"""Decodes containers in a process of their own: a crash, a hang or too much memory there is an error of one stream."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import msgspec
import numpy as np

from tympan.audio.containers.launcher import launcher
from tympan.audio.containers.worker import CHUNK_HEAD, REPLY_HEAD, Reply
from tympan.errors import AudioError
from tympan.messages import AudioFormat, Pcm, Warning

logger = logging.getLogger(__name__)

REPLY_SECONDS: Final = 10.0  # for the next reply of a worker that is decoding
MOST_BLOCKS: Final = 16  # decoded and not pulled; then the worker waits
LIVE_UNDECODED_BYTES: Final = 64 << 20  # of a live stream since its last samples
FILE_UNDECODED_BYTES: Final = 512 << 20  # of a file, which may have its index at its end
_READ_BYTES = 256 << 10


class RemoteDecoder:
    """Decodes `opus` and `auto` in a worker process; the contract is `tympan.audio.decoder.Decoder`.

    Args:
        audio_format: The declared format.
        sample_rate: Of the samples, in Hz.
        on_ready: Called on the event loop when an iterator that has yielded `None` can be resumed.
        on_warning: Called on the event loop with each warning of the decoder.
        live: Whether the stream is live; a file may send more before its first sample.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        sample_rate: int,
        on_ready: Callable[[], None],
        on_warning: Callable[[Warning], None],
        *,
        live: bool,
    ) -> None:
        self._format = audio_format
        self._sample_rate = sample_rate
        self._on_ready = on_ready
        self._on_warning = on_warning
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._pid = 0  # of the worker, once it has reported it
        self._chunks: deque[bytes] = deque()  # to be sent, one after each `MORE`
        self._unsent = memoryview(b"")  # of the chunk that is being sent
        self._received = bytearray()
        self._blocks: deque[Pcm] = deque()
        self._error: Exception | None = None
        self._started = self._wants_chunk = self._waiting = self._reading = self._ended = self._over = False
        self._most_undecoded = LIVE_UNDECODED_BYTES if live else FILE_UNDECODED_BYTES
        self._undecoded_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def decode(self, data: bytes) -> Iterator[Pcm | None]:
        """Yield the samples of everything sent so far, and `None` where the worker has to be waited for."""
        if data:
            self._take_budget(len(data))
            self._chunks.append(data)
        return self._results()

    def flush(self) -> Iterator[Pcm | None]:
        """Yield nothing: a container has its own frames, of which at most one is pending."""
        return iter(())

    def finish(self) -> Iterator[Pcm | None]:
        """Yield the remaining samples."""
        self._chunks.append(b"")
        return self._results()

    def close(self) -> None:
        """End the worker. May be called at any time and more than once."""
        self._over = True
        self._chunks.clear()
        self._blocks.clear()
        self._release_budget()
        self._stop_timer()
        if self._socket is None:
            return
        if self._pid:  # it has not closed its end, so it still has this process id
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._close_socket()

    def _take_budget(self, count: int) -> None:
        if self._undecoded_bytes + count > self._most_undecoded:
            raise AudioError(
                f"no audio was found in the first {self._most_undecoded >> 20} MiB; write the file with its index "
                "first (`-movflags faststart`)"
            )
        launcher().undecoded.take(count)
        self._undecoded_bytes += count

    def _release_budget(self) -> None:
        launcher().undecoded.release(self._undecoded_bytes)
        self._undecoded_bytes = 0

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        self._socket, self._pid = None, 0

    def _results(self) -> Iterator[Pcm | None]:
        if not self._started and self._chunks and self._chunks[0]:  # an empty stream needs no worker
            self._started = True
            self._socket = launcher().open(self._format, self._sample_rate)
            self._read_or_not()
        while not self._over:
            if self._blocks:
                block = self._blocks.popleft()
                self._read_or_not()
                yield block
            elif self._error is not None:
                error = self._error
                self.close()
                raise error
            elif self._ended or not self._started or (self._wants_chunk and not self._chunks):
                return
            elif self._wants_chunk:
                self._send(self._chunks.popleft())
            else:
                self._waiting = True
                self._start_timer()
                yield None

    # --- the worker ----------------------------------------------------------------------------------------------

    def _send(self, chunk: bytes) -> None:
        self._wants_chunk = False
        self._unsent = memoryview(CHUNK_HEAD.pack(len(chunk)) + chunk)
        self._write()

    def _write(self) -> None:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _read_or_not(self) -> None:
        """Read the worker's replies unless enough blocks wait."""
        if self._socket is None or self._reading == (len(self._blocks) < MOST_BLOCKS):
            return
        self._reading = not self._reading
        if self._reading:
            self._loop.add_reader(self._socket, self._read)
        else:
            self._loop.remove_reader(self._socket)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if not data:
            self._close_socket()
            if not self._ended:
                self._fail(EOFError("it ended without a reply"))
            return
        self._received += data
        self._stop_timer()
        self._take_replies()
        self._read_or_not()
        if self._waiting and (self._blocks or self._error is not None or self._wants_chunk or self._ended):
            self._resume()

    def _take_replies(self) -> None:
        start = 0
        while len(self._received) - start >= REPLY_HEAD.size:
            kind, channels, length = REPLY_HEAD.unpack_from(self._received, start)
            body = start + REPLY_HEAD.size
            if len(self._received) - body < length:
                break
            start = body + length
            self._take_reply(kind, channels, bytes(self._received[body:start]))
        del self._received[:start]

    def _take_reply(self, kind: int, channels: int, payload: bytes) -> None:
        match kind:
            case Reply.STARTED:
                (self._pid,) = struct.unpack("<I", payload)
            case Reply.MORE:
                self._wants_chunk = True
            case Reply.SAMPLES:
                self._release_budget()
                self._blocks.append(np.frombuffer(payload, np.float32).reshape(-1, channels))
            case Reply.ERROR:
                self._error = AudioError(payload.decode(errors="replace"))
            case Reply.WARNING:
                self._on_warning(msgspec.json.decode(payload, type=Warning))
            case Reply.END:
                self._ended = True

    def _fail(self, error: BaseException) -> None:
        """The worker is gone: it crashed, ran out of memory, or was killed."""
        logger.warning("a decoder process failed: %r", error)
        self._close_socket()
        self._error = self._error or AudioError("the audio could not be decoded")
        self._resume()

    def _resume(self) -> None:
        self._stop_timer()
        if self._waiting:
            self._waiting = False
            self._on_ready()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(REPLY_SECONDS, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        logger.warning("a decoder process has not replied for %g s and is stopped", REPLY_SECONDS)
        self._error = AudioError("decoding the audio takes too long")
        self._resume()
