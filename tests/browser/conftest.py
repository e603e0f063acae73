"""Servers, a Chromium whose microphone plays real speech, and a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright
from support.browser import Server, Visit, running, write_speech, write_wav

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds: hello world, the numbers from one to ten, and the quick brown fox, with pauses."""
    path = tmp_path_factory.mktemp("speech") / "numbers and a fox.wav"
    return write_speech(path, ["hello_world", "counting", "quick_brown_fox"])


@pytest.fixture
def silence(tmp_path: Path) -> Path:
    """Eighteen seconds of silence, for which the scripted engine has thirty words."""
    return write_wav(tmp_path / "silence.wav", np.zeros(18 * 8000, np.int16), 8000)


@pytest.fixture
def minute(tmp_path: Path) -> Path:
    """A minute of silence, with a hundred words of the scripted engine; more data than socket buffers hold."""
    return write_wav(tmp_path / "minute.wav", np.zeros(60 * 24_000, np.int16), 24_000)


# --- Servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(
        tmp_path_factory.mktemp("embedded") / "server.log", "--model", "embedded", "--allowed-host", "tympan.test"
    )


@pytest.fixture
def one_stream(tmp_path: Path) -> Iterator[Server]:
    """The scripted engine with a single slot."""
    yield from running(tmp_path / "server.log", "--model", "scripted", "--max-streams", "1")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The scripted engine with four slots."""
    log = tmp_path_factory.mktemp("roomy") / "server.log"
    yield from running(log, "--model", "scripted", "--max-streams", "4")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    """The scripted engine, eight times faster than speech."""
    yield from running(tmp_path / "server.log", "--model", "scripted:10")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Server]:
    """The scripted engine with the key `open+sesame`."""
    yield from running(tmp_path / "server.log", "--model", "scripted", "--api-key", "open+sesame")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium")
    if path is not None:
        return path
    reason = "Chromium is not installed (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: str, speech: Path) -> Iterator[Browser]:
    """A browser whose microphone plays `speech` once, and whose user allows its use."""
    heard = f"--use-file-for-fake-audio-capture={speech}%noloop"
    allowed = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", heard)
    # The name stands for another machine: its page is served neither over HTTPS nor from localhost.
    remote = "--host-resolver-rules=MAP tympan.test 127.0.0.1"
    opened = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, *allowed, remote])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def refusing_browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    """A browser with a microphone whose user refuses its use."""
    refused = ("--use-fake-device-for-media-stream", "--deny-permission-prompts")
    opened = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, *refused])
    yield opened
    opened.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    yield opened
    opened.close()


@pytest.fixture
def visit(context: BrowserContext) -> Iterator[Visit]:
    visit = Visit(context.new_page())
    yield visit
    visit.check()
