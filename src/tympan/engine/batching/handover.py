"""How the engine thread hands over its runner, or the error that it ended with."""

from __future__ import annotations

import asyncio
import traceback

from tympan.engine.batching.step import Runner


def release_frames(error: BaseException | None) -> None:
    """Free the local variables that an error's traceback keeps alive.

    A log may keep the error for long, but the memory of the code that raised it is needed by the next runner, or by the
    thread that is to end the process.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def resolve(future: asyncio.Future[Runner], runner: Runner | None, error: Exception | None) -> None:
    """Set the future's exception, or else its result, unless it was cancelled."""
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        assert runner is not None
        future.set_result(runner)
