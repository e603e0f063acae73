"""The native protocol as the client sees it: addresses and messages, without I/O."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from tympan.errors import ParameterError
from tympan.messages import (
    Complete,
    Event,
    Flushed,
    Lag,
    Partial,
    Ready,
    Restarting,
    Segment,
    Turn,
    Vad,
    Warning,
    Word,
)

DEFAULT_EVENTS: Final = ("ready", "partial", "word", "segment", "turn", "lag")
"""Events that a stream reports by default: all but `vad`, which comes once per frame."""

NEEDED_EVENTS: Final = ("ready", "word", "lag")
"""Events that the client itself needs to know what has been transcribed."""

FINISH: Final = '{"type": "finish"}'
KEEPALIVE: Final = '{"type": "keepalive"}'

_STREAM_PATHS: Final = ("/v1/stream", "/v1/transcribe")
_SAMPLE_BYTES: Final = {"s16le": 2, "f32le": 4, "mulaw": 1, "alaw": 1}
_TELEPHONE_RATE: Final = 8_000
_DEFAULT_RATE: Final = 24_000

_EVENT_TYPES: Final[dict[str, type[Event]]] = {
    "ready": Ready,
    "partial": Partial,
    "word": Word,
    "segment": Segment,
    "turn": Turn,
    "vad": Vad,
    "lag": Lag,
    "warning": Warning,
    "restarting": Restarting,
    "complete": Complete,
}


def is_int16(samples: npt.NDArray[np.floating] | npt.NDArray[np.int16]) -> bool:
    """Return whether mono samples `[n]` are int16, in either byte order, and not floats.

    Raises:
        ParameterError: The array has another shape, or is neither of floats nor of int16.
    """
    is_int = samples.dtype.kind == "i" and samples.dtype.itemsize == 2
    if samples.ndim != 1 or not (is_int or np.issubdtype(samples.dtype, np.floating)):
        raise ParameterError(
            f"invalid samples {samples.dtype} {list(samples.shape)}: expected a one-dimensional array of floats in "
            "[-1, 1] or of int16"
        )
    return is_int


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding of a stream's audio; `sample_bytes` is 0 for containers, whose bytes do not indicate a time."""

    encoding: str
    sample_rate: int
    sample_bytes: int

    @classmethod
    def of(cls, encoding: str, sample_rate: int | None) -> AudioFormat:
        """Return the format of an encoding; the server checks whether it supports encoding and rate."""
        telephone = encoding in ("mulaw", "alaw")
        rate = sample_rate or (_TELEPHONE_RATE if telephone else _DEFAULT_RATE)
        return cls(encoding, rate, _SAMPLE_BYTES.get(encoding, 0))

    def encode(self, audio: npt.NDArray[np.floating] | npt.NDArray[np.int16] | bytes | bytearray | memoryview) -> bytes:
        """Return the bytes to send.

        Args:
            audio: Bytes, which are returned unchanged, or samples `[n]`: floats in [-1, 1] or int16.

        Raises:
            ParameterError: The array has another shape or type, or the encoding takes bytes only.
        """
        if not isinstance(audio, np.ndarray):
            return bytes(audio)
        is_int = is_int16(audio)
        if is_int and self.encoding == "s16le":
            return audio.astype("<i2").tobytes()
        if is_int and self.encoding == "f32le":
            return (audio / np.float32(32768)).astype("<f4").tobytes()
        if self.encoding == "s16le":
            scaled: npt.NDArray[np.floating] = np.round(np.clip(audio, -1.0, 1.0) * 32767.0)
            return scaled.astype("<i2").tobytes()
        if self.encoding == "f32le":
            return audio.astype("<f4").tobytes()
        raise ParameterError(f"samples cannot be sent as {self.encoding}: send bytes, or connect with s16le or f32le")


@dataclass(frozen=True, slots=True)
class Failure:
    """The server's `error` message, after which it closes the connection."""

    code: str
    message: str


class Resumed(msgspec.Struct, frozen=True):
    """A resumed stream: the bytes of audio and the flushes that the server has received since it was opened."""

    audio_bytes: int
    flushes: int


class _Tag(msgspec.Struct):
    type: str = ""


class _FlushedMessage(msgspec.Struct):
    id: int


class _ResumeToken(msgspec.Struct):
    resume: str = ""


def stream_url(url: str, audio: AudioFormat, events: Iterable[str]) -> str:
    """Return the address of a stream on the server at `url`, whose path is the prefix under which a proxy serves it.

    Raises:
        ParameterError: `url` is not the address of a server.
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ParameterError(f"invalid url {url!r}: expected ws://host:port or wss://host")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query |= {"encoding": audio.encoding, "events": ",".join(dict.fromkeys(events)), "resume": "yes"}
    if audio.sample_bytes:
        query["sample_rate"] = str(audio.sample_rate)
    return urlunsplit((scheme, parts.netloc, _stream_path(parts.path), urlencode(query, safe=","), ""))


def _stream_path(path: str) -> str:
    """Return the path of a stream below that of a server; a path that already names an endpoint stays."""
    path = path.rstrip("/")
    if path.endswith(_STREAM_PATHS):
        return path
    return path + ("/stream" if path.endswith("/v1") else _STREAM_PATHS[0])


def resume_url(url: str, token: str, received: int) -> str:
    """Return the address that resumes a stream opened at `url` after `received` messages."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) | {"resume": token, "received": str(received)}
    return urlunsplit(parts._replace(query=urlencode(query, safe=",")))


def event_types(names: Collection[str]) -> frozenset[type[Event]]:
    """Return the event classes of these names, with those that are always received."""
    wanted = _EVENT_TYPES.values() if "all" in names else (_EVENT_TYPES[n] for n in names if n in _EVENT_TYPES)
    return frozenset(wanted) | {Warning, Flushed, Complete}


def flush(marker: int) -> str:
    """Return the message that requests all pending words."""
    return json.dumps({"type": "flush", "id": marker})


def token(ready: str | bytes) -> str:
    """Return the resume token of a `ready` message; empty if the stream cannot be resumed."""
    return msgspec.json.decode(ready, type=_ResumeToken).resume


def decode(message: str | bytes) -> Event | Failure | Resumed | None:
    """Return the content of a server's message, or None for an unknown type, which a newer server may send.

    Raises:
        msgspec.DecodeError: The message is not valid for this protocol.
    """
    tag = msgspec.json.decode(message, type=_Tag).type
    if tag == "error":
        return msgspec.json.decode(message, type=Failure)
    if tag == "resumed":
        return msgspec.json.decode(message, type=Resumed)
    if tag == "flushed":
        return Flushed(msgspec.json.decode(message, type=_FlushedMessage).id)
    event_type = _EVENT_TYPES.get(tag)
    return None if event_type is None else msgspec.json.decode(message, type=event_type)


def shifted(event: Event, seconds: float) -> Event:
    """Return the event with its times moved by `seconds`."""
    match event:
        case Partial(start=start):
            return replace(event, start=start + seconds)
        case Word(start=start, end=end) | Segment(start=start, end=end):
            return replace(event, start=start + seconds, end=end + seconds)
        case Turn(time=time) | Vad(time=time):
            return replace(event, time=time + seconds)
        case Lag(received=received, processed=processed):
            return replace(event, received=received + seconds, processed=processed + seconds)
        case Complete(audio_seconds=audio_seconds):
            return replace(event, audio_seconds=audio_seconds + seconds)
    return event
