"""The messages between the layers: Commands from a client to the engine, Events back.

Times are seconds of audio received on the stream since its start, never wall-clock time. Wire formats exist only in
`protocols/`, tokens only in `engine/` and `models/`. Every frame creates some of these objects, so they are msgspec
structs, which are created four times as fast as frozen dataclasses; those that hold only values are not tracked by the
garbage collector (`gc=False`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Samples = npt.NDArray[np.float32]
"""Audio in [-1, 1]; `[n]` is mono, `[n, channels]` has interleaved channels."""

Pcm = npt.NDArray[np.float32 | np.int16]
"""Audio as float32 in [-1, 1] or as int16, which most clients send and which is not converted before the model."""


class AudioFormat(Struct, frozen=True):
    """The declared format of a stream's audio.

    Attributes:
        encoding: One of `audio.format.ENCODINGS`.
        sample_rate: Samples per second; a container's own rate has precedence.
        channels: 1 or 2. Each channel is a separate stream unless they are mixed.
        mixed: Whether the channels are mixed into one stream.
        or_fewer: Whether a container may have fewer channels.
    """

    encoding: str = "s16le"
    sample_rate: int = 24_000
    channels: int = 1
    mixed: bool = False
    or_fewer: bool = False

    @property
    def streams(self) -> int:
        """Number of streams, each of which needs an engine slot."""
        return 1 if self.mixed else self.channels


# --- Commands: requests of a client ----------------------------------------------------------------------------------


class Audio(Struct, frozen=True):
    """Audio in the declared format: any number of bytes, split anywhere."""

    data: bytes


class SetFormat(Struct, frozen=True):
    """Change the format of the following audio; the number of streams stays the same."""

    audio_format: AudioFormat


class Reset(Struct, frozen=True):
    """Discard all state, as if the stream had just been opened; its clock restarts at 0."""


class Flush(Struct, frozen=True):
    """Release all words of the audio sent so far, then report `Flushed` with the same marker."""

    marker: int


class KeepAlive(Struct, frozen=True):
    """Reset the idle timeout without audio."""


class Finish(Struct, frozen=True):
    """Release all words, report `Complete`, and end the stream."""


Command = Audio | SetFormat | Reset | Flush | KeepAlive | Finish


# --- Events: reports of an engine ------------------------------------------------------------------------------------


class Partial(Struct, frozen=True, gc=False, omit_defaults=True):
    """Text after the last released word that may still change; empty text withdraws the previous partial.

    `glued` text continues that word without a space, as a glued `Word`.
    """

    text: str
    start: float
    glued: bool = False


class Word(Struct, frozen=True, gc=False, omit_defaults=True):
    """A final word. `text` has no spaces around it; `confidence` is in [0, 1].

    A `glued` word continues the word before it without a space: the model paused within "400" after "4".
    """

    text: str
    start: float
    end: float
    confidence: float
    glued: bool = False


class Progress(Struct, frozen=True, gc=False):
    """Audio up to `time` has been transcribed.

    Attributes:
        time: End of the audio.
        pauses: The pause probability of each horizon, or empty.
        speech: Whether most of the last 240 ms were speech by energy, at least 160 ms.
    """

    time: float
    pauses: tuple[float, ...] = ()
    speech: bool = False


class Warning(Struct, frozen=True):
    """The audio may be wrong, or the model has stalled; `code` identifies the message."""

    code: str
    message: str


class Flushed(Struct, frozen=True):
    """All words of the audio before the `Flush` with this marker have been released."""

    marker: int


class Finished(Struct, frozen=True):
    """The last event of a stream: all words have been released, and its slot is free."""


class Failed(Struct, frozen=True):
    """The last event of a stream that failed. `error` is for the log, not for the peer."""

    error: Exception


EngineEvent = Partial | Word | Progress | Warning | Flushed | Finished | Failed


# --- Events: additions of a session ----------------------------------------------------------------------------------


class Ready(Struct, frozen=True):
    """The session is open. `pause_horizons` are the horizons of `Vad.pauses` in seconds."""

    session: str
    model: str
    engine: str
    sample_rate: int
    delay_seconds: float
    pause_horizons: tuple[float, ...]


class Segment(Struct, frozen=True):
    """Consecutive words up to a pause, short enough for a subtitle."""

    text: str
    start: float
    end: float


class Turn(Struct, frozen=True):
    """A turn started or ended at `time`. `probability` is the pause probability that decided it."""

    state: Literal["started", "ended"]
    time: float
    probability: float


class Vad(Struct, frozen=True, omit_defaults=True):
    """The pause probability of each horizon, and whether the speaker speaks by energy (`Progress`), once per frame."""

    time: float
    pauses: tuple[float, ...]
    speech: bool = False


class Lag(Struct, frozen=True):
    """How far the engine is behind: seconds of audio received, processed, and the difference."""

    received: float
    processed: float
    behind: float


class Restarting(Struct, frozen=True):
    """The server is shutting down: the following words may end within a word.

    A client that can send the audio again should discard them and open another session.
    """


class Complete(Struct, frozen=True):
    """The last event of a session: all audio has been transcribed."""

    audio_seconds: float
    words: int


Event = Partial | Word | Flushed | Ready | Segment | Turn | Vad | Lag | Warning | Restarting | Complete
