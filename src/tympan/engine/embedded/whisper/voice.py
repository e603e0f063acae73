"""Speech and silence of one stream, from Silero's voice activity model, which is part of `faster-whisper`."""

from __future__ import annotations

import numpy as np
from faster_whisper.vad import get_vad_model

from tympan.messages import Samples

CHUNK_SAMPLES = 512  # the model takes 32 ms at 16 kHz, preceded by the last 4 ms of the chunk before
CHUNK_SECONDS = CHUNK_SAMPLES / 16_000
CONTEXT_SAMPLES = 64
SPEECH_ABOVE = 0.5
SILENCE_BELOW = 0.35  # once speech has begun


class VoiceDetector:
    """Detects speech in one stream.

    Attributes:
        silence_seconds: Silence since the last speech, or since the start of the stream.
        speech_seconds: Speech since `start_count`, without the silence in it.
    """

    def __init__(self) -> None:
        self.silence_seconds = 0.0
        self.speech_seconds = 0.0
        self._session = get_vad_model().session  # one for all streams of the process
        self._state = (np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32))
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._rest = np.zeros(0, np.float32)
        self._speaking = False

    def push(self, samples: Samples) -> bool:
        """Add samples at 16 kHz; return whether there was speech in one of the chunks that they complete."""
        audio = np.concatenate([self._rest, samples])
        whole = len(audio) // CHUNK_SAMPLES
        self._rest = audio[whole * CHUNK_SAMPLES :]
        if not whole:
            return False
        chunks = audio[: whole * CHUNK_SAMPLES].reshape(whole, CHUNK_SAMPLES)
        contexts = np.concatenate([self._context[None], chunks[:-1, -CONTEXT_SAMPLES:]])
        self._context = chunks[-1, -CONTEXT_SAMPLES:]
        batch = np.concatenate([contexts, chunks], axis=1)
        probabilities, *self._state = self._session.run(
            None, {"input": batch, "h": self._state[0], "c": self._state[1]}
        )
        speaking = [self._count(float(probability)) for probability in probabilities.ravel()]
        return any(speaking)

    def start_count(self) -> None:
        """Set `speech_seconds` to 0."""
        self.speech_seconds = 0.0

    def _count(self, probability: float) -> bool:
        self._speaking = probability >= (SILENCE_BELOW if self._speaking else SPEECH_ABOVE)
        if self._speaking:
            self.silence_seconds = 0.0
            self.speech_seconds += CHUNK_SECONDS
        else:
            self.silence_seconds += CHUNK_SECONDS
        return self._speaking
