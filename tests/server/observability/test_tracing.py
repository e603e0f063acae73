"""Spans that a collector receives over HTTP, and servers without a collector."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2 as httpx
import pytest
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tympan.config import wants_spans
from tympan.engine.scripted import ScriptedStream

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector:
    """Receives spans as OTLP over HTTP."""

    def __init__(self) -> None:
        collector = self
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    collector.resources.append(attributes(resource.resource))
                    collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attributes(holder: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.stop()


def test_session_span_in_client_trace(collector: Collector) -> None:
    with LiveServer() as server:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        with connect(server.url(events="ready,word", token="a-secret"), additional_headers=headers) as socket:
            session = json.loads(socket.recv(timeout=10))["session"]
            socket.send(bytes(3840 * 25))
            socket.send(json.dumps({"type": "flush", "id": 3}))
            while json.loads(socket.recv(timeout=10))["type"] != "flushed":
                pass
            socket.send("EOS")
            list(socket)
    (span,) = collector.named("native session")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    told = attributes(span)
    assert told == {
        "session.id": session,
        "url.path": "/v1/stream",
        "gen_ai.request.model": "scripted",
        "tympan.protocol": "native",
        "tympan.close_code": "1000",
        "tympan.audio_seconds": 2.0,
        "tympan.words": 5,
    }
    assert [event.name for event in span.events] == ["first word"]
    (flush,) = collector.named("flush")
    assert (flush.trace_id, flush.parent_span_id) == (span.trace_id, span.span_id)
    assert 0 < flush.end_time_unix_nano - flush.start_time_unix_nano < 10e9
    assert collector.resources[0]["service.name"] == "tympan"
    assert "word0" not in str(collector.spans)
    assert "a-secret" not in str(collector.spans)


def test_spans_of_failed_session_and_file(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ears")
    with LiveServer() as server:
        httpx.post(server.http("/v1/listen?encoding=linear16&sample_rate=24000"), content=bytes(48_000))
        monkeypatch.setattr(ScriptedStream, "push", lambda self, frame: 1 / 0)
        with connect(server.url()) as socket:
            socket.send(bytes(3840))
            with pytest.raises(ConnectionClosed):
                while True:
                    socket.recv(timeout=10)
    (span,) = collector.named("native session")
    assert (attributes(span)["error.type"], span.status.code) == ("internal", 2)
    (upload,) = collector.named("deepgram session")
    assert (attributes(upload)["tympan.close_code"], upload.status.code) == ("ok", 0)
    assert upload.parent_span_id == b""
    assert collector.resources[0]["service.name"] == "ears"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_spans_are_exported_while_serving(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with LiveServer() as server:
        with connect(server.url()) as socket:
            socket.send("EOS")
            list(socket)
        wait_until(lambda: bool(collector.named("native session")))


def test_no_collector_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with LiveServer() as server, connect(server.url()):
        (connection,) = server.service.connections._open
        assert connection._session.observers == []  # type: ignore[attr-defined]


def test_standard_variables() -> None:
    assert not wants_spans({})
    assert wants_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    assert wants_spans({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"})
    assert not wants_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"})
    assert not wants_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"})


def test_missing_package_is_logged(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "tympan.server.observability.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with LiveServer() as server, connect(server.url()) as socket:
        socket.send("EOS")
        assert json.loads(list(socket)[-1]) == {"status": "complete"}
    assert "[otel]" in caplog.text
    assert collector.spans == []
