"""Gradium's speech-to-text: JSON both ways, audio in base64. Every message and field: `docs/protocols/gradium.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from tympan.errors import AudioError, FrameError, IdleError, TympanError
from tympan.messages import AudioFormat, Complete, Event, Flushed, SetFormat, Vad, Word
from tympan.protocols.audio_start import CODE, AudioStart
from tympan.protocols.base import (
    Action,
    Answer,
    CloseInfo,
    Droppable,
    PendingFlushes,
    Refusal,
    Request,
    ServerInfo,
    ServerProtocol,
    WireMessage,
)
from tympan.protocols.errors import close_code, public_error
from tympan.protocols.unsupported import knows_language, requested, sentence
from tympan.protocols.wire import base64_audio, check_command_size, decode_json, json_refusal, json_text

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


_UNSUPPORTED = ("delay", "delay_in_frames", "temp", "temperature")


class _Message(msgspec.Struct):
    type: str
    model_name: str | None = None
    input_format: str | None = None
    json_config: msgspec.Raw = msgspec.Raw(b"null")
    audio: str = ""
    flush_id: msgspec.Raw = msgspec.Raw(b"null")


class GradiumProtocol(ServerProtocol):
    """One stream. The first message must be `setup`; audio may follow without waiting for `ready`."""

    name: ClassVar[str] = "gradium"

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        super().__init__(request, server_info)
        self._is_set_up = False
        self._steps = 0
        self._audio_start = AudioStart(FORMATS["pcm"], is_declared=False, warn=self._warn)
        # The answers, encoded in advance: an id that cannot be encoded must be refused when it arrives.
        self._flushes: PendingFlushes[str] = PendingFlushes()

    def credential(self) -> str | None:
        return self._request.headers.get("x-api-key") or self._request.authorization("bearer")

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        _, message = public_error(error)
        return json_refusal(error, {"error": message})

    def start(self) -> AudioFormat:
        return FORMATS["pcm"]

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        expected = 'a message must be JSON such as {"type": "audio", "audio": "…"}, audio in base64'
        fields = decode_json(message, _Message, expected)
        if not self._is_set_up:
            if fields.type != "setup":
                raise FrameError('the first message must be {"type": "setup", …}')
            return self._set_up(fields)
        if fields.type == "audio":
            return self._audio_start.receive(base64_audio(fields.audio))
        check_command_size(message)
        match fields.type:
            case "flush":
                return (self._flushes.add(json_text({"type": "flushed", "flush_id": fields.flush_id})),)
            case "end_of_stream":
                return self._finish()
        return ()

    def _set_up(self, setup: _Message) -> Sequence[Action]:
        name = setup.input_format or "pcm"
        if name not in FORMATS:
            raise FrameError(f"input_format {name!r:.40} is unknown; use one of {', '.join(FORMATS)}")
        server_info = self._server_info
        if setup.model_name != "default":
            server_info.check_model(setup.model_name)
        self._is_set_up = True
        self._audio_start = AudioStart(FORMATS[name], bool(setup.input_format), self._warn)
        delay_frames = int(server_info.delay_seconds * server_info.sample_rate / server_info.frame_samples)
        ready = {
            "type": "ready",
            "request_id": self._request.id,
            "model_name": setup.model_name or "default",
            "sample_rate": server_info.sample_rate,
            "frame_size": server_info.frame_samples,
            "delay_in_frames": delay_frames,
            "delay_in_tokens": delay_frames,
            "text_stream_names": [],
        }
        warning = self._unsupported_warning(setup.json_config)
        return (SetFormat(FORMATS[name]), json_text(ready), *warning)

    def _unsupported_warning(self, json_config: msgspec.Raw) -> Sequence[str]:
        """Return a warning about the settings that the model cannot fulfil; they may be an object, or its text."""
        try:
            config = msgspec.json.decode(json_config)
            config = msgspec.json.decode(config) if isinstance(config, str) else config
        except (ValueError, RecursionError):
            return ()
        if not isinstance(config, dict):
            return ()
        self.unsupported.update(dict.fromkeys(requested(config, _UNSUPPORTED)))
        if not knows_language(self._server_info.languages, config.get("language")):
            self.unsupported["language"] = None
        if not self.unsupported:
            return ()
        return (json_text({"type": "warning", "message": sentence(self.unsupported), "code": "unsupported"}),)

    def _warn(self, sentence: str) -> str:
        return json_text({"type": "warning", "message": sentence, "code": CODE})

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
                return (self._flushes.pop(event.marker),)
            case Complete():
                return (json_text({"type": "end_of_stream"}),)
        return ()

    def _step(self, vad: Vad) -> str:
        """Return the message of one frame. Clients derive their clock from these messages."""
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

    def close_with_error(self, error: Exception) -> CloseInfo:
        """Return the message with 1008 for errors of the client and 1011 for errors of the server, as Gradium does."""
        code, (_, message) = close_code(error), public_error(error)
        if isinstance(error, AudioError | FrameError | IdleError):
            code = 1008
        return CloseInfo((json_text({"type": "error", "message": message, "code": code}),), code, message)
