"""OpenAI's HTTP routes: transcription of files, and short-lived keys for browsers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from tympan.errors import FrameError, ParameterError, TympanError
from tympan.messages import AudioFormat, Event, Word
from tympan.protocols.base import Request as Opening
from tympan.protocols.openai import access, files
from tympan.protocols.openai.languages import UNKNOWN, language_name
from tympan.protocols.openai.session import SessionSettings
from tympan.protocols.unsupported import knows_language, requested
from tympan.protocols.wire import decode_json, json_text
from tympan.server.access.auth import TOKEN_PREFIX
from tympan.server.routes.body import Body, chunks_of, read_small
from tympan.server.routes.responses import answer, request_of
from tympan.server.routes.uploads import Upload
from tympan.server.service import Service
from tympan.transcript.joining import text_after
from tympan.transcript.transcript import TranscriptBuilder

DEFAULT_SECRET_SECONDS = 600
MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 * 1024

logger = logging.getLogger(__name__)

Handler = Callable[[Service, Request], Coroutine[Any, Any, Response]]


def routes(service: Service) -> APIRouter:
    """Return the routes under `/v1/audio` and those under `/v1/realtime` that create short-lived keys."""
    router = APIRouter()

    def post(path: str, handler: Handler) -> None:
        async def endpoint(request: Request) -> Response:
            return await answer(service, handler(service, request), access.refusal)

        endpoint.__doc__ = handler.__doc__
        router.add_api_route(path, endpoint, methods=["POST"], response_model=None, name=path.rpartition("/")[2])

    post("/v1/audio/transcriptions", _transcriptions)
    post("/v1/audio/translations", _translations)
    post("/v1/realtime/client_secrets", _client_secrets)
    post("/v1/realtime/transcription_sessions", _beta_session)
    post("/v1/realtime/sessions", _beta_session)
    return router


@dataclass(frozen=True)
class _TranscriptionRequest:
    """The fields of a transcription form."""

    file: UploadFile
    format: str
    language: str
    granularities: tuple[str, ...]
    stream: bool
    unsupported: Sequence[str]


async def _transcriptions(service: Service, request: Request) -> Response:
    """Transcribe a file: JSON, text, subtitles, or server-sent events."""
    opening = request_of(request)
    account = service.admission.check_client(access.credential(opening), opening.headers)
    limits = service.config.limits
    upload_body = Body(request, limits, limits.upload_bytes, account, service.buffered)
    async with AsyncExitStack() as stack:
        stack.callback(upload_body.release)
        form = await _form(upload_body.request)
        stack.push_async_callback(form.close)
        service.server_info.check_model(_text(form, "model"))
        options = _parse_form(form, service.server_info.languages)
        upload = Upload(service, account, opening, AudioFormat("auto"), "openai")
        upload.unsupported = options.unsupported
        stack.callback(upload.close)
        events = upload.events(chunks_of(options.file), upload_body)
        stack.push_async_callback(events.aclose)
        transcript = TranscriptBuilder(options.file.filename or "", service.server_info.model)
        if options.stream:
            return _EventStream(_server_sent(events, transcript), stack.pop_all())
        async for event, _ in events:
            transcript.on_event(event)
    body = files.response_body(transcript.transcript, options.format, options.language, options.granularities)
    return Response(body, media_type=files.MEDIA_TYPES[options.format])


class _EventStream(StreamingResponse):
    """Server-sent events; releases what they need, even if the client is gone before the first one."""

    def __init__(self, events: AsyncIterator[str], stack: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _translations(service: Service, request: Request) -> Response:
    """Refuse the request, with a clearer error than status 404."""
    raise ParameterError("the model does not translate; use /v1/audio/transcriptions")


async def _server_sent(events: AsyncGenerator[tuple[Event, int]], transcript: TranscriptBuilder) -> AsyncIterator[str]:
    try:
        first = True
        async for event, _ in events:
            transcript.on_event(event)
            if isinstance(event, Word):
                yield files.delta_event(text_after(not first, event))
                first = False
        yield files.done_event(transcript.transcript)
        yield files.LAST_EVENT
    except TympanError as error:
        yield files.error_event(access.error_fields(error))
    except Exception as error:
        logger.exception("an event stream failed")
        yield files.error_event(access.error_fields(error))


async def _form(request: Request) -> FormData:
    try:
        return await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException:
        raise FrameError("the body must be multipart/form-data with the audio in the field 'file'") from None


def _parse_form(form: FormData, languages: tuple[str, ...]) -> _TranscriptionRequest:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ParameterError("the form needs the audio in the field 'file'")
    format = _text(form, "response_format") or "json"
    if format not in files.FORMATS:
        raise ParameterError(f"invalid response_format {format[:40]!r}: expected one of {', '.join(files.FORMATS)}")
    # The model does not report which language it has recognized.
    wanted = _text(form, "language") or ""
    unsupported = list(requested(form, ("prompt", "include[]", "include")))
    if not knows_language(languages, wanted):
        unsupported.append("language")
        wanted = ""
    language = language_name(wanted or (languages[0] if len(languages) == 1 else UNKNOWN))
    granularities = form.getlist("timestamp_granularities[]") + form.getlist("timestamp_granularities")
    return _TranscriptionRequest(
        file=file,
        format=format,
        language=language,
        granularities=tuple(str(each) for each in granularities),
        stream=(_text(form, "stream") or "").lower() in ("true", "1"),
        unsupported=unsupported,
    )


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    return value if isinstance(value, str) else None


async def _client_secrets(service: Service, request: Request) -> Response:
    """Create a short-lived key for a browser, and return it with the session's settings."""
    opening = request_of(request)
    service.keys.check(access.credential(opening))
    fields = await _json(service, request)
    expires = fields.get("expires_after")
    seconds = expires.get("seconds") if isinstance(expires, dict) else None
    value, expires_at = _secret(service, opening, seconds if isinstance(seconds, int) else DEFAULT_SECRET_SECONDS)
    settings = SessionSettings(opening, service.server_info)
    settings.update(fields.get("session"))
    return _encoded({"value": value, "expires_at": expires_at, "session": settings.fields()})


async def _beta_session(service: Service, request: Request) -> Response:
    """Create a short-lived key in the form of the beta API."""
    opening = request_of(request)
    service.keys.check(access.credential(opening))
    fields = await _json(service, request)
    value, expires_at = _secret(service, opening, DEFAULT_SECRET_SECONDS)
    settings = SessionSettings(opening, service.server_info)
    settings.update(fields)
    return _encoded({**settings.fields(), "client_secret": {"value": value, "expires_at": expires_at}})


def _secret(service: Service, opening: Opening, seconds: int) -> tuple[str, int]:
    token, seconds = service.keys.grant(access.credential(opening), seconds)
    return TOKEN_PREFIX + token, int(time.time() + seconds)


async def _json(service: Service, request: Request) -> dict[str, Any]:
    body = await read_small(request, service.config.limits, service.buffered)
    return decode_json(body or b"{}", dict[str, Any], "the body must be a JSON object")


def _encoded(body: dict[str, Any]) -> Response:
    return Response(json_text(body), media_type="application/json")
