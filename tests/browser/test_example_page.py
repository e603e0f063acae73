"""The page in `examples/browser/`, in Chromium, with a real server of another origin."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.browser import Server, Visit, running

from tympan.engine.scripted import scripted_words

pytestmark = pytest.mark.browser

FOLDER = Path(__file__).parents[2] / "examples" / "browser"
PAGE = "index.html"
SCRIPT = [word.text for word in scripted_words(2_000)]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Do nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """A web server with the page, on localhost."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(FOLDER))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/{PAGE}"
        server.shutdown()
        thread.join()


@pytest.fixture
def allowing(tmp_path: Path) -> Iterator[Server]:
    """The scripted engine, for pages of this machine."""
    yield from running(tmp_path / "server.log", "--model", "scripted:1", "--allowed-origin", "localhost")


def test_page_of_another_origin(site: str, allowing: Server, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{site}?server=ws://127.0.0.1:{allowing.port}")
    page.click("#start")
    page.wait_for_function("document.getElementById('words').textContent.split(' ').length > 3")
    page.click("#stop")
    page.wait_for_function("document.title === 'Complete'")
    assert page.is_enabled("#start")
    words = (page.text_content("#words") or "").split()
    assert words == SCRIPT[: len(words)]
