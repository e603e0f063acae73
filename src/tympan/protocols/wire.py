"""JSON and base64 of the protocols that use them, in messages and in HTTP responses."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from tympan.errors import AudioError, CapacityError, FrameError, QuotaError, RestartingError, TooBigError, TympanError
from tympan.protocols.base import Refusal, WireMessage
from tympan.protocols.errors import http_status

Decoded = TypeVar("Decoded")

_URL_SAFE: Final = str.maketrans("-_", "+/")
MOST_COMMAND_BYTES: Final = 64 * 1024
"""Size of a message without audio. A larger one can take seconds to decode: `[{},{},…]` becomes millions of objects."""


def check_command_size(message: WireMessage) -> None:
    """Check the size of a message that contains no audio, before it is decoded.

    Raises:
        TooBigError: The message is too big.
    """
    if len(message) > MOST_COMMAND_BYTES:
        raise TooBigError(f"a message without audio has {len(message)} bytes; the limit is {MOST_COMMAND_BYTES} bytes")


def decode_json(message: WireMessage, type: type[Decoded], expected: str) -> Decoded:
    """Decode a client's JSON message.

    Raises:
        FrameError: The message is not JSON of this type; `expected` is the text of the error.
    """
    try:
        return msgspec.json.decode(message, type=type)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so are those of text that is not UTF-8
        raise FrameError(expected) from None


def json_text(fields: Mapping[str, Any]) -> str:
    """Encode a message as JSON.

    Raises:
        FrameError: A value that the client sent is nested too deeply; the decoder allows slightly deeper values.
    """
    try:
        return msgspec.json.encode(fields).decode()
    except RecursionError:
        raise FrameError("the message is nested too deeply") from None


def base64_audio(text: object) -> bytes:
    """Decode audio that is sent as base64 in JSON.

    Line breaks, the URL-safe alphabet, missing padding and a data URL are accepted as well.

    Raises:
        AudioError: It is not base64.
    """
    if isinstance(text, str):
        for form in (_as_sent, _canonical):
            with suppress(ValueError):  # of which binascii.Error is a subclass
                return binascii.a2b_base64(form(text), strict_mode=True)
    raise AudioError("the audio must be a string of base64")


def _as_sent(text: str) -> str:
    return text


def _canonical(text: str) -> str:
    """Return base64 in the form that the decoder accepts."""
    header, comma, data = text.partition(",")
    if comma and header.lstrip().lower().startswith("data:"):
        text = data
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    return text + "=" * (-len(text) % 4)


def json_refusal(
    error: TympanError, body: object, headers: Mapping[str, str] | None = None, status: int | None = None
) -> Refusal:
    """Return a refusal with a JSON body and, where it makes sense, a `Retry-After` header.

    Args:
        error: The error that the refusal reports.
        body: Object that is encoded as the body.
        headers: Additional headers.
        status: HTTP status; that of the error by default.
    """
    fields = {"content-type": "application/json"}
    if isinstance(error, CapacityError | QuotaError | RestartingError):
        fields["retry-after"] = str(getattr(error, "retry_after_seconds", 1))
    return Refusal(status or http_status(error), msgspec.json.encode(body), {**fields, **(headers or {})})
