"""A stand-in for faster-whisper that recognizes marks (`support.faults.marks`) instead of speech.

Tympan divides the audio into windows, releases words and restarts processes as it does with Whisper. The encoding of a
window is its samples, and the token of a word is its number plus one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from support.faults.marks import CHUNK_SECONDS, MarkDetector, text_of

SAMPLE_RATE = 16_000
PROMPT = (-2, -1)


@dataclass(frozen=True)
class Result:
    sequences_ids: list[list[int]]
    no_speech_prob: float = 0.0


class WhisperModel:
    is_multilingual = False

    def __init__(self, folder: str, **options: object) -> None:
        self.model = self.hf_tokenizer = self

    def get_vocab(self) -> dict[str, int]:
        return {}

    def feature_extractor(self, audio: Any, padding: int) -> Any:
        return audio

    def encode(self, features: Any) -> Any:
        return features

    def generate(self, encoded: Any, prompts: list[list[int]], **options: object) -> list[Result]:
        known = prompts[0][len(PROMPT) :]
        return [Result([known + [token for token in detect(encoded) if token not in known]])]

    def find_alignment(self, tokenizer: object, texts: list[list[int]], encoded: Any, frames: int) -> Any:
        starts = detect(encoded)
        return [[aligned(token, starts.get(token, 0.0)) for token in text] for text in texts]


def detect(samples: Any) -> dict[int, float]:
    """Return the token of each mark in a window, and the second at which it begins."""
    levels = np.round(samples * 32_768).astype(int)
    marks = MarkDetector(SAMPLE_RATE).detect(levels)
    return {number + 1: max(0, position) / SAMPLE_RATE for number, position in marks}


def aligned(token: int, start: float) -> dict[str, object]:
    word = f" {text_of(token - 1)}"
    return {"word": word, "tokens": [token], "start": start, "end": start + CHUNK_SECONDS, "probability": 0.9}


def decode(tokens: Sequence[int]) -> str:
    return "".join(f" {text_of(token - 1)}" for token in tokens)
