"""When a failed engine is started again, and when only a new process can help."""

from __future__ import annotations

RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # delays before the first, second, … restart in a row
MAX_RESTARTS = 5  # in a row; after another failure the process has to end
GOOD_RUN_SECONDS = 300.0  # a failure after a longer run than this counts as the first in a row


class RestartPolicy:
    """Counts the failures of one engine in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def next_delay(self, run_seconds: float) -> float | None:
        """Return the seconds to wait before the next restart, or None if the engine has failed too often.

        Args:
            run_seconds: How long the engine had run before it failed; 0 if it did not start.
        """
        if run_seconds > GOOD_RUN_SECONDS:
            self._failures = 0
        self._failures += 1
        if self._failures > MAX_RESTARTS:
            return None
        return RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS)) - 1]
