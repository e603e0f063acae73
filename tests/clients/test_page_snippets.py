"""The examples that the page shows for other vendors' packages run as printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients import KEY
from support.server import LiveServer

from tympan.server.routes.page import STATIC

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    with LiveServer(host="127.0.0.1", api_keys=(KEY,)) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the sample, as the sheet's first command makes it, and the module with the examples."""
    shutil.copy(STATIC / "sample.mp3", tmp_path)
    shutil.copy(STATIC / "snippets.js", tmp_path / "snippets.mjs")
    return tmp_path


@pytest.mark.parametrize(("name", "package"), [("Deepgram", "deepgram"), ("OpenAI", "openai")])
def test_example_prints_the_sample(name: str, package: str, scripted: LiveServer, folder: Path) -> None:
    pytest.importorskip(package)
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    url = scripted.http("").rstrip("/")
    code = f'import("./snippets.mjs").then((m) => console.log(JSON.stringify(m.snippets("{url}", true))))'
    made = subprocess.run([node, "-e", code], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    (text,) = [example["text"] for example in json.loads(made.stdout) if example["name"] == name]
    command = [sys.executable, "-c", text.replace("KEY", KEY)]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert process.returncode == 0, process.stderr
    said = process.stdout.split()
    assert said == [f"word{number}" for number in range(len(said))]
    assert len(said) >= 20
