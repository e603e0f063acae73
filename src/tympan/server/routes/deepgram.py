"""Deepgram's HTTP routes: transcription of files, and short-lived tokens."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from tympan.errors import ParameterError
from tympan.messages import Complete, Segment, Word
from tympan.protocols.base import Request as Opening
from tympan.protocols.deepgram import access, messages
from tympan.protocols.deepgram.parameters import parse_file_format, unsupported_parameters, wants_utterances
from tympan.server.access.quota import Account
from tympan.server.routes.body import Body, read_small
from tympan.server.routes.responses import answer, request_of
from tympan.server.routes.uploads import Upload
from tympan.server.service import Service


def routes(service: Service) -> APIRouter:
    """Return the routes `POST /v1/listen` and `POST /v1/auth/grant`."""
    router = APIRouter()

    @router.post("/v1/listen", response_model=None)
    async def listen(request: Request) -> Response:
        """Transcribe the audio file in the body."""
        opening = request_of(request)
        return await answer(service, _listen(service, opening, request), partial(access.refusal, opening))

    @router.post("/v1/auth/grant", response_model=None)
    async def grant(request: Request) -> Response:
        """Create a short-lived token for a client that must not know the API key."""
        opening = request_of(request)
        return await answer(service, _grant(service, opening, request), partial(access.refusal, opening))

    return router


async def _listen(service: Service, opening: Opening, request: Request) -> Response:
    account = service.admission.check_client(access.credential(opening), opening.headers)
    if request.headers.get("content-type", "").startswith("application/json"):
        raise ParameterError("audio URLs are not supported; send the audio in the body")
    limits = service.config.limits
    body = Body(request, limits, limits.upload_bytes, account)
    return _json(opening, await _transcribe(service, account, opening, body))


async def _grant(service: Service, opening: Opening, request: Request) -> Response:
    credential = access.credential(opening)
    service.keys.check(credential)
    wanted = messages.parse_grant(await read_small(request, service.config.limits, service.buffered))
    token, seconds = service.keys.grant(credential, wanted)
    return _json(opening, {"access_token": token, "expires_in": seconds})


async def _transcribe(service: Service, account: Account, opening: Opening, body: Body) -> dict[str, Any]:
    service.server_info.check_model(opening.query.get("model"))
    audio_format = parse_file_format(opening.query)
    digest = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in body.request.stream():
            digest.update(chunk)
            yield chunk

    words: list[list[Word]] = [[] for _ in range(audio_format.streams)]
    utterances: list[dict[str, Any]] | None = [] if wants_utterances(opening.query) else None
    in_utterances = [0] * audio_format.streams  # words of each channel that are in its utterances
    seconds = 0.0
    upload = Upload(service, account, opening, audio_format, "deepgram")
    upload.unsupported = unsupported_parameters(opening.query, service.server_info.languages)
    async for event, channel in upload.events(chunks(), body):
        match event:
            case Word():
                words[channel].append(event)
            case Segment() if utterances is not None:
                # A segment precedes the next word, so it contains all words since the last one.
                utterances.append(messages.utterance(event, channel, words[channel][in_utterances[channel] :]))
                in_utterances[channel] = len(words[channel])
            case Complete():
                seconds = event.audio_seconds
    words = words[: upload.channels]
    about = messages.metadata(opening, seconds, len(words), digest.hexdigest(), upload.unsupported)
    return messages.file_response(service.server_info, about, words, utterances)


def _json(opening: Opening, body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers={"dg-request-id": opening.id})
