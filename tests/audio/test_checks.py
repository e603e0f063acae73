"""Warnings about wrong audio, on real speech."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audio_encoding import encode

from tympan.audio.checks import AudioChecks
from tympan.audio.decoder import open_decoder
from tympan.audio.files import decode_file
from tympan.messages import AudioFormat, Samples, Warning

_LANGUAGES = ("en", "fr", "es", "it", "pl", "ja")


@functools.cache
def speech(language: str, seconds: int = 20) -> Samples:
    """One speaker's clips one after the other, mono `[n]` at 16 kHz, repeated to the length, peaks at 0.9."""
    folder = files("pytest_audioeval") / "samples" / "audio" / language
    clips = [
        np.concatenate(list(decode_file(str(path), 16_000)))
        for path in sorted(map(str, folder.iterdir()))
        if path.endswith(".wav")
    ]
    joined = np.resize(np.concatenate(clips), seconds * 16_000)
    return joined * np.float32(0.9 / np.abs(joined).max())


def s16le(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def f32le(samples: Samples) -> bytes:
    return samples.astype("<f4").tobytes()


def warnings(data: bytes, encoding: str, declared_rate: int, block: int = 3_333) -> list[Warning]:
    format = AudioFormat(encoding, declared_rate, 1)
    decoder, check = open_decoder(format), AudioChecks(format, 24_000)
    found: list[Warning] = []
    for start in range(0, len(data), block):
        for samples in decoder.decode(data[start : start + block]):
            found += check.push(samples[:, 0])
    return found


def codes(data: bytes, encoding: str, declared_rate: int) -> list[str]:
    return [warning.code for warning in warnings(data, encoding, declared_rate)]


@pytest.mark.parametrize("language", _LANGUAGES)
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_speech(language: str, rate: int) -> None:
    samples = soxr.resample(speech(language, 35), 16_000, rate)
    assert codes(s16le(samples), "s16le", rate) == []
    assert codes(f32le(samples), "f32le", rate) == []


@pytest.mark.parametrize("language", _LANGUAGES)
def test_resampled_telephone_speech(language: str) -> None:
    narrow = speech(language, 35)
    spectrum = np.fft.rfft(narrow)
    frequency = np.fft.rfftfreq(len(narrow), 1 / 16_000)
    spectrum[(frequency < 300) | (frequency > 3_400)] = 0
    samples = soxr.resample(np.fft.irfft(spectrum, len(narrow)).astype(np.float32), 16_000, 24_000)
    assert codes(s16le(samples * 0.5), "s16le", 24_000) == []


def test_tones() -> None:
    seconds = np.arange(24_000 * 40) / 24_000
    beeps = 0.3 * np.sin(2 * np.pi * 440 * seconds) * (np.sin(2 * np.pi * 7 * seconds) > 0)
    assert codes(s16le(beeps), "s16le", 24_000) == []


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize(
    ("convert", "declared"),
    [
        (f32le, "s16le"),
        (lambda samples: (samples * 32767).astype(">i2").tobytes(), "s16le"),
        (lambda samples: s16le(samples)[1:], "s16le"),
        (s16le, "f32le"),
        (lambda samples: f32le(samples * 32767), "f32le"),
        (f32le, "mulaw"),
    ],
    ids=["float", "big-endian", "a byte lost", "integer", "integer values", "float as mulaw"],
)
def test_wrong_encoding(rate: int, convert: Callable[[Samples], bytes], declared: str) -> None:
    samples = soxr.resample(speech("en"), 16_000, rate)
    assert codes(convert(samples), declared, rate) == ["float_as_int"]


def test_compressed_bytes() -> None:
    samples = soxr.resample(speech("fr", 60), 16_000, 48_000)[:, np.newaxis]
    data = encode(samples, 48_000, "webm", "libopus", options={"live": "1"})
    assert codes(data, "s16le", 24_000) == ["float_as_int"]


@pytest.mark.parametrize("encoding", ["s16le", "f32le", "mulaw"])
def test_silence(encoding: str) -> None:
    silence = {"s16le": bytes(2), "f32le": bytes(4), "mulaw": b"\xff"}[encoding]
    assert codes(silence * 24_000 * 4, encoding, 24_000) == []
    assert codes(silence * 24_000 * 20, encoding, 24_000) == ["silence"]


def test_pause() -> None:
    quiet = np.zeros(24_000 * 12, np.float32)
    quiet[:100] = 0.01
    assert codes(s16le(quiet), "s16le", 24_000) == []


@pytest.mark.parametrize("encoding", ["s16le", "f32le"])
def test_clipped_speech(encoding: str) -> None:
    loud = np.clip(soxr.resample(speech("en"), 16_000, 24_000) * 8, -1, 1)
    (warning,) = warnings(s16le(loud) if encoding == "s16le" else f32le(loud), encoding, 24_000)
    assert warning.code == "clipping"
    assert "full scale" in warning.message


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 24_000 * 8), max_size=20))
def test_any_split(places: list[int]) -> None:
    samples = np.concatenate([np.zeros(24_000 * 5, np.float32), np.ones(24_000 * 3, np.float32)])
    format = AudioFormat("s16le", 24_000, 1)
    check = AudioChecks(format, 24_000)
    found = [warning.code for piece in np.split(samples, sorted(places)) for warning in check.push(piece)]
    assert found == ["silence", "clipping"]


def test_one_second_in_ten_after_the_first_minute() -> None:
    class Counter:
        done = False
        seconds = 0

        def __call__(self, second: Samples, peak: float) -> None:
            self.seconds += 1

    check, counter = AudioChecks(AudioFormat(), 24_000), Counter()
    check._checks = [counter]
    for _ in range(120):
        check.push(np.full(24_000, 0.1, np.float32))
    assert counter.seconds == 60 + 6
