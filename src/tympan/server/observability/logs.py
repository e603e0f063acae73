"""How a server's log looks: lines for people, or one JSON object a line for machines.

A line about a session carries its id, which clients get too. Audio, text, keys and addresses are in no line.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from tympan.config import ServerSettings

TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, message; what a call gives as `extra`; `exception` with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": time.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _sound(record.getMessage()),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            fields["exception"] = _sound(self.formatException(record.exc_info))
        return msgspec.json.encode(fields, enc_hook=str).decode()


def log_config(settings: ServerSettings) -> dict[str, Any]:
    """For `logging.config`: Tympan from its level on, everybody else's warnings, all on stderr."""
    formatter = {"()": JsonFormatter} if settings.log_format == "json" else {"format": TEXT_FORMAT}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"chosen": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "chosen"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"tympan": {"level": settings.log_level.upper()}},
    }


def _sound(text: str) -> str:
    """A name that a client made up may hold half of a surrogate pair, which UTF-8 does not."""
    return text.encode(errors="backslashreplace").decode()
