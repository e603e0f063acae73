"""The worker process, `python -m tympan.engine.embedded.worker SLOTS`, with one recognizer per slot.

It reads requests from standard input and writes one response to each to standard output, both framed by `pipe`. It
exits at the end of its input, and is killed when its parent dies.

Only its parent ends it. After a signal to the server, streams receive their last words, so the recognizer must outlive
the signal, which Ctrl-C sends to the process group and systemd to every process of a service.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import BinaryIO

from tympan.engine.embedded.pipe import pack, read_item

PR_SET_PDEATHSIG = 1


def protect() -> None:
    """Ignore the signals that stop a server; on Linux, have the kernel kill this process when its parent dies.

    The end of the pipe is not sufficient: a worker that hangs or is stopped does not read it.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(slots: int, requests: BinaryIO, responses: BinaryIO) -> None:
    """Respond to every request with a list of events. The first response, without a request, reports readiness."""
    from tympan.engine.embedded.recognizer import Recognizer  # takes most of the time of a start

    recognizers = [Recognizer() for _ in range(slots)]
    responses.write(pack([]))
    responses.flush()
    while (request := read_item(requests)) is not None:
        method = getattr(recognizers[request.slot], request.method)
        responses.write(pack(method(request.pcm) if request.pcm else method()))
        responses.flush()


if __name__ == "__main__":
    protect()
    try:
        serve(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # the parent has died; flushing standard output at exit would fail again
        os._exit(1)
