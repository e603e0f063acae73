"""The worker process, `python -m tympan.engine.embedded.worker SLOTS`, with one recognizer per slot.

It reads requests from standard input and writes one response to each to standard output, both framed by `pipe`. It
exits at the end of its input, and is killed when its parent dies.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from tympan.child_process import end_with_parent, ignore_stop_signals
from tympan.engine.embedded.pipe import pack, read_item


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
    ignore_stop_signals()
    end_with_parent()
    try:
        serve(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # the parent has died; flushing standard output at exit would fail again
        os._exit(1)
