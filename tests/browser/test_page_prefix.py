"""The page under a path prefix: its scripts, the state of the server, a recording, and the microphone's module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.browser import Server, Visit, running

pytestmark = pytest.mark.browser


@pytest.fixture
def prefixed(tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path / "server.log", "--model", "scripted", "--root-path", "/stt")


def test_page_under_a_prefix(prefixed: Server, visit: Visit, silence: Path) -> None:
    page = visit.page
    page.goto(f"{prefixed.url.rstrip('/')}/stt")
    assert page.url.endswith("/stt/")
    expect(page.locator("#model")).to_have_attribute("data-state", "ok")
    page.set_input_files("#file", silence)
    expect(page.locator("#transcript")).to_contain_text("word29")
    page.get_by_role("button", name="Clear").click()
    page.locator("#record").click()
    expect(page.locator("#transcript")).to_contain_text("word0")
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_attribute("data-state", "idle")
