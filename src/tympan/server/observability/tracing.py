"""OpenTelemetry: one span per session, where the standard variables say where spans go (the extra `otel`).

The SDK reads those variables itself; here is only what a session's span holds. Names are OpenTelemetry's where it has
them (`session.id`, `url.path`, `gen_ai.request.model`, `error.type`), else they begin with `tympan.`.
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

MOST_OPEN_FLUSHES: Final = 64  # of one session; what it asks for beyond has no span
OUR_FAULT: Final = ("1011", "failed")


class Tracing:
    """The spans of one server. `exporter` is where they go, by default to what the variables name."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        named = Resource({"service.name": "tympan", "service.version": version()})
        resource = Resource.create().merge(named).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tympan", version())

    async def stop(self) -> None:
        """Send what waits; a collector that does not answer is given up after the exporter's own time limit."""
        await asyncio.to_thread(self._provider.shutdown)

    def begin(self, request: Request, protocol: str, model: str) -> Trace:
        """The span of a session; part of the client's trace if its request carries a `traceparent`."""
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
    """One session's span: an event for its first word, a span below it for each flush."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._inside = set_span_in_context(span, Context())
        self._flushes: dict[int, Span] = {}
        self._has_spoken = False

    def on_command(self, command: Command) -> None:
        if (
            isinstance(command, Flush)
            and command.marker not in self._flushes
            and len(self._flushes) < MOST_OPEN_FLUSHES
        ):
            self._flushes[command.marker] = self._tracer.start_span("flush", self._inside)

    def on_event(self, event: Event, channel: int) -> None:
        if isinstance(event, Word) and not self._has_spoken:
            self._has_spoken = True
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
        if outcome.code in OUR_FAULT:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
