"""Every error that somebody else can cause, as one tree.

    TympanError
    ├── ConfigError          a setting is unknown or wrong            (the operator; exit code 2)
    ├── ModelError           a model cannot be found or loaded        (the operator; exit code 2)
    ├── MissingPackageError  an optional package is not installed     (the operator; exit code 2)
    ├── RequestError         the peer asked for something that cannot be
    │   ├── ParameterError       an unknown or impossible parameter
    │   │   └── ResumeError          the stream to go on with is not here, or not any more
    │   ├── FrameError           a message of the wrong kind
    │   ├── AudioError           audio that cannot be decoded
    │   └── TooBigError          a message above the size limit
    ├── AccessError          no key, or one that is not known
    │   └── OriginError          a web page that may not connect
    ├── LimitError           a limit of the service was reached
    │   ├── IdleError            no message for too long
    │   ├── SessionTooLongError  the session's longest duration
    │   ├── QuotaError           what one key may use
    │   └── SlowReaderError      the peer does not read what is sent
    ├── CapacityError        every slot is taken; try again later
    ├── RestartingError      the server is shutting down; reconnect
    ├── EngineError          the recognizer broke                     (our fault)
    └── ServerError          what a server told the client SDK went wrong

Each carries one sentence that says what was wrong and, where it can, what would be right. `code` is its stable name
on the wire.
"""

from __future__ import annotations

from typing import ClassVar


class TympanError(Exception):
    """The root: `str(error)` is one sentence fit for the person who caused it."""

    code: ClassVar[str] = "internal"


class ConfigError(TympanError):
    code = "config"


class ModelError(TympanError):
    code = "model"


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


class LimitError(TympanError):
    code = "limit"


class IdleError(LimitError):
    code = "idle"


class SessionTooLongError(LimitError):
    code = "session_too_long"


class QuotaError(LimitError):
    """`retry_after_seconds`: when the key may use more of it."""

    code = "quota"

    def __init__(self, message: str, retry_after_seconds: int = 60) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SlowReaderError(LimitError):
    code = "slow_reader"


class CapacityError(TympanError):
    """`retry_after_seconds` is the server's guess of when a slot may be free."""

    code = "full"

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RestartingError(TympanError):
    code = "restarting"


class EngineError(TympanError):
    code = "engine"


class ServerError(TympanError):
    """Raised by the client SDK: the server refused or ended the stream. `reason` is the server's error code,
    `close_code` the socket's.
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
