"""What the page offers: a sample, listening to words, pauses, reloads, the channels of a call, the server's state."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from support.browser import Server, Visit, write_wav

from tympan.audio.containers.sniff import KNOWN
from tympan.server.routes.page import STATIC

pytestmark = pytest.mark.browser

TIMEOUT_MILLISECONDS = 30_000
COUNT_MICROPHONES = """
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.microphones = 0;
    navigator.mediaDevices.getUserMedia = (constraints) => (window.microphones++, open(constraints));
"""

expect.set_options(timeout=TIMEOUT_MILLISECONDS)


def idle(page: Page) -> None:
    expect(page.locator("#record")).to_have_attribute("data-state", "idle")


def words(page: Page) -> list[str]:
    return page.locator(".word").all_inner_texts()


@pytest.fixture
def short_sample(visit: Visit, tmp_path: Path) -> None:
    """Replace the sample by one of five seconds."""
    tone = (8000 * np.sin(np.arange(5 * 24_000) / 20)).astype(np.int16)
    body = write_wav(tmp_path / "short.wav", tone, 24_000).read_bytes()
    visit.page.route("**/sample.mp3", lambda route: route.fulfill(body=body, content_type="audio/wav"))


@pytest.mark.usefixtures("short_sample")
def test_sample_is_played_and_words_can_be_listened_to(roomy: Server, visit: Visit) -> None:
    page = visit.page
    page.goto(roomy.url)
    page.get_by_role("button", name="Play a sample").click()
    expect(page.locator(".word").nth(1)).to_be_visible()
    expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+\.\d s$"))
    expect(page.locator("#level")).not_to_have_attribute("aria-valuenow", "0")
    idle(page)  # at its end
    expect(page.locator("#level")).to_have_attribute("aria-valuenow", "0")
    expect(page.locator("#elapsed")).to_have_text(re.compile("0:0[45]"))
    said = words(page)
    assert said == [f"word{number}" for number in range(len(said))]
    assert len(said) >= 7

    page.locator(".word").nth(2).click()
    expect(page.locator(".word.playing")).to_have_text(re.compile("word[2-4]"))
    expect(page.locator(".word.playing")).to_have_text(re.compile("word[3-7]"))
    page.keyboard.press("Escape")
    expect(page.locator(".word.playing")).to_have_count(0)
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.locator(".word.playing")).to_have_text(re.compile("word[0-3]"))
    page.get_by_role("button", name="Stop playing").click()
    expect(page.locator(".word.playing")).to_have_count(0)


def test_pause_and_reload(roomy: Server, visit: Visit) -> None:
    page = visit.page
    page.goto(roomy.url)
    page.locator("#record").click()
    expect(page.locator(".word").first).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Continue")).to_be_focused()
    expect(page.locator("#level")).to_have_attribute("aria-valuenow", "0")
    elapsed = page.locator("#elapsed").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator("#elapsed").inner_text() == elapsed
    paused_after = len(words(page))
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".word").nth(paused_after + 1)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    idle(page)
    said = words(page)
    assert said == [f"word{number}" for number in range(len(said))], "the pause is in one stream"

    page.reload()
    expect(page.locator(".word")).to_have_text(said)
    assert page.locator(".word[tabindex]").count() == 0, "its audio is lost, so its words cannot be played"
    page.locator("#record").click()
    expect(page.locator(".word").nth(len(said))).to_have_text("word0")
    page.locator("#record").click()
    idle(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download json").click()
    document = json.loads(download.value.path().read_text())
    starts = [word["start"] for word in document["words"]]
    assert starts == sorted(starts), "the microphone continues after the words from before"
    page.get_by_role("button", name="Clear").click()
    page.reload()
    expect(page.locator("#welcome")).to_be_visible()


def test_channels_of_a_call_are_side_by_side(roomy: Server, visit: Visit) -> None:
    page = visit.page
    page.goto(roomy.url)
    page.get_by_role("button", name="Open a call with two speakers").click()
    check_two_columns(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download txt").click()
    lines = download.value.path().read_text().splitlines()
    assert {line[:3] for line in lines} == {"1: ", "2: "}

    page.set_input_files("#file", STATIC / "sample-call.mp3")
    expect(page.get_by_role("alert")).to_contain_text("two channels of this recording differ")
    assert page.locator(".channel-1").count() == 0
    page.get_by_role("button", name="Show them side by side").click()
    check_two_columns(page)
    page.locator(".channel-2 .word").nth(1).click()
    expect(page.locator(".word.playing").first).to_be_visible()


def check_two_columns(page: Page) -> None:
    expect(page.locator(".playable .channel-2").first).to_be_visible()  # at the end
    expect(page.locator("#heads")).to_be_visible()
    left, right = page.locator(".channel-1").first.bounding_box(), page.locator(".channel-2").first.bounding_box()
    assert left
    assert right
    assert left["x"] + left["width"] <= right["x"]
    expected = [f"word{number}" for number in range(page.locator(".channel-1 .word").count())]
    assert len(expected) > 10
    for channel in (1, 2):
        assert page.locator(f".channel-{channel} .word").all_inner_texts() == expected


def test_state_of_a_server_that_is_gone(one_stream: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|ERR_|503"
    page.goto(one_stream.url)
    model = page.locator("#model")
    expect(model).to_have_attribute("data-state", "ok")
    page.locator("#record").click()
    expect(page.locator(".word").first).to_be_visible()
    one_stream.stop()
    expect(model).to_have_attribute("data-state", "gone")
    page.locator("#record").click()
    idle(page)
    expect(page.locator("#level")).to_have_attribute("aria-valuenow", "0")
    expect(model).to_have_attribute("data-state", "gone")
    page.locator("#record").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not respond")
    one_stream.start()
    expect(model).to_have_attribute("data-state", "ok")  # the page looks by itself


def test_key_comes_before_the_microphone(locked: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "status of 401"
    page.add_init_script(COUNT_MICROPHONES)
    page.goto(locked.url)
    field = page.get_by_label("This server requires an API key")
    expect(field).to_be_visible()
    expect(page.locator("#key-hint")).to_contain_text("tympan key")
    page.locator("#record").click()
    expect(field).to_be_focused()
    assert page.evaluate("window.microphones") == 0
    field.fill("open+sesame")
    page.keyboard.press("Enter")
    expect(page.locator(".word").first).to_be_visible()
    assert page.evaluate("window.microphones") == 1
    page.locator("#record").click()
    idle(page)


def test_listed_files_are_those_of_the_server(roomy: Server, visit: Visit) -> None:
    visit.page.goto(roomy.url)
    visit.page.get_by_text("Audio and video files").click()
    expect(visit.page.locator("#formats")).to_have_text(KNOWN)
