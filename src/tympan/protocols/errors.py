"""Errors on the wire: WebSocket close codes, HTTP statuses, and what a client may read of an error."""

from __future__ import annotations

from collections.abc import Mapping

from tympan.errors import (
    AccessError,
    AudioError,
    CapacityError,
    FrameError,
    HostError,
    IdleError,
    LimitError,
    OriginError,
    ParameterError,
    QuotaError,
    RequestError,
    RestartingError,
    SessionTooLongError,
    SlowReaderError,
    TooBigError,
    TympanError,
)

INTERNAL_ERROR = 1011

CLOSE_CODES: Mapping[type[TympanError], int] = {
    FrameError: 1003,
    AudioError: 1007,
    ParameterError: 1008,
    AccessError: 1008,
    LimitError: 1008,
    TooBigError: 1009,
    RestartingError: 1012,
    SlowReaderError: 1013,
    CapacityError: 1013,
}
"""WebSocket close code of each error and its subclasses; the server's own errors have `INTERNAL_ERROR`."""

HTTP_STATUSES: Mapping[type[TympanError], int] = {
    OriginError: 403,
    HostError: 421,
    AccessError: 401,
    RequestError: 400,
    TooBigError: 413,
    IdleError: 408,
    SessionTooLongError: 413,
    QuotaError: 429,
    CapacityError: 503,
    RestartingError: 503,
}
"""HTTP status of each error and its subclasses; all others have 500."""


def close_code(error: Exception | None) -> int:
    """Return the WebSocket close code for the error that ended a session; `None` is a normal end."""
    return 1000 if error is None else _lookup(CLOSE_CODES, error, INTERNAL_ERROR)


def http_status(error: Exception) -> int:
    """Return the HTTP status for an error before the upgrade."""
    return _lookup(HTTP_STATUSES, error, 500)


def public_error(error: Exception) -> tuple[str, str]:
    """Return the code and the text of an error for the client; those of internal errors reveal nothing."""
    if isinstance(error, TympanError) and close_code(error) != INTERNAL_ERROR:
        return error.code, str(error)
    return "internal", "internal error"


def _lookup(table: Mapping[type[TympanError], int], error: Exception, default: int) -> int:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)
