"""A limit for bytes that many clients together keep in memory or on disk."""

from __future__ import annotations

from tympan.errors import CapacityError


class ByteBudget:
    """Counts the bytes that wait in one process. All calls are made on one thread.

    Args:
        most_bytes: The limit.

    Attributes:
        most_bytes: The limit.
        used: Bytes taken and not released.
    """

    def __init__(self, most_bytes: int) -> None:
        self.used = 0
        self.most_bytes = most_bytes

    def take(self, count: int) -> None:
        """Take bytes, which must be released.

        Raises:
            CapacityError: They would exceed the limit; none is taken.
        """
        if self.used + count > self.most_bytes:
            raise CapacityError("the server holds as much incomplete audio as it may; try again later")
        self.used += count

    def release(self, count: int) -> None:
        """Return bytes that were taken."""
        self.used -= count
