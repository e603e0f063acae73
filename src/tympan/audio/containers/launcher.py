"""The server's side of the process that forks decoder workers."""

from __future__ import annotations

import atexit
import functools
import os
import socket
import subprocess
import sys
import threading
from typing import Final

import msgspec

from tympan.audio.budget import ByteBudget
from tympan.audio.containers import worker
from tympan.audio.containers.worker import Request
from tympan.config import child_environment
from tympan.errors import AudioError
from tympan.messages import AudioFormat

UNDECODED_BYTES: Final = 1 << 30


class Launcher:
    """Starts the launcher process when it is first needed, and again after it has ended.

    Attributes:
        undecoded: What all streams of this process may have sent without a sample in return. A worker may have to keep
            it all, in memory or on disk.
    """

    def __init__(self) -> None:
        self.undecoded = ByteBudget(UNDECODED_BYTES)
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start the process unless it runs; it takes half a second until it forks its first worker."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def open(self, audio_format: AudioFormat, sample_rate: int) -> socket.socket:
        """Return a connection, which does not block, to a new worker.

        Raises:
            AudioError: No worker can be started.
        """
        if not hasattr(os, "fork"):
            raise AudioError("this server decodes no containers: send raw samples")
        self.prepare()
        assert self._control is not None
        ours, theirs = socket.socketpair()
        request = msgspec.json.encode(Request(audio_format, sample_rate))
        try:
            with theirs, self._lock:
                socket.send_fds(self._control, [request], [theirs.fileno()])
        except OSError:
            ours.close()
            raise AudioError("the audio cannot be decoded at the moment; try again") from None
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """End the process. Its workers end with their streams."""
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._process is not None:
                self._process.wait()
            self._control = self._process = None

    def _start(self) -> None:
        if self._control is not None:
            self._control.close()
        # Each request is one message; a stream socket could join two.
        self._control, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET if _HAS_PACKETS else socket.SOCK_DGRAM
        )
        self._control.setblocking(False)  # a launcher that does not read must not stop the server
        with theirs:
            command = (sys.executable, "-m", worker.__name__)
            # One thread: each worker decodes one stream, and a process with several threads should not fork.
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                env=child_environment(OPENBLAS_NUM_THREADS="1"),
                start_new_session=True,
            )


_HAS_PACKETS = sys.platform == "linux"


@functools.cache
def launcher() -> Launcher:
    """Return the launcher of this process."""
    launcher = Launcher()
    atexit.register(launcher.close)
    return launcher
