"""The examples of the sheet "Use it from code" work as they are printed; those of other packages: tests/clients."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.browser import Server, Visit

pytestmark = pytest.mark.browser

EXAMPLES = ["WebSocket", "Python", "JavaScript", "Deepgram", "OpenAI", "curl"]


def printed(page: Page) -> dict[str, str]:
    """Return the text of each example."""
    page.get_by_role("button", name="Use it from code").click()
    texts = {}
    for name in page.get_by_role("tab").all_inner_texts():
        page.get_by_role("tab", name=name, exact=True).click()
        texts[name] = page.locator("#code-text").inner_text()
    return texts


def output_of(command: list[str], folder: Path) -> str:
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_examples_print_the_transcript(roomy: Server, visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.goto(roomy.url)
    examples = printed(page)
    assert list(examples) == EXAMPLES
    assert all("KEY" not in text for text in examples.values())
    output_of(shlex.split(page.locator("#code-fetch").inner_text()), tmp_path)
    for name in ("WebSocket", "Python"):
        said = output_of([sys.executable, "-c", examples[name]], tmp_path).split()
        assert said == [f"word{number}" for number in range(len(said))], name
        assert len(said) >= 20, name
    assert '"text":"word0 word1' in output_of(shlex.split(examples["curl"]), tmp_path).replace(": ", ":")

    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.evaluate(f"(async () => {{ {examples['JavaScript']} }})()")
    assert logged[-1].split()[:20] == [f"word{number}" for number in range(20)]


def test_examples_with_a_key_and_documentation(locked: Server, visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.expected = "status of 401"
    page.goto(locked.url)
    expect(page.locator("#key-form")).to_be_visible()
    examples = {name: text.replace("KEY", "open%2Bsesame") for name, text in printed(page).items()}
    expect(page.locator("#code-key")).to_be_visible()
    output_of(shlex.split(page.locator("#code-fetch").inner_text()), tmp_path)
    assert "word9" in output_of([sys.executable, "-c", examples["WebSocket"]], tmp_path)
    for name in ("Python", "curl"):
        text = examples[name].replace("%2B", "+")
        command = shlex.split(text) if name == "curl" else [sys.executable, "-c", text]
        assert "word9" in output_of(command, tmp_path), name

    with page.expect_popup() as popup:
        page.locator("#code-docs").get_by_text("curl").click()
    expect(popup.value.locator("body")).to_contain_text("/v1/audio/transcriptions")
    missing = page.request.get(locked.url + "guide/../pyproject.toml")
    assert missing.status == 404
