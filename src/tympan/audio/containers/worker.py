"""Processes that decode one stream each: libav never parses a client's bytes in the server process.

The server starts one launcher (`python -m tympan.audio.containers.worker`), which imports everything once and forks a
worker for every stream: in a few milliseconds, and with the memory of the imports shared. The launcher receives the
stream's end of a socket pair with the format, as JSON, on its standard input, which is a Unix socket.

Then server and worker talk on the socket pair. The worker asks for each chunk of the stream and sends samples; frames
are little-endian:

    server to worker   length u32, then the chunk; a length of 0 is the end of the stream
    worker to server   kind u8, channels u8, length u32, then the payload of the kind
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import socket
import struct
from contextlib import suppress
from enum import IntEnum
from typing import Final

import msgspec

from tympan.audio.containers.decoder import decode_container
from tympan.audio.source import Details
from tympan.child_process import ignore_stop_signals
from tympan.errors import AudioError
from tympan.messages import AudioFormat

CHUNK_HEAD: Final = struct.Struct("<I")
REPLY_HEAD: Final = struct.Struct("<BBI")
MEMORY_BYTES: Final = 256 << 20  # that a worker may map in addition to what it has when it is forked
ALARM_SECONDS: Final = 60  # of decoding without a reply; then SIGALRM ends a worker whose server has not done so
_REQUEST_BYTES = 4096


class Reply(IntEnum):
    """What a worker sends."""

    STARTED = 0  # its process id, u32
    MORE = 1  # it waits for the next chunk
    SAMPLES = 2  # float32 [n, channels]
    ERROR = 3  # a sentence in UTF-8; the last reply
    END = 4  # the last reply
    WARNING = 5  # a `Warning` as JSON


class Request(msgspec.Struct):
    """A stream to decode: its declared format, and the rate of the samples in Hz."""

    audio_format: AudioFormat
    sample_rate: int


def launch(control: socket.socket) -> None:
    """Fork a worker for every request, until the server is gone."""
    ignore_stop_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel reaps workers
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 1)
        if not data:
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            if os.fork() == 0:
                control.close()
                _work(connection, msgspec.json.decode(data, type=Request))


def _work(connection: socket.socket, request: Request) -> None:
    """Decode one stream, then end this process without the interpreter's shutdown."""
    try:
        _limit_memory()
        _send(connection, Reply.STARTED, struct.pack("<I", os.getpid()))
        details = Details(lambda warning: _send(connection, Reply.WARNING, msgspec.json.encode(warning)))
        more = functools.partial(_next_chunk, connection)
        for samples in decode_container(request.audio_format, request.sample_rate, more, details):
            signal.alarm(0)
            _send(connection, Reply.SAMPLES, samples.tobytes(), samples.shape[1])
            signal.alarm(ALARM_SECONDS)
        _send(connection, Reply.END)
    except AudioError as error:
        _send(connection, Reply.ERROR, str(error).encode())
    except MemoryError:
        _send(connection, Reply.ERROR, b"decoding the audio needs too much memory")
    except (OSError, EOFError):
        pass  # the server has closed the stream
    finally:
        os._exit(0)


def _next_chunk(connection: socket.socket) -> bytes:
    signal.alarm(0)
    _send(connection, Reply.MORE)
    (length,) = CHUNK_HEAD.unpack(_read(connection, CHUNK_HEAD.size))
    chunk = _read(connection, length)
    signal.alarm(ALARM_SECONDS)
    return chunk


def _read(connection: socket.socket, size: int) -> bytes:
    """Return exactly `size` bytes. Raises `EOFError` if the server has closed the stream."""
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _send(connection: socket.socket, kind: Reply, payload: bytes = b"", channels: int = 0) -> None:
    connection.sendall(REPLY_HEAD.pack(kind, channels, len(payload)) + payload)


def _limit_memory() -> None:
    import resource

    with suppress(OSError, ValueError):  # macOS has no /proc
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    launch(socket.socket(fileno=0))
