"""Tympan: live speech to text.

    print(tympan.transcribe("talk.mp3", url="ws://localhost:8000").text)

    async with tympan.connect("ws://localhost:8000") as stream:
        async for event in stream.transcribe(blocks):
            print(event)

Names are imported on first use, so `import tympan` is fast and needs no other package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tympan.audio.files import decode_file
    from tympan.client.backoff import Backoff
    from tympan.client.files import transcribe
    from tympan.client.microphone import Microphone
    from tympan.client.stream import Stream, connect
    from tympan.client.sync import SyncStream, connect_sync
    from tympan.errors import (
        AccessError,
        AudioError,
        CapacityError,
        ConfigError,
        EngineError,
        FrameError,
        HostError,
        IdleError,
        LimitError,
        MissingPackageError,
        ModelError,
        OriginError,
        OutputError,
        ParameterError,
        QuotaError,
        RequestError,
        RestartingError,
        ResumeError,
        ServerError,
        SessionTooLongError,
        SlowReaderError,
        TooBigError,
        TympanError,
    )
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
    from tympan.transcript.transcript import Transcript

    __version__: str

__all__ = [
    "AccessError",
    "AudioError",
    "Backoff",
    "CapacityError",
    "Complete",
    "ConfigError",
    "EngineError",
    "Event",
    "Flushed",
    "FrameError",
    "HostError",
    "IdleError",
    "Lag",
    "LimitError",
    "Microphone",
    "MissingPackageError",
    "ModelError",
    "OriginError",
    "OutputError",
    "ParameterError",
    "Partial",
    "QuotaError",
    "Ready",
    "RequestError",
    "Restarting",
    "RestartingError",
    "ResumeError",
    "Segment",
    "ServerError",
    "SessionTooLongError",
    "SlowReaderError",
    "Stream",
    "SyncStream",
    "TooBigError",
    "Transcript",
    "Turn",
    "TympanError",
    "Vad",
    "Warning",
    "Word",
    "__version__",
    "connect",
    "connect_sync",
    "decode_file",
    "transcribe",
]

_HOMES = {
    "Backoff": "tympan.client.backoff",
    "Microphone": "tympan.client.microphone",
    "Stream": "tympan.client.stream",
    "SyncStream": "tympan.client.sync",
    "connect": "tympan.client.stream",
    "connect_sync": "tympan.client.sync",
    "decode_file": "tympan.audio.files",
    "transcribe": "tympan.client.files",
    "Transcript": "tympan.transcript.transcript",
    **dict.fromkeys(
        (
            *("Complete", "Event", "Flushed", "Lag", "Partial", "Ready", "Restarting"),
            *("Segment", "Turn", "Vad", "Warning", "Word"),
        ),
        "tympan.messages",
    ),
}


def __getattr__(name: str) -> object:
    """Import a public name from its module (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'tympan' has no attribute {name!r}")
    value = (
        import_module("tympan.version").version()
        if name == "__version__"
        else getattr(import_module(_HOMES.get(name, "tympan.errors")), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
