"""Settings of a transcription session, from the messages of OpenAI's current clients and of those of the beta.

Updates are merged: fields that an update does not contain keep their values. Settings that the model cannot fulfil are
ignored and left out of the answer, which has the effective settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tympan.audio.format import HIGHEST_RATE, LOWEST_RATE
from tympan.errors import ParameterError
from tympan.messages import AudioFormat
from tympan.protocols.base import Request, ServerInfo
from tympan.protocols.unsupported import knows_language, requested
from tympan.transcript.turns import SHORTEST_SILENCE_SECONDS, AfterPause, AfterSilence, Rule

SERVER_VAD: Mapping[str, Any] = {"type": "server_vad", "silence_duration_ms": 500}
EAGERNESS: Mapping[str, tuple[float, float]] = {"low": (0.75, 8.0), "medium": (0.6, 4.0), "high": (0.5, 2.0)}
"""Pause probability above which a turn ends, and the seconds after its last word at which it ends in any case."""

_ENCODINGS = {"audio/pcm": "s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_MIN_SILENCE_MS = round(1000 * SHORTEST_SILENCE_SECONDS)
_MAX_SILENCE_MS = 60_000


class SessionSettings:
    """Settings of one connection.

    Attributes:
        declares_format: Whether the client has declared the format of its audio.
        unsupported: What the client has requested and the model cannot do.
    """

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._server_info = server_info
        self._input: dict[str, Any] = {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": request.query.get("model") or server_info.model},
            "turn_detection": dict(SERVER_VAD),
            "noise_reduction": None,
        }
        self.unsupported: dict[str, None] = {}
        self.declares_format = False

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the audio that the client sends."""
        declared = self._input["format"]
        return AudioFormat(_ENCODINGS[declared["type"]], declared["rate"])

    @property
    def rule(self) -> Rule | None:
        """The rule that ends a turn; `None` if the client ends it."""
        detection = self._input["turn_detection"]
        if detection is None:
            return None
        if detection["type"] == "semantic_vad":
            return AfterPause(*EAGERNESS.get(detection["eagerness"], EAGERNESS["medium"]))
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
            self._input["format"] = _merge_format(self._input["format"], given["format"])
            self.declares_format = True
        if isinstance(given.get("transcription"), dict):
            self._update_transcription(given["transcription"])
        if "turn_detection" in given:
            self._update_detection(given["turn_detection"])
        names = requested({**given, "include": session.get("include")}, ("noise_reduction", "include"))
        self.unsupported.update(dict.fromkeys(names))

    def _update_transcription(self, given: Mapping[str, Any]) -> None:
        """Set the model; a language can be reported only if the model transcribes no other one."""
        languages, kept = self._server_info.languages, self._input["transcription"]
        self._input["transcription"] = {**kept, "model": given.get("model", kept["model"])}
        self._server_info.check_model(str(self._input["transcription"].get("model") or ""))
        self.unsupported.update(dict.fromkeys(requested(given, ("prompt", "keywords", "delay"))))
        language = given.get("language")
        if not knows_language(languages, language):
            self.unsupported["language"] = None
        elif language and len(languages) == 1:
            self._input["transcription"]["language"] = language

    def _update_detection(self, given: object) -> None:
        """Set the rule that ends a turn; turns begin at the first word, so nothing about their beginning can be set."""
        self._input["turn_detection"] = _merge_detection(self._input["turn_detection"], given)
        if isinstance(given, dict):
            names = requested(given, ("threshold", "prefix_padding_ms", "idle_timeout_ms"))
            self.unsupported.update(dict.fromkeys(names))

    def fields(self) -> dict[str, Any]:
        """Return the settings in the form of `session.created` and `session.updated`."""
        return {
            "id": f"sess_{self._request.id}",
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": int(self._request.opened_at + self._server_info.session_seconds),
            "audio": {"input": self._input},
            "include": None,
        }


def _merge_format(current: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(given.get("type", current["type"]))
    if kind not in _ENCODINGS:
        raise ParameterError(f"the format {kind[:40]!r} is unknown; use one of {', '.join(_ENCODINGS)}")
    kept = current["rate"] if kind == current["type"] else None
    rate = given.get("rate") or kept or (24_000 if kind == "audio/pcm" else 8_000)
    if not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ParameterError(f"the rate must be a whole number from {LOWEST_RATE} to {HIGHEST_RATE}")
    return {"type": kind, "rate": rate}


def _merge_detection(current: dict[str, Any] | None, given: object) -> dict[str, Any] | None:
    if not isinstance(given, dict):
        return None if given is None else current
    kept: Mapping[str, Any] = current or SERVER_VAD
    kind = "semantic_vad" if given.get("type", kept["type"]) == "semantic_vad" else "server_vad"
    merged = {**(kept if kept["type"] == kind else {}), **given}
    if kind == "semantic_vad":
        eagerness = str(merged.get("eagerness"))
        return {"type": kind, "eagerness": eagerness if eagerness in EAGERNESS else "auto"}
    silence = merged.get("silence_duration_ms")
    if not isinstance(silence, int | float) or not 0 <= silence <= _MAX_SILENCE_MS:
        silence = SERVER_VAD["silence_duration_ms"]
    return {"type": kind, "silence_duration_ms": max(silence, _MIN_SILENCE_MS)}


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
