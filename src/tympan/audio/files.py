"""Decodes audio files to mono samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from tympan.audio.containers.libav import OPTIONS, audio_stream, decode_input, plain
from tympan.audio.mixing import Mixer
from tympan.errors import AudioError
from tympan.messages import Samples

# Without the demuxers that open other files or URLs: playlists and concatenations.
_DEMUXERS = "ogg,matroska,webm,wav,w64,mp3,flac,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,au,caf,amr,amrnb,amrwb,asf,wv"


def decode_file(path: str | Path, sample_rate: int = 24_000) -> Iterator[Samples]:
    """Yield the first audio stream of a file as mono float32 `[n]` at `sample_rate`, in blocks of about one second.

    Blocks are decoded on demand, so the file may be larger than the memory.

    Raises:
        AudioError: The file cannot be decoded; the message contains its name.
    """
    with _opened(path) as container:
        block: list[Samples] = []
        for samples in _mono(container, sample_rate):
            block.append(samples)
            if sum(map(len, block)) >= sample_rate:
                yield np.concatenate(block)
                block = []
        if block:
            yield np.concatenate(block)


def duration_seconds(path: str | Path) -> float | None:
    """Return the declared duration of a file in seconds, or None if it has none.

    Raises:
        AudioError: The file cannot be read; the message contains its name.
    """
    with _opened(path) as container:
        stream = audio_stream(container)
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return container.duration / av.time_base if container.duration is not None else None


def _mono(container: InputContainer, sample_rate: int) -> Iterator[Samples]:
    mixer = Mixer(sample_rate, 1)
    for samples in decode_input(container, mixer):
        yield samples[:, 0]
    for samples in mixer.finish():
        yield samples[:, 0]


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    """Open a file and add its name to errors; with `file:` a name that contains a colon is not taken for a URL."""
    options = {"format_whitelist": _DEMUXERS, "codec_whitelist": OPTIONS["codec_whitelist"]}
    try:
        with av.open(f"file:{path}", "r", options=options) as container:
            yield container
    except FFmpegError as error:
        raise AudioError(f"{path}: cannot be read as audio: {plain(error)}") from error
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
