"""Gradium's speech-to-text: JSON both ways, audio in base64. Every message and field: `docs/protocols/gradium.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.errors import AudioError, FrameError, IdleError, RestartingError, TympanError
from tympan.messages import (
    Audio,
    AudioFormat,
    Complete,
    Event,
    Finish,
    Flush,
    Flushed,
    SetFormat,
    Vad,
    Word,
)
from tympan.protocols.base import (
    Acceptance,
    Action,
    Answer,
    CloseInfo,
    Droppable,
    Refusal,
    Request,
    ServerInfo,
    WireMessage,
    base64_audio,
    close_code,
    json_refusal,
    json_text,
    public_error,
)

_PCM_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
FORMATS: Mapping[str, AudioFormat] = {
    "pcm": AudioFormat("s16le", 24_000),
    **{f"pcm_{rate}": AudioFormat("s16le", rate) for rate in _PCM_RATES},
    "wav": AudioFormat("auto"),
    "opus": AudioFormat("opus"),
    "ulaw_8000": AudioFormat("mulaw", 8_000),
    "mulaw_8000": AudioFormat("mulaw", 8_000),
    "alaw_8000": AudioFormat("alaw", 8_000),
}


class _Message(msgspec.Struct):
    type: str
    model_name: str | None = None
    input_format: str = "pcm"
    audio: str = ""
    flush_id: Any = None


class GradiumProtocol:
    """The first message must be `setup`; audio may follow at once."""

    name: ClassVar[str] = "gradium"
    wants_vad: ClassVar[bool] = True

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._server_info = server_info
        self._is_set_up = False
        self._finishing = False
        self._steps = 0
        self._flushed: dict[int, str] = {}  # the answers; what cannot be said is refused before it is promised
        self._markers = 0

    def credential(self) -> str | None:
        return self._request.headers.get("x-api-key") or self._request.bearer

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        _, message = public_error(error)
        return json_refusal(error, {"error": message})

    def accept(self) -> Acceptance:
        return Acceptance()

    def start(self) -> AudioFormat:
        return FORMATS["pcm"]

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        frame = _parse(message)
        if not self._is_set_up:
            if frame.type != "setup":
                raise FrameError('the first message must be {"type": "setup", …}')
            return self._set_up(frame)
        match frame.type:
            case "audio":
                return (Audio(base64_audio(frame.audio)),)
            case "flush":
                self._markers += 1
                self._flushed[self._markers] = json_text({"type": "flushed", "flush_id": frame.flush_id})
                return (Flush(self._markers),)
            case "end_of_stream":
                self._finishing = True
                return (Finish(),)
        return ()

    def _set_up(self, frame: _Message) -> Sequence[Action]:
        if frame.input_format not in FORMATS:
            raise FrameError(f"input_format {frame.input_format!r:.40} is unknown; use one of {', '.join(FORMATS)}")
        if frame.model_name not in (None, "default"):
            self._server_info.check_model(frame.model_name)
        self._is_set_up = True
        server_info = self._server_info
        ready = {
            "type": "ready",
            "request_id": self._request.id,
            "model_name": frame.model_name or "default",
            "sample_rate": server_info.sample_rate,
            "frame_size": server_info.frame_samples,
            "delay_in_frames": server_info.delay_frames,
            "delay_in_tokens": server_info.delay_frames,
            "text_stream_names": [],
        }
        return (SetFormat(FORMATS[frame.input_format]), json_text(ready))

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        match event:
            case Word():
                return (
                    json_text({"type": "text", "text": event.text, "start_s": event.start, "stream_id": None}),
                    json_text({"type": "end_text", "stop_s": event.end, "stream_id": None}),
                )
            case Vad():
                return (Droppable(self._step(event)),)
            case Flushed():
                return (self._flushed.pop(event.marker),)
            case Complete():
                return (json_text({"type": "end_of_stream"}),)
        return ()

    def _step(self, vad: Vad) -> str:
        """One message for every frame of audio: clients take it for their clock."""
        horizons = zip(self._server_info.pause_horizons, vad.pauses, strict=False)
        fields = {
            "type": "step",
            "vad": [{"horizon_s": horizon, "inactivity_prob": pause} for horizon, pause in horizons],
            "step_idx": self._steps,
            "step_duration_s": self._server_info.frame_samples / self._server_info.sample_rate,
            "total_duration_s": vad.time,
        }
        self._steps += 1
        return json_text(fields)

    def fail(self, error: Exception | None) -> CloseInfo:
        """Gradium knows two codes: 1008 for what the client did, 1011 for what we did. A restart keeps its own."""
        if error is None or isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), "" if error is None else str(error))
        code, (_, message) = close_code(error), public_error(error)
        if isinstance(error, AudioError | FrameError | IdleError):
            code = 1008
        return CloseInfo((json_text({"type": "error", "message": message, "code": code}),), code, message)


def _parse(message: WireMessage) -> _Message:
    try:
        return msgspec.json.decode(message, type=_Message)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so is text that is not UTF-8
        raise FrameError('a message must be JSON such as {"type": "audio", "audio": "…"}, audio in base64') from None
