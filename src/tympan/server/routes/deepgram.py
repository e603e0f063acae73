"""Deepgram's HTTP routes: files in one request, and short-lived tokens."""

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
from tympan.protocols.deepgram import access as deepgram_access
from tympan.protocols.deepgram import messages
from tympan.protocols.deepgram.live import is_true, parse_audio
from tympan.server.access.quota import Account
from tympan.server.routes.body import Body
from tympan.server.routes.responses import answer, request_of
from tympan.server.routes.uploads import Upload
from tympan.server.service import Service

DEFAULT_TOKEN_SECONDS = 30


class _GrantRequest(msgspec.Struct):
    ttl_seconds: int = DEFAULT_TOKEN_SECONDS


def routes(service: Service) -> APIRouter:
    """`POST /v1/listen` and `POST /v1/auth/grant`."""
    router = APIRouter()

    @router.post("/v1/listen", response_model=None)
    async def listen(request: Request) -> Response:
        """Transcribe the audio file in the body."""
        opening = request_of(request)
        return await answer(service, _listen(service, opening, request), partial(deepgram_access.refusal, opening))

    @router.post("/v1/auth/grant", response_model=None)
    async def grant(request: Request) -> Response:
        """A token for a client that is not to have the key."""
        opening = request_of(request)
        return await answer(service, _grant(service, opening, request), partial(deepgram_access.refusal, opening))

    return router


async def _listen(service: Service, opening: Opening, request: Request) -> Response:
    account = service.admission.check_client(deepgram_access.credential(opening), opening.headers)
    if request.headers.get("content-type", "").startswith("application/json"):
        raise ParameterError("this server fetches nothing: send the audio itself in the body, not its URL")
    limits = service.config.limits
    body = Body(request, limits, limits.upload_bytes, account)
    return _json(opening, await _transcribe(service, account, opening, body))


async def _grant(service: Service, opening: Opening, request: Request) -> Response:
    credential = deepgram_access.credential(opening)
    service.keys.check(credential)
    limits = service.config.limits
    wanted = _parse_grant(await Body(request, limits, limits.message_bytes).request.body())
    token, seconds = service.keys.grant(credential, wanted.ttl_seconds)
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
    told = [0] * audio_format.streams  # of each channel's words, how many are in its utterances
    utterances: list[dict[str, Any]] = []
    seconds = 0.0
    upload = Upload(service, account, opening, audio_format, "deepgram")
    async for event, channel in upload.events(chunks(), body):
        match event:
            case Word():
                words[channel].append(event)
            case Segment() if wants_utterances:
                # A segment comes before the next word: what is new of its channel is its words, with no search.
                utterances.append(messages.utterance(event, channel, words[channel][told[channel] :]))
                told[channel] = len(words[channel])
            case Complete():
                seconds = event.audio_seconds
    words = words[: upload.channels]
    identity = messages.model_id(server_info)
    about = messages.metadata(opening, seconds, len(words), digest.hexdigest())
    results: dict[str, Any] = {"channels": [{"alternatives": [messages.alternative(each)]} for each in words]}
    if wants_utterances:
        results["utterances"] = utterances
    return {
        "metadata": {**about, "models": [identity], "model_info": {identity: messages.model_info(server_info)}},
        "results": results,
    }


def _file_format(opening: Opening) -> AudioFormat:
    """As of a live stream, but the channels of a container are found in it. Raises `ParameterError`."""
    declared = parse_audio(opening)
    if declared.mixed or "channels" in opening.query or declared.encoding not in CONTAINER_ENCODINGS:
        return declared
    return replace(declared, channels=2, or_fewer=True)


def _parse_grant(body: bytes) -> _GrantRequest:
    try:
        return msgspec.json.decode(body or b"{}", type=_GrantRequest)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so is text that is not UTF-8
        raise FrameError('the body must be JSON such as {"ttl_seconds": 30}') from None


def _json(opening: Opening, body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers={"dg-request-id": opening.id})
