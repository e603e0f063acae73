"""Log lines about refused clients: the first one of a kind in full, then one count a minute."""

from __future__ import annotations

import logging

from tympan.errors import TympanError

logger = logging.getLogger(__name__)

REPORT_SECONDS = 60.0


class RefusalLog:
    """Logs refusals by kind, which is a protocol and an error; a client that repeats a request cannot flood the log."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._reported_at: float | None = None

    def add(self, protocol: str, path: str, error: TympanError) -> None:
        """Log a refusal, or count it if one of its kind was logged or counted since the last report."""
        kind = protocol, error.code
        if kind in self._counts:
            self._counts[kind] += 1
            return
        self._counts[kind] = 0
        fields = {"protocol": protocol, "path": path, "error": error.code}
        logger.info("refused %s: %s", path, error, extra=fields)

    def check(self, now: float) -> None:
        """Report once a minute; `now` is the event loop's time."""
        if self._reported_at is None:
            self._reported_at = now
        elif now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            self.report()

    def report(self) -> None:
        """Log the counts since the last report; the next refusal of a kind without any is logged in full."""
        for (protocol, code), count in self._counts.items():
            if count:
                fields = {"protocol": protocol, "error": code, "count": count}
                logger.info("refused %d more clients of %s: %s", count, protocol, code, extra=fields)
        self._counts = {kind: 0 for kind, count in self._counts.items() if count}
