"""While the model loads, a browser sees the stage, and then the page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from playwright.sync_api import expect
from support.accessibility import AXE, violations
from support.browser import Visit
from support.server import LiveServer

from tympan.config import ServerSettings
from tympan.engine.base import Engine
from tympan.server.listen.listener import listen
from tympan.server.listen.startup import StartupServer

pytestmark = pytest.mark.browser


@dataclass
class Loading:
    """A server whose engine is loading, in a thread."""

    port: int = 0
    stage: str = "reading <weights>"
    _started: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        assert self._started.wait(10)

    async def _serve(self) -> None:
        settings = ServerSettings(host="127.0.0.1", port=0)
        with listen(settings) as listener:
            self.port = listener.getsockname()[1]
            async with StartupServer(listener, settings, cast(Engine, self)):
                self._started.set()
                await self._done.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join()
            self._loop.close()


@pytest.fixture
def loading() -> Iterator[Loading]:
    server = Loading()
    yield server
    server.stop()


def test_starting_page_shows_the_stage_and_becomes_the_page(loading: Loading, visit: Visit) -> None:
    page = visit.page
    visit.expected = "503|ERR_"
    page.goto(f"http://127.0.0.1:{loading.port}/")
    expect(page.get_by_role("heading")).to_have_text("Tympan is starting")
    expect(page.get_by_role("status")).to_have_text("the engine is starting: reading <weights>")
    loading.stage = "recording graphs"
    expect(page.get_by_role("status")).to_have_text("the engine is starting: recording graphs", timeout=30_000)
    if AXE.exists():
        assert violations(page) == []
    loading.stop()
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": loading.port}
    with LiveServer(**settings):
        expect(page.locator("#record")).to_be_visible(timeout=30_000)
        expect(page.locator("#model")).to_have_attribute("data-state", "ok")
        page.goto("about:blank")
