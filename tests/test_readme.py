"""The README's Python is run as it stands, against a live server."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", max_streams=1) as server:
        yield server


def test_there_is_one_example_for_each_kind_of_client() -> None:
    assert [("websockets" in example, "tympan.connect" in example) for example in EXAMPLES] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=["websocket", "sdk"])
def test_an_example_prints_what_was_said(
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


def test_local_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
