"""The words that a load's audio must produce, and when each is due.

With the scripted model they follow from the script. With any other model, one stream with the same samples and flushes
runs alone first, and its transcript is what the streams under load are compared with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tympan.bench.load.spec import LoadSpec
from tympan.bench.load.speech import Speech
from tympan.client.backoff import Backoff
from tympan.client.stream import Stream, connect
from tympan.engine.scripted import DELAY_FRAMES, FRAME_SECONDS, scripted_words
from tympan.errors import ConfigError
from tympan.messages import Flushed, Vad, Word

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """The words of the longest session, in order.

    Attributes:
        model: The server's model.
        texts: The words.
        starts: Start of each word in seconds of audio, `[words]`.
        ends: End of each word in seconds of audio, `[words]`.
        released: Audio that the model had processed when it released each word, in seconds, `[words]`. Any delay
            beyond it is not the model's.
        held_seconds: Audio at the end of a session that is never processed, because the resampler holds it back at a
            flush.
    """

    model: str
    texts: tuple[str, ...]
    starts: Seconds
    ends: Seconds
    released: Seconds
    held_seconds: float = 0.0

    @classmethod
    def from_words(
        cls, model: str, words: Sequence[Word], released: Sequence[float], held_seconds: float = 0.0
    ) -> Expected:
        return cls(
            model,
            tuple(word.text for word in words),
            np.array([word.start for word in words], np.float64),
            np.array([word.end for word in words], np.float64),
            np.array(released, np.float64),
            held_seconds,
        )


async def expect(spec: LoadSpec, speech: Speech) -> Expected:
    """Return the words that ``speech`` must produce; run one stream alone unless the server's model is scripted.

    Raises:
        ServerError: The server is unreachable, refuses the stream or ends it early.
        ConfigError: The model needs speech, and ``speech`` is noise.
    """
    async with connect(
        spec.base_url,
        token=spec.token,
        sample_rate=speech.sample_rate,
        events=("word", "vad"),
        backoff=Backoff(attempts=0),
    ) as stream:
        model = stream.ready.model
        ends_with_flush = spec.dialect.finish is None
        held_seconds = FRAME_SECONDS if ends_with_flush and stream.ready.sample_rate != speech.sample_rate else 0.0
        if model == "scripted":
            words = scripted_words(round((spec.session_chunks * spec.chunk_seconds - held_seconds) / FRAME_SECONDS))
            released = [word.end + DELAY_FRAMES * FRAME_SECONDS for word in words]
        elif speech.is_noise:
            raise ConfigError(f"the model {model} needs speech: pass a recording with --audio FILE")
        else:
            sending = asyncio.create_task(_send(stream, spec, speech))
            try:
                words, released = await _receive(stream, ends_with_flush)
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    return Expected.from_words(model, words, released, held_seconds)


async def _send(stream: Stream, spec: LoadSpec, speech: Speech) -> None:
    chunks = spec.session_chunks
    flush_points = speech.flush_points(spec.flush_every, chunks)
    for number in range(chunks):
        await stream.send(speech.chunks[number % len(speech.chunks)])
        if number + 1 in flush_points:
            await stream.flush()
    if spec.dialect.finish is None:
        await stream.flush()
    await stream.finish()


async def _receive(stream: Stream, until_flushed: bool) -> tuple[list[Word], list[float]]:
    """Return the words, and the audio that had been processed when each was released.

    A word arrives before the `vad` event of the frame that released it, which has the processed time.

    Args:
        stream: The stream that runs alone.
        until_flushed: Return only the words up to the last flush, for protocols that end with a flush.
    """
    words: list[Word] = []
    released: list[float] = []
    processed, flushed = 0.0, 0
    async for event in stream:
        match event:
            case Word():
                words.append(event)
            case Vad(time=time):
                processed = time
                released += [processed] * (len(words) - len(released))
            case Flushed():
                released += [processed] * (len(words) - len(released))
                flushed = len(words)
    released += [processed] * (len(words) - len(released))
    count = flushed if until_flushed else len(words)
    return words[:count], released[:count]
