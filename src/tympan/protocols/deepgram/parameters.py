"""Query parameters of Deepgram's live API, file API and Flux. Unknown parameters are ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from tympan.audio.format import CONTAINER_ENCODINGS, parse_format
from tympan.errors import ParameterError
from tympan.messages import AudioFormat
from tympan.protocols.unsupported import knows_language, requested
from tympan.transcript.turns import AfterPause, AfterSilence

Query = Mapping[str, str]
Default = TypeVar("Default", float, None)

DEFAULT_ENDPOINTING_SECONDS = 0.01
_CONTAINER_CODECS = {"flac": "auto", "opus": "opus", "ogg-opus": "opus"}
_UNSUPPORTED = (
    *("diarize", "diarize_model", "keyterm", "keywords", "search", "replace", "redact", "profanity_filter"),
    *("detect_entities", "numerals", "dictation", "measurements", "summarize", "topics", "intents", "sentiment"),
)
_UNSUPPORTED_CODECS = ("amr-nb", "amr-wb", "speex", "g729")


@dataclass(frozen=True, slots=True)
class LiveParameters:
    """Parameters of the live API, apart from the audio format.

    Attributes:
        interim_results: Whether results are sent before they are final.
        vad_events: Whether `SpeechStarted` is sent.
        utterance_end_seconds: Gap after a word at which `UtteranceEnd` is sent; `None`: never.
        endpointing: Silence that ends a result; `None`: none does.
    """

    interim_results: bool
    vad_events: bool
    utterance_end_seconds: float | None
    endpointing: AfterSilence | None

    @classmethod
    def parse(cls, query: Query) -> LiveParameters:
        """Read the parameters; invalid values are replaced by the defaults, as Deepgram does."""
        endpointing = query.get("endpointing", "")
        is_off = endpointing.lower() in ("false", "0")
        return cls(
            interim_results=_is_true(query, "interim_results"),
            vad_events=_is_true(query, "vad_events"),
            utterance_end_seconds=_seconds(query.get("utterance_end_ms", ""), None),
            endpointing=None if is_off else AfterSilence(_seconds(endpointing, DEFAULT_ENDPOINTING_SECONDS)),
        )


class TurnThresholds(msgspec.Struct, frozen=True):
    """Parameters of Flux that decide when a turn ends; a client may change them with `Configure`.

    Attributes:
        eot_threshold: Pause probability above which a turn ends. With 1.0, only the client ends turns, because no
            probability is above it.
        eager_eot_threshold: Pause probability above which `EagerEndOfTurn` is sent; `None`: it is not sent.
        eot_timeout_ms: Time after the last word at which a turn ends, in milliseconds.
    """

    eot_threshold: float = 0.7
    eager_eot_threshold: float | None = None
    eot_timeout_ms: int = 5000

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> TurnThresholds:
        """Read the thresholds among `given`; `None` is the default.

        Raises:
            ParameterError: A threshold is not a number or out of range.
        """
        chosen = {name: given[name] for name in cls.__struct_fields__ if given.get(name) is not None}
        try:
            thresholds = msgspec.convert(chosen, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ParameterError(f"invalid threshold: {error}") from None
        for name, low, high in (
            ("eot_threshold", 0.5, 1.0),
            ("eager_eot_threshold", 0.3, 0.9),
            ("eot_timeout_ms", 500, 60_000),
        ):
            value = getattr(thresholds, name)
            if value is not None and not low <= value <= high:
                raise ParameterError(f"{name} must be from {low} to {high}")
        return thresholds

    @property
    def rule(self) -> AfterPause:
        """The thresholds as a rule of the endpointer."""
        return AfterPause(self.eot_threshold, self.eot_timeout_ms / 1000, self.eager_eot_threshold)


def unsupported_parameters(query: Query, languages: Sequence[str]) -> Sequence[str]:
    """Return the parameters that request what a model with these languages cannot do."""
    names = requested(query, _UNSUPPORTED)
    wanted = query.get("language") or query.get("language_hint")
    return names if knows_language(languages, wanted) else ["language", *names]


def parse_audio_format(query: Query) -> AudioFormat:
    """Return the audio format of a live stream.

    Raises:
        ParameterError: A parameter is invalid or missing.
    """
    encoding, channels = query.get("encoding"), query.get("channels")
    codec = (encoding or "").lower()
    if not encoding:
        audio_format = parse_format("auto", None, channels)
    elif codec in _CONTAINER_CODECS:
        audio_format = parse_format(_CONTAINER_CODECS[codec], None, channels)
    elif codec in _UNSUPPORTED_CODECS:
        raise ParameterError(f"encoding={encoding} is not supported; use linear16, linear32, mulaw, alaw, opus, flac")
    elif query.get("sample_rate") is None:
        raise ParameterError("encoding requires sample_rate")
    else:
        audio_format = parse_format(encoding, query["sample_rate"], channels)
    return replace(audio_format, mixed=not _is_true(query, "multichannel"))


def parse_file_format(query: Query) -> AudioFormat:
    """Return the audio format of a file, whose container may have one channel or two unless `channels` is given.

    Raises:
        ParameterError: A parameter is invalid or missing.
    """
    audio_format = parse_audio_format(query)
    if audio_format.mixed or "channels" in query or audio_format.encoding not in CONTAINER_ENCODINGS:
        return audio_format
    return replace(audio_format, channels=2, or_fewer=True)


def wants_utterances(query: Query) -> bool:
    """Return whether the response to a file contains its utterances."""
    return _is_true(query, "utterances")


def _is_true(query: Query, name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1", "yes")


def _seconds(milliseconds: str, default: Default) -> float | Default:
    is_number = milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) < 9
    return int(milliseconds) / 1000 if is_number else default
