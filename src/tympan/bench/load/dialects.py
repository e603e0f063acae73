"""Paths and requests of every protocol's client; `readers` parses the responses.

Everything here is a pure function over bytes, so the audio is encoded once for all streams. The parameters disable
endpointing and turn detection, so that the engine receives the same samples and flushes in every protocol.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from tympan.bench.load.readers import (
    VLLM_START,
    Listener,
    Message,
    Reader,
    deepgram_reader,
    flux_reader,
    kyutai_reader,
    openai_reader,
    typed_reader,
    vllm_reader,
)


@dataclass(frozen=True)
class Dialect:
    """The client's side of one protocol.

    Attributes:
        path: Path and query of the endpoint.
        reader: Returns the parser of the server's messages.
        flush: Message that requests a flush.
        finish: Message that ends the audio; None if the client closes the connection after a last flush instead.
        audio: Encodes 16-bit samples as a message.
        setup: Messages that the client sends first.
        sample_rate: Of the audio, in Hz.
    """

    path: str
    reader: Callable[[Listener], Reader]
    flush: Message
    finish: Message | None
    audio: Callable[[bytes], Message] = bytes
    setup: tuple[Message, ...] = ()
    sample_rate: int = 24_000


def json_audio(field: str, kind: str) -> Callable[[bytes], str]:
    """Return an encoder that puts audio into ``field`` of a JSON message, in base64."""
    return lambda pcm: json.dumps({"type": kind, field: base64.b64encode(pcm).decode()})


def msgpack_audio(pcm: bytes) -> bytes:
    """Encode Kyutai's `Audio` message: a MessagePack array of 32-bit floats, as Kyutai's clients send it."""
    samples = np.frombuffer(pcm, "<i2")
    items = np.empty(len(samples), [("tag", "u1"), ("value", ">f4")])
    items["tag"], items["value"] = 0xCA, samples / np.float32(32768)
    header = b"\xdd" + len(samples).to_bytes(4, "big")
    return msgspec.msgpack.encode({"type": "Audio", "pcm": msgspec.Raw(header + items.tobytes())})


_DEEPGRAM_AUDIO = "encoding=linear16&sample_rate=24000"
_OPENAI_INPUT = {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": None}
_OPENAI_SESSION = {"type": "transcription", "audio": {"input": _OPENAI_INPUT}}
_APPEND = json_audio("audio", "input_audio_buffer.append")

DIALECTS: Final[Mapping[str, Dialect]] = {
    "native": Dialect(
        path="/v1/stream?events=word,lag",
        reader=typed_reader(word="word"),
        flush='{"type": "flush"}',
        finish='{"type": "finish"}',
    ),
    "kyutai": Dialect(
        path="/api/asr-streaming",
        reader=kyutai_reader,
        audio=msgpack_audio,
        flush=msgspec.msgpack.encode({"type": "Marker", "id": 0}),
        finish=None,
    ),
    "gradium": Dialect(
        path="/api/speech/asr",
        reader=typed_reader(word="text"),
        audio=json_audio("audio", "audio"),
        setup=('{"type": "setup", "model_name": "default", "input_format": "pcm"}',),
        flush='{"type": "flush", "flush_id": 0}',
        finish='{"type": "end_of_stream"}',
    ),
    "openai": Dialect(
        path="/v1/realtime?intent=transcription",
        reader=openai_reader,
        audio=_APPEND,
        setup=(json.dumps({"type": "session.update", "session": _OPENAI_SESSION}),),
        flush='{"type": "input_audio_buffer.commit"}',
        finish=None,
    ),
    "vllm": Dialect(
        path="/v1/realtime",
        reader=vllm_reader,
        audio=_APPEND,
        setup=('{"type": "session.update", "model": ""}', VLLM_START),
        flush='{"type": "input_audio_buffer.commit", "final": true}',
        finish=None,
        sample_rate=16_000,
    ),
    "deepgram": Dialect(
        path=f"/v1/listen?{_DEEPGRAM_AUDIO}&interim_results=true&endpointing=false",
        reader=deepgram_reader,
        flush='{"type": "Finalize"}',
        finish='{"type": "CloseStream"}',
    ),
    "flux": Dialect(
        path=f"/v2/listen?{_DEEPGRAM_AUDIO}&eot_threshold=1.0&eot_timeout_ms=60000",
        reader=flux_reader,
        flush='{"type": "ForceEndTurn"}',
        finish='{"type": "CloseStream"}',
    ),
}
