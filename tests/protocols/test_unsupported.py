"""Clients request what the model cannot do. No answer claims it, and the server learns it for its log."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.protocols import LINEAR16, SERVER_INFO, SESSION_ID, answers

from tympan.messages import Complete, Ready
from tympan.protocols.base import Request, ServerProtocol
from tympan.protocols.deepgram.flux import FluxProtocol
from tympan.protocols.deepgram.live import DeepgramProtocol
from tympan.protocols.gradium import GradiumProtocol
from tympan.protocols.native import NativeProtocol
from tympan.protocols.openai.realtime import OpenAIProtocol
from tympan.protocols.unsupported import knows_language, requested

READY = Ready("id", "m", "e", 24_000, 0.5, (0.5, 1.0, 2.0, 3.0))
BILINGUAL = replace(SERVER_INFO, languages=("en", "fr"))


def started(kind: type[ServerProtocol], query: dict[str, str], info: Any = SERVER_INFO) -> ServerProtocol:
    protocol = kind(Request("/", query, {}, SESSION_ID, 1.7e9), info)
    protocol.start()
    return protocol


def receive(protocol: ServerProtocol, **fields: Any) -> list[dict[str, Any]]:
    return [json.loads(each) for each in protocol.receive(json.dumps(fields)) if isinstance(each, str)]


def test_requested_values() -> None:
    given = {
        "diarize": "true",
        "redact": "pci",
        "keyterm": "",
        "profanity_filter": "False",
        "numerals": "0",
        "search": [],
    }
    assert requested(given, [*given, "other"]) == ["diarize", "redact"]


@pytest.mark.parametrize(
    ("code", "known"),
    [("en", True), ("en-US", True), ("EN_us", True), ("multi", True), (None, True), ("de", False), ("english", False)],
)
def test_known_languages(code: str | None, known: bool) -> None:
    assert knows_language(("en", "fr"), code) is known


def test_deepgram_reports_parameters_in_its_metadata() -> None:
    query = {**LINEAR16, "language": "de", "diarize": "true", "keyterm": "Tympan", "profanity_filter": "false"}
    protocol = started(DeepgramProtocol, query)
    assert receive(protocol, type="Configure", keyterms=["Tympan"])[0]["keyterms"] == []
    (metadata,) = answers(protocol, Complete(1.0, 0))
    assert [(each["parameter"], each["type"]) for each in metadata["warnings"]] == [
        ("language", "unsupported_language"),
        ("diarize", "unsupported_model"),
        ("keyterm", "unsupported_model"),
        ("keyterms", "unsupported_model"),
    ]


def test_deepgram_without_unsupported_parameters() -> None:
    protocol = started(DeepgramProtocol, {**LINEAR16, "language": "en-US", "punctuate": "true", "diarize": "false"})
    (metadata,) = answers(protocol, Complete(1.0, 0))
    assert "warnings" not in metadata
    assert not protocol.unsupported


def test_flux_does_not_return_keyterms() -> None:
    protocol = started(FluxProtocol, {**LINEAR16, "keyterm": "Tympan"})
    assert receive(protocol, type="Configure", keyterms=["Tympan"])[0]["keyterms"] == []
    assert list(protocol.unsupported) == ["keyterm", "keyterms"]


def transcription(protocol: ServerProtocol, **settings: Any) -> dict[str, Any]:
    """Return `transcription` of the answer to an update."""
    update = {"type": "transcription", "audio": {"input": {"transcription": settings}}}
    (updated,) = receive(protocol, type="session.update", session=update)
    return dict(updated["session"]["audio"]["input"]["transcription"])


def test_openai_returns_effective_settings() -> None:
    protocol = started(OpenAIProtocol, {}, BILINGUAL)
    effective = transcription(protocol, model="gpt-4o-transcribe", language="en", prompt="Tympan", keywords=["Tympan"])
    assert effective == {"model": "gpt-4o-transcribe"}, "the language of a bilingual model cannot be chosen"
    assert list(protocol.unsupported) == ["prompt", "keywords"]
    given = {"noise_reduction": {"type": "near_field"}}
    session = {
        "type": "transcription",
        "audio": {"input": given},
        "include": ["item.input_audio_transcription.logprobs"],
    }
    (updated,) = receive(protocol, type="session.update", session=session)
    assert updated["session"]["audio"]["input"]["noise_reduction"] is None
    assert updated["session"]["include"] is None
    assert list(protocol.unsupported) == ["prompt", "keywords", "noise_reduction", "include"]


def test_openai_language_of_a_monolingual_model() -> None:
    info = replace(SERVER_INFO, languages=("en",))
    protocol = started(OpenAIProtocol, {}, info)
    assert transcription(protocol, language="en")["language"] == "en"
    assert transcription(protocol, language="de")["language"] == "en", "the last one that the model fulfils"
    assert list(protocol.unsupported) == ["language"]


@pytest.mark.parametrize("config", [{"language": "de", "temp": 0.4}, '{"language": "de", "temp": 0.4}'])
def test_gradium_warns_after_ready(config: object) -> None:
    protocol = started(GradiumProtocol, {})
    ready, warning = receive(protocol, type="setup", json_config=config)
    assert ready["type"] == "ready"
    assert (warning["type"], warning["code"]) == ("warning", "unsupported")
    assert "temp, language" in warning["message"]


@pytest.mark.parametrize("config", [None, {}, {"language": "en"}, "nonsense", 5])
def test_gradium_without_unsupported_settings(config: object) -> None:
    assert len(receive(started(GradiumProtocol, {}), type="setup", json_config=config)) == 1


def test_native_warns_after_ready() -> None:
    protocol = started(NativeProtocol, {"events": "all", "language": "de", "diarize": "true"})
    ready, warning = answers(protocol, READY)
    assert ready["type"] == "ready"
    assert (warning["type"], warning["code"]) == ("warning", "unsupported")
    assert "diarize, language" in warning["message"]
    (simple,) = answers(started(NativeProtocol, {"language": "de"}), READY)
    assert "language" in simple["warning"]
    assert answers(started(NativeProtocol, {"language": "en"}), READY) == []
