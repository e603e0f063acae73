"""The worker process, `python -m tympan.engine.embedded.worker SLOTS [FOLDER]`, with one recognizer per slot.

With the folder of a Whisper model the recognizers share it, else they are PocketSphinx's. The process reads requests
from standard input and writes one response to each to standard output, both framed by `pipe`. It exits at the end of
its input, and is killed when its parent dies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from tympan.child_process import end_with_parent, ignore_stop_signals
from tympan.engine.embedded.pipe import Request, pack, read_item
from tympan.messages import EngineEvent


class Recognizer(Protocol):
    """Recognizes one stream at a time: 16-bit samples in, events out."""

    def reset(self) -> list[EngineEvent]:
        """Discard the stream."""

    def push(self, pcm: bytes, waiting: int = 0) -> list[EngineEvent]:
        """Recognize a frame; `Progress` is the last event. `waiting` requests of the stream are behind this one."""

    def push_partial(self, pcm: bytes) -> list[EngineEvent]:
        """Recognize a partial frame, which does not advance the clock."""

    def flush(self) -> list[EngineEvent]:
        """Release all words of the audio so far."""


def make_recognizers(slots: int, model_folder: Path | None) -> Sequence[Recognizer]:
    """Return as many recognizers as there are slots; the imports take most of the time of a start."""
    if model_folder is None:
        from tympan.engine.embedded import recognizer as pocketsphinx

        return [pocketsphinx.Recognizer() for _ in range(slots)]
    from tympan.engine.embedded.whisper.model import Whisper
    from tympan.engine.embedded.whisper.recognizer import WhisperRecognizer

    whisper = Whisper(model_folder)
    return [WhisperRecognizer(whisper) for _ in range(slots)]


def serve(recognizers: Sequence[Recognizer], requests: BinaryIO, responses: BinaryIO) -> None:
    """Respond to every request with a list of events. The first response, without a request, reports readiness."""
    responses.write(pack([]))
    responses.flush()
    while (request := read_item(requests)) is not None:
        responses.write(pack(execute(recognizers[request.slot], request)))
        responses.flush()


def execute(recognizer: Recognizer, request: Request) -> list[EngineEvent]:
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
    slots, folders = int(sys.argv[1]), sys.argv[2:]
    try:
        serve(make_recognizers(slots, Path(folders[0]) if folders else None), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # the parent has died; flushing standard output at exit would fail again
        os._exit(1)
