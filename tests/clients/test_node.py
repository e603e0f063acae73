"""Packages for Node: every script in `node/` uses one as its users do, and prints what it received."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.clients import KEY, MAX_ERROR_RATE, TEXT, pcm, speech, wav
from support.server import LiveServer
from support.speech import word_error_rate

pytestmark = pytest.mark.clients

SCRIPTS = Path(__file__).parent / "node"
RATE = 24_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("node")
    samples = speech(RATE, pause_seconds=1.5)
    (folder / "talk.wav").write_bytes(wav(samples, RATE))
    (folder / "talk.pcm").write_bytes(pcm(samples))
    return {"wav": str(folder / "talk.wav"), "pcm": str(folder / "talk.pcm")}


def run(script: str, package: str, server: LiveServer, files: Mapping[str, str], **more: Any) -> Any:
    """Run a script and return what it prints; skip the test if Node or the package is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    if not (SCRIPTS / "node_modules" / package).exists():
        pytest.skip(f"{package} is not installed: run npm ci in tests/clients/node")
    environment = more.pop("environment", {})
    given = {"http": server.http(""), "ws": server.url(""), "key": KEY, "rate": RATE, **files, **more}
    process = subprocess.run(
        [node, str(SCRIPTS / script), json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def check_text(*parts: str) -> None:
    assert word_error_rate(TEXT, " ".join(parts)) <= MAX_ERROR_RATE, parts


PATHS = ["/v1/stream", "/v1/realtime", "/v1/listen", "/v2/listen", "/api/speech/asr", "/api/asr-streaming"]


def test_close_without_a_code(server: LiveServer, files: dict[str, str]) -> None:
    """`ws` reports a close frame that RFC 6455 forbids as an error."""
    query = {"/v1/listen": "?encoding=linear16&sample_rate=24000", "/v2/listen": "?encoding=linear16&sample_rate=24000"}
    paths = [path + query.get(path, "") for path in PATHS]
    results = run("ws_close.mjs", "ws", server, files, paths=paths)
    assert results == {path: {"code": 1005, "errors": []} for path in paths}


def test_openai_files(server: LiveServer, files: dict[str, str]) -> None:
    result = run("openai_files.mjs", "openai", server, files)
    check_text(result["text"])
    check_text(*(word["word"] for word in result["words"]))
    assert result["events"][-1]["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in result["events"][:-1]) == result["events"][-1]["text"]
    assert result["models"] == ["embedded"]
    assert result["refused"] == 401


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, dict[str, str]]]:
    """A server with TLS, and the variable with which Node trusts its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    certificate = str(folder / "server.pem")
    settings = {"api_keys": (KEY,), "host": "127.0.0.1", "tls_certificate": certificate}
    with LiveServer(model="embedded", max_streams=1, **settings) as server:
        yield server, {"NODE_EXTRA_CA_CERTS": str(folder / "ca.pem")}


def test_openai_realtime(tls: tuple[LiveServer, dict[str, str]], files: dict[str, str]) -> None:
    server, environment = tls
    https = f"https://127.0.0.1:{server.port}"
    result = run("openai_realtime.mjs", "openai", server, files, https=https, environment=environment)
    assert result["errors"] == []
    assert result["code"] == 1000
    check_text(*result["transcripts"])
    assert result["types"][:2] == ["session.created", "session.updated"]
    assert result["types"].count("input_audio_buffer.committed") == 2


def test_openai_agents(server: LiveServer, files: dict[str, str]) -> None:
    result = run("openai_agents.mjs", "@openai/agents", server, files)
    assert result["errors"] == []
    check_text(*result["transcripts"])


def test_deepgram(server: LiveServer, files: dict[str, str]) -> None:
    result = run("deepgram_live.mjs", "@deepgram/sdk", server, files)
    live, flux = result["live"], result["flux"]
    assert live["errors"] == flux["errors"] == []
    assert live["code"] == flux["code"] == 1000
    finals = [message for message in live["messages"] if message.get("is_final")]
    check_text(*(final["channel"]["alternatives"][0]["transcript"] for final in finals))
    assert live["messages"][-1]["type"] == "Metadata"
    ends = [message for message in flux["messages"] if message.get("event") == "EndOfTurn"]
    check_text(*(end["transcript"] for end in ends))
    check_text(result["file"]["results"]["channels"][0]["alternatives"][0]["transcript"])
    assert result["refused"] == 401


def test_livekit_deepgram(server: LiveServer, files: dict[str, str]) -> None:
    result = run("livekit_deepgram.mjs", "@livekit/agents-plugin-deepgram", server, files)
    assert result["errors"] == []
    check_text(*(event["text"] for event in result["events"] if event["type"] == "FINAL_TRANSCRIPT"))
    kinds = [event["type"] for event in result["events"]]
    assert kinds.index("INTERIM_TRANSCRIPT") < kinds.index("FINAL_TRANSCRIPT")
