"""Deepgram's HTTP routes: transcription of files, and short-lived tokens."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec.structs import replace

from tympan.audio.format import CONTAINER_ENCODINGS
from tympan.errors import FrameError, ParameterError
from tympan.messages import AudioFormat, Complete, Segment, Word
from tympan.protocols.base import Request as Opening
from tympan.protocols.deepgram import access, messages
from tympan.protocols.deepgram.live import is_true, parse_audio
from tympan.server.access.quota import Account
from tympan.server.routes.responses import answer, request_of
from tympan.server.routes.uploads import Body, Upload
from tympan.server.service import Service

DEFAULT_TOKEN_SECONDS = 30


class _GrantOptions(msgspec.Struct):
    ttl_seconds: int = DEFAULT_TOKEN_SECONDS


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
    account = service.admit(access.credential(opening), opening.headers)
    if request.headers.get("content-type", "").startswith("application/json"):
        raise ParameterError("audio URLs are not supported; send the audio in the body")
    limits = service.config.limits
    body = Body(request, limits, limits.upload_bytes, account)
    return _json(opening, await _transcribe(service, account, opening, body))


async def _grant(service: Service, opening: Opening, request: Request) -> Response:
    credential = access.credential(opening)
    service.keys.check(credential)
    limits = service.config.limits
    options = _parse_grant(await Body(request, limits, limits.message_bytes).request.body())
    token, seconds = service.keys.grant(credential, options.ttl_seconds)
    return _json(opening, {"access_token": token, "expires_in": seconds})


async def _transcribe(service: Service, account: Account, opening: Opening, body: Body) -> dict[str, Any]:
    server_info = service.server_info
    server_info.check_model(opening.query.get("model"))
    audio_format = _file_format(opening)
    digest = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in body.request.stream():
            digest.update(chunk)
            yield chunk

    words: list[list[Word]] = [[] for _ in range(audio_format.streams)]
    wants_utterances = is_true(opening.query.get("utterances"))
    in_utterances = [0] * audio_format.streams  # number of each channel's words that are in its utterances
    utterances: list[dict[str, Any]] = []
    seconds = 0.0
    upload = Upload(service, account, opening, audio_format, "deepgram")
    async for event, channel in upload.events(chunks(), body):
        match event:
            case Word():
                words[channel].append(event)
            case Segment() if wants_utterances:
                # A segment arrives before the next word, so it consists of all words since the last segment.
                new_words = words[channel][in_utterances[channel] :]
                utterances.append(messages.utterance(event, channel, new_words))
                in_utterances[channel] = len(words[channel])
            case Complete():
                seconds = event.audio_seconds
    words = words[: upload.channels]
    model_id = messages.model_id(server_info)
    metadata = messages.metadata(opening, seconds, len(words), digest.hexdigest())
    results: dict[str, Any] = {"channels": [{"alternatives": [messages.alternative(each)]} for each in words]}
    if wants_utterances:
        results["utterances"] = utterances
    return {
        "metadata": {**metadata, "models": [model_id], "model_info": {model_id: messages.model_info(server_info)}},
        "results": results,
    }


def _file_format(opening: Opening) -> AudioFormat:
    """Parse the audio format as for a live stream; a container file states its own number of channels."""
    declared = parse_audio(opening)
    if declared.mixed or "channels" in opening.query or declared.encoding not in CONTAINER_ENCODINGS:
        return declared
    return replace(declared, channels=2, or_fewer=True)


def _parse_grant(body: bytes) -> _GrantOptions:
    try:
        return msgspec.json.decode(body or b"{}", type=_GrantOptions)
    except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise FrameError('the body must be JSON such as {"ttl_seconds": 30}') from None


def _json(opening: Opening, body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers={"dg-request-id": opening.id})
