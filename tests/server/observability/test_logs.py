"""Log lines: one when a session opens and one when it ends, as text or JSON, without private data."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from socket import SHUT_RDWR, create_connection

import httpx2 as httpx
import pytest
from support.server import LiveServer
from support.speech import clip
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tympan.config import ServerSettings
from tympan.protocols.native import NativeProtocol
from tympan.server.observability.logs import JsonFormatter, log_config

KEY = "a-key-that-stays-out-of-logs"
JSON_FORM = {"log_format": "json", "log_level": "info"}


def entries(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def of_session(log: list[dict[str, object]], session: object) -> list[dict[str, object]]:
    return [line for line in log if line.get("session") == session]


def test_session_opened_and_closed(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(**JSON_FORM) as server:
        with connect(server.url(events="ready")) as socket:
            session = json.loads(socket.recv(timeout=10))["session"]
            socket.send(bytes(3840 * 25))
            socket.send("EOS")
            list(socket)
        uploaded = httpx.post(server.http("/v1/listen?encoding=linear16&sample_rate=24000"), content=bytes(48_000))
        assert uploaded.status_code == 200
        with pytest.raises(InvalidStatus):
            connect(server.url(), origin="https://elsewhere.example")  # type: ignore[arg-type]
    log = entries(capfd.readouterr().err)
    opened, closed = of_session(log, session)
    assert opened["message"] == f"{session} opened from /v1/stream"
    assert (opened["level"], opened["logger"]) == ("info", "tympan.server.sessions.session_log")
    assert {"protocol": "native", "close_code": "1000", "audio_seconds": 2.0, "words": 5}.items() <= closed.items()
    assert 0 < float(str(closed["seconds"])) < 10
    assert datetime.fromisoformat(str(closed["time"])).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    (uploaded_id,) = {line["session"] for line in log if line.get("protocol") == "deepgram"}
    assert [line.get("close_code") for line in of_session(log, uploaded_id)] == [None, "ok"]
    (refused,) = [line for line in log if line.get("error") == "origin"]
    assert "session" not in refused


def test_unsupported_requests_are_logged_once_per_session(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(**JSON_FORM) as server:
        query = "encoding=linear16&sample_rate=24000&diarize=true&keyterm=Tympan&language=de"
        with connect(server.url(path=f"/v1/listen?{query}")) as socket:
            for _ in range(2):
                socket.send(json.dumps({"type": "Configure", "keyterms": ["Tympan"]}))
            socket.send(json.dumps({"type": "CloseStream"}))
            list(socket)
        uploaded = httpx.post(server.http(f"/v1/listen?{query}"), content=bytes(48_000))
    warnings = uploaded.json()["metadata"]["warnings"]
    assert [each["parameter"] for each in warnings] == ["language", "diarize", "keyterm"]
    messages = [str(line["message"]) for line in entries(capfd.readouterr().err)]
    lines = [message for message in messages if "does not support" in message]
    assert [line.partition(": ")[2] for line in lines] == [
        f"the model does not support {names}; the transcript is the same without"
        for names in ("language, diarize, keyterm, keyterms", "language, diarize, keyterm")
    ]


def test_traceback_carries_session_id(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(**JSON_FORM) as server, connect(server.url(events="ready")) as socket:
        session = json.loads(socket.recv(timeout=10))["session"]
        monkeypatch.setattr(NativeProtocol, "send", lambda self, event, channel: 1 / 0)
        socket.send(bytes(3840 * 20))
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(timeout=10)
    lines = of_session(entries(capfd.readouterr().err), session)
    assert "ZeroDivisionError" in str(lines[1]["exception"])
    assert (lines[-1]["close_code"], lines[-1]["error"]) == ("1011", "internal")


def test_lost_client(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(**JSON_FORM) as server:
        with connect(server.url(events="ready")) as socket:
            session = json.loads(socket.recv(timeout=10))["session"]
            socket.socket.shutdown(SHUT_RDWR)
        wait_until(lambda: server.service.engine.active == 0)
    opened, closed = of_session(entries(capfd.readouterr().err), session)
    assert "opened" in str(opened["message"])
    assert closed["close_code"] == "1006"


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "tympan", "serve", "--model", "embedded", "--port", "0", "--max-streams", "1"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        line = next(line for line in running.stderr if "http://" in line)
        found = re.search(r"http://[^:]+:(\d+)", line)
        assert found is not None
        yield running, int(found[1])
        running.terminate()
        running.wait(15)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_keys_audio_or_text_in_logs(tmp_path: Path, form: str, level: str) -> None:
    """Check everything that a process with a real recognizer writes to stderr."""
    file = tmp_path / "keys"
    file.write_text(KEY)
    options = ("--api-keys-file", str(file), "--host", "127.0.0.1", "--log-format", form, "--log-level", level)
    speech = clip("quick_brown_fox")
    pcm = speech.pcm(16_000)
    with process(*options) as (running, port):
        url = f"ws://127.0.0.1:{port}/v1/stream?encoding=s16le&sample_rate=16000"
        with connect(f"{url}&token={KEY}&events=word") as socket:
            socket.send(pcm)
            socket.send("EOS")
            heard = [json.loads(message).get("text", "") for message in socket]
        with connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
            socket.send("what a client says in the wrong place")
            list_until_closed(socket)
        with pytest.raises(InvalidStatus):
            connect(f"{url}&token={KEY}-and-a-mistake")
        running.terminate()
        assert running.stderr is not None
        log = running.stderr.read()
    assert len([word for word in heard if word]) > 3
    assert "closed" in log
    assert KEY not in log
    assert "wrong place" not in log
    words = {word.lower() for word in [*heard, *speech.text.split()] if len(word) > 4}
    assert not [word for word in words if re.search(rf"\b{re.escape(word)}\b", log.lower())]
    assert base64.b64encode(pcm[:60]).decode() not in log
    assert repr(pcm[8000:8010])[2:-1] not in log
    assert "127.0.0.1" not in log


def list_until_closed(socket: object) -> None:
    with pytest.raises(ConnectionClosed):
        while True:
            socket.recv(timeout=10)  # type: ignore[attr-defined]


def test_log_format_setting() -> None:
    assert log_config(ServerSettings())["formatters"]["chosen"] == {
        "format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    }
    assert log_config(ServerSettings(log_format="json"))["formatters"]["chosen"] == {"()": JsonFormatter}


def test_json_of_any_content() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "half a pair: %s\nand more", ("\ud800",), None)
    record.odd = object
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "half a pair: \\ud800\nand more"
    assert "object" in json.loads(line)["odd"]


def test_aborted_upload_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(step_ms=20, **JSON_FORM) as server:
        with create_connection(("127.0.0.1", server.port)) as socket:
            path = "/v1/listen?encoding=linear16&sample_rate=24000"
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n\r\n"
            socket.sendall(head.encode() + bytes(48_000 * 10))
            wait_until(lambda: server.service.engine.active == 1)
        wait_until(lambda: server.service.engine.active == 0)
    log = [line for line in entries(capfd.readouterr().err) if line.get("protocol") == "deepgram"]
    assert [line.get("close_code") for line in log] == [None, "cancelled"]
    assert {line["level"] for line in log} == {"info"}
