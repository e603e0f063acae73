"""Answers to requests that may fail: the right status and one sentence, in the form that the vendor's clients know."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response

from tympan.errors import EngineError, TympanError
from tympan.protocols.base import Refusal, Request
from tympan.server.service import Service

logger = logging.getLogger(__name__)


async def answer(service: Service, handled: Awaitable[Response], refuse: Callable[[TympanError], Refusal]) -> Response:
    """What the handler answers, or a refusal. An error that nobody foresaw is told to the log, not to the client."""
    try:
        return await handled
    except ClientDisconnect:
        return Response(status_code=400)  # to nobody
    except TympanError as error:
        service.count_refusal(error)
        return response_of(refuse(error))
    except Exception:
        logger.exception("a request failed")
        return response_of(refuse(EngineError("the request failed")))


def response_of(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, dict(refusal.headers))


def opening_request(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Request:
    """An opening request in the protocols' own terms; header names in lower case."""
    return Request(path=path, query=query, headers=headers, id=str(uuid.uuid4()), opened_at=time.time())


def request_of(connection: HTTPConnection) -> Request:
    """The same of a request to the application."""
    return opening_request(connection.scope["path"], dict(connection.query_params), dict(connection.headers))
