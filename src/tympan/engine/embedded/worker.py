"""The worker process, `python -m tympan.engine.embedded.worker SLOTS FOLDER [measure]`, with one recognizer per slot.

The recognizers share the Whisper model in the folder. With `measure` there are no more slots than live streams that a
core carries. The process reads requests from standard input and writes one response to each to standard output, both
framed by `pipe`. It exits at the end of its input, and is killed when its parent dies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tympan.child_process import end_with_parent, ignore_stop_signals
from tympan.engine.embedded.pipe import Request, pack, read_item
from tympan.messages import EngineEvent

if TYPE_CHECKING:
    from tympan.engine.embedded.whisper.recognizer import WhisperRecognizer


def make_recognizers(slots: int, model_folder: Path, *, measure: bool) -> Sequence[WhisperRecognizer]:
    """Return one recognizer per slot; the imports take most of the time of a start.

    Args:
        slots: Number of slots.
        model_folder: The folder of the model.
        measure: Whether to return only as many as a core carries, at least one.
    """
    from tympan.engine.embedded.whisper.model import Whisper
    from tympan.engine.embedded.whisper.recognizer import WhisperRecognizer

    whisper = Whisper(model_folder)
    if measure:
        slots = max(1, min(slots, int(whisper.streams_per_core())))
    return [WhisperRecognizer(whisper) for _ in range(slots)]


def serve(recognizers: Sequence[WhisperRecognizer], requests: BinaryIO, responses: BinaryIO) -> None:
    """Respond to every request with a list of events. The first response, without a request, is the number of slots."""
    responses.write(pack(len(recognizers)))
    responses.flush()
    while (request := read_item(requests)) is not None:
        responses.write(pack(execute(recognizers[request.slot], request)))
        responses.flush()


def execute(recognizer: WhisperRecognizer, request: Request) -> list[EngineEvent]:
    """Call the method that a request names."""
    match request.method:
        case "push":
            return recognizer.push(request.pcm, request.waiting)
        case "push_partial":
            return recognizer.push_partial(request.pcm)
        case "flush":
            return recognizer.flush()
        case "reset":
            return recognizer.reset()


if __name__ == "__main__":
    ignore_stop_signals()
    end_with_parent()
    try:
        recognizers = make_recognizers(int(sys.argv[1]), Path(sys.argv[2]), measure="measure" in sys.argv[3:])
        serve(recognizers, sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # the parent has died; flushing standard output at exit would fail again
        os._exit(1)
