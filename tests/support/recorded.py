"""A device for recorded steps that needs no GPU."""

from __future__ import annotations

from collections.abc import Callable


class EagerDevice:
    """Runs what it was given at every replay, and notes how it was used."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replayed: list[int] = []

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        rows: int = run.args[0]  # type: ignore[attr-defined]
        self.recorded.append(rows)
        run()

        def replay() -> None:
            self.replayed.append(rows)
            run()

        return replay

    def mark(self) -> Callable[[], None]:
        return lambda: None
