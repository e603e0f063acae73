"""Plausible messages of every protocol's clients, and damaged ones.

All values come from one `random.Random`, which Hypothesis seeds: drawing each value from Hypothesis would take fifty
times as long. A conversation with fewer frames of the same seed is a prefix, so Hypothesis still finds a short one.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

Message = str | bytes

JSON_ODD: Sequence[Any] = [
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e308, 5e-324),
    *("", "\x00", "é", "🎧", "a" * 300, "AAA", "AA=A", "pcm", "NaN", "null", "../../etc/passwd", "{{7*7}}", "%n%s"),
    *([], {}, [[]], [None], [0] * 300, {"type": "flush"}, {"seconds": 1}, {"type": "server_vad"}),
    *({"type": "semantic_vad", "eagerness": []}, {"type": "audio/pcm", "rate": 0}, {"type": "audio/pcmu"}),
    *({"eot_threshold": "x"}, {"eot_threshold": 2}, {"eager_eot_threshold": 0.3, "eot_timeout_ms": -1}),
    *(msgspec.Raw(b"NaN"), msgspec.Raw(b"-Infinity"), msgspec.Raw(b"1e999"), msgspec.Raw(b"1" * 5000)),
    *(msgspec.Raw(b'"\\ud800"'), msgspec.Raw(b'"\\udfff\\ud800"'), msgspec.Raw(b'{"a":1,"a":2}'), msgspec.Raw(b"01")),
]
MSGPACK_ODD: Sequence[Any] = [
    *(value for value in JSON_ODD if not isinstance(value, msgspec.Raw) and value not in (2**64, -(2**63) - 1, 10**40)),
    *(b"", b"\x00" * 3, b"OggS", float("nan"), float("inf"), [float("nan")] * 4, [1, 2.5, -3], ["x"], [2**63]),
    # A string that is not UTF-8, an extension type, a timestamp, an unused byte, lengths beyond the end.
    *(
        msgspec.Raw(raw)
        for raw in (b"\xa2\xff\xfe", b"\xd4\x05\x00", b"\xd6\xff\x00\x00\x00\x00", b"\xc1", b"\xdd\xff")
    ),
    *(msgspec.Raw(raw) for raw in (b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff\xca", b"\xdf\xff\xff\xff\xff")),
]
FIELD_NAMES: Sequence[str] = [
    *("type", "id", "pcm", "data", "audio", "channel", "flush_id", "input_format", "model_name", "model", "session"),
    *("final", "thresholds", "keyterms", "turn_detection", "input_audio_format", "format", "rate", "include"),
    *("input", "transcription", "silence_duration_ms", "eagerness", "eot_threshold", "eot_timeout_ms", "nonsense"),
]


def audio(random: Random) -> bytes:
    """Return a few samples or, rarely, a few frames; some have an odd number of bytes."""
    size = random.choice((0, 1, 2, 3, 160, 161, 320, 320, 640, 640)) if random.random() < 0.97 else 9001
    return random.randbytes(min(size, 64)) + bytes(max(0, size - 64))


def _base64(random: Random) -> str:
    return base64.b64encode(audio(random)).decode()


def _session(random: Random) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if random.random() < 0.5:
        given["format"] = random.choice(({"type": "audio/pcm", "rate": 24_000}, {"type": "audio/pcmu"}))
    if random.random() < 0.7:
        given["turn_detection"] = random.choice((None, {"type": "server_vad"}, {"type": "semantic_vad"}))
    if random.random() < 0.3:
        given["transcription"] = {"model": "whisper-1", "language": random.choice(("en", "", "xx"))}
    if random.random() < 0.2:
        return {"input_audio_format": random.choice(("pcm16", "g711_ulaw", "g711_alaw")), **given}
    return {"type": "transcription", "audio": {"input": given}, "include": ["item.logprobs"]}


Make = Callable[[Random], "dict[str, Any] | bytes"]
VALID: Mapping[str, Sequence[Make]] = {
    "native": (audio, audio, lambda r: {"type": "flush", "id": r.randrange(9)}, lambda r: {"type": "keepalive"}),
    "kyutai": (
        lambda r: {"type": "Audio", "pcm": [r.random() for _ in range(r.randrange(40))]},
        lambda r: {"type": "Audio", "pcm": audio(r)},
        lambda r: {"type": "Marker", "id": r.randrange(-9, 9)},
        lambda r: {"type": "Init"},
    ),
    "gradium": (
        lambda r: {"type": "audio", "audio": _base64(r)},
        lambda r: {"type": "audio", "audio": _base64(r)},
        lambda r: {"type": "flush", "flush_id": r.choice((1, "one", None))},
        lambda r: {"type": "setup", "model_name": "default", "input_format": "pcm"},
    ),
    "openai": (
        lambda r: {"type": "input_audio_buffer.append", "audio": _base64(r)},
        lambda r: {"type": "input_audio_buffer.append", "audio": _base64(r)},
        lambda r: {"type": "input_audio_buffer.commit"},
        lambda r: {"type": "input_audio_buffer.clear"},
        lambda r: {"type": "session.update", "session": _session(r)},
        lambda r: {"type": "transcription_session.update", "session": _session(r)},
    ),
    "vllm": (
        lambda r: {"type": "input_audio_buffer.append", "audio": _base64(r)},
        lambda r: {"type": "input_audio_buffer.append", "audio": _base64(r)},
        lambda r: {"type": "input_audio_buffer.commit", "final": r.random() < 0.5},
        lambda r: {"type": "session.update", "model": "scripted"},
    ),
    "deepgram": (
        audio,
        lambda r: audio(r) or b"\0",
        lambda r: {"type": "KeepAlive"},
        lambda r: {"type": "Finalize", "channel": r.choice((0, 1, None))},
        lambda r: {"type": "Configure", "keyterms": ["a", "b"]},
    ),
    "flux": (
        lambda r: audio(r) or b"\0",
        lambda r: {"type": "ForceEndTurn"},
        lambda r: {"type": "Configure", "thresholds": {"eot_threshold": r.choice((0.5, 0.9))}, "keyterms": []},
    ),
}
OPENINGS: Mapping[str, Message] = {
    "gradium": '{"type":"setup","model_name":"default","input_format":"pcm"}',
    "vllm": '{"type":"session.update","model":"scripted"}',
}
ENDINGS: Mapping[str, Message] = {
    "native": "EOS",
    "gradium": '{"type":"end_of_stream"}',
    "deepgram": '{"type":"CloseStream"}',
    "flux": '{"type":"CloseStream"}',
}


def frame(name: str, random: Random, wildness: float) -> Message:
    """Return a message, which is damaged once or twice with the probability `wildness`."""
    message = random.choice(VALID[name])(random)
    damages = random.choice((1, 1, 2)) if random.random() < wildness else 0
    if isinstance(message, bytes):
        return _damaged(message, random) if damages == 2 else message
    for _ in range(damages):
        _damage(message, name, random)
    packed = name == "kyutai"
    encoded = msgspec.msgpack.encode(message) if packed else msgspec.json.encode(message)
    if damages == 2 and random.random() < 0.3:
        encoded = _damaged(encoded, random)
    as_bytes = packed == (random.random() >= wildness / 10)  # otherwise text instead of bytes, or the reverse
    return encoded if as_bytes else encoded.decode(errors="replace")


def nested(name: str, random: Random) -> msgspec.Raw:
    """Return a nested value, often close to the depth limits of the decoder and the encoder."""
    depth = random.choice((3, 60, random.randrange(850, 1000), 20_000))
    if name == "kyutai":
        return msgspec.Raw(random.choice((b"\x91", b"\x81\xa1a")) * depth + b"\xc0")
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return msgspec.Raw(opening * depth + b"0" + closing * depth)


def _damage(message: dict[str, Any], name: str, random: Random) -> None:
    """Change a field of the message or of an object in it."""
    place = message
    while (inner := [value for value in place.values() if isinstance(value, dict)]) and random.random() < 0.6:
        place = random.choice(inner)
    field = random.choice(list(place)) if place and random.random() < 0.7 else random.choice(FIELD_NAMES)
    chance = random.random()
    if chance < 0.2:
        place.pop(field, None)
    elif chance < 0.25:
        place[field] = nested(name, random)
    elif chance < 0.3 and name not in ("kyutai", "native"):
        place[field] = {random.choice(FIELD_NAMES): place.get(field)}
    else:
        place[field] = copy.deepcopy(random.choice(MSGPACK_ODD if name == "kyutai" else JSON_ODD))


def _damaged(encoded: bytes, random: Random) -> bytes:
    """Return the message truncated, partly repeated, or with one wrong byte."""
    place = random.randrange(len(encoded) + 1)
    return random.choice(
        (encoded[:place], encoded + encoded[:place], encoded[:place] + random.randbytes(1) + encoded[place + 1 :])
    )
