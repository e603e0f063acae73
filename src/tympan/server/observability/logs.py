"""Log formats: lines for people, or one JSON object per line for machines.

Lines about a session carry its id, which clients receive too. No line contains audio, text, keys or addresses.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from tympan.config import ServerSettings
from tympan.server.observability.stderr_writer import stderr_handler

TEXT_FORMAT = "%(asctime)s %(levelname)-7s {process}%(name)s: %(message)s"

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: `time` (RFC 3339, UTC), `level`, `logger`, `message`, extra fields, `exception`.

    Args:
        process: The value of the field `process`, which is left out if it is empty.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": time.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()),
            **self._process,
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
        if record.exc_info:
            fields["exception"] = _encodable(self.formatException(record.exc_info))
        return msgspec.json.encode(fields, enc_hook=str).decode()


def log_config(settings: ServerSettings, process: str = "") -> dict[str, Any]:
    """Return the `logging.config` dictionary: Tympan's lines from its level on, other packages' warnings; to stderr.

    Args:
        settings: The level and the format.
        process: Name of a child process, which its lines contain.
    """
    text = TEXT_FORMAT.format(process=f"[{process}] " if process else "")
    named = {"process": process} if process else {}
    formatter = {"()": JsonFormatter, **named} if settings.log_format == "json" else {"format": text}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"chosen": formatter},
        "handlers": {"stderr": {"()": stderr_handler, "formatter": "chosen"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"tympan": {"level": settings.log_level.upper()}},
    }


def _encodable(text: str) -> str:
    """Escape lone surrogates, which names that clients choose may contain and UTF-8 does not allow."""
    return text.encode(errors="backslashreplace").decode()
