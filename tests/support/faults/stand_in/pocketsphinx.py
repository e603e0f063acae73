"""A stand-in for PocketSphinx that recognizes marks (`support.faults.marks`) instead of English."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from support.faults.marks import MarkDetector, text_of

FRAME_SAMPLES = 160  # 10 ms
MARK_FRAMES = 8


@dataclass(frozen=True)
class Segment:
    word: str
    start_frame: int
    end_frame: int
    prob: float = 0.5
    ascore: float = 0.5


class Decoder:
    def __init__(self, samprate: int, loglevel: str) -> None:
        self._sample_rate = samprate
        self._detector = MarkDetector(samprate)

    def get_cmn(self, update: bool) -> str:
        return ""

    def set_cmn(self, cmn: str) -> None:
        """Start a new stream."""
        self._detector = MarkDetector(self._sample_rate)

    def start_utt(self) -> None:
        self._samples = 0
        self._segments: list[Segment] = []

    def process_raw(self, pcm: bytes) -> None:
        levels = np.frombuffer(pcm, "<i2").astype(int)
        for number, position in self._detector.detect(levels):
            start = max(0, self._samples + position) // FRAME_SAMPLES
            self._segments.append(Segment(text_of(number), start, start + MARK_FRAMES))
        self._samples += len(levels)

    def end_utt(self) -> None:
        """Do nothing: there is no second pass."""

    def seg(self) -> list[Segment]:
        return self._segments


class Vad:
    def __init__(self, mode: int, sample_rate: int, seconds: float) -> None:
        self.frame_bytes = 2 * round(sample_rate * seconds)

    def is_speech(self, pcm: bytes) -> bool:
        return any(pcm)
