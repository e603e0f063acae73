"""Responses to requests that may fail, with error bodies in the form of the vendor whose API it is."""

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
    """Return the handler's response, or the response to its error; unexpected errors are logged, not shown."""
    try:
        return await handled
    except ClientDisconnect:
        return Response(status_code=400)  # discarded, as the client has disconnected
    except TympanError as error:
        service.count_refusal(error)
        return response_of(refuse(error))
    except Exception:
        logger.exception("a request failed")
        return response_of(refuse(EngineError("the request failed")))


def response_of(refusal: Refusal) -> Response:
    """Convert a refusal to a response."""
    return Response(refusal.body, refusal.status, dict(refusal.headers))


def opening_request(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Request:
    """Return an opening request with a new id, as protocols use it; header names in lower case."""
    return Request(path=path, query=query, headers=headers, id=str(uuid.uuid4()), opened_at=time.time())


def request_of(connection: HTTPConnection) -> Request:
    """Convert a request of the web framework to an opening request."""
    return opening_request(connection.scope["path"], dict(connection.query_params), dict(connection.headers))
