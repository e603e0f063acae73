"""The words that the audio of a load must give, and when each was due.

The scripted model's follow from its script. For any other model one stream runs first, alone, with the same samples
and flushes: the same server's own transcript is what the streams under load are held to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tympan.bench.load.plan import Plan
from tympan.bench.load.speech import Speech
from tympan.client.backoff import Backoff
from tympan.client.stream import Stream, connect
from tympan.engine.scripted import DELAY_FRAMES, FRAME_SECONDS, scripted_words
from tympan.errors import ConfigError
from tympan.messages import Flushed, Vad, Word

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """Words of the longest session, in order. Times are seconds of its audio: `[words]` each.

    `released`: how much audio the model had heard when it gave the word. What comes after that is not the model's.
    `held_seconds`: how much of a session's last audio is never heard, because a flush leaves in the resampler what it
    holds.
    """

    model: str
    texts: tuple[str, ...]
    starts: Seconds
    ends: Seconds
    released: Seconds
    held_seconds: float = 0.0

    @classmethod
    def of(cls, model: str, words: Sequence[Word], released: Sequence[float], held_seconds: float = 0.0) -> Expected:
        return cls(
            model,
            tuple(word.text for word in words),
            np.array([word.start for word in words], np.float64),
            np.array([word.end for word in words], np.float64),
            np.array(released, np.float64),
            held_seconds,
        )


async def expect(plan: Plan, speech: Speech) -> Expected:
    """Ask the server for its model, and for its words where they are not known.

    Raises:
        ServerError: it cannot be reached, refuses, or ends the stream.
        ConfigError: its model listens, and there is nothing to hear.
    """
    async with connect(
        plan.base_url,
        token=plan.token,
        sample_rate=speech.sample_rate,
        events=("word", "vad"),
        backoff=Backoff(attempts=0),
    ) as stream:
        model = stream.ready.model
        ends_with_flush = plan.dialect.finish is None
        held_seconds = FRAME_SECONDS if ends_with_flush and stream.ready.sample_rate != speech.sample_rate else 0.0
        if model == "scripted":
            return _script(plan, held_seconds)
        if speech.is_noise:
            raise ConfigError(f"the model {model} listens: give it speech with --audio FILE")
        sending = asyncio.create_task(_send(stream, plan, speech))
        try:
            words, released = await _hear(stream, ends_with_flush)
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return Expected.of(model, words, released, held_seconds)


def _script(plan: Plan, held_seconds: float) -> Expected:
    words = scripted_words(round((plan.session_chunks * plan.chunk_seconds - held_seconds) / FRAME_SECONDS))
    released = [word.end + DELAY_FRAMES * FRAME_SECONDS for word in words]
    return Expected.of("scripted", words, released, held_seconds)


async def _send(stream: Stream, plan: Plan, speech: Speech) -> None:
    chunks = plan.session_chunks
    flush_points = speech.flush_points(plan.flush_every, chunks)
    for number in range(chunks):
        await stream.send(speech.chunks[number % len(speech.chunks)])
        if number + 1 in flush_points:
            await stream.flush()
    if plan.dialect.finish is None:
        await stream.flush()
    await stream.finish()


async def _hear(stream: Stream, until_flushed: bool) -> tuple[list[Word], list[float]]:
    """Words come before the `vad` of the frame that gave them, which says how much had been heard.

    until_flushed: only those up to the last flush, where the protocol of the load ends with one.
    """
    words: list[Word] = []
    released: list[float] = []
    heard, flushed = 0.0, 0
    async for event in stream:
        match event:
            case Word():
                words.append(event)
            case Vad(time=time):
                heard = time
                released += [heard] * (len(words) - len(released))
            case Flushed():
                released += [heard] * (len(words) - len(released))
                flushed = len(words)
    released += [heard] * (len(words) - len(released))
    count = flushed if until_flushed else len(words)
    return words[:count], released[:count]
