"""The event loop of server processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if it is installed (there is none for Windows), else None."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
