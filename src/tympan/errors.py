"""The errors that a client, an operator or a machine can cause.

    TympanError
    ├── ConfigError          a setting is unknown or invalid          (the operator; exit code 2)
    ├── ModelError           a model cannot be found or loaded        (the operator; exit code 2)
    ├── OutputError          a result cannot be written                (the operator; exit code 2)
    ├── MissingPackageError  an optional package is not installed     (the operator; exit code 2)
    ├── RequestError         the request is invalid
    │   ├── ParameterError       an unknown or invalid parameter
    │   │   └── ResumeError          the stream to resume does not exist
    │   ├── FrameError           a message of the wrong type
    │   ├── AudioError           audio that cannot be decoded
    │   └── TooBigError          a message above the size limit
    ├── AccessError          the API key is missing or unknown
    │   ├── OriginError          a web page that may not connect
    │   └── HostError            a Host header that is not one of the server's
    ├── LimitError           a limit of the service was reached
    │   ├── IdleError            no message for too long
    │   ├── SessionTooLongError  the session's longest duration
    │   ├── QuotaError           a limit of the API key
    │   └── SlowReaderError      the client does not read its messages
    ├── CapacityError        all slots are in use; try again later
    ├── RestartingError      the server is shutting down; reconnect
    ├── EngineError          the engine failed                        (internal)
    └── ServerError          an error that a server reported to the client SDK

Each message is one sentence that says what was wrong and what is expected. `code` identifies the error on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import takewhile
from typing import ClassVar, Final

SIMILARITY: Final = 0.7
"""Ratio of `difflib` from which a word is taken for a misspelt one; that of gpu and cpu is 0.67."""


class TympanError(Exception):
    """The base class; `str(error)` may be shown to whatever caused it."""

    code: ClassVar[str] = "internal"


class ConfigError(TympanError):
    """A setting or an option is unknown or invalid."""

    code = "config"


class ModelError(TympanError):
    """A model cannot be found, downloaded or loaded."""

    code = "model"


class OutputError(TympanError):
    """A result cannot be written."""

    code = "output"


class MissingPackageError(TympanError):
    """An optional package is not installed."""

    code = "missing_package"


class RequestError(TympanError):
    """The request is invalid."""

    code = "bad_request"


class ParameterError(RequestError):
    """A parameter is unknown or invalid."""

    code = "bad_parameter"


class ResumeError(ParameterError):
    """The stream to resume does not exist, or no longer has the messages that are missing."""

    code = "cannot_resume"


class FrameError(RequestError):
    """A message is of the wrong type, or not a command."""

    code = "bad_frame"


class AudioError(RequestError):
    """The audio cannot be read or decoded."""

    code = "bad_audio"


class TooBigError(RequestError):
    """A message or file is above the size limit."""

    code = "too_big"


class AccessError(TympanError):
    """The API key is missing, unknown or removed."""

    code = "unauthorized"


class OriginError(AccessError):
    """The web page is of an origin that may not connect."""

    code = "origin"


class HostError(AccessError):
    """The Host header is not one of the server's."""

    code = "host"


class LimitError(TympanError):
    """A limit of the service was reached."""

    code = "limit"


class IdleError(LimitError):
    """There was no message, or no audio, for too long."""

    code = "idle"


class SessionTooLongError(LimitError):
    """The session has reached its longest duration."""

    code = "session_too_long"


class QuotaError(LimitError):
    """A limit of the API key; `retry_after_seconds` is when it allows more."""

    code = "quota"

    def __init__(self, message: str, retry_after_seconds: int = 60) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SlowReaderError(LimitError):
    """The client does not read its messages."""

    code = "slow_reader"


class CapacityError(TympanError):
    """All slots are in use; `retry_after_seconds` is an estimate of when one may be free."""

    code = "full"

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RestartingError(TympanError):
    """The server is shutting down; the client should reconnect."""

    code = "restarting"


class EngineError(TympanError):
    """The engine failed."""

    code = "engine"


class ServerError(TympanError):
    """Raised by the client SDK: the server has refused or ended the stream.

    Attributes:
        reason: The server's error code.
        close_code: The close code of the WebSocket, if it was open.
    """

    code = "server"

    def __init__(self, message: str, reason: str, close_code: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.close_code = close_code


def missing_package(what: str, package: str | None, extra: str) -> MissingPackageError:
    """Return the error for a package that an optional feature needs.

    Args:
        what: The feature, as the subject of the sentence.
        package: The package that cannot be imported.
        extra: The extra of Tympan's distribution that contains it.
    """
    return MissingPackageError(f"{what} needs the package {package}: run {install_command(extra)}")


def install_command(extra: str) -> str:
    """Return the command that installs an extra, from a clone of the repository."""
    return f"pip install -e '.[{extra}]' in the clone of Tympan"


def closest(word: str, choices: Iterable[str], kind: str = "") -> str:
    """Return "; did you mean X?" for the choice that is most similar to a misspelt word.

    Args:
        word: The misspelt word.
        choices: The words that are valid.
        kind: What the choices are, in the plural; without a similar one, all of them are listed. Empty: an empty text
            is returned.
    """
    words = [word, *choices]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False))
    start = sum(1 for _ in same)  # a common beginning says nothing about similarity: TYMPAN_, or the dashes of options
    by_lower = {choice[start:].lower(): choice for choice in words[1:]}
    if found := get_close_matches(word[start:].lower(), by_lower, n=1, cutoff=SIMILARITY):
        return f"; did you mean {by_lower[found[0]]}?"
    return f"; the {kind} are: {', '.join(by_lower.values())}" if kind else ""
