"""The worker process, `python -m tympan.engine.embedded.worker SLOTS`, with one recognizer per slot.

It reads requests from standard input and writes one response to each to standard output, both framed by `pipe`. It
exits at the end of its input.
"""

from __future__ import annotations

import signal
import sys
from typing import BinaryIO

from tympan.engine.embedded.pipe import pack, read_item
from tympan.engine.embedded.recognizer import Recognizer


def serve(slots: int, requests: BinaryIO, responses: BinaryIO) -> None:
    """Respond to every request with a list of events. The first response, without a request, reports readiness."""
    recognizers = [Recognizer() for _ in range(slots)]
    responses.write(pack([]))
    responses.flush()
    while (request := read_item(requests)) is not None:
        method = getattr(recognizers[request.slot], request.method)
        responses.write(pack(method(request.pcm) if request.pcm else method()))
        responses.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends the workers
    serve(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
