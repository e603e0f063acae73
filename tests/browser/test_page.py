"""The page in a real browser with a real server."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect
from support.browser import Server, Visit, network
from support.speech import clip, word_error_rate
from websockets.sync.client import connect

from tympan.engine.scripted import scripted_words
from tympan.transcript.subtitles import to_srt, to_vtt
from tympan.transcript.transcript import Transcript, to_text

pytestmark = pytest.mark.browser

TIMEOUT_MILLISECONDS = 30_000
NINE, DOG = (re.compile(word, re.IGNORECASE) for word in ("nine", "dog"))
SPOKEN = " ".join(clip(name).text for name in ("hello_world", "counting", "quick_brown_fox"))

NOTE_FIRST_WORDS = """
    addEventListener("DOMContentLoaded", () => {
        const note = () => (window.firstWordsAt ??= document.getElementById("elapsed").textContent);
        new MutationObserver(note).observe(document.getElementById("transcript"), { childList: true });
    });
"""

expect.set_options(timeout=TIMEOUT_MILLISECONDS)


def record_button(page: Page) -> Locator:
    return page.locator("#record")


def start(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#model")).to_have_attribute("data-state", "ok")
    record_button(page).click()


def stop(page: Page) -> None:
    record_button(page).click()
    idle(page)


def idle(page: Page) -> None:
    expect(record_button(page)).to_have_attribute("data-state", "idle")


def words(page: Page) -> list[str]:
    return page.locator(".word").all_inner_texts()


def downloaded(page: Page, kind: str) -> tuple[str, str]:
    """Return the name and the text of a download."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {kind}").click()
    return download.value.suggested_filename, download.value.path().read_text(encoding="utf-8")


def drop(page: Page, name: str, kind: str, data: bytes) -> None:
    """Drop a file on the page."""
    page.evaluate(
        """([name, type, base64]) => {
            const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            for (const event of ["dragenter", "dragover", "drop"]) {
                const options = { dataTransfer, bubbles: true, cancelable: true };
                document.querySelector("main").dispatchEvent(new DragEvent(event, options));
            }
        }""",
        [name, kind, base64.b64encode(data).decode()],
    )


def spoken(document: dict[str, Any]) -> list[str]:
    return [word["text"] for word in document["words"]]


def in_time_order(document: dict[str, Any]) -> bool:
    times = [time for word in document["words"] for time in (word["start"], word["end"])]
    return times == sorted(times) and all(0 <= word["confidence"] <= 1 for word in document["words"])


def test_microphone(embedded: Server, visit: Visit) -> None:
    page = visit.page
    page.add_init_script(NOTE_FIRST_WORDS)
    start(page, embedded.url)
    expect(page.locator("#model-text")).to_contain_text("embedded")
    expect(page.locator("#notice")).not_to_be_empty()
    expect(page.locator(".word, .partial").first).to_be_visible()
    expect(record_button(page)).to_have_text("Stop")
    expect(page.locator("#transcript")).to_contain_text(NINE)
    expect(page.locator("#transcript")).to_contain_text(DOG)
    stop(page)

    assert page.evaluate("window.firstWordsAt") in {f"0:0{second}" for second in range(7)}
    assert page.locator(".partial").count() == 0
    said = words(page)
    assert word_error_rate(SPOKEN, " ".join(said)) <= 0.1, said
    expect(page.locator("#words")).to_have_text(str(len(said)))
    expect(page.locator("#spoken")).not_to_be_empty()

    name, text = downloaded(page, "json")
    assert name == "transcript.json"
    document = json.loads(text)
    assert (document["file"], document["model"]) == ("microphone", "embedded")
    assert document["duration"] >= document["segments"][-1]["end"] > 4
    assert in_time_order(document)
    assert spoken(document) == document["text"].split() == said

    # What the command line writes for the same words.
    transcript = msgspec.json.decode(text, type=Transcript)
    assert downloaded(page, "srt") == ("transcript.srt", to_srt(transcript))
    assert downloaded(page, "vtt") == ("transcript.vtt", to_vtt(transcript))
    assert downloaded(page, "txt") == ("transcript.txt", to_text(transcript))
    assert to_srt(transcript).startswith("1\n00:00:0")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").split() == said


def test_dropped_file(embedded: Server, visit: Visit, speech: Path) -> None:
    page = visit.page
    page.goto(embedded.url)
    drop(page, speech.name, "audio/wav", speech.read_bytes())
    expect(page.locator("#transcript")).to_contain_text(DOG)
    idle(page)
    assert word_error_rate(SPOKEN, " ".join(words(page))) <= 0.1
    expect(page.locator("#elapsed")).to_have_text("0:10")
    name, text = downloaded(page, "json")
    assert name == "numbers and a fox.json"
    assert in_time_order(json.loads(text))


def test_transcript_survives_bad_file_and_clear(embedded: Server, visit: Visit, speech: Path) -> None:
    page = visit.page
    page.goto(embedded.url)
    page.set_input_files("#file", speech)
    expect(page.locator("#transcript")).to_contain_text(DOG)
    idle(page)
    said = words(page)
    drop(page, "letter.pdf", "application/pdf", b"%PDF-1.7")
    expect(page.locator("#message")).to_contain_text("“letter.pdf” cannot be read as a recording")
    page.set_input_files("#file", {"name": "noise.ogg", "mimeType": "audio/ogg", "buffer": bytes(range(256)) * 64})
    expect(page.locator("#message")).to_contain_text("“noise.ogg” cannot be read as a recording")
    idle(page)
    assert words(page) == said
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#welcome")).to_be_visible()
    assert words(page) == []
    page.get_by_role("button", name="Bring it back").click()
    assert words(page) == said


def test_microphone_refused(embedded: Server, refusing_browser: Browser) -> None:
    visit = Visit(refusing_browser.new_page())
    start(visit.page, embedded.url)
    expect(visit.page.get_by_role("alert")).to_contain_text("Access to the microphone was denied")
    idle(visit.page)
    visit.check()
    visit.page.close()


def test_insecure_page(embedded: Server, visit: Visit) -> None:
    page = visit.page
    start(page, f"http://tympan.test:{embedded.port}/")
    expect(page.get_by_role("alert")).to_contain_text("only on https:// pages and on localhost")
    idle(page)


def test_full_server_and_retry(one_stream: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed"
    with connect(f"ws://127.0.0.1:{one_stream.port}/v1/stream?events=ready") as other:
        assert json.loads(other.recv())["type"] == "ready"
        start(page, one_stream.url)
        expect(page.get_by_role("alert")).to_contain_text("The server is full: its only stream is in use")
        idle(page)
        other.send("EOS")
        assert json.loads(other.recv())["type"] == "complete"
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".word").first).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()
    stop(page)


def test_reconnects_after_restart(one_stream: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|ERR_CONNECTION_REFUSED|503"
    start(page, one_stream.url)
    expect(page.locator("#transcript")).to_contain_text("word2")
    expect(page.locator(".partial")).to_be_visible()  # the server stops within a word
    one_stream.stop()
    expect(page.get_by_role("alert")).to_contain_text("Reconnecting")
    before = words(page)
    one_stream.start()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator(".word").nth(len(before))).to_have_text("word0")
    expect(page.locator("#words")).not_to_have_text(str(len(before)))
    stop(page)
    assert words(page)[: len(before)] == before
    document = json.loads(downloaded(page, "json")[1])
    assert in_time_order(document)
    assert spoken(document) == words(page)
    lengths = [word["end"] - word["start"] for word in document["words"][:-1]]
    assert min(lengths) == pytest.approx(max(lengths), abs=0.001), "a word was cut in two"


def test_word_cut_by_final_restart_is_kept(one_stream: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|ERR_CONNECTION_REFUSED|503"
    start(page, one_stream.url)
    expect(page.locator("#transcript")).to_contain_text("word2")
    expect(page.locator(".partial")).to_be_visible()
    one_stream.stop()
    expect(page.get_by_role("alert")).to_contain_text("Reconnecting")
    before = words(page)
    stop(page)
    said = words(page)
    assert said == [f"word{number}" for number in range(len(said))]
    assert len(said) > len(before), "includes the words that were being sent"


@pytest.mark.long
def test_file_continues_after_restart(slow: Server, visit: Visit, minute: Path) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|ERR_CONNECTION_REFUSED|503"
    page.goto(slow.url)
    page.set_input_files("#file", minute)
    expect(page.locator("#transcript")).to_contain_text("word4")
    slow.stop()
    expect(page.get_by_role("alert")).to_contain_text("Reconnecting")
    assert len(words(page)) < 98
    slow.start()
    expect(page.locator("#transcript")).to_contain_text("word99", timeout=30_000)
    idle(page)
    assert words(page) == [f"word{n}" for n in range(100)]
    assert in_time_order(json.loads(downloaded(page, "json")[1]))


def test_lost_connection_loses_no_word(one_stream: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|ERR_|503"
    with network(one_stream) as line:
        start(page, line.url)
        for seen in ("word2", "word4"):
            expect(page.locator("#transcript")).to_contain_text(seen)
            line.cut()
            expect(page.get_by_role("alert")).to_contain_text("Reconnecting")
            expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator("#transcript")).to_contain_text("word6")
        line.cut()
        stop(page)  # while the server is away
        said = words(page)
        assert said == [f"word{n}" for n in range(len(said))]
        document = json.loads(downloaded(page, "json")[1])
    assert in_time_order(document)
    frames = math.ceil(document["duration"] / 0.08 - 1e-6)  # the last frame is padded
    assert len(said) == len(scripted_words(frames)), "includes the last words"


def test_lost_connection_resumes_file(slow: Server, visit: Visit, silence: Path) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|ERR_|503"
    with network(slow) as line:
        page.goto(line.url)
        page.set_input_files("#file", silence)
        for seen in ("word3", "word19"):
            expect(page.locator("#transcript")).to_contain_text(seen)
            line.cut()
        expect(page.locator("#transcript")).to_contain_text("word29")
        idle(page)
        assert words(page) == [f"word{n}" for n in range(30)]
        metrics = page.request.get(line.url + "metrics").text()
    assert "tympan_resumed_total 2.0" in metrics
    assert 'tympan_sessions_total{code="1000",protocol="native"} 1.0' in metrics


def test_key_from_form_or_address(locked: Server, visit: Visit) -> None:
    page = visit.page
    visit.expected = "WebSocket connection to .* failed|status of 401"
    start(page, locked.url)
    page.get_by_label("This server requires an API key").fill("abracadabra")
    page.get_by_role("button", name="Use it", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("rejected this key")
    page.get_by_label("This server requires an API key").fill("open+sesame")
    page.keyboard.press("Enter")
    expect(page.locator(".word").first).to_be_visible()
    stop(page)

    page.evaluate("sessionStorage.clear()")
    visit.expected = r"(?!)"
    visit.errors.clear()
    start(page, locked.url + "?token=open%2Bsesame")
    expect(page.locator(".word").first).to_be_visible()
    stop(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "size", [{"width": 360, "height": 640}, {"width": 390, "height": 844}, {"width": 1280, "height": 800}]
)
def test_layout(embedded: Server, visit: Visit, scheme: str, size: ViewportSize, speech: Path) -> None:
    page = visit.page
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    page.set_viewport_size(size)
    page.goto(embedded.url)
    expect(page.locator("#notice")).to_be_visible()
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    drop(page, "letter.pdf", "application/pdf", b"%PDF-1.7")
    expect(page.get_by_role("alert")).to_be_visible()
    for label in ("Start microphone", "Dismiss"):
        expect(page.get_by_role("button", name=label)).to_be_in_viewport()
    assert page.evaluate(overflow) == 0
    brightness = page.evaluate(
        "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number))"
    )
    assert brightness < 60 if scheme == "dark" else brightness > 200
