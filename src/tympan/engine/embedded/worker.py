"""The child process: `python -m tympan.engine.embedded.worker SLOTS`. One recognizer per slot, one question at a time.

Questions come on standard input, answers go to standard output, both framed by `pipe`. It ends when its input does.
"""

from __future__ import annotations

import signal
import sys
from typing import BinaryIO

from tympan.engine.embedded.pipe import Flush, Hear, Question, Reset, read_frame, write_frame
from tympan.engine.embedded.recognizer import Recognizer
from tympan.messages import EngineEvent


def serve(slots: int, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer every question with the list of its events; the first answer, unasked, says that the decoders are warm."""
    recognizers = [Recognizer() for _ in range(slots)]
    write_frame(answers, [])
    while (question := read_frame(questions)) is not None:
        write_frame(answers, _answer(recognizers, question))


def _answer(recognizers: list[Recognizer], question: Question) -> list[EngineEvent]:
    recognizer = recognizers[question.slot]
    match question:
        case Hear():
            return recognizer.push(question.pcm) if question.counted else recognizer.push_uncounted(question.pcm)
        case Flush():
            return recognizer.flush()
        case Reset():
            recognizer.reset()
            return []


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    serve(int(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
