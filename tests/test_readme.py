"""The README's examples run as printed, and what the pages refer to exists."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate

from tympan.cli.main import main

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
    assert word_error_rate(clip("counting").text, capsys.readouterr().out) <= 0.1


def test_readme_figures_are_in_the_pages() -> None:
    rows = re.findall(r"^\|[^|]+\|([^|]+)\| [ABC],", README.read_text(), re.MULTILINE)
    figures = [number for row in rows for number in re.findall(r"\d[\d.,]*", row)]
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("benchmarks.md", "reliability.md"))
    faults = json.loads((ROOT / "benchmarks" / "results" / "reliability" / "faults.json").read_text())["figures"]
    faults_words = sum(line["words"] for line in faults["lines"] if "fault" in line)
    assert len(rows) == 4
    assert set(figures) <= {*re.findall(r"\d[\d.,]*\d|\d", pages), f"{faults_words:,}"}


@every_page
def test_page_links_lead_to_pages_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@every_page
def test_page_names_existing_commands(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in shell_lines(page):
        words = [*dropwhile(is_assignment, shlex.split(line, comments=True))]
        if not words or words[0] not in ("tympan", ".venv/bin/tympan"):
            continue
        command = words[1:3] if words[1] == "bench" else words[1:2]
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= options_of(command, capsys), line


@every_page
def test_page_names_existing_make_targets(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^make ([\w-]+)", "\n".join(shell_lines(page)), re.MULTILINE)
    named += re.findall(r"`make ([\w-]+)", page.read_text())
    assert set(named) <= targets


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


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's shell examples, with continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def is_assignment(word: str) -> bool:
    return re.match(r"\w+=", word) is not None


def options_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options of a command line such as `bench load`; fails if there is no such command."""
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    if "--help-all" in text:
        assert main([*command, "--help-all"]) == 0
        text += capsys.readouterr().out
    return set(re.findall(r"--[\w-]+", text))
