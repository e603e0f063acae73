"""Every protocol of the server as its client sees it: where it is, and what goes up. `readers` has what comes down.

Pure functions over bytes, so that audio can be written once for all streams. The settings are those under which the
client alone decides about flushes: then all protocols give the engine the same samples and the same flushes.
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
    Ear,
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
    """One protocol. `audio` takes 16-bit samples at `sample_rate`; `finish` is None where the client closes the socket
    after a last flush, because the protocol knows no end.
    """

    path: str
    reader: Callable[[Ear], Reader]
    flush: Message
    finish: Message | None
    audio: Callable[[bytes], Message] = bytes
    hello: tuple[Message, ...] = ()
    sample_rate: int = 24_000


def in_base64(field: str, kind: str) -> Callable[[bytes], str]:
    """Audio in a JSON message of this type."""
    return lambda pcm: json.dumps({"type": kind, field: base64.b64encode(pcm).decode()})


def packed_floats(pcm: bytes) -> bytes:
    """Kyutai's `Audio`: a MessagePack array of single floats, as its clients send it."""
    samples = np.frombuffer(pcm, "<i2")
    items = np.empty(len(samples), [("tag", "u1"), ("value", ">f4")])
    items["tag"], items["value"] = 0xCA, samples / np.float32(32768)
    header = b"\xdd" + len(samples).to_bytes(4, "big")
    return msgspec.msgpack.encode({"type": "Audio", "pcm": msgspec.Raw(header + items.tobytes())})


_DEEPGRAM_AUDIO = "encoding=linear16&sample_rate=24000"
_OPENAI_INPUT = {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": None}
_OPENAI_SESSION = {"type": "transcription", "audio": {"input": _OPENAI_INPUT}}
_APPEND = in_base64("audio", "input_audio_buffer.append")

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
        audio=packed_floats,
        flush=msgspec.msgpack.encode({"type": "Marker", "id": 0}),
        finish=None,
    ),
    "gradium": Dialect(
        path="/api/speech/asr",
        reader=typed_reader(word="text"),
        audio=in_base64("audio", "audio"),
        hello=('{"type": "setup", "model_name": "default", "input_format": "pcm"}',),
        flush='{"type": "flush", "flush_id": 0}',
        finish='{"type": "end_of_stream"}',
    ),
    "openai": Dialect(
        path="/v1/realtime?intent=transcription",
        reader=openai_reader,
        audio=_APPEND,
        hello=(json.dumps({"type": "session.update", "session": _OPENAI_SESSION}),),
        flush='{"type": "input_audio_buffer.commit"}',
        finish=None,
    ),
    "vllm": Dialect(
        path="/v1/realtime",
        reader=vllm_reader,
        audio=_APPEND,
        hello=('{"type": "session.update", "model": ""}', VLLM_START),
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
