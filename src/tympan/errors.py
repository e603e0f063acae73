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

from typing import ClassVar


class TympanError(Exception):
    """The base class; `str(error)` may be shown to whatever caused it."""

    code: ClassVar[str] = "internal"


class ConfigError(TympanError):
    code = "config"


class ModelError(TympanError):
    code = "model"


class OutputError(TympanError):
    code = "output"


class MissingPackageError(TympanError):
    code = "missing_package"


class RequestError(TympanError):
    code = "bad_request"


class ParameterError(RequestError):
    code = "bad_parameter"


class ResumeError(ParameterError):
    code = "cannot_resume"


class FrameError(RequestError):
    code = "bad_frame"


class AudioError(RequestError):
    code = "bad_audio"


class TooBigError(RequestError):
    code = "too_big"


class AccessError(TympanError):
    code = "unauthorized"


class OriginError(AccessError):
    code = "origin"


class HostError(AccessError):
    code = "host"


class LimitError(TympanError):
    code = "limit"


class IdleError(LimitError):
    code = "idle"


class SessionTooLongError(LimitError):
    code = "session_too_long"


class QuotaError(LimitError):
    """A limit of the API key; `retry_after_seconds` is when it allows more."""

    code = "quota"

    def __init__(self, message: str, retry_after_seconds: int = 60) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SlowReaderError(LimitError):
    code = "slow_reader"


class CapacityError(TympanError):
    """All slots are in use; `retry_after_seconds` is an estimate of when one may be free."""

    code = "full"

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RestartingError(TympanError):
    code = "restarting"


class EngineError(TympanError):
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
