"""`transcribe`: the transcript of a file or an array in one call, from a server or from this machine."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from tympan.audio.files import AudioInput
from tympan.audio.resample import Resampler
from tympan.client.stream import connect
from tympan.client.sync import LoopThread
from tympan.client.wire import is_int16
from tympan.config import config_file, load_config
from tympan.errors import ParameterError
from tympan.messages import Event, Samples
from tympan.transcript.transcript import Transcript, TranscriptBuilder

SERVER_RATE: Final = 24_000
BLOCK_SECONDS: Final = 1

Audio = str | os.PathLike[str] | npt.NDArray[np.floating] | npt.NDArray[np.int16]


def transcribe(
    audio: Audio,
    *,
    url: str | None = None,
    token: str | None = None,
    model: str | None = None,
    sample_rate: int | None = None,
) -> Transcript:
    """Return the transcript of a file or an array, once all of it has been transcribed.

    With `url`, a server transcribes. Without it, this machine does, as with `tympan transcribe`: the model is loaded
    for the call, and downloaded if necessary. Where an event loop runs, as in a notebook, the call blocks it.

    Args:
        audio: The path or http(s) URL of an audio or video file, or mono samples `[n]`: floats in [-1, 1] or int16.
        url: The server, such as `ws://localhost:8000`.
        token: An API key of the server.
        model: The model on this machine, as for `--model`; by default that of `TYMPAN_MODEL`, or Kyutai's 1B.
        sample_rate: Sample rate of an array in Hz. Files have their own.

    Raises:
        AudioError: The file cannot be read or decoded.
        ParameterError: The arguments contradict each other, or the array has another shape or type.
        ServerError: The server cannot be reached, or has refused or ended the stream.
        ModelError: The model cannot be found or loaded on this machine.
        MissingPackageError: The model needs a package that is not installed.
    """
    if url is not None and model is not None:
        raise ParameterError("model selects a model on this machine, but url uses the server's: leave one of them out")
    if isinstance(audio, np.ndarray) != (sample_rate is not None):
        raise ParameterError("sample_rate is required for an array, and must be left out for a file")
    loop = LoopThread()
    loop.start()
    try:
        return loop.call(_transcribe(audio, url, token, model, sample_rate))
    finally:
        loop.stop()


async def _transcribe(
    audio: Audio, url: str | None, token: str | None, model: str | None, sample_rate: int | None
) -> Transcript:
    if isinstance(audio, np.ndarray):
        assert sample_rate is not None
        source: AudioInput | _ArrayInput = _ArrayInput(as_floats(audio), sample_rate)
    else:
        source = AudioInput(os.fspath(audio))
    transcript = TranscriptBuilder(source.name)
    with source:
        events = _from_this_machine(source, model) if url is None else from_server(source, url, token)
        async with aclosing(events):
            async for event in events:
                transcript.on_event(event)
    return transcript.transcript


def as_floats(samples: npt.NDArray[np.floating] | npt.NDArray[np.int16]) -> Samples:
    """Return mono samples as float32 in [-1, 1].

    Raises:
        ParameterError: The array has another shape, or is neither of floats nor of int16.
    """
    return samples.astype(np.float32) / np.float32(32768 if is_int16(samples) else 1)


class _ArrayInput:
    """Samples with the interface of `AudioInput`."""

    name = "samples"

    def __init__(self, samples: Samples, sample_rate: int) -> None:
        self._samples, self._rate = samples, sample_rate

    def __enter__(self) -> None:
        """Do nothing: there is nothing to open."""

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def blocks(self, sample_rate: int) -> Iterator[Samples]:
        """Yield the samples at another rate."""
        resampler = Resampler(self._rate, sample_rate, 1)
        step = self._rate * BLOCK_SECONDS
        for start in range(0, len(self._samples), step):
            yield resampler.push(self._samples[start : start + step, None])[:, 0]
        yield resampler.finish()[:, 0]


async def from_server(audio: AudioInput | _ArrayInput, url: str, token: str | None) -> AsyncGenerator[Event, None]:
    """Yield the events of an opened input, transcribed by a server."""
    async with (
        connect(url, token=token) as stream,
        aclosing(stream.transcribe(audio.blocks(SERVER_RATE))) as events,
    ):
        yield stream.ready
        async for event in events:
            yield event


async def _from_this_machine(audio: AudioInput | _ArrayInput, model: str | None) -> AsyncGenerator[Event, None]:
    """Yield the events of an opened input, transcribed by an engine of this process."""
    from tympan.engine.registry import create_engine
    from tympan.session.local import transcribe as transcribe_locally

    config = load_config(config_file(), overrides={} if model is None else {"model": model})
    engine = create_engine(replace(config.model, max_streams=1))  # one slot needs no calibration
    await engine.start()
    try:
        yield engine.info.ready("local")
        blocks = audio.blocks(engine.info.sample_rate)
        async for event in transcribe_locally(engine, blocks, config.turns, config.limits):
            yield event
    finally:
        await engine.stop()
