"""Audio files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.audio_encoding import encode, voice

from tympan.audio.files import AudioInput, decode_file
from tympan.errors import AudioError

_FILES = [
    ("wav", "pcm_s16le", 44_100),
    ("mp3", "libmp3lame", 44_100),
    ("flac", "flac", 48_000),
    ("ogg", "libopus", 48_000),
    ("webm", "libopus", 48_000),
    ("mp4", "aac", 44_100),
]


@pytest.mark.parametrize(("container", "codec", "rate"), _FILES)
def test_mono_blocks(tmp_path: Path, container: str, codec: str, rate: int) -> None:
    path = tmp_path / f"a name: with a colon.{container}"
    path.write_bytes(encode(voice(2.5, rate, 2), rate, container, codec))
    blocks = list(decode_file(path))
    assert all(block.ndim == 1 and block.dtype == np.float32 for block in blocks)
    assert all(24_000 <= len(block) < 30_000 for block in blocks[:-1])
    assert sum(map(len, blocks)) / 24_000 == pytest.approx(2.5, abs=0.06)


def test_another_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(voice(1, 24_000), 24_000, "wav", "pcm_s16le"))
    assert sum(map(len, decode_file(str(path), 16_000))) == 16_000


def test_file_is_decoded_lazily(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    data = encode(voice(3, 24_000), 24_000, "wav", "pcm_s16le")
    path.write_bytes(data)
    blocks = decode_file(path)
    next(blocks)
    with path.open("r+b") as file:
        file.truncate(len(data) - 20_000)
    assert sum(map(len, blocks)) < 48_000


@pytest.mark.parametrize("content", [None, b"", b"hello there", b"#EXTM3U\n#EXTINF:1,\nother.wav\n"])
def test_not_an_audio_file(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "other.wav").write_bytes(encode(voice(1, 24_000), 24_000, "wav", "pcm_s16le"))
    path = tmp_path / "notes.m3u8"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=r"notes\.m3u8"):
        list(decode_file(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nope\.wav: .*no such file"):
        next(decode_file(tmp_path / "nope.wav"))


@pytest.mark.parametrize(("container", "codec", "rate"), [("wav", "pcm_s16le", 16_000), ("mp4", "aac", 44_100)])
def test_declared_duration(tmp_path: Path, container: str, codec: str, rate: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(encode(voice(2.5, rate), rate, container, codec))
    with AudioInput(path) as audio:
        assert audio.duration_seconds is None
        next(audio.blocks(24_000))
        assert audio.duration_seconds == pytest.approx(2.5, abs=0.06)
