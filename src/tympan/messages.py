"""The vocabulary that all layers speak: Commands go down from a client to the engine, Events come up.

Times are seconds of audio received on that stream since its start; wall-clock time appears nowhere here.
Wire formats exist only in `protocols/`, tokens only in `engine/` and `models/`. Every frame of every stream makes some
of these, so they are msgspec's structs, which take a quarter of the time that frozen dataclasses take to make; those
that hold nothing but values are kept from the garbage collector (`gc=False`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Samples = npt.NDArray[np.float32]
"""Audio in [-1, 1]. `[n]` is mono; `[n, channels]` is interleaved channels. Every function says which."""

Pcm = npt.NDArray[np.float32 | np.int16]
"""The same, or as it mostly comes: 16-bit integers, of which 32768 stands for 1. They stay what they are until a model
takes them: nothing is copied on their way.
"""


class AudioFormat(Struct, frozen=True):
    """What the bytes of a stream are: one of `audio.format.ENCODINGS`, samples per second, and 1 or 2 channels.

    A container's own rate wins over `sample_rate`. Every channel is a stream of its own, unless `mixed` makes one of
    both. `or_fewer`: a container may also have fewer channels.
    """

    encoding: str = "s16le"
    sample_rate: int = 24_000
    channels: int = 1
    mixed: bool = False
    or_fewer: bool = False

    @property
    def streams(self) -> int:
        return 1 if self.mixed else self.channels


# --- Commands: what a client asks for -------------------------------------------------------------------------------


class Audio(Struct, frozen=True):
    """Encoded audio in the stream's declared format; any number of bytes, cut anywhere."""

    data: bytes


class SetFormat(Struct, frozen=True):
    """The audio from here on is in this format; as many streams as before."""

    audio_format: AudioFormat


class Reset(Struct, frozen=True):
    """Forget everything heard, as if the stream had just been opened; its clock starts again."""


class Flush(Struct, frozen=True):
    """Release every word of the audio sent so far, then answer `Flushed` with the same mark. The stream goes on."""

    marker: int


class KeepAlive(Struct, frozen=True):
    """The client is still there although it sends no audio."""


class Finish(Struct, frozen=True):
    """No more audio: release every word, answer `Complete`, end the stream."""


Command = Audio | SetFormat | Reset | Flush | KeepAlive | Finish


# --- Events: what an engine reports ----------------------------------------------------------------------------------


class Partial(Struct, frozen=True, gc=False):
    """What is heard after the last released word, and may still change. Empty text takes the previous partial back."""

    text: str
    start: float


class Word(Struct, frozen=True, gc=False):
    """A released word: it will not change. `text` has no spaces around it; `confidence` is in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


class Progress(Struct, frozen=True, gc=False):
    """Audio up to `time` has been transcribed. `pauses` is P(pause) for each of the engine's horizons, or empty."""

    time: float
    pauses: tuple[float, ...] = ()


class Warning(Struct, frozen=True):
    """Something about the audio looks wrong, or the model fell silent on it; `code` is the stable name of `message`."""

    code: str
    message: str


class Flushed(Struct, frozen=True):
    """Every word of the audio before the `Flush` with this mark has been released."""

    marker: int


class Finished(Struct, frozen=True):
    """The engine's last event on a stream: every word has been released, the slot is free."""


class Failed(Struct, frozen=True):
    """The engine's last event on a stream that it cannot go on with. `error` is for the log, not for the peer."""

    error: Exception


EngineEvent = Partial | Word | Progress | Warning | Flushed | Finished | Failed


# --- Events: what a session adds -------------------------------------------------------------------------------------


class Ready(Struct, frozen=True):
    """The stream is open. `pause_horizons` are the seconds that each number of `Vad.pauses` looks ahead."""

    session: str
    model: str
    engine: str
    sample_rate: int
    delay_seconds: float
    pause_horizons: tuple[float, ...]


class Segment(Struct, frozen=True):
    """Consecutive words up to a pause, fit for one subtitle."""

    text: str
    start: float
    end: float


class Turn(Struct, frozen=True):
    """Somebody started or ended a turn at `time`. `probability` is the pause probability that decided it."""

    state: Literal["started", "ended"]
    time: float
    probability: float


class Vad(Struct, frozen=True):
    """P(pause) for each horizon, once per engine frame."""

    time: float
    pauses: tuple[float, ...]


class Lag(Struct, frozen=True):
    """How far the recognizer is behind: seconds of audio received, processed, and the difference."""

    received: float
    processed: float
    behind: float


class Restarting(Struct, frozen=True):
    """The server goes down: what follows is all that can be said at once, half a word included. Who can send audio
    again has it heard whole by another session.
    """


class Complete(Struct, frozen=True):
    """The last event of a session: everything received has been answered."""

    audio_seconds: float
    words: int


Event = Partial | Word | Flushed | Ready | Segment | Turn | Vad | Lag | Warning | Restarting | Complete
