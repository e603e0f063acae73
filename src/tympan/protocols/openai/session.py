"""Settings of a transcription session, from the messages of OpenAI's current clients and of those of the beta.

Updates are merged: fields that an update does not contain keep their values. Settings that this server does not support
are ignored; the full settings in the answer show the effective ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tympan.audio.format import HIGHEST_RATE, LOWEST_RATE
from tympan.errors import ParameterError
from tympan.messages import AudioFormat
from tympan.protocols.base import Request, ServerInfo
from tympan.transcript.endpoints import AfterPause, AfterSilence, Rule

SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
EAGERNESS: Mapping[str, tuple[float, float]] = {"low": (0.75, 8.0), "medium": (0.6, 4.0), "high": (0.5, 2.0)}
"""Pause probability above which a turn ends, and the seconds after its last word at which it ends in any case."""

_ENCODINGS = {"audio/pcm": "s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_MAX_SILENCE_MS = 60_000


class SessionSettings:
    """Settings of one connection."""

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._server_info = server_info
        self._format: dict[str, Any] = {"type": "audio/pcm", "rate": 24_000}
        self._transcription: dict[str, Any] = {"model": request.query.get("model") or server_info.model}
        self._turn_detection: dict[str, Any] | None = SERVER_VAD
        self._others: dict[str, Any] = {"noise_reduction": None}
        self._include: list[Any] | None = None

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the audio that the client sends."""
        return AudioFormat(_ENCODINGS[self._format["type"]], self._format["rate"])

    @property
    def rule(self) -> Rule | None:
        """The rule that ends a turn; `None` if the client ends it."""
        detection = self._turn_detection
        if detection is None:
            return None
        if detection["type"] == "semantic_vad":
            return AfterPause(*EAGERNESS.get(str(detection["eagerness"]), EAGERNESS["medium"]))
        return AfterSilence(detection["silence_duration_ms"] / 1000)

    def update(self, session: object) -> None:
        """Merge the settings that a client sends.

        Raises:
            ParameterError: The audio format is invalid, or the model is not available.
        """
        if not isinstance(session, dict):
            return
        audio = session.get("audio")
        given = audio.get("input") if isinstance(audio, dict) else None
        if not isinstance(given, dict):
            given = _from_beta(session)
        if isinstance(given.get("format"), dict):
            self._set_format(given["format"])
        if isinstance(given.get("transcription"), dict):
            self._transcription = {**self._transcription, **given["transcription"]}
            self._server_info.check_model(str(self._transcription.get("model") or ""))
        if "turn_detection" in given:
            self._set_turn_detection(given["turn_detection"])
        if "noise_reduction" in given:
            self._others["noise_reduction"] = given["noise_reduction"]
        if isinstance(session.get("include"), list):
            self._include = session["include"]

    def _set_format(self, given: Mapping[str, Any]) -> None:
        kind = str(given.get("type", self._format["type"]))
        if kind not in _ENCODINGS:
            raise ParameterError(f"the format {kind[:40]!r} is unknown; use one of {', '.join(_ENCODINGS)}")
        kept = self._format["rate"] if kind == self._format["type"] else None
        rate = given.get("rate") or kept or (24_000 if kind == "audio/pcm" else 8_000)
        if not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise ParameterError(f"the rate must be a whole number from {LOWEST_RATE} to {HIGHEST_RATE}")
        self._format = {"type": kind, "rate": rate}

    def _set_turn_detection(self, given: object) -> None:
        if given is None:
            self._turn_detection = None
        elif isinstance(given, dict):
            current = self._turn_detection or SERVER_VAD
            kind = "semantic_vad" if given.get("type", current["type"]) == "semantic_vad" else "server_vad"
            defaults = SERVER_VAD if kind == "server_vad" else {"eagerness": "auto"}
            merged = {**defaults, **(current if current["type"] == kind else {}), **given, "type": kind}
            if kind == "server_vad" and not _is_valid_silence(merged["silence_duration_ms"]):
                merged["silence_duration_ms"] = SERVER_VAD["silence_duration_ms"]
            self._turn_detection = merged

    def fields(self) -> dict[str, Any]:
        """Return the settings in the form of `session.created` and `session.updated`."""
        return {
            "id": f"sess_{self._request.id}",
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": int(self._request.opened_at + self._server_info.session_seconds),
            "audio": {
                "input": {
                    "format": self._format,
                    "transcription": self._transcription,
                    "turn_detection": self._turn_detection,
                    **self._others,
                }
            },
            "include": self._include,
        }


def _is_valid_silence(milliseconds: object) -> bool:
    return isinstance(milliseconds, int | float) and 0 <= milliseconds <= _MAX_SILENCE_MS


def _from_beta(session: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the flat settings of the beta to the current form."""
    given: dict[str, Any] = {}
    if str(session.get("input_audio_format")) in _BETA_FORMATS:
        given["format"] = {"type": _BETA_FORMATS[session["input_audio_format"]]}
    for beta_name, name in (
        ("input_audio_transcription", "transcription"),
        ("input_audio_noise_reduction", "noise_reduction"),
        ("turn_detection", "turn_detection"),
    ):
        if beta_name in session:
            given[name] = session[beta_name]
    return given
