"""Declared formats."""

from __future__ import annotations

import pytest

from tympan.audio.format import parse_format
from tympan.errors import ParameterError
from tympan.messages import AudioFormat


def test_default() -> None:
    assert parse_format(None, None, None) == AudioFormat("s16le", 24_000, 1)


@pytest.mark.parametrize("encoding", ["mulaw", "alaw", "ulaw", "PCMU", "pcma"])
def test_telephone_rate(encoding: str) -> None:
    assert parse_format(encoding, None, None).sample_rate == 8_000
    assert parse_format(encoding, "16000", None).sample_rate == 16_000


@pytest.mark.parametrize(
    ("alias", "encoding"),
    [
        ("pcm_s16le", "s16le"),
        ("linear16", "s16le"),
        ("pcm_f32le", "f32le"),
        ("linear32", "f32le"),
        ("ulaw", "mulaw"),
        ("pcmu", "mulaw"),
        ("pcma", "alaw"),
        ("Opus", "opus"),
        (" auto ", "auto"),
    ],
)
def test_aliases(alias: str, encoding: str) -> None:
    assert parse_format(alias, None, "2") == AudioFormat(encoding, parse_format(encoding).sample_rate, 2)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (("mp4", None, None), "'mp4': expected one of s16le, f32le, mulaw, alaw, opus, auto"),
        (("", None, None), "encoding ''"),
        (("x" * 1000, None, None), "xxx…'"),
        ((None, "24kHz", None), "sample_rate '24kHz': expected 8000 to 48000 Hz"),
        ((None, "7999", None), "7999"),
        ((None, "48001", None), "48001"),
        ((None, "-24000", None), "-24000"),
        ((None, "24000.0", None), "24000.0"),
        ((None, "²4000", None), "4000"),
        ((None, "9" * 5000, None), "999"),
        ((None, None, "3"), "channels '3': expected 1 or 2"),
        ((None, None, "0"), "'0'"),
        ((None, None, "mono"), "'mono'"),
    ],
)
def test_invalid_formats(parameters: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(ParameterError) as raised:
        parse_format(*parameters)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 150
