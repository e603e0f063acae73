"""OpenTelemetry spans, one per session, if the standard environment variables name a collector (`tympan[otel]`).

The SDK reads those variables. Attributes have OpenTelemetry's names where it defines them (`session.id`, `url.path`,
`gen_ai.request.model`, `error.type`); the names of the others begin with `tympan.`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tympan.messages import Command, Event, Flush, Flushed, Word
from tympan.protocols.base import Request
from tympan.session.listener import Observer, Outcome
from tympan.version import version

logger = logging.getLogger(__name__)

MAX_OPEN_FLUSHES: Final = 64  # per session; further flushes have no span
SERVER_ERRORS: Final = ("1011", "failed")


class Tracing:
    """The tracer of one server; by default it exports to the collector that the environment variables name."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        service = Resource({"service.name": "tympan", "service.version": version()})
        resource = Resource.create().merge(service).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tympan", version())

    async def stop(self) -> None:
        """Export the remaining spans; the exporter limits the time that this takes."""
        await asyncio.to_thread(self._provider.shutdown)

    def begin(self, request: Request, protocol: str, model: str) -> Trace:
        """Start a session's span, within the client's trace if the request has a `traceparent` header."""
        span = self._tracer.start_span(
            f"{protocol} session",
            TraceContextTextMapPropagator().extract(request.headers, Context()),
            SpanKind.SERVER,
            {
                "session.id": request.id,
                "url.path": request.path,
                "gen_ai.request.model": model,
                "tympan.protocol": protocol,
            },
        )
        return Trace(self._tracer, span)


class Trace(Observer):
    """The span of one session, with an event for the first word and a child span for each flush."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())
        self._flushes: dict[int, Span] = {}
        self._has_words = False

    def on_command(self, command: Command) -> None:
        if isinstance(command, Flush) and command.marker not in self._flushes and len(self._flushes) < MAX_OPEN_FLUSHES:
            self._flushes[command.marker] = self._tracer.start_span("flush", self._context)

    def on_event(self, event: Event, channel: int) -> None:
        if isinstance(event, Word) and not self._has_words:
            self._has_words = True
            self._span.add_event("first word", {"tympan.word_end_seconds": event.end})
        elif isinstance(event, Flushed) and event.marker in self._flushes:
            self._flushes.pop(event.marker).end()

    def on_end(self, outcome: Outcome) -> None:
        for flush in self._flushes.values():
            flush.end()
        self._span.set_attributes(
            {
                "tympan.close_code": outcome.code,
                "tympan.audio_seconds": outcome.audio_seconds,
                "tympan.words": outcome.words,
            }
        )
        if outcome.error:
            self._span.set_attribute("error.type", outcome.error)
        if outcome.code in SERVER_ERRORS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
