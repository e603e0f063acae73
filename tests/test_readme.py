"""The README's examples run as printed, and what the pages refer to exists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate

from tympan.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "tympan"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", max_streams=1) as server:
        yield server


def test_readme_has_an_example_per_client() -> None:
    assert [("websockets" in example, "tympan.connect" in example) for example in EXAMPLES] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=["websocket", "sdk"])
def test_readme_example_prints_the_speech(
    example: str, embedded: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = example.replace("127.0.0.1:8000", f"127.0.0.1:{embedded.port}")
    samples = clip("counting").at(24_000)
    names = {"pcm": clip("counting").pcm(), "blocks": [samples[:30_000], samples[30_000:]]}
    if "async with" in code:
        imports, _, body = code.partition("\n\n")
        code = f"import asyncio\n{imports}\nasync def main():\n{textwrap.indent(body, '    ')}\nasyncio.run(main())\n"
    exec(compile(code, "README.md", "exec"), names)
    assert word_error_rate(clip("counting").text, capsys.readouterr().out) < 0.25


@every_page
def test_page_links_lead_to_pages_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@every_page
def test_page_names_existing_commands(page: Path) -> None:
    text = page.read_text()
    make = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"^(?:\.venv/bin/)?tympan ([a-z]+)", "\n".join(shell(text)), re.MULTILINE)
    assert set(commands) <= set(COMMANDS)
    assert set(re.findall(r"^make ([\w-]+)", "\n".join(shell(text)), re.MULTILINE)) <= make
    assert set(re.findall(r"`make ([\w-]+)", text)) <= make


@every_page
def test_page_names_existing_files(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it names files that have gone
    text = page.read_text()
    paths = re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./-]+|[\w-]+/[\w./-]+\.(?:py|md|yml|json))`", text)
    paths += re.findall(r"python (?:-m pytest [^\n]*?)?((?:tests|benchmarks)/[\w./-]+)", text)
    folders = (ROOT, PACKAGE, page.parent)
    missing = [path for path in paths if not any((folder / path).exists() for folder in folders)]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell(text: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
