"""Everything on the page works by keyboard, and axe-core finds no violation; French browsers get French texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.accessibility import AXE, violations
from support.browser import Server, Visit

from tympan.server.routes.page import STATIC

pytestmark = pytest.mark.browser


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: run npm ci in tests/browser/node")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(locked: Server, visit: Visit, scheme: str, silence: Path) -> None:
    page = visit.page
    visit.expected = "status of 401"
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    page.goto(locked.url)
    expect(page.locator("#key-form")).to_be_visible()
    page.get_by_text("Audio and video files").click()
    assert violations(page) == []
    page.get_by_label("This server requires an API key").fill("open+sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#key-form")).to_be_hidden()
    page.set_input_files("#file", silence)
    expect(page.locator(".playable .word").nth(29)).to_be_visible()
    page.locator(".word").first.click()
    expect(page.locator(".word.playing")).to_have_count(1)
    assert violations(page) == []
    page.set_input_files("#file", {"name": "letter.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"})
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Use it from code").click()
    assert violations(page) == []
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Open a call with two speakers").click()
    expect(page.locator(".playable .channel-2").first).to_be_visible()
    assert violations(page) == []
    page.locator("#record").click()
    expect(page.locator(".partial").first).to_be_visible()
    assert violations(page) == []
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_attribute("data-state", "idle")


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.className || 'none'"))


def test_keyboard(roomy: Server, visit: Visit) -> None:
    page = visit.page
    page.goto(roomy.url)
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == ["code-open", "none", "sample", "sample-call", "record", "file"]  # the second is the list of files
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator(".word").nth(5)).to_be_visible()
    expect(page.locator("#record")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Continue")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#record")).to_have_attribute("data-state", "idle")
    expect(page.locator("#record")).to_be_focused()

    page.keyboard.press("Shift+Tab")
    expect(page.locator(".word").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".word").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".word.playing")).to_have_text(re.compile("word[1-4]"))
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    expect(page.locator(".word").last).to_be_focused()
    for expected in ("clear", "play", "tool"):
        page.keyboard.press("Shift+Tab")
        assert focused(page) == expected


def test_keyboard_in_the_code_sheet(roomy: Server, visit: Visit) -> None:
    page = visit.page
    page.goto(roomy.url)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#code")).to_be_visible()
    expect(page.locator("#code-close")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="WebSocket")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="curl")).to_be_focused()
    expect(page.locator("#code-text")).to_contain_text("curl http")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#code-copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code-text").inner_text()
    page.keyboard.press("Escape")
    expect(page.locator("#code")).to_be_hidden()
    expect(page.locator("#code-open")).to_be_focused()


@pytest.fixture
def french(browser: Browser) -> Iterator[Visit]:
    context = browser.new_context(locale="fr-CH", accept_downloads=True)
    visit = Visit(context.new_page())
    yield visit
    visit.check()
    context.close()


def test_french_browser(roomy: Server, french: Visit, silence: Path) -> None:
    page = french.page
    page.goto(roomy.url)
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    expect(page.get_by_role("heading", level=2)).to_have_text("Parlez, et lisez.")
    page.set_input_files("#file", {"name": "lettre.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"})
    expect(page.get_by_role("alert")).to_contain_text("« lettre.pdf » n’est pas un enregistrement lisible")
    page.set_input_files("#file", silence)
    expect(page.locator(".word").nth(29)).to_be_visible()
    shown = page.locator("body").inner_text()
    english = {"Copy", "Download", "Clear", "Play", "Start microphone", "Open file", "heard", "Use it from code"}
    assert not [text for text in english if re.search(rf"\b{text}\b", shown)]


def test_every_text_has_both_languages(roomy: Server, visit: Visit) -> None:
    visit.page.goto(roomy.url)
    english, french = visit.page.evaluate(
        """async () => {
            const both = ["en", "fr"].map((language) => import(`/static/texts/${language}.js`));
            return (await Promise.all(both)).map((module) => module.default);
        }"""
    )
    by_code = ("error.", "microphone.", "warning.")
    assert english.keys() - french.keys() == set()
    assert {name for name in french.keys() - english.keys() if not name.startswith(by_code)} == set()
    for name in english:
        assert set(re.findall(r"\{\w+\}", english[name])) == set(re.findall(r"\{\w+\}", french[name])), name
    html = (STATIC / "index.html").read_text()
    named = re.findall(r'data-t="([\w.]+)"[^>]*>([^<]*)<', html)
    assert len(named) > 20
    assert [(name, text) for name, text in named if english[name] != text] == []
    scripts = "".join(path.read_text() for path in STATIC.glob("**/*.js"))
    assert (
        set(re.findall(r'\bt\("([\w.]+)"', scripts)) | set(re.findall(r'data-t-\w+="([\w.]+)"', html)) <= english.keys()
    )
