"""Short clips of real speech, from the `pytest-audioeval` package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import jiwer
import numpy as np
import soxr
from pytest_audioeval.samples.registry import SampleRegistry

from tympan.messages import Samples

_CUT = round(1.25 * 16_000)  # the breath between "five" and "six"
_HALVES = {
    "one_to_five": (0, _CUT, "One two three four five."),
    "six_to_ten": (_CUT, None, "Six seven eight nine ten."),
}


@dataclass(frozen=True)
class Clip:
    """A mono clip at 16 kHz, and what is said in it."""

    name: str
    text: str
    samples: Samples

    def at(self, sample_rate: int) -> Samples:
        return soxr.resample(self.samples, 16_000, sample_rate).astype(np.float32)

    def pcm(self, sample_rate: int = 24_000) -> bytes:
        """16-bit little-endian."""
        return (np.clip(self.at(sample_rate), -1, 1) * 32767).astype("<i2").tobytes()


@cache
def clip(name: str) -> Clip:
    """Return `counting`, its halves `one_to_five` and `six_to_ten`, `hello_world` or `quick_brown_fox`."""
    if name in _HALVES:
        whole, (from_sample, to_sample, text) = clip("counting"), _HALVES[name]
        return Clip(name, text, whole.samples[from_sample:to_sample])
    sample = getattr(SampleRegistry(), f"en_{name}")
    return Clip(name, sample.reference_text, sample.audio_numpy())


def word_error_rate(said: str, heard: str) -> float:
    return float(jiwer.wer(" ".join(plain_words(said)), " ".join(plain_words(heard)) or "-"))


def plain_words(text: str) -> list[str]:
    """Return the words without case and punctuation, on which the recognizer's last bits may depend."""
    return re.findall(r"[a-z']+", text.lower())
